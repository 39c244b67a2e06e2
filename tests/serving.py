"""A real uvicorn server inside the test's own event loop, and small tools around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from hubbub import Protocol

PATIENCE_S = 10.0
"""How long a condition may take to come true before the test fails."""


class Served:
    """A running server."""

    def __init__(self, server: uvicorn.Server, port: int) -> None:
        self.server = server
        self.port = port

    def ws(self, path: str = "/ws") -> str:
        """Return a WebSocket URL of the server."""
        return f"ws://127.0.0.1:{self.port}{path}"

    def http(self, path: str = "/ws") -> str:
        """Return an HTTP URL of the server."""
        return f"http://127.0.0.1:{self.port}{path}"

    def connect(self, path: str = "/ws", **options: Any) -> connect:
        """Open a client socket: `async with served.connect() as socket`."""
        options.setdefault("proxy", None)
        options.setdefault("compression", None)
        options.setdefault("ping_interval", None)
        options.setdefault("max_size", None)
        return connect(self.ws(path), **options)


@asynccontextmanager
async def serve(app: Any, *, native: bool = True, **config: Any) -> AsyncIterator[Served]:
    """Serve `app` with uvicorn on a free port: with Hubbub's protocol class or uvicorn's own."""
    config.setdefault("log_level", "warning")
    config.setdefault("lifespan", "on")
    settings = uvicorn.Config(
        app, host="127.0.0.1", port=0, ws=Protocol if native else "websockets-sansio", **config
    )
    server = uvicorn.Server(settings)
    # The test's own signal handling and the server's must not meet.
    task = asyncio.create_task(server._serve())
    while not server.started:
        if task.done():
            task.result()
            raise AssertionError("the server ended before it had started")
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Served(server, port)
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 30)


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Wait for `condition` to be true; fail after `PATIENCE_S`."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"waited {PATIENCE_S} s in vain: {what or condition}")
        await asyncio.sleep(0.002)


async def take(socket: ClientConnection, count: int) -> list[str | bytes]:
    """Receive `count` messages, each within `PATIENCE_S`."""
    return [await asyncio.wait_for(socket.recv(), PATIENCE_S) for _ in range(count)]
