"""The Python client: what was accepted to be sent is sent or reported."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from answering import asynchronous, until
from connection.peers import QUICK, Inlet, echo, hold, received, server, unused_url
from hubbub.connection import connect
from hubbub.connection.plain_connection import MAX_INBOX_MESSAGES
from hubbub.errors import Disconnected


@asynchronous
async def test_the_offline_queue_is_bounded_and_drops_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = await unused_url()
    with caplog.at_level(logging.WARNING, "hubbub.connect"):
        connection = connect(url, max_queue=10, **QUICK)
        await connection.__aenter__()
        await until(lambda: connection.state == "waiting")
        for number in range(25):
            assert await connection.send(str(number)) is False
    assert (connection.queued, connection.dropped) == (10, 15)
    assert "the offline queue is full" in caplog.text
    async with server(echo, int(url.split(":")[2].split("/")[0])):
        expected = [str(number) for number in range(15, 25)]
        assert await received(connection, 10) == expected
        await connection.close()


@asynchronous
async def test_what_is_queued_at_the_end_is_counted_as_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = await unused_url()
    async with connect(url, close_timeout_s=0.05, **QUICK) as connection:
        await connection.send("one")
        await connection.send("two")
    assert connection.dropped == 2
    assert "closed with messages in the queue: 2" in caplog.text


@asynchronous
async def test_a_message_that_cannot_be_encoded_is_an_error_at_once() -> None:
    async with server(echo) as url, connect(url, **QUICK) as connection:
        with pytest.raises(TypeError, match="has no JSON form"):
            await connection.send(object())
        await connection.send("fine")
        assert await received(connection, 1) == ["fine"]


# What was accepted to be sent is sent or reported.


@asynchronous
async def test_a_send_that_is_cancelled_loses_and_repeats_nothing() -> None:
    inlet = Inlet()
    async with (
        server(inlet.serve, max_size=None, compression=None) as url,
        connect(url, **QUICK) as connection,
    ):
        await connection.wait_open()
        await until(lambda: inlet.sockets)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connection.send("0" + "x" * 2**24)
        with pytest.raises(TimeoutError):  # it waits behind the first: nothing of it was taken
            async with asyncio.timeout(0.1):
                await connection.send("never")
        inlet.sockets[0].transport.resume_reading()
        assert await connection.flush(10)
        assert await connection.send("2") is True
        await until(lambda: len(inlet.came[0]) >= 2)
        assert "".join(inlet.came[0]) in ("0never2", "02")
        assert inlet.came[0].count("0") == 1
        assert connection.dropped == 0


@asynchronous
async def test_fault_12_what_a_close_cuts_off_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inlet = Inlet()
    deaf: dict[str, Any] = {"max_size": None, "compression": None, "close_timeout": 0.1}
    async with server(inlet.serve, **deaf) as url:
        connection = connect(url, close_timeout_s=0.1, **QUICK)
        await connection.__aenter__()
        await until(lambda: inlet.sockets)
        senders = [asyncio.create_task(connection.send("x" * 2**24)) for _ in range(3)]
        await asyncio.sleep(0.05)
        flushing = asyncio.create_task(connection.flush())
        await connection.close()
        results = await asyncio.gather(*senders, return_exceptions=True)
        assert all(isinstance(result, Disconnected) for result in results)
        assert connection.dropped == 1  # the others were never accepted
        assert await flushing is False
        assert "closed with messages in the queue: 1 messages dropped" in caplog.text


@asynchronous
async def test_fault_12_a_flush_does_not_call_sent_what_was_dropped() -> None:
    def address() -> str:
        if connection.queued:
            raise Disconnected(401, "signed out")
        raise OSError("not yet")

    connection = connect(address, **QUICK)
    async with connection:
        assert await connection.send("lost") is False
        assert await connection.flush() is False
        assert connection.dropped == 1
        with pytest.raises(Disconnected, match="401 signed out"):
            await connection.send("late")


@asynchronous
async def test_a_send_on_a_dead_connection_that_nobody_reads_does_not_hang() -> None:
    async def flood(socket: ServerConnection) -> None:
        for number in range(MAX_INBOX_MESSAGES + 40):
            await socket.send(str(number))
        socket.transport.abort()

    async with server(flood) as url, connect(url, close_timeout_s=0.1, **QUICK) as connection:
        await until(lambda: len(connection._inbox) == MAX_INBOX_MESSAGES)
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            results = [await connection.send("x") for _ in range(3)]
        assert results[-1] is False


@asynchronous
async def test_a_ping_proves_what_was_sent_before() -> None:
    inlet = Inlet()
    inlet.is_first_deaf = False
    async with server(inlet.serve) as url:
        connection = connect(url, **QUICK)
        async with connection:
            await connection.send("one")
            assert await connection.ping() is True
            assert inlet.came == [["one"]]
            inlet.sockets[0].transport.pause_reading()
            pinging = asyncio.create_task(connection.ping())
            await asyncio.sleep(0.02)
            inlet.sockets[0].transport.abort()
            assert await pinging is False
        assert await connection.ping() is False


@asynchronous
async def test_a_close_reason_that_no_frame_can_hold() -> None:
    async with server(hold) as url, connect(url, **QUICK) as connection:
        with pytest.raises(ValueError, match="123 bytes"):
            await connection.close(1000, "\N{EURO SIGN}" * 42)
        assert connection.state == "open"
        await connection.close(1000, "\N{EURO SIGN}" * 41)
        assert connection.last_close == (1000, "\N{EURO SIGN}" * 41, False)
