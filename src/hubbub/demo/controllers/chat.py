"""The page at /chat: names by ?username=, joins and leaves announced, the last lines kept."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from ... import Client, Handshake
from ..models.chat_log import ChatLog
from ..models.names import clean_name
from ..views import Views
from .page import Page, named, spoken


class ChatPage(Page):
    """Clients send text; everybody gets {"type": "said", "number", "name", "text", "time"}."""

    name = "chat"
    title = "Chat"
    summary = "Everybody in one room. Joins and leaves are announced; newcomers get the last lines."

    def __init__(self, views: Views) -> None:
        super().__init__(views)
        self.log: ChatLog = ChatLog()
        self.hub.on_connect(self.joined)
        self.hub.on_message(self.said)
        self.hub.on_disconnect(self.left)

    def context(self, request: Request) -> dict[str, Any]:
        return {"username": clean_name(request.query_params.get("username", ""))}

    def joined(self, client: Client, handshake: Handshake) -> None:
        name = named(client, handshake)
        client.send({"type": "log", "you": name, "lines": self.log.lines()})
        self.hub.broadcast(self.log.add("joined", name))

    def said(self, client: Client, text: str) -> None:
        line = spoken(text)
        if line:
            self.hub.broadcast(self.log.add("said", client.meta["name"], line))

    def left(self, client: Client) -> None:
        self.hub.broadcast(self.log.add("left", client.meta["name"]))
