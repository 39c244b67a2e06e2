"""The native lane against the core of `websockets`: the same bytes, the same messages and closes."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.protocol import OPEN

from hubbub import Frame, Handshake, Hub, Identity
from hubbub.testing import open_client
from hubbub.transports.uvicorn import DeflatingTransport, NativeTransport
from hubbub.wire.deflate import slack_bytes
from rawsocket import deflate, frame
from stress.differential import Oracle

LIMIT = 300


class FakeSocket(asyncio.Transport):
    """A socket of no network: keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_over = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.is_over = True

    def abort(self) -> None:
        self.is_over = True

    def is_closing(self) -> bool:
        return self.is_over

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_over = True

    def is_reading(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0


Outcome = tuple[list[tuple[bool, bytes]], int | None, list[bytes]]
"""The messages, the code of the close frame that was written, the pongs."""


async def ours(pieces: list[bytes], kind: type[NativeTransport] = NativeTransport) -> Outcome:
    """Feed `pieces` to the native transport."""
    hub = Hub(max_message_bytes=LIMIT)
    await hub.start()
    messages: list[tuple[bool, bytes]] = []

    @hub.on_message
    def heard(client: object, message: Frame) -> None:
        messages.append((message.is_text, message.payload))

    errors: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    socket = FakeSocket()
    transport = kind(socket, set())
    open_client(hub, transport, Identity(), Handshake("/", {}))
    for piece in pieces:
        if socket.is_over:
            break
        transport.data_received(piece)
    transport.connection_lost(None)
    await hub.stop()
    assert errors == []
    code, pongs = None, []
    for opcode, payload in split(socket.written):
        if opcode == Opcode.CLOSE:
            code = int.from_bytes(payload[:2]) if payload else 1005
        elif opcode == Opcode.PONG:
            pongs.append(payload)
    return messages, code, pongs


def theirs(pieces: list[bytes], *, deflates: bool = False) -> Outcome:
    """Feed `pieces` to the core alone.

    The core's limit is one of frames as they come; with `deflates` it leaves them the room to have
    grown, and what they inflate to is counted here.
    """
    core = Oracle(state=OPEN, max_size=LIMIT)
    if deflates:
        core = Oracle(state=OPEN, max_size=LIMIT + slack_bytes(LIMIT))
        core.extensions = [PerMessageDeflate(True, True, 15, 15)]
    messages: list[tuple[bool, bytes]] = []
    parts: list[bytes] = []
    is_text = False
    code: int | None = None
    for piece in pieces:
        if code is not None:
            break
        core.receive_data(piece)
        for event in core.events_received():
            assert isinstance(event, WireFrame)
            if event.opcode in (Opcode.TEXT, Opcode.BINARY):
                is_text, parts = event.opcode is Opcode.TEXT, []
            if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                parts.append(bytes(event.data))
                if sum(map(len, parts)) > LIMIT:
                    code = 1009
                    break
                if event.fin:
                    payload = b"".join(parts)
                    if is_text and not is_utf8(payload):
                        code = 1007
                        break
                    messages.append((is_text, payload))
        if code is None and core.close_sent is not None:
            code = int(core.close_sent.code)
    pongs = [
        payload for opcode, payload in split(b"".join(core.data_to_send())) if opcode == Opcode.PONG
    ]
    return messages, code, pongs


def is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def split(data: bytes) -> list[tuple[int, bytes]]:
    """Split what a server wrote into frames."""
    frames = []
    while data:
        length, start = data[1], 2
        if length == 126:
            length, start = int.from_bytes(data[2:4]), 4
        frames.append((data[0] & 0x0F, data[start : start + length]))
        data = data[start + length :]
    return frames


payloads = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=20).map(str.encode),
    st.integers(100, LIMIT + 20).map(bytes),
)
rights = st.builds(
    frame, st.sampled_from([1, 1, 2, 2, 9, 10]), payloads.filter(lambda p: len(p) < 126)
)
parts = st.builds(
    lambda opcode, pieces: b"".join(
        frame(opcode if index == 0 else 0, piece, fin=index == len(pieces) - 1)
        for index, piece in enumerate(pieces)
    ),
    st.sampled_from([1, 2]),
    st.lists(payloads, min_size=1, max_size=4),
)
wrongs = st.builds(
    frame,
    st.integers(0, 15),
    payloads,
    fin=st.booleans(),
    masked=st.sampled_from([True, True, True, False]),
    rsv=st.sampled_from([0, 0, 0, 1, 2, 4, 7]),
)
closes = st.builds(
    lambda code, reason: frame(8, code.to_bytes(2) + reason),
    st.sampled_from([0, 999, 1000, 1001, 1004, 1005, 1006, 1011, 1015, 2999, 3000, 4999, 5000]),
    st.binary(max_size=10),
)
streams = st.lists(
    st.one_of(rights, rights, parts, wrongs, closes, st.binary(max_size=12)), max_size=8
)


