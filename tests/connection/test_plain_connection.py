"""The Python client with plain messages: talking, in order, with pings."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.typing import Subprotocol

from answering import asynchronous, until
from connection.peers import QUICK, echo, hold, received, refusing, server
from hubbub.connection import connect
from hubbub.connection.plain_connection import MAX_INBOX_MESSAGES


@asynchronous
async def test_text_binary_and_json_there_and_back() -> None:
    async with server(echo) as url, connect(url, **QUICK) as connection:
        await connection.send("grüße")
        await connection.send(b"\x00\xff")
        await connection.send({"type": "say"})
        assert await received(connection, 3) == ["grüße", b"\x00\xff", '{"type":"say"}']


@asynchronous
async def test_a_message_sent_at_once_arrives_although_the_block_ends() -> None:
    seen: list[Any] = []

    async def collect(socket: ServerConnection) -> None:
        async for message in socket:
            seen.append(message)

    async with server(collect) as url:
        async with connect(url, **QUICK) as connection:
            assert await connection.send("one") is True
        assert connection.state == "closed"
        await until(lambda: seen == ["one"])
        assert connection.dropped == 0


@asynchronous
async def test_entering_waits_for_the_first_attempt_and_raises_nothing() -> None:
    async with server(echo) as url, connect(url, **QUICK) as connection:
        assert connection.state == "open"
    async with connect(url, fixed_delay_s=60, proxy=None) as connection:
        assert connection.state == "waiting"
        assert await connection.send("later") is False
        await connection.close()
    async with server(hold, process_request=refusing(401)) as url, connect(url) as connection:
        assert connection.state == "closed"


@asynchronous
async def test_json_iteration_and_its_types() -> None:
    class Say(msgspec.Struct, tag_field="type", tag="say"):
        text: str

    async with server(echo) as url, connect(url, **QUICK) as connection:
        await connection.send({"type": "say", "text": "one"})
        await connection.send("not json")
        await connection.send({"type": "say", "text": "two"})
        typed = connection.json(Say)
        assert await anext(typed) == Say("one")
        with pytest.raises(msgspec.DecodeError):
            await anext(typed)
        assert await anext(typed) == Say("two")
        await connection.send([1, 2])
        assert await anext(connection.json()) == [1, 2]


@asynchronous
async def test_json_ends_with_the_connection() -> None:
    async def one(socket: ServerConnection) -> None:
        await socket.send("[1]")

    async with server(one) as url, connect(url, **QUICK) as connection:
        assert [message async for message in connection.json()] == [[1]]


@asynchronous
async def test_order_is_kept_with_many_senders() -> None:
    async with server(echo) as url, connect(url, **QUICK) as connection:

        async def send(name: str) -> None:
            for number in range(200):
                await connection.send(f"{name} {number}")

        senders = asyncio.gather(*map(send, "abc"))
        messages = [str(message) for message in await received(connection, 600)]
        await senders
        for name in "abc":
            own = [int(text[2:]) for text in messages if text[0] == name]
            assert own == list(range(200))


@asynchronous
async def test_a_burst_while_open_is_held_back_and_not_dropped() -> None:
    async def slow(socket: ServerConnection) -> None:
        await socket.recv()
        socket.transport.pause_reading()
        await started.wait()
        socket.transport.resume_reading()
        async for message in socket:
            sizes.append(len(message))
            if len(sizes) == 64:
                await socket.send("done")

    started = asyncio.Event()
    sizes: list[int] = []
    async with (
        server(slow, max_size=None, compression=None) as url,
        connect(url, max_queue=2, **QUICK) as connection,
    ):
        await connection.wait_open()
        await connection.send("begin")

        async def burst() -> None:
            for _ in range(64):
                await connection.send(b"x" * 2**20)

        sender = asyncio.create_task(burst())
        done, _ = await asyncio.wait([sender], timeout=0.2)
        started.set()
        assert not done  # it waited for the server, which did not read
        assert await received(connection, 1) == ["done"]
        await sender
        assert sizes == [2**20] * 64
        assert connection.dropped == 0


@asynchronous
async def test_a_program_that_does_not_read_holds_the_server_back() -> None:
    sent = 0

    async def flood(socket: ServerConnection) -> None:
        nonlocal sent
        for number in range(2000):
            await socket.send(str(number) + "x" * 10_000)
            sent += 1

    async with server(flood, compression=None) as url, connect(url, **QUICK) as connection:
        await until(lambda: sent > 16)
        await asyncio.sleep(0.2)
        assert sent < 2000
        assert len(connection._inbox) == MAX_INBOX_MESSAGES
        messages = await received(connection, 2000)
        assert [int(str(message).rstrip("x")) for message in messages] == list(range(2000))


@asynchronous
async def test_headers_origin_and_subprotocol() -> None:
    seen: list[Headers] = []

    async def look(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append(socket.request.headers)
        await hold(socket)

    async with (
        server(look, subprotocols=[Subprotocol("chat.v2")]) as url,
        connect(
            url,
            headers={"Authorization": "Bearer abc"},
            origin="https://example.com",
            subprotocols=["chat.v3", "chat.v2"],
            **QUICK,
        ) as connection,
    ):
        await connection.wait_open()
        assert connection.subprotocol == "chat.v2"
        await until(lambda: bool(seen))
        assert seen[0]["Authorization"] == "Bearer abc"
        assert seen[0]["Origin"] == "https://example.com"


@asynchronous
async def test_a_ping_tells_whether_all_that_was_sent_has_arrived() -> None:
    seen: list[str | bytes] = []

    async def take_two(socket: ServerConnection) -> None:
        seen.append(await socket.recv())
        seen.append(await socket.recv())
        socket.transport.pause_reading()
        await asyncio.sleep(0.05)
        socket.transport.abort()

    async with server(take_two) as url, connect(url, reconnect=False, **QUICK) as connection:
        await connection.send("one")
        assert await connection.ping()
        await connection.send("two")
        await until(lambda: seen == ["one", "two"])
        assert not await connection.ping(), "it ended first"
        await until(lambda: connection.state == "closed")
        assert not await connection.ping(), "there is none"
