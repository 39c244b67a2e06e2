"""One client of a load, fed by the server core of `websockets`, in pieces of any size."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from hubbub.bench import client as client_module
from hubbub.bench.accounting import (
    DeliveryTracker,
    Marker,
    Receiver,
    Recipients,
    prefix_of,
    write_message,
)
from hubbub.bench.client import LoadSocket, Refusal, make_core

pytestmark = pytest.mark.anyio

PREFIX = prefix_of(1, 2)


class Wire(asyncio.Transport):
    """A socket that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_closed = False
        self.waiting = 0

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True

    def get_write_buffer_size(self) -> int:
        return self.waiting


class Pair:
    """A client on a `Wire`, and the server core that talks with it."""

    def __init__(self, piece: int = 1 << 30, subprotocols: tuple[str, ...] = ()) -> None:
        self.tracker = DeliveryTracker(PREFIX, 40, Recipients("all", 1), lambda: 0)
        self.codes: list[int] = []
        self.wire = Wire()
        self.server = ServerProtocol(max_size=None)
        self.sent = 0
        self._piece = piece
        core = make_core("ws://127.0.0.1:1/ws", {"X-Name": "ann"}, "https://x.org", subprotocols)
        loop = asyncio.get_running_loop()
        self.result: asyncio.Future[None] = loop.create_future()
        self.receiver = Receiver(5)
        self.client = LoadSocket(self, self.receiver, core, self.result)
        self.client.connection_made(self.wire)

    def opened(self, socket: LoadSocket) -> None:
        raise AssertionError("the connector says so, not the socket")

    def ended(self, socket: LoadSocket, code: int) -> None:
        assert socket is self.client
        self.codes.append(code)

    def take(self) -> list[Any]:
        """Let the server read what the client has written."""
        data, self.wire.written = bytes(self.wire.written), bytearray()
        self.server.receive_data(data)
        return list(self.server.events_received())

    def give(self, data: bytes | None = None) -> None:
        """Let the client read `data`, or what the server has to send, in pieces."""
        if data is None:
            data = b"".join(self.server.data_to_send())
        for start in range(0, len(data), self._piece):
            self.client.data_received(data[start : start + self._piece])

    def shake(self, more: bytes = b"") -> Request:
        """Do the handshake; `more` comes in the same breath as the answer."""
        (request,) = self.take()
        assert isinstance(request, Request)
        self.server.send_response(self.server.accept(request))
        self.give(b"".join(self.server.data_to_send()) + more)
        return request

    def refuse(self, status: int, text: str) -> None:
        (request,) = self.take()
        assert isinstance(request, Request)
        self.server.send_response(self.server.reject(status, text))
        self.give()


def message(number: int, size: int = 40) -> bytes:
    return write_message(PREFIX, Marker(9, number, 0), size)


def text(number: int, size: int = 40) -> bytes:
    return Frame(Opcode.TEXT, message(number, size)).serialize(mask=False)


async def test_the_handshake_carries_what_it_should() -> None:
    pair = Pair(subprotocols=("a", "b"))
    headers = pair.shake().headers
    assert pair.result.done()
    assert headers["Origin"] == "https://x.org"
    assert headers["X-Name"] == "ann"
    assert headers["Sec-WebSocket-Protocol"] == "a, b"
    assert "Sec-WebSocket-Extensions" not in headers


async def test_a_header_replaces_the_usual_one() -> None:
    core = make_core("ws://127.0.0.1:1/ws", {"host": "x.org"}, None, ())
    server = ServerProtocol()
    server.receive_data(b"".join(core.data_to_send()))
    (request,) = server.events_received()
    assert isinstance(request, Request)
    assert request.headers.get_all("Host") == ["x.org"]


PIECES = [1, 2, 3, 7, 50, 1000, 1 << 30]


@pytest.mark.parametrize("piece", PIECES)
async def test_all_kinds_of_frames_are_counted_whatever_the_pieces(piece: int) -> None:
    frames = [
        text(0),
        Frame(Opcode.BINARY, b"ann: " + message(1)).serialize(mask=False),
        text(2, 126),
        Frame(Opcode.PING, b"?").serialize(mask=False),
        text(3, 65_535) if piece > 10 else text(3, 300),
        text(4, 70_000) if piece > 10 else text(4, 300),
        Frame(Opcode.TEXT, message(5)[:20], fin=False).serialize(mask=False),
        Frame(Opcode.PING, b"!").serialize(mask=False),
        Frame(Opcode.CONT, message(5)[20:]).serialize(mask=False),
        Frame(Opcode.TEXT, b"ann joined").serialize(mask=False),
        Frame(Opcode.TEXT, b"").serialize(mask=False),
        text(6),
    ]
    pair = Pair(piece)
    pair.shake(more=b"".join(frames))
    counters = pair.tracker.counters
    assert (counters.delivered, counters.others, counters.damaged) == (7, 2, 0)
    assert (counters.lost, counters.duplicated, counters.reordered) == (0, 0, 0)
    assert counters.bytes_in == sum(map(len, frames))
    assert [bytes(frame.data) for frame in pair.take()] == [b"?", b"!"]


