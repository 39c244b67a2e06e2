"""The page at /chat: names by ?username=, joins and leaves announced, the last lines kept, and who is here."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from ... import Client, Handshake, Identity, RoomRules
from ..models.chat_log import ChatLog
from ..models.names import clean_name, invent_name
from ..views import Views
from .page import Page, spoken

ROOM = "chat"
MOST_LISTED = 200
"""Up to so many people the page shows who is here; of more only how many."""
GRACE_S = 3.0
"""Who reloads the page has that long to come back, and has not left."""


class ChatPage(Page):
    """Clients send text; everybody gets {"type": "said", "number", "name", "text", "time"}.

    Who comes gets {"type": "present", "count", "people": [{"user", …}]}, and from then on what the hub
    tells of the room: {"type": "presence", "joined": […], "left": […]}.
    """

    name = "chat"
    title = "Chat"
    summary = "Everybody in one room. Joins and leaves are announced; newcomers get the last lines."

    def __init__(self, views: Views) -> None:
        rule = RoomRules(
            ROOM,
            presence=True,
            join_leave=True,
            join_leave_max_members=MOST_LISTED,
            leave_grace_s=GRACE_S,
        )
        super().__init__(views, room_rules=[rule])
        self.log: ChatLog = ChatLog(self.run)
        self.hub.authenticate(self.who)
        self.hub.on_connect(self.joined)
        self.hub.on_message(self.said)
        self.hub.on_disconnect(self.left)

    def context(self, request: Request) -> dict[str, Any]:
        return {"username": clean_name(request.query_params.get("username", ""))}

    def who(self, handshake: Handshake) -> Identity:
        """Take everybody at their word: a name is a user here."""
        name = clean_name(handshake.query.get("username", "")) or invent_name()
        return Identity(user=name, meta={"name": name})

    async def joined(self, client: Client) -> None:
        name = client.meta["name"]
        client.send({"type": "log", "you": name, "lines": self.log.lines()})
        self.hub.broadcast(self.log.add("joined", name))
        await client.subscribe(ROOM)
        count = (await self.hub.presence_stats(ROOM)).users
        people = (await self.hub.presence(ROOM)).values() if count <= MOST_LISTED else ()
        client.send({"type": "present", "count": count, "people": list(people)})

    def said(self, client: Client, text: str) -> None:
        line = spoken(text)
        if line:
            self.hub.broadcast(self.log.add("said", client.meta["name"], line))

    def left(self, client: Client) -> None:
        self.hub.broadcast(self.log.add("left", client.meta["name"]))
