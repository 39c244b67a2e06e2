"""The page at /live: a ticker that runs while somebody looks."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from ... import Client
from ..models.market import SHARES, Market
from ..views import Views
from .page import Page

TICK_S = 2.0


class LivePage(Page):
    """Everybody gets {"type": "tick", "time": …, "prices": {…}} every two seconds."""

    name = "live"
    title = "Live data"
    summary = "A ticker publishes every two seconds, and rests while nobody looks."

    def __init__(self, views: Views) -> None:
        super().__init__(views)
        self.market: Market = Market()
        self.hub.on_connect(self.connected)
        self.hub.on_message(self.ignored)
        self.hub.every(TICK_S, while_connected=True)(self.tick)

    def context(self, request: Request) -> dict[str, Any]:
        return {"shares": SHARES}

    def tick(self) -> None:
        self.tell_here(self.market.tick())

    def connected(self, client: Client) -> None:
        client.send({"type": "history", "ticks": self.market.history()})

    def ignored(self, client: Client, text: str) -> None:
        """Without a message handler the hub would pass on what clients send."""