async def test_the_same_bytes_to_several_clients_are_read_once() -> None:
    first, second = Pair(), Pair()
    second.tracker = first.tracker
    for pair in (first, second):
        pair.shake()
    data = text(0) + text(1) + Frame(Opcode.TEXT, b"x").serialize(mask=False)
    first.give(data)
    assert first.tracker.chunk == data
    second.give(data)
    assert (first.receiver.received, second.receiver.received) == (2, 2)
    assert (first.tracker.counters.delivered, first.tracker.counters.others) == (4, 2)
    assert first.tracker.counters.bytes_in == 2 * len(data)
    second.give(data)
    assert first.tracker.counters.duplicated == 2


async def test_a_damaged_message_is_counted_each_time() -> None:
    first, second = Pair(), Pair()
    second.tracker = first.tracker
    for pair in (first, second):
        pair.shake()
        pair.give(text(0, 36))
    assert first.tracker.counters.damaged == 2


async def test_it_sends_masked_text_of_the_right_size() -> None:
    pair = Pair()
    pair.shake()
    pair.client.send(message(3, 300))
    (frame,) = pair.take()
    assert (frame.opcode, bytes(frame.data)) == (Opcode.TEXT, message(3, 300))
    assert pair.server.parser_exc is None
    assert pair.client.can_send()
    pair.wire.waiting = client_module.MAX_UNSENT_BYTES + 1
    assert not pair.client.can_send()
    pair.wire.close()
    pair.client.send(message(4))
    assert not pair.wire.written


async def test_the_server_closes() -> None:
    pair = Pair()
    pair.shake()
    pair.server.send_close(3008, "slow")
    pair.give()
    pair.take()
    assert pair.server.close_rcvd is not None
    assert pair.wire.is_closed
    pair.client.connection_lost(None)
    assert pair.codes == [3008]
    assert not pair.receiver.is_open


async def test_the_connection_breaks() -> None:
    pair = Pair()
    pair.shake()
    pair.client.eof_received()
    pair.client.connection_lost(ConnectionResetError())
    assert pair.codes == [1006]


async def test_leaving_is_no_disconnection() -> None:
    pair = Pair()
    pair.shake()
    pair.client.leave()
    pair.take()
    assert pair.server.close_rcvd is not None
    assert pair.server.close_rcvd.code == 1000
    pair.give()
    pair.client.connection_lost(None)
    assert pair.codes == []
    assert not pair.receiver.is_open


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"\x81\x84\x01\x02\x03\x04abcd", 1002, id="masked"),
        pytest.param(b"\x83\x00", 1002, id="unknown opcode"),
        pytest.param(b"\xc1\x02ab", 1002, id="reserved bit"),
        pytest.param(b"\x82\x7f" + (1 << 40).to_bytes(8), 1009, id="too large"),
    ],
)
async def test_a_server_that_breaks_the_protocol_is_told(data: bytes, code: int) -> None:
    pair = Pair()
    pair.shake()
    pair.give(text(0) + data)
    pair.take()
    assert pair.server.close_rcvd is not None
    assert pair.server.close_rcvd.code == code
    assert pair.wire.is_closed
    assert pair.tracker.counters.delivered == 1


@pytest.mark.parametrize("piece", PIECES)
async def test_a_refusal_has_its_status(piece: int) -> None:
    pair = Pair(piece)
    pair.refuse(401, "who are you?")
    with pytest.raises(Refusal) as refusal:
        await pair.result
    assert refusal.value.status == 401
    assert pair.wire.is_closed
    pair.client.connection_lost(None)
    assert pair.codes == []


async def test_a_refusal_that_ends_with_the_connection() -> None:
    pair = Pair()
    pair.take()
    pair.give(b"HTTP/1.1 503 Busy\r\n\r\nlater")
    assert not pair.result.done()
    pair.client.eof_received()
    with pytest.raises(Refusal) as refusal:
        await pair.result
    assert (refusal.value.status, refusal.value.why) == (503, "Busy")


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"x" * (client_module.MAX_ANSWER_BYTES + 1),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: wrong\r\n\r\n"
        ),
        b"",
    ],
)
async def test_an_answer_that_is_none(answer: bytes) -> None:
    pair = Pair()
    pair.take()
    pair.give(answer)
    pair.client.connection_lost(None)
    with pytest.raises(Refusal) as refusal:
        await pair.result
    assert refusal.value.status is None
    assert refusal.value.why
    assert pair.codes == []


async def test_pieces_at_random() -> None:
    pair = Pair()
    pair.shake()
    data = b"".join(text(number, 40 + number * 7 % 400) for number in range(300))
    start = 0
    for size in os.urandom(2000):
        pair.give(data[start : start + size])
        start += size
    assert start >= len(data)
    assert (pair.tracker.counters.delivered, pair.tracker.counters.lost) == (300, 0)
    assert pair.client._core.state is OPEN
