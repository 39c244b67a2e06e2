"""Handshakes that begin turn by turn."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from hubbub import Hub, Protocol
from hubbub.transports import uvicorn_protocol, uvicorn_turns
from hubbub.transports.uvicorn_turns import MOST_A_TURN, begin_soon
from rawsocket import TEXT, frame
from serving import PATIENCE_S, nothing, serve, until
from transports.heads import LINES, head

pytestmark = pytest.mark.anyio


async def test_a_turn_has_so_many_and_the_rest_comes_in_order_in_later_turns() -> None:
    begun: list[int] = []

    def beginning(number: int) -> Callable[[], None]:
        return lambda: begun.append(number)

    count = 3 * MOST_A_TURN + 5
    for number in range(count):
        begin_soon(beginning(number))
    assert len(begun) == MOST_A_TURN, "at once, and no more"
    await asyncio.sleep(0)
    begin_soon(beginning(count))  # nobody overtakes who waits
    while len(begun) <= count:
        before = len(begun)
        await asyncio.sleep(0)
        assert len(begun) - before <= MOST_A_TURN
    assert begun == list(range(count + 1))


async def test_one_that_fails_stops_no_other() -> None:
    failed: list[dict[str, Any]] = []
    begun: list[int] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: failed.append(context))

    def fail() -> None:
        raise RuntimeError("no")

    for _ in range(MOST_A_TURN):
        begin_soon(lambda: None)
    begin_soon(fail)
    begin_soon(lambda: begun.append(1))
    for _ in range(4):
        await asyncio.sleep(0)
    assert begun == [1]
    assert [str(context["exception"]) for context in failed] == ["no"]


def test_nothing_is_kept_of_an_event_loop_that_is_gone() -> None:
    async def begin() -> None:
        begin_soon(lambda: None)

    before = len(uvicorn_turns._of_loops)
    asyncio.run(begin())
    gc.collect()
    assert len(uvicorn_turns._of_loops) <= before


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_who_waits_for_its_turn_is_answered_and_nothing_it_sends_is_lost(
    http: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[Callable[[], None]] = []
    monkeypatch.setattr(uvicorn_protocol, "begin_soon", waiting.append)
    hub, heard = Hub(), []

    @hub.on_message
    def hear(client: Any, message: Any) -> None:
        heard.append(message)

    async with serve(hub.mount(nothing), http=http) as served, AsyncExitStack() as stack:
        streams = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            stack.callback(writer.transport.abort)
            streams.append((reader, writer))
            writer.write(head(*LINES))
        await until(lambda: len(waiting) == 3)
        streams[1][1].write(frame(TEXT, b"early"))
        streams[2][1].transport.abort()
        assert served.server is not None
        connections = served.server.server_state.connections
        await until(lambda: len(connections) == 2)
        assert len(hub) == 0
        for begin in waiting:
            begin()
        for reader, _ in streams[:2]:
            line = await asyncio.wait_for(reader.readuntil(b"\r\n"), PATIENCE_S)
            assert line.split()[1] == b"101"
        await until(lambda: heard == ["early"])
    assert hub.stats()["total_clients"] == 2, "who went before its turn was never begun"


async def test_a_shutdown_waits_for_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[Callable[[], None]] = []
    monkeypatch.setattr(uvicorn_protocol, "begin_soon", waiting.append)
    async with serve(Hub().mount(nothing)) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(head(*LINES))
        await until(lambda: len(waiting) == 1)
    try:
        line = await asyncio.wait_for(reader.readuntil(b"\r\n"), PATIENCE_S)
        assert line.split()[1] == b"503"
        waiting[0]()  # its turn comes after all, and is nobody's any more
        await asyncio.wait_for(reader.read(), PATIENCE_S)
    finally:
        writer.transport.abort()


async def test_who_waits_for_its_turn_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[Callable[[], None]] = []
    monkeypatch.setattr(uvicorn_protocol, "begin_soon", waiting.append)
    monkeypatch.setattr(uvicorn_protocol, "head_timeout_s", lambda: 0.05)
    async with serve(Hub().mount(nothing)) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        try:
            writer.write(head(*LINES))
            line = await asyncio.wait_for(reader.readuntil(b"\r\n"), PATIENCE_S)
            assert line.split()[1] == b"503"
            waiting[0]()
            await asyncio.wait_for(reader.read(), PATIENCE_S)
        finally:
            writer.transport.abort()


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_handshake_that_cannot_begin_leaves_no_socket_open(
    is_late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, *head: object) -> None:
        raise LookupError("a fault")

    failed: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: failed.append(context["exception"]))
    monkeypatch.setattr(Protocol, "_make_scope", fail)
    if is_late:
        monkeypatch.setattr(uvicorn_turns, "MOST_A_TURN", 1)
    async with serve(Hub().mount(nothing)) as served:
        streams = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(3)]
        for _, writer in streams:
            writer.write(head(*LINES))
        for reader, writer in streams:
            try:
                assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
            except ConnectionResetError:
                pass
            finally:
                writer.transport.abort()
    assert [type(error) for error in failed] == [LookupError] * 3
