"""The page at /monitor: this process and its hubs, once a second. Also /stats and /healthz."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ... import Client
from ..models.system import SystemMonitor, worker_number
from ..views import Views
from .page import Page

AllStats = Callable[[], Mapping[str, Mapping[str, Any]]]
READING_S = 1.0
MAX_NOISE = 500
NOISES_PER_SECOND = 4
"""Each is answered with up to `MAX_NOISE` messages."""


class Noise(msgspec.Struct):
    """The message {"type": "noise", "count": …}."""

    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_NOISE)]


class MonitorPage(Page):
    """Everybody gets {"type": "reading", "process", "cpu": …, "memory": …, "clients": …} every second, of each worker.

    `all_stats` gives the stats of every hub of the application, by page.
    """

    name = "monitor"
    title = "Monitor"
    summary = "This server process, once a second: processor, memory, clients, message rates."

    def __init__(self, views: Views, all_stats: AllStats) -> None:
        super().__init__(views, messages_per_second=NOISES_PER_SECOND, on_rate_limit="reply")
        self.all_stats = all_stats
        self.system: SystemMonitor = SystemMonitor()
        self.hub.on_connect(self.connected)
        self.hub.on("noise")(self.noise)
        # Who looks at the monitor of one worker sees all, also those at which nobody looks.
        self.hub.every(READING_S, while_connected=not self.is_one_of_many)(self.read)

    def routes(self) -> list[BaseRoute]:
        return [
            *super().routes(),
            Route("/stats", self.stats),
            Route("/healthz", self.health),
        ]

    def context(self, request: Request) -> dict[str, Any]:
        return {"max_noise": MAX_NOISE}

    def read(self) -> None:
        reading = self.system.read(self.all_stats().values())
        place = {"worker": worker_number(), "process": os.getpid()}
        self.hub.broadcast({**reading, **place})

    def connected(self, client: Client) -> None:
        client.send({"type": "history", "readings": self.system.history()})

    def noise(self, client: Client, message: Noise) -> None:
        """Answer with as many messages as asked for, so that there is something to see."""
        for number in range(message.count):
            client.send({"type": "noise", "number": number})

    async def stats(self, request: Request) -> Response:
        """Answer with what each hub counts."""
        return JSONResponse(self.all_stats())

    async def health(self, request: Request) -> Response:
        """Answer that the process lives, and how its broker is."""
        return JSONResponse({"status": "ok", "broker": self.hub.stats()["broker_state"]})
