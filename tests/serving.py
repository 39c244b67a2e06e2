"""A real uvicorn server inside the test's own event loop, and small tools around it."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from hubbub import Client, Frame, Hub, Protocol, Subscription

PATIENCE_S = 10.0
"""How long a condition may take to come true before the test fails."""


class Served:
    """A running server."""

    def __init__(self, server: uvicorn.Server | None, port: int) -> None:
        self.server = server
        self.port = port

    def stop(self) -> None:
        """Begin to end the server, as a signal does."""
        assert self.server is not None
        self.server.should_exit = True

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
    config.setdefault("ws", Protocol if native else "websockets-sansio")
    settings = uvicorn.Config(app, host="127.0.0.1", port=0, **config)
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


@contextmanager
def held_port() -> Iterator[int]:
    """Keep a port of 127.0.0.1 for a server that the test starts, or for none at all.

    A port that is only looked up and let go may be somebody else's by the time it is used: of a
    test that runs beside this one, say. The system gives no port away that is bound. Linux has a
    server listen on it all the same, if both set SO_REUSEADDR, as servers do.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        if sys.platform != "linux":
            holder.close()
        yield port


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Wait for `condition` to be true; fail after `PATIENCE_S`."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"waited {PATIENCE_S} s in vain: {what or condition}")
        await asyncio.sleep(0.002)


async def take(client: ClientConnection, count: int) -> list[str | bytes]:
    """Receive `count` messages, each within `PATIENCE_S`."""
    return [await asyncio.wait_for(client.recv(), PATIENCE_S) for _ in range(count)]


async def take_to_the_end(room: Subscription[Any]) -> list[Any]:
    """Take what comes in a room until the end. What is missing is raised."""
    got = []
    async for message in room:
        if message.data == "the end":
            break
        got.append(message.data)
    return got


WAYS = {
    "native-uvloop": (True, True),
    "native-asyncio": (True, False),
    "portable-uvloop": (False, True),
}
"""Whether the transport is the native one, and whether the event loop is uvloop's."""

DEFLATED = "native-deflated"
DEFLATED_WAYS = {**WAYS, DEFLATED: (True, True)}
"""The ways, and one on which everything is deflated both ways; the hub's settings are the test's."""
DEFLATED_ENVIRONMENT = {"HUBBUB_COMPRESSION": "shared", "HUBBUB_COMPRESSION_MIN_BYTES": "0"}


class Venue:
    """A served hub, and sockets to it that are closed at the end."""

    def __init__(self, hub: Hub, served: Served, stack: AsyncExitStack, way: str) -> None:
        self.hub = hub
        self.served = served
        self._stack = stack
        self._compression = "deflate" if way == DEFLATED else None

    async def join(self, path: str = "/ws", **options: Any) -> ClientConnection:
        """Connect one more socket, and wait until the hub knows it."""
        options.setdefault("compression", self._compression)
        before = self.hub.stats()["total_clients"]
        client: ClientConnection = await self._stack.enter_async_context(
            self.served.connect(path, **options)
        )
        await until(lambda: self.hub.stats()["total_clients"] > before)
        names = [extension.name for extension in client.protocol.extensions]
        assert names == ([] if options["compression"] is None else ["permessage-deflate"])
        return client

    async def crowd(self, count: int) -> list[ClientConnection]:
        """Connect many sockets."""
        return [await self.join() for _ in range(count)]


def echo_hub(**settings: Any) -> Hub:
    """Return a hub that sends each message back to who sent it."""
    hub = Hub(**settings)

    @hub.on_message
    def echo(client: Client, message: Frame) -> None:
        client.send(message)

    return hub


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Be the application beside the hub that nobody asks for anything."""
    raise AssertionError("nobody asks for anything but the socket")


@asynccontextmanager
async def venue(hub: Hub, way: str, **config: Any) -> AsyncIterator[Venue]:
    """Serve `hub` at /ws, in one of `WAYS`."""
    native, _ = DEFLATED_WAYS[way]
    async with (
        serve(hub.mount(nothing), native=native, **config) as served,
        AsyncExitStack() as stack,
    ):
        yield Venue(hub, served, stack, way)