@st.composite
def cut_streams(draw: st.DrawFn) -> list[bytes]:
    """Draw a stream of frames, cut at arbitrary places."""
    data = b"".join(draw(streams))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=10)))
    edges = [0, *cuts, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


def check(pieces: list[bytes]) -> None:
    expected = theirs(pieces)
    got = asyncio.run(ours(pieces))
    assert got[:2] == expected[:2]
    # A pong that is owed when the connection fails may be left out by either side.
    if expected[1] is None:
        assert got[2] == expected[2]


@pytest.mark.timeout(180)
@settings(max_examples=200, deadline=None)
@given(cut_streams())
def test_both_lanes_agree_on_every_stream(pieces: list[bytes]) -> None:
    check(pieces)


@pytest.mark.timeout(180)
@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
def test_both_lanes_agree_on_noise(pieces: list[bytes]) -> None:
    check(pieces)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, LIMIT, LIMIT + 1])
def test_both_lanes_agree_on_the_edges_of_length(size: int) -> None:
    for opcode in (1, 2, 8, 9):
        data = frame(opcode, b"a" * size)
        check([data])
        check([data[i : i + 1] for i in range(len(data))])


def in_frames(opcode: int, pieces: list[bytes]) -> bytes:
    """Return one deflated message in as many frames as there are pieces."""
    return b"".join(
        frame(
            opcode if index == 0 else 0,
            piece,
            fin=index == len(pieces) - 1,
            rsv=4 if index == 0 else 0,
        )
        for index, piece in enumerate(pieces)
    )


@st.composite
def deflated_messages(draw: st.DrawFn) -> bytes:
    """Draw a message, deflated rightly or with a byte of it changed, whole or in fragments."""
    payload = draw(payloads | st.integers(LIMIT - 2, 100 * LIMIT).map(bytes))
    data = bytearray(deflate(payload, level=draw(st.sampled_from([0, 1, 6]))))
    if data and draw(st.integers(0, 4)) == 0:
        data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    edges = [0, *cuts, len(data)]
    pieces = [bytes(data[a:b]) for a, b in itertools.pairwise(edges)]
    return in_frames(draw(st.sampled_from([1, 2])), pieces)


deflated_streams = st.lists(
    st.one_of(
        deflated_messages(),
        deflated_messages(),
        rights,
        parts,
        wrongs,
        st.builds(frame, st.sampled_from([0, 1, 2, 8, 9]), st.binary(max_size=12), rsv=st.just(4)),
    ),
    max_size=8,
)


def check_deflating(pieces: list[bytes]) -> None:
    expected = theirs(pieces, deflates=True)
    got = asyncio.run(ours(pieces, DeflatingTransport))
    assert got[0] == expected[0]
    if got[1] != expected[1]:
        # A frame with two faults is closed for the one that is looked at first.
        assert {got[1], expected[1]} == {1002, 1009}
    if expected[1] is None:
        assert got[2] == expected[2]


@pytest.mark.timeout(180)
@settings(max_examples=150, deadline=None)
@given(deflated_streams, st.data())
def test_both_lanes_agree_on_deflated_streams(stream: list[bytes], data: st.DataObject) -> None:
    joined = b"".join(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(joined)), max_size=10)))
    edges = [0, *cuts, len(joined)]
    check_deflating([joined[a:b] for a, b in itertools.pairwise(edges) if a < b])


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("size", [0, 1, LIMIT - 1, LIMIT, LIMIT + 1, 1000 * LIMIT])
def test_a_deflated_message_is_measured_by_what_it_inflates_to(size: int, level: int) -> None:
    payload = random.Random(size).randbytes(size) if size <= LIMIT + 1 else bytes(size)
    data = in_frames(2, [deflate(payload, level=level)])
    check_deflating([data])
    check_deflating([data[i : i + 1] for i in range(min(len(data), 700))])
    messages, code, _ = asyncio.run(ours([data], DeflatingTransport))
    assert (messages, code) == (([(False, payload)], None) if size <= LIMIT else ([], 1009))


def test_a_deflated_frame_without_the_extension_is_an_error() -> None:
    messages, code, _ = asyncio.run(ours([in_frames(1, [deflate(b"hello")])]))
    assert (messages, code) == ([], 1002)
