"""The Python client: after which ends it comes back, and when."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from answering import asynchronous, until
from connection.peers import QUICK, closing, echo, hold, received, refusing, server
from hubbub.connection import connect
from hubbub.errors import Disconnected

# Coming back.


@asynchronous
async def test_s12_it_comes_back_after_a_restart_on_the_same_port() -> None:
    states: list[str] = []
    async with server(echo) as url:
        connection = connect(url, on_state=states.append, **QUICK)
        await connection.__aenter__()
        await connection.send("before")
        assert await received(connection, 1) == ["before"]
    await until(lambda: connection.state == "waiting")
    await connection.send("meanwhile 1")
    await connection.send("meanwhile 2")
    async with server(echo, int(url.split(":")[2].split("/")[0])):
        assert await received(connection, 2) == ["meanwhile 1", "meanwhile 2"]
        await connection.close()
    assert states[:4] == ["connecting", "open", "waiting", "connecting"]
    assert states[-2:] == ["open", "closed"]
    assert connection.dropped == 0


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 3005, 3008, 3012, 4000, 4499])
def test_codes_that_mean_come_back(code: int) -> None:
    @asynchronous
    async def scenario() -> None:
        handlers = iter([closing(code, "away for a moment"), echo])

        async def first_close_then_echo(socket: ServerConnection) -> None:
            await next(handlers)(socket)

        async with server(first_close_then_echo) as url, connect(url, **QUICK) as connection:
            await until(lambda: connection.last_close is not None)
            await connection.send("again")
            assert await received(connection, 1) == ["again"]
            assert connection.last_close == (code, "away for a moment", True)

    scenario()


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1010, 3500, 3503, 3511, 4500, 4999])
def test_codes_that_mean_stay_away(code: int) -> None:
    @asynchronous
    async def scenario() -> None:
        handshakes = 0

        async def close(socket: ServerConnection) -> None:
            nonlocal handshakes
            handshakes += 1
            await closing(code, "not you")(socket)

        async with server(close) as url, connect(url, **QUICK) as connection:
            with pytest.raises(Disconnected) as caught:
                async for _ in connection:
                    pass
            assert (caught.value.code, caught.value.reason) == (code, "not you")
            assert connection.state == "closed"
            with pytest.raises(Disconnected):
                await connection.send("too late")
            with pytest.raises(Disconnected):
                await connection.wait_open()
        assert handshakes == 1

    scenario()


@asynchronous
async def test_1000_ends_the_iteration_quietly() -> None:
    async def say_bye(socket: ServerConnection) -> None:
        await socket.send("bye")

    async with server(say_bye) as url, connect(url, **QUICK) as connection:
        assert [message async for message in connection] == ["bye"]
        assert connection.last_close == (1000, "", True)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_handshake_stops_with_the_reason(status: int) -> None:
    @asynchronous
    async def scenario() -> None:
        body = json.dumps({"error": "The token is not known", "code": "unauthorized"}).encode()
        refuse = refusing(status, body, Content_Type="application/json")
        async with server(hold, process_request=refuse) as url:
            async with connect(url, **QUICK) as connection:
                with pytest.raises(Disconnected, match="The token is not known") as caught:
                    await anext(connection)
            assert caught.value.code == status

    scenario()


@pytest.mark.parametrize("status", [404, 500, 429, 503])
def test_other_refusals_are_tried_again(status: int) -> None:
    @asynchronous
    async def scenario() -> None:
        refuse = refusing(status)
        is_refused = iter([True, True, False])

        def answer(socket: ServerConnection, request: Request) -> Response | None:
            return refuse(socket, request) if next(is_refused) else None

        async with server(echo, process_request=answer) as url, connect(url, **QUICK) as connection:
            await connection.wait_open()
            assert connection.last_close == (status, "No", True)

    scenario()


@asynchronous
async def test_retry_after_is_honoured() -> None:
    refuse = refusing(503, Retry_After="30")
    async with server(hold, process_request=refuse) as url, connect(url, **QUICK) as connection:
        await until(lambda: connection.state == "waiting")
        assert connection.retry_in_s == pytest.approx(30.01)


@asynchronous
async def test_without_reconnection_the_end_is_an_error() -> None:
    once: dict[str, Any] = {"reconnect": False, "proxy": None}
    restart = closing(1012, "restart")
    async with server(restart) as url, connect(url, **once) as connection:
        with pytest.raises(Disconnected, match="1012 restart"):
            await anext(connection)
    async with connect(url, **once) as connection:
        with pytest.raises(Disconnected, match="1006 cannot connect") as caught:
            await connection.wait_open()
        assert caught.value.code == 1006


@asynchronous
async def test_a_server_that_does_not_answer_the_handshake() -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()

    mute = await asyncio.start_server(silence, "127.0.0.1", 0)
    async with mute:
        url = f"ws://127.0.0.1:{mute.sockets[0].getsockname()[1]}/"
        options: dict[str, Any] = {"open_timeout_s": 0.1, "reconnect": False, "proxy": None}
        async with connect(url, **options) as connection:
            with pytest.raises(Disconnected, match="no answer in time"):
                await anext(connection)


@asynchronous
async def test_a_message_over_the_limit_closes_with_1009_and_comes_back() -> None:
    sizes = iter([100, 10])

    async def send(socket: ServerConnection) -> None:
        await socket.send("x" * next(sizes))
        await hold(socket)

    async with server(send) as url, connect(url, max_message_bytes=50, **QUICK) as connection:
        assert await anext(connection) == "x" * 10
        assert connection.last_close is not None
        assert connection.last_close.code == 1009
        assert not connection.last_close.by_server
