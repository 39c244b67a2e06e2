"""The Python client: the end, wherever it comes."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from answering import asynchronous, until
from connection.peers import QUICK, echo, hold, received, refusing, server, unused_url
from hubbub.connection import Connection, connect
from hubbub.connection.plain_connection import MAX_INBOX_MESSAGES

# The end.


@asynchronous
async def test_close_ends_an_iteration_that_waits() -> None:
    async with server(hold) as url, connect(url, **QUICK) as connection:
        await connection.wait_open()
        reader = asyncio.create_task(anext(connection, "ended"))
        await asyncio.sleep(0)
        await connection.close(4000, "enough")
        assert await reader == "ended"
        assert connection.last_close == (4000, "enough", False)
        await connection.close()
        assert connection.state == "closed"


@asynchronous
async def test_close_while_waiting_does_not_wait() -> None:
    url = await unused_url()
    async with connect(url, fixed_delay_s=60, proxy=None) as connection:
        await until(lambda: connection.state == "waiting")
        async with asyncio.timeout(1):
            await connection.close()
        assert [message async for message in connection] == []


@asynchronous
async def test_close_with_unread_messages_is_quick_and_loses_none() -> None:
    async def flood(socket: ServerConnection) -> None:
        for number in range(60):
            await socket.send(str(number))
        await hold(socket)

    async with server(flood) as url, connect(url, **QUICK) as connection:
        await until(lambda: len(connection._inbox) == MAX_INBOX_MESSAGES)
        async with asyncio.timeout(2):
            await connection.close()
        rest = [message async for message in connection]
        assert rest == [str(number) for number in range(len(rest))]
        assert len(rest) >= MAX_INBOX_MESSAGES


@asynchronous
async def test_close_with_a_code_that_cannot_be_sent() -> None:
    async with server(hold) as url, connect(url, **QUICK) as connection:
        with pytest.raises(ValueError, match="code=1006"):
            await connection.close(1006)
        await connection.wait_open()


@pytest.mark.parametrize("at", ["connecting", "open", "waiting"])
def test_a_cancelled_program_leaves_nothing_behind(at: str) -> None:
    @asynchronous
    async def scenario() -> None:
        held = refusing(503) if at == "waiting" else None
        gate = asyncio.Event()

        async def gated(socket: ServerConnection, request: Request) -> Response | None:
            if at == "connecting":
                await gate.wait()
            return held(socket, request) if held else None

        async with server(hold, process_request=gated) as url:
            connection = connect(url, fixed_delay_s=60, proxy=None)

            async def program() -> None:
                async with connection:
                    async for _ in connection:
                        pass

            task = asyncio.create_task(program())
            await until(lambda: connection.state == at)
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert connection.state == "closed"
            gate.set()

    scenario()


@asynchronous
async def test_a_close_that_is_cancelled_cuts_the_connection() -> None:
    frozen = asyncio.Event()

    async def never_close(socket: ServerConnection) -> None:
        socket.transport.pause_reading()  # the close handshake gets no answer
        await frozen.wait()
        socket.transport.resume_reading()

    async with server(never_close) as url:
        connection = connect(url, **QUICK)
        await connection.__aenter__()
        await connection.wait_open()
        await asyncio.sleep(0.02)
        closer = asyncio.create_task(connection.close())
        await asyncio.sleep(0.02)
        closer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closer
        assert connection.state == "closed"
        frozen.set()


@asynchronous
async def test_an_error_in_the_block_is_not_swallowed() -> None:
    async def fail(connection: Connection) -> None:
        async with connection:
            raise KeyError("mine")

    async with server(hold) as url:
        connection = connect(url, **QUICK)
        with pytest.raises(KeyError, match="mine"):
            await fail(connection)
        assert connection.state == "closed"


@asynchronous
async def test_a_state_callback_that_fails_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(state: str) -> None:
        raise RuntimeError("callback")

    async with server(echo) as url, connect(url, on_state=fail, **QUICK) as connection:
        await connection.send("x")
        assert await received(connection, 1) == ["x"]
    assert "on_state failed" in caplog.text


@asynchronous
async def test_it_must_be_entered_and_only_once() -> None:
    async with server(hold) as url:
        connection = connect(url, **QUICK)
        with pytest.raises(RuntimeError, match="async with"):
            await connection.send("x")
        with pytest.raises(RuntimeError, match="async with"):
            await anext(connection)
        async with connection:
            with pytest.raises(RuntimeError, match="once"):
                await connection.__aenter__()


@asynchronous
async def test_closed_before_it_was_entered() -> None:
    connection = connect("ws://127.0.0.1:1/")
    await connection.close()
    assert [message async for message in connection] == []
    assert repr(connection) == "<Connection closed, 0 queued, 0 dropped>"
