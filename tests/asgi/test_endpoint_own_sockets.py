"""Endpoint: sockets of the application's own beside the hub's, under the native class."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from asgi.handshakes import closed, listen
from hubbub import (
    Hub,
)
from serving import PATIENCE_S, Served, serve, take, until

pytestmark = pytest.mark.anyio

# Sockets of the application's own, under the native class


class Own:
    """Starlette routes that no hub has anything to do with."""

    def __init__(self) -> None:
        self.gone: list[int] = []

    async def echo(self, websocket: WebSocket) -> None:
        await websocket.accept(subprotocol=(websocket.scope["subprotocols"] or [None])[0])
        try:
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect(message["code"])
                await websocket.send({**message, "type": "websocket.send"})
        except WebSocketDisconnect as end:
            self.gone.append(end.code)

    async def close(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4123, "as agreed")

    async def deny(self, websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("not you", 418))

    async def fail(self, websocket: WebSocket) -> None:
        await websocket.accept()
        raise LookupError("a route that fails")

    async def refuse(self, websocket: WebSocket) -> None:
        await websocket.close(1008)


@contextlib.asynccontextmanager
async def own_routes(**config: Any) -> AsyncIterator[tuple[Own, Served]]:
    hub, own = Hub(), Own()
    names = ("echo", "close", "deny", "fail", "refuse")
    routes = [WebSocketRoute(f"/{name}", getattr(own, name)) for name in names]
    app = Starlette(routes=[WebSocketRoute("/ws", hub), *routes], lifespan=hub.lifespan)
    async with serve(app, **config) as server:
        yield own, server


async def test_own_sockets_echo_small_and_big_messages() -> None:
    async with (
        own_routes() as (_, server),
        server.connect("/echo", subprotocols=[Subprotocol("own")]) as socket,
    ):
        assert socket.subprotocol == "own"
        for message in ("", "hello", "ü" * 70_000, b"", b"\x00\xff", b"x" * 3_000_000):
            await socket.send(message)
            assert await take(socket, 1) == [message]
        await socket.send(["in ", "three ", "frames"])
        assert await take(socket, 1) == ["in three frames"]
        await asyncio.wait_for(await socket.ping(), PATIENCE_S)


async def test_own_sockets_learn_that_the_client_went() -> None:
    async with own_routes() as (own, server):
        async with server.connect("/echo") as socket:
            await socket.close(4001, "enough")
        await until(lambda: own.gone == [4001])
        socket = await server.connect("/echo")
        socket.transport.abort()
        await until(lambda: len(own.gone) == 2)


async def test_own_sockets_close_deny_and_fail_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    listen(caplog)
    async with own_routes(log_config=None) as (_, server):
        async with server.connect("/close") as socket:
            end = (await closed(socket)).rcvd
            assert end is not None
            assert (end.code, end.reason) == (4123, "as agreed")
        for path, status, body in (
            ("/deny", 418, b"not you"),
            ("/refuse", 403, b""),
            ("/no", 403, b""),
        ):
            with pytest.raises(InvalidStatus) as caught:
                await server.connect(path)
            assert (caught.value.response.status_code, caught.value.response.body) == (status, body)
        async with server.connect("/fail") as socket:
            await closed(socket)
    assert "a route that fails" in caplog.text


async def test_own_sockets_see_the_server_end() -> None:
    async with own_routes() as (own, server):
        socket = await server.connect("/echo")
        await socket.send("hello")
        await take(socket, 1)
    end = (await closed(socket)).rcvd
    assert end is not None
    assert end.code == 1012
    assert own.gone == [1012]
