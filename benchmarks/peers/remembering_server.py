"""Hubbub with a room that remembers, for clients of the Centrifuge protocol; and a clock on its event loop.

The generator (`benchmarks/recovery.py`) asks for what it needs by HTTP: /publish?count=N, /trickle?ms=N,
/quiet and /holds. Answers are JSON.

Run:  hubbub serve remembering_server
"""

import asyncio
import gc
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from hubbub import Hub, RoomRules

ROOM = "feed"
PULSE_S = 0.001

hub = Hub(room_rules=[RoomRules(ROOM, history=10_000)])


class Holds:
    """The longest time for which nothing else had a turn of the event loop."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._forget()

    def _forget(self) -> None:
        self._longest_s = self._longest_cpu_s = self._collector_s = 0.0
        self._since_s = time.process_time()

    def take(self) -> dict[str, float]:
        """Return the longest hold since the last call, the longest in CPU time of this thread, and the
        longest run of the garbage collector, in milliseconds; and the CPU time of the process since then."""
        found = {
            "cpu_s": time.process_time() - self._since_s,
            "hold_ms": self._longest_s * 1e3,
            "hold_cpu_ms": self._longest_cpu_s * 1e3,
            "collector_ms": self._collector_s * 1e3,
        }
        self._forget()
        if self._timer is None:
            gc.callbacks.append(self._note_collector)
            self._wait()
        return found

    def _note_collector(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collector_began = time.perf_counter()
        else:
            self._collector_s = max(self._collector_s, time.perf_counter() - self._collector_began)

    def _wait(self) -> None:
        self._began, self._cpu_began = time.perf_counter(), time.thread_time()
        self._timer = asyncio.get_running_loop().call_later(PULSE_S, self._look)

    def _look(self) -> None:
        hold_s = time.perf_counter() - self._began - PULSE_S
        self._longest_s = max(self._longest_s, hold_s)
        self._longest_cpu_s = max(self._longest_cpu_s, time.thread_time() - self._cpu_began)
        self._wait()


class Publisher:
    """Publishes messages, some at once or one after another."""

    def __init__(self) -> None:
        self._count = 0
        self._task: asyncio.Task[None] | None = None

    async def publish(self, count: int) -> None:
        for _ in range(count):
            self._count += 1
            await hub.publish(ROOM, {"n": self._count, "pad": "x" * 48})

    def trickle(self, period_s: float) -> None:
        """Publish one message after another, until `quiet`."""
        self._task = asyncio.create_task(self._trickle(period_s))

    async def _trickle(self, period_s: float) -> None:
        while True:
            await self.publish(1)
            await asyncio.sleep(period_s)

    def quiet(self) -> None:
        if self._task is not None:
            self._task.cancel()


holds = Holds()
publisher = Publisher()


async def do(what: str, query: dict[str, str]) -> dict[str, Any]:
    """Do what the generator asks for; return what it is answered."""
    if what == "/holds":
        return holds.take()
    if what == "/publish":
        await publisher.publish(int(query["count"]))
    elif what == "/trickle":
        publisher.trickle(int(query["ms"]) / 1000)
    elif what == "/quiet":
        publisher.quiet()
    position = await hub.cursor(ROOM)
    return {"top": position.offset, "clients": len(hub), "recoveries": hub.stats()["recoveries"]}


async def control(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Be the ASGI application beside the hub."""
    if scope["type"] != "http":
        raise RuntimeError("only HTTP is served here")
    answer = await do(scope["path"], dict(parse_qsl(scope["query_string"].decode())))
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


app = hub.mount(control, "/connection/websocket", dialect="centrifuge")
