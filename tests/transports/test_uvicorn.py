"""The native transport: RFC 6455 over real sockets, the split of work with the core, the takeover."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.server import ServerProtocol

from hubbub import Client, Frame, Hub, Settings
from hubbub.hub.client import session_of
from hubbub.transports.uvicorn import CLOSING_BYTES, TURN_FRAMES
from hubbub.wire.reader import CORE_FRAME_COST, Event, FrameReader
from rawsocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    RawSocket,
    assert_it_fails_alone,
    deflate,
    frame,
    raw_connect,
)
from serving import Served, echo_hub, nothing, serve, take, until
from stress.differential import NativeLane
from transports.loops import both_loops

pytestmark = pytest.mark.anyio


anyio_backend = both_loops


@asynccontextmanager
async def served_echo(**settings: Any) -> AsyncIterator[tuple[Hub, Served, RawSocket]]:
    hub = echo_hub(**settings)
    async with serve(hub.mount(nothing)) as served, raw_connect(served) as socket:
        yield hub, served, socket


async def test_a_message_cut_at_every_place_arrives_whole() -> None:
    async with served_echo(max_message_bytes=70_000) as (_, _, socket):
        data = b"".join(
            frame(*message)
            for message in ((TEXT, b"short"), (BINARY, bytes(300)), (TEXT, b"x" * 66_000))
        )
        for cut in (1, 2, 3, 5, 7, 100, 310, 4096):
            for start in range(0, len(data), max(cut, len(data) // 50 if cut < 100 else cut)):
                await socket.send(
                    data[start : start + max(cut, len(data) // 50 if cut < 100 else cut)]
                )
                await asyncio.sleep(0)
            assert await socket.recv() == (TEXT, b"short")
            assert await socket.recv() == (BINARY, bytes(300))
            assert await socket.recv() == (TEXT, b"x" * 66_000)


async def test_one_byte_at_a_time() -> None:
    async with served_echo() as (_, _, socket):
        for byte in frame(TEXT, "héllo".encode()) + frame(BINARY, b"z" * 130):
            await socket.send(bytes([byte]))
        assert await socket.recv() == (TEXT, "héllo".encode())
        assert await socket.recv() == (BINARY, b"z" * 130)


async def test_many_messages_in_one_segment_are_answered_in_order() -> None:
    async with served_echo() as (hub, _, socket):
        await socket.send(b"".join(frame(TEXT, str(n).encode()) for n in range(500)))
        assert [await socket.recv() for _ in range(500)] == [
            (TEXT, str(n).encode()) for n in range(500)
        ]
        assert hub.stats()["messages_in"] == 500


async def test_fragments_are_joined_and_control_frames_may_stand_between() -> None:
    async with served_echo() as (_, _, socket):
        await socket.send(frame(TEXT, "h\u00e9".encode()[:2], fin=False) + frame(PING, b"?"))
        assert await socket.recv() == (PONG, b"?")
        await socket.send(frame(0, "h\u00e9".encode()[2:], fin=False) + frame(0, b"llo"))
        assert await socket.recv() == (TEXT, "h\u00e9llo".encode())
        await socket.send(frame(BINARY, b"", fin=False) + frame(0, b""))
        assert await socket.recv() == (BINARY, b"")
        await socket.send(frame(TEXT, b"plain again"))
        assert await socket.recv() == (TEXT, b"plain again")


async def test_pings_are_answered_with_their_payload() -> None:
    async with served_echo() as (_, _, socket):
        for payload in (b"", b"x", bytes(125)):
            await socket.send(frame(PING, payload))
            assert await socket.recv() == (PONG, payload)
        await socket.send(frame(PONG, b"nobody asked") + frame(TEXT, b"fine"))
        assert await socket.recv() == (TEXT, b"fine")


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (frame(TEXT, b"\xff\xfe"), 1007, "UTF-8"),
        (frame(TEXT, b"ok", fin=False) + frame(0, b"\xc3"), 1007, "UTF-8"),
        (frame(TEXT, b"no mask", masked=False), 1002, "mask"),
        (frame(TEXT, b"rsv", rsv=1), 1002, "reserved"),
        (frame(BINARY, b"rsv", rsv=4), 1002, "reserved"),
        (frame(0x3, b"unknown"), 1002, "opcode"),
        (frame(0xB, b"unknown"), 1002, "opcode"),
        (frame(0, b"continues nothing"), 1002, "continuation"),
        (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002, "continuation"),
        (frame(PING, b"x", fin=False), 1002, "control"),
        (frame(PING, bytes(126)), 1002, "control"),
        (frame(TEXT, bytes(513)), 1009, "512"),
        (frame(BINARY, bytes(70_000)), 1009, "512"),
        (frame(TEXT, bytes(300), fin=False) + frame(0, bytes(300)), 1009, "512"),
        (frame(CLOSE, b"\x03"), 1002, ""),
        (frame(CLOSE, (1004).to_bytes(2)), 1002, ""),
        (frame(CLOSE, (999).to_bytes(2)), 1002, ""),
        (frame(CLOSE, (1000).to_bytes(2) + b"\xff"), 1007, ""),
    ],
)
async def test_what_breaks_the_protocol_is_closed_with_the_right_code(
    data: bytes, code: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with served_echo() as (hub, served, socket), served.connect() as other:
        caplog.set_level(logging.INFO, "hubbub")
        await socket.send(frame(TEXT, b"before") + data)
        assert await socket.recv() == (TEXT, b"before")
        await assert_it_fails_alone(hub, socket, other, code, reason)
    lines = [record for record in caplog.records if record.name == "hubbub"]
    assert len(lines) == 1
    assert lines[0].exc_info is None
    assert str(code) in lines[0].getMessage()


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [(b"", 1005, ""), ((4001).to_bytes(2) + b"tired", 4001, "tired")],
)
async def test_the_peers_close_is_echoed(payload: bytes, code: int, reason: str) -> None:
    hub = echo_hub()
    seen = []
    hub.on_disconnect(lambda client, close: seen.append(close))
    async with serve(hub.mount(nothing)) as served, raw_connect(served) as socket:
        await socket.send(frame(CLOSE, payload))
        assert await socket.recv() == (CLOSE, payload)
        assert await socket.at_end()
        await until(lambda: bool(seen))
        assert seen[0][:2] == (code, reason)
        assert not seen[0].by_server


async def test_a_close_between_the_fragments_of_a_message_is_echoed() -> None:
    async with served_echo() as (hub, _, socket):
        close = frame(CLOSE, (1000).to_bytes(2))
        await socket.send(frame(TEXT, b"part", fin=False) + close + frame(0, b"rest"))
        assert await socket.recv() == (CLOSE, (1000).to_bytes(2))
        assert await socket.at_end()
        await until(lambda: len(hub) == 0)
        assert hub.stats()["protocol_errors"] == 0


async def test_what_a_message_has_left_is_the_limit_of_its_next_fragment_alone() -> None:
    async with served_echo() as (_, _, socket):
        await socket.send(frame(TEXT, bytes(500), fin=False) + frame(PING, bytes(100)))
        assert await socket.recv() == (PONG, bytes(100)), "a ping is no part of the message"
        await socket.send(frame(0, bytes(100))[:-100])
        assert (await socket.recv_close())[0] == 1009, "its header alone says that it is too long"


async def test_a_connection_that_breaks_is_1006() -> None:
    hub = echo_hub()
    seen = []
    hub.on_disconnect(lambda client, close: seen.append(close.code))
    async with serve(hub.mount(nothing)) as served:
        async with raw_connect(served):
            await until(lambda: len(hub) == 1)
        await until(lambda: seen == [1006])
        assert len(hub) == 0


async def test_after_our_close_frame_we_wait_for_the_peers_and_drop_the_rest() -> None:
    async with served_echo() as (hub, _, socket):
        client = next(iter(hub))
        await socket.send(frame(TEXT, b"half")[:4])
        client.send("before the close")
        client.close(4000, "enough")
        assert await socket.recv() == (TEXT, b"before the close")
        assert await socket.recv_close() == (4000, "enough")
        assert len(hub) == 0
        await socket.send(frame(TEXT, b"half")[4:] + frame(TEXT, b"too late") + frame(PING, b""))
        await socket.send(frame(CLOSE, (4000).to_bytes(2)))
        assert await socket.at_end()
        assert hub.stats()["messages_in"] == 0


async def test_a_peer_that_never_answers_our_close_is_cut() -> None:
    async with served_echo(write_timeout_s=0.2) as (hub, _, socket):
        hub.disconnect(next(iter(hub)))
        assert await socket.recv_close() == (3503, "")
        assert await socket.at_end()


async def test_bytes_sent_before_the_handshakes_answer_are_not_lost() -> None:
    hub = Hub()

    @hub.authenticate
    async def slowly(handshake: object) -> str:
        await asyncio.sleep(0.05)
        return "ann"

    async with serve(hub.mount(nothing)) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await until(lambda: hub.stats()["register"] == 1)
        writer.write(frame(TEXT, b"eager"))
        await reader.readuntil(b"\r\n\r\n")
        assert await RawSocket(reader, writer).recv() == (TEXT, b"eager")
        writer.transport.abort()


async def test_a_flood_before_the_handshakes_answer_is_cut() -> None:
    hub = Hub()
    answer = asyncio.Event()

    @hub.authenticate
    async def never(handshake: object) -> str:
        await answer.wait()
        return "ann"

    async with serve(hub.mount(nothing)) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await until(lambda: hub.stats()["register"] == 1)
        writer.write(bytes(200_000))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        answer.set()
        await until(lambda: hub.stats()["register"] == 0)
        assert len(hub) == 0
        writer.transport.abort()


async def test_a_slow_handler_stops_the_reading_of_its_own_socket_only() -> None:
    hub = Hub()
    gate = asyncio.Event()
    order: list[str] = []

    @hub.on_message
    async def slow(client: Client, text: str) -> None:
        order.append(text)
        if text == "slow":
            await gate.wait()
        client.send(text)

    async with (
        serve(hub.mount(nothing)) as served,
        raw_connect(served) as one,
        raw_connect(served) as two,
    ):
        await one.send(frame(TEXT, b"slow") + frame(TEXT, b"next") + frame(TEXT, b"last"))
        await until(lambda: order == ["slow"])
        await one.send(frame(TEXT, b"held"))
        await two.send(frame(TEXT, b"quick"))
        assert await two.recv() == (TEXT, b"quick")
        assert order == ["slow", "quick"]
        gate.set()
        got = [(await one.recv())[1] for _ in range(4)]
        assert got == [b"slow", b"next", b"last", b"held"]


async def test_a_message_larger_than_any_buffer_is_fed_in_pieces() -> None:
    async with served_echo(write_timeout_s=None) as (hub, _, socket):
        client = next(iter(hub))
        big = random.Random(1).randbytes(8 * 2**20)
        socket.stop_reading()
        client.send(big)
        await until(lambda: not session_of(client).transport.writable)
        client.send("after")
        await socket.send(frame(PING, b"between"))
        socket.read_on()
        assert await socket.recv() == (BINARY, big)
        got = [await socket.recv(), await socket.recv()]
        assert sorted(got) == [(TEXT, b"after"), (PONG, b"between")]
        await until(lambda: session_of(client).writes_directly)


async def test_a_close_waits_for_what_is_queued() -> None:
    async with served_echo() as (hub, _, socket):
        client = next(iter(hub))
        socket.stop_reading()
        client.send(bytes(8 * 2**20))
        await until(lambda: not session_of(client).transport.writable)
        client.send("queued")
        client.close(4000, "bye")
        assert len(hub) == 0
        socket.read_on()
        opcode, payload = await socket.recv()
        assert (opcode, len(payload)) == (BINARY, 8 * 2**20)
        assert await socket.recv() == (TEXT, b"queued")
        assert await socket.recv_close() == (4000, "bye")


async def test_fault_02_a_close_behind_the_message_that_closes_is_found_after_what_is_queued(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub(outbox_max_bytes=100_000_000)
    large = b"x" * 16_000_000  # more than the sockets' buffers hold

    @hub.on_message
    def leave(client: Client, text: str) -> None:
        client.send(large)
        client.close(4002, "bye")

    async with serve(hub.mount(nothing)) as served, raw_connect(served) as socket:
        await until(lambda: len(hub) == 1)
        await socket.send(frame(TEXT, b"leave") + frame(CLOSE, b"\x03\xe8"))
        await until(lambda: len(hub) == 0)
        assert await socket.recv() == (BINARY, large)
        begin = time.monotonic()
        assert await socket.recv_close() == (4002, "bye")
        assert await socket.at_end()
        assert time.monotonic() - begin < 2  # and not write_timeout_s, which is 10
    assert caplog.records == []


async def test_other_sockets_behave_as_under_uvicorns_own_class() -> None:
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol="chat")
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    hub = Hub()
    app = Starlette(
        routes=[WebSocketRoute("/echo", echo), Mount("/ws", app=hub)], lifespan=hub.lifespan
    )
    async with serve(app) as served:
        path = "/echo"
        async with served.connect(path, subprotocols=["chat"], compression="deflate") as socket:
            assert socket.subprotocol == "chat"
            assert socket.response is not None
            assert "deflate" in socket.response.headers["Sec-WebSocket-Extensions"]
            for text in ("a", "b" * 100_000):
                await socket.send(text)
                assert await take(socket, 1) == [text]
        async with served.connect("/ws/", compression="deflate") as socket:
            assert socket.response is not None
            assert "Sec-WebSocket-Extensions" not in socket.response.headers
            assert len(hub) == 1


async def test_an_idle_client_has_no_task() -> None:
    hub = Hub()
    async with serve(hub.mount(nothing)) as served:
        before = len(asyncio.all_tasks())
        sockets = []
        for _ in range(50):
            socket = await served.connect()
            sockets.append(socket)
        await until(lambda: len(hub) == 50)
        ours = [task for task in asyncio.all_tasks() if "hubbub" in repr(task.get_coro())]
        assert not [task for task in ours if "uvicorn" in repr(task)]
        # The websockets client has a task per socket of its own; the server has none.
        assert len(asyncio.all_tasks()) - before <= 50
        for socket in sockets:
            await socket.close()


async def test_a_refused_handshake_is_no_error_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub()
    hub.authenticate(lambda handshake: None)
    async with serve(hub.mount(nothing), log_config=None, log_level="info") as served:
        caplog.set_level(logging.INFO, "uvicorn")
        with pytest.raises(InvalidStatus, match="401"):
            async with served.connect():
                pass
        await asyncio.sleep(0)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_who_floods_pings_and_never_reads_fills_no_memory() -> None:
    async with served_echo(write_timeout_s=None) as (hub, _, socket):
        client = next(iter(hub))
        socket.stop_reading()
        payload = bytes(125)
        pings = frame(PING, payload) * 500
        for _ in range(150):
            await socket.send(pings)
        await until(lambda: not session_of(client).transport.writable)
        for _ in range(50):
            await socket.send(pings)
        await socket.send(frame(PING, b"last"))
        await until(
            lambda: (
                hub.stats()["messages_in"] == 0
                and session_of(client).transport.write_progress() > 0
            )
        )
        # The socket's own buffer at its high-water mark, and one pong beside it.
        assert session_of(client).transport.write_progress() < 300_000
        socket.read_on()
        while (await socket.recv()) != (PONG, b"last"):
            pass


async def test_pings_and_pongs_over_the_rate_are_dropped_or_close() -> None:
    for kind in (PING, PONG):
        async with served_echo(messages_per_second=10) as (hub, _, socket):
            await socket.send(frame(kind, b"") * 25)
            assert (await socket.recv_close())[0] == 3013
            assert hub.stats()["rate_limited"] == 1
    async with served_echo(messages_per_second=10, on_rate_limit="reply") as (hub, _, socket):
        await socket.send(frame(PING, b"p") * 100 + frame(TEXT, b"end"))
        got: list[tuple[int, bytes]] = []
        while not got or got[-1] != (TEXT, b"end"):
            got.append(await socket.recv())
        assert 0 < got.count((PONG, b"p")) < 25
        assert hub.stats()["rate_limited"] == 100 - got.count((PONG, b"p"))


async def test_tiny_fragments_over_the_rate_close_and_large_ones_do_not() -> None:
    async with served_echo(messages_per_second=10, max_message_bytes=None) as (hub, _, socket):
        part = bytes(126)
        parts = frame(BINARY, part, fin=False) + frame(0, part, fin=False) * 98 + frame(0, part)
        await socket.send(parts)
        assert await socket.recv() == (BINARY, part * 100)
        assert hub.stats()["rate_limited"] == 0
        await socket.send(frame(TEXT, b"a", fin=False) + frame(0, b"b", fin=False) * 30)
        assert (await socket.recv_close())[0] == 3013
        assert hub.stats()["messages_in"] == 1


async def test_a_socket_that_takes_nothing_of_one_large_message_is_cut() -> None:
    async with served_echo(write_timeout_s=0.3) as (hub, _, socket):
        client = next(iter(hub))
        socket.stop_reading()
        client.send(bytes(16 * 2**20))
        await until(lambda: len(hub) == 0)
        assert hub.stats()["slow_disconnects"] == 1
        assert session_of(client).outbox is None


async def test_a_large_message_that_moves_on_is_a_sign_of_life() -> None:
    settings = {"ping_interval_s": 0.4, "pong_timeout_s": 0.8, "write_timeout_s": 1.0}
    async with served_echo(**settings) as (hub, _, socket):
        client = next(iter(hub))
        size = 64 * 2**20
        client.send(bytes(size))
        got = 0
        loop = asyncio.get_running_loop()
        end = loop.time() + 2.0
        while loop.time() < end:
            got += len(await socket.reader.readexactly(2**20))
            await asyncio.sleep(0.05)
        assert len(hub) == 1
        assert got < size
        await socket.reader.readexactly(size + 10 - got)


class Turns:
    """A task that notes by how much a count grows at most from one turn of the loop to the next."""

    def __init__(self, count: Callable[[], int]) -> None:
        self.worst = 0
        self._count = count
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        before = self._count()
        while True:
            await asyncio.sleep(0)
            now = self._count()
            self.worst, before = max(self.worst, now - before), now

    def end(self) -> int:
        """Return the worst."""
        self._task.cancel()
        return self.worst


async def test_a_flood_of_messages_is_taken_in_turns() -> None:
    hub = Hub()
    got = 0

    @hub.on_message
    def count(client: Client, message: str) -> None:
        nonlocal got
        got += 1

    async with serve(hub.mount(nothing)) as served, raw_connect(served) as socket:
        turns = Turns(lambda: got)
        await socket.send(frame(TEXT, b"x") * 30_000)
        await until(lambda: got == 30_000, "all of them, though in turns")
        assert turns.end() <= 2 * TURN_FRAMES


async def test_who_was_stopped_and_let_go_on_has_no_second_share_of_a_turn() -> None:
    hub = Hub()
    got = 0

    @hub.on_message
    def count(client: Client, message: str) -> None:
        nonlocal got
        got += 1
        if got % TURN_FRAMES == 0:  # the turn is over: its rest is for others
            session_of(client).transport.pause_reading()
            session_of(client).transport.resume_reading()

    async with serve(hub.mount(nothing)) as served, raw_connect(served) as socket:
        turns = Turns(lambda: got)
        await socket.send(frame(TEXT, b"x") * 30_000)
        await until(lambda: got == 30_000, "all of them, though in turns")
        assert turns.end() <= 2 * TURN_FRAMES


@pytest.mark.parametrize(
    "flood", [frame(PING, b""), frame(0, b"", fin=False)], ids=["pings", "fragments"]
)
async def test_a_flood_of_rarer_frames_is_taken_in_turns(
    flood: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = 0
    read_rare = FrameReader._read_rare

    def counted(
        self: FrameReader, data: bytes | bytearray, position: int, events: list[Event]
    ) -> int:
        nonlocal fed
        size = read_rare(self, data, position, events)
        fed += size > 0
        return size

    monkeypatch.setattr(FrameReader, "_read_rare", counted)
    async with served_echo() as (_, _, socket):
        turns = Turns(lambda: fed)
        await socket.send(frame(TEXT, b"begin", fin=False) + flood * 20_000)
        await socket.send(frame(0, b"end"))
        opcode = PONG
        while opcode == PONG:
            opcode, payload = await socket.recv()
        assert payload == b"beginend"
        assert turns.end() <= 2 * TURN_FRAMES // CORE_FRAME_COST


async def test_a_flood_of_messages_that_inflate_is_taken_in_turns() -> None:
    hub = Hub(compression="shared", max_message_bytes=2**20)
    got = 0

    @hub.on_message
    def count(client: Client, message: bytes) -> None:
        nonlocal got
        got += 1

    offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
    async with (
        serve(hub.mount(nothing)) as served,
        raw_connect(served, headers=offer) as socket,
    ):
        turns = Turns(lambda: got)
        await socket.send(frame(BINARY, deflate(bytes(2**20), level=9), rsv=4) * 60)
        await until(lambda: got == 60, "all of them, though in turns")
        assert turns.end() <= 2


async def test_who_is_closed_and_floods_on_is_looked_through_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fed = 0
    receive_data = ServerProtocol.receive_data

    def counted(self: ServerProtocol, data: bytes | bytearray) -> None:
        nonlocal fed
        fed += len(data)
        receive_data(self, data)

    async with served_echo() as (hub, _, socket):
        (client,) = hub
        client.close(4000, "enough")
        monkeypatch.setattr(ServerProtocol, "receive_data", counted)
        turns = Turns(lambda: fed)
        await socket.send(frame(TEXT, b"x") * 30_000 + frame(CLOSE, (4000).to_bytes(2)))
        assert await socket.recv_close() == (4000, "enough")
        assert await socket.at_end()
        assert fed == 30_000 * 7 + 8
        assert turns.end() <= 2 * CLOSING_BYTES


async def test_empty_fragments_fill_no_memory() -> None:
    async with served_echo() as (hub, _, socket):
        (client,) = hub
        await socket.send(frame(TEXT, b"", fin=False) + frame(0, b"", fin=False) * 5000)
        await socket.send(frame(PING, b"here"))
        assert await socket.recv() == (PONG, b"here")
        held: Any = session_of(client).transport
        assert sys.getsizeof(held._reader._message) < 1000
        await socket.send(frame(0, b"end"))
        assert await socket.recv() == (TEXT, b"end")


# The transport alone


class Lane(NativeLane):
    """A transport with a session that says after each message what is to happen."""

    def __init__(self, then: Callable[[Lane], None], **settings: Any) -> None:
        super().__init__(Settings(**settings))
        self._then = then

    def receive(self, frame: Frame) -> None:
        super().receive(frame)
        self._then(self)


def texts(*payloads: bytes) -> bytes:
    return b"".join(frame(TEXT, payload) for payload in payloads)


async def test_what_is_read_already_waits_in_order_when_reading_is_paused() -> None:
    def pause(lane: Lane) -> None:
        if len(lane.messages) % 2 == 0:
            lane.hold()

    lane = Lane(pause)
    lane.feed(texts(b"1", b"2", b"3", b"4", b"5") + frame(PING, b"?") + texts(b"6")[:3])
    lane.feed(texts(b"6")[3:] + texts(b"7") + frame(CLOSE, b""))
    assert len(lane.messages) == 2
    for count in (4, 6, 7):
        lane.release()
        assert len(lane.messages) < count, "never from within the call"
        await asyncio.sleep(0)
        assert len(lane.messages) == count
    assert lane.socket.is_over
    messages, code, pongs = lane.outcome()
    assert b"".join(payload for _, payload in messages) == b"1234567"
    assert (code, pongs) == (1005, [b"?"])


@pytest.mark.parametrize("cut", [0, 3, 9])
@pytest.mark.parametrize("how", ["close frame", "violation", "nothing"])
async def test_behind_a_message_that_closes_only_the_peers_close_frame_counts(
    how: str, cut: int
) -> None:
    lane = Lane(lambda lane: lane.transport.close(4000, ""))
    end = {"close frame": frame(CLOSE, b"\x03\xe8"), "violation": frame(0x3, b""), "nothing": b""}
    data = texts(b"1", b"2", b"3") + frame(PING, b"?") + texts(b"4") + end[how]
    lane.feed(data[: len(data) - cut])
    lane.feed(data[len(data) - cut :])
    for _ in range(3):
        await asyncio.sleep(0)
    assert lane.socket.is_over == (how != "nothing")
    lane.feed(frame(CLOSE, b""))
    assert lane.socket.is_over
    assert lane.outcome() == ([(True, b"1")], 4000, [])


async def test_a_fragment_that_is_refused_closes_and_the_peers_close_frame_is_waited_for() -> None:
    class Refusing(Lane):
        def charge_frame(self, *, droppable: bool) -> bool:
            self.transport.close(3013, "")
            return False

    lane = Refusing(lambda lane: None)
    lane.feed(frame(TEXT, b"a", fin=False) + frame(0, b"b", fin=False) + frame(0, b"c"))
    await asyncio.sleep(0)
    assert not lane.socket.is_over, "the fragments that follow break no rule"
    lane.feed(frame(CLOSE, b""))
    assert lane.socket.is_over
    assert lane.outcome() == ([], 3013, [])


async def test_a_transport_holds_a_reader_while_something_is_pending_and_no_longer() -> None:
    lane = Lane(lambda lane: None)
    parts = [
        texts(b"1") * 3,
        frame(PING, b""),
        frame(BINARY, bytes(200), fin=False) + frame(0, b""),
        frame(BINARY, bytes(70_000)),
        texts(b"1") * (TURN_FRAMES + 1),
    ]
    for data in parts:
        for cut in (3, len(data)):
            lane.feed(data[:cut])
            lane.feed(data[cut:])
            for _ in range(2):
                await asyncio.sleep(0)
            assert lane.transport._reader is None
    lane.feed(frame(0x3, b"") + texts(b"never read"))
    assert lane.transport._reader is None
    lane.outcome()
