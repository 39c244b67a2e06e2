"""Servers that the Python client talks to, and answers that it gets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from hubbub.connection import Connection
from hubbub.errors import Disconnected

Handler = Callable[[ServerConnection], Awaitable[None]]
QUICK: dict[str, Any] = {"fixed_delay_s": 0.01, "proxy": None}
FINAL: dict[str, Any] = {"fixed_delay_s": 0, "proxy": None}


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


async def hold(socket: ServerConnection) -> None:
    await socket.wait_closed()


@contextlib.asynccontextmanager
async def server(handler: Handler, port: int = 0, **options: Any) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", port, **options) as running:
        yield url_of(running)


def url_of(running: Server) -> str:
    port: int = next(iter(running.sockets)).getsockname()[1]
    return f"ws://127.0.0.1:{port}/ws"


def closing(code: int, reason: str = "") -> Handler:
    async def close(socket: ServerConnection) -> None:
        await socket.close(code, reason)

    return close


def refusing(status: int, body: bytes = b"", **headers: str) -> Callable[..., Response]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def refuse(socket: ServerConnection, request: Request) -> Response:
        return Response(status, "No", Headers({**named, "Content-Length": str(len(body))}), body)

    return refuse


async def received(connection: Connection, count: int) -> list[str | bytes]:
    messages: list[str | bytes] = []
    async with asyncio.timeout(10):
        while len(messages) < count:
            messages.append(await anext(connection))
    return messages


async def the_end(connection: Connection) -> Disconnected:
    """Return what the iteration raises."""
    async with asyncio.timeout(20):
        with pytest.raises(Disconnected) as caught:
            await anext(connection)
    assert connection.state == "closed"
    assert connection.last_close is not None
    assert connection.last_close[:2] == (caught.value.code, caught.value.reason)
    return caught.value


class Inlet:
    """A server's side that may stop reading, and that notes what came on which connection."""

    def __init__(self) -> None:
        self.came: list[list[str]] = []
        self.sockets: list[ServerConnection] = []
        self.is_first_deaf = True

    async def serve(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        self.came.append(came := [])
        if self.is_first_deaf and len(self.sockets) == 1:
            socket.transport.pause_reading()
        with contextlib.suppress(ConnectionClosed):
            async for message in socket:
                came.append(str(message).rstrip("x"))


def response(status: int, body: bytes = b"", **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, "Some Phrase", Headers(named), body)


async def unused_url() -> str:
    """Return the address of a server that has just ended."""
    async with server(hold) as url:
        return url
