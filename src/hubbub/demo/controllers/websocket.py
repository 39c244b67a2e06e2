"""The page at /websocket: lines to everybody in a room, and the connection made visible."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from ... import Client, CommandError, Handshake, Room
from ...asgi.responses import STATIC_FILES
from ..models.clock import iso_now
from ..models.names import clean_name, roster
from ..views import Views
from .page import Page, named, spoken

ROOMS = ("lobby", "kitchen", "garden")
ROSTER_INTERVAL_S = 0.2


class Enter(msgspec.Struct):
    """The message {"type": "enter", "room": …}."""

    room: str


class WebSocketPage(Page):
    """Clients send text; their room gets {"type": "said", "room", "name", "text", "time"}."""

    name = "websocket"
    title = "WebSocket"
    summary = "One socket, several rooms. Cut the wire and watch it come back."

    def __init__(self, views: Views) -> None:
        super().__init__(views)
        self._changed: set[str] = set()
        self._changed_before: set[str] = set()
        if self.is_one_of_many:
            for room in ROOMS:
                self.hub.room_rules(room, presence=True, leave_grace_s=0)
            self.hub.presence_info(lambda client, room: {"name": client.meta["name"]})
        self.hub.on_connect(self.connected)
        self.hub.on_message(self.said)
        self.hub.on("enter")(self.entered)
        self.hub.on_disconnect(self.gone)
        self.hub.every(ROSTER_INTERVAL_S, while_connected=True)(self.tell_who_is_online)

    @property
    def socket_path(self) -> str:
        """The first socket of the house has the short name."""
        return "/ws"

    def routes(self) -> list[BaseRoute]:
        """Serve hubbub.js beside this hub; the other pages import it from here."""
        files = [Route(f"{self.socket_path}/{name}", self.hub) for name in STATIC_FILES]
        return [*super().routes(), *files]

    def context(self, request: Request) -> dict[str, Any]:
        username = clean_name(request.query_params.get("username", ""))
        return {"rooms": ROOMS, "username": username}

    def connected(self, client: Client, handshake: Handshake) -> None:
        wish = handshake.query.get("room", "")
        client.send({"type": "you", "name": named(client, handshake)})
        self._enter(client, wish if wish in ROOMS else ROOMS[0])

    def said(self, client: Client, text: str) -> None:
        said = {"type": "said", "name": client.meta["name"], "text": spoken(text)}
        if not said["text"]:
            return
        for room in client.rooms:
            self.hub.room(room).broadcast({**said, "room": room, "time": iso_now()})

    def entered(self, client: Client, message: Enter) -> None:
        if message.room not in ROOMS:
            raise CommandError("unknown_room", f"the rooms are {', '.join(ROOMS)}")
        for room in client.rooms:
            client.leave(room)
            self._changed.add(room)
        self._enter(client, message.room)

    def gone(self, client: Client) -> None:
        self._changed.update(client.rooms)

    def _enter(self, client: Client, room: str) -> None:
        client.join(room)
        client.send({"type": "entered", "room": room})
        self._changed.add(room)

    async def tell_who_is_online(self) -> None:
        """Tell each room that changed, so that a thousand arrivals at once are one message.

        Of many workers each asks the broker who is there, and again the next time: who has just come may
        not stand there yet.
        """
        changed, self._changed = self._changed, set()
        again, self._changed_before = self._changed_before, changed
        for name in changed | again if self.is_one_of_many else changed:
            room = self.hub.room(name)
            room.broadcast({"type": "online", "room": name, **roster(await self._names(room))})

    async def _names(self, room: Room) -> list[str]:
        if not self.is_one_of_many:
            return [client.meta["name"] for client in room]
        return [each.info["name"] for each in (await self.hub.presence(room.name)).values()]
