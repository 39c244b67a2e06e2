"""Three lanes for the same bytes: Hubbub's reader alone, its native transport, the core of `websockets`.

What must not live here: where the bytes come from. The fuzzer (`fuzz_frames`) and the tests feed
the lanes and compare what came out; none of them has a socket, a hub or an event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, NamedTuple, cast

from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from hubbub import Frame, Settings
from hubbub.limits import TurnBudget
from hubbub.model import Close
from hubbub.transports.transport import TransportLimits
from hubbub.transports.uvicorn import DeflatingTransport, NativeTransport
from hubbub.wire.deflate import Inflater, slack_bytes
from hubbub.wire.reader import Event, FrameReader, PeerClose, Ping, Violation

LONGEST_CONTROL_BYTES = 125
"""Of a control frame's payload (RFC 6455 section 5.5)."""
LIMIT_BYTES = 300
"""The largest message that both lanes take: small, so that inputs cross it often."""

_SETTINGS = Settings(max_message_bytes=LIMIT_BYTES)

MESSAGES = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
NO_CODE = 1005


class Outcome(NamedTuple):
    """The messages, the code of the close frame that was written (None: none), the pongs."""

    messages: list[tuple[bool, bytes]]
    code: int | None
    pongs: list[bytes]


def split(data: bytes) -> list[tuple[int, bytes]]:
    """Split what a server wrote into frames: opcode and payload."""
    frames = []
    while data:
        length, start = data[1], 2
        if length == 126:
            length, start = int.from_bytes(data[2:4]), 4
        elif length == 127:
            length, start = int.from_bytes(data[2:10]), 10
        frames.append((data[0] & 0x0F, data[start : start + length]))
        data = data[start + length :]
    return frames


def is_utf8(payload: bytes) -> bool:
    """Tell whether `payload` is UTF-8."""
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


# Hubbub's lane


class MemorySocket(asyncio.Transport):
    """A socket of no network: keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_over = False
        self._is_reading = True

    def write(self, data: Any) -> None:
        """Keep `data`."""
        self.written += data

    def close(self) -> None:
        """End."""
        self.is_over = True

    abort = write_eof = close

    def can_write_eof(self) -> bool:
        """Say yes, as a TCP socket does."""
        return True

    def is_closing(self) -> bool:
        """Tell whether the end has come."""
        return self.is_over

    def is_reading(self) -> bool:
        """Tell whether reading was not paused."""
        return self._is_reading

    def pause_reading(self) -> None:
        """Take nothing more from the peer."""
        self._is_reading = False

    def resume_reading(self) -> None:
        """Take from the peer again."""
        self._is_reading = True

    def get_write_buffer_size(self) -> int:
        """Say that everything was written."""
        return 0


class _Timer:
    def cancel(self) -> None:
        pass


class IdleLoop:
    """An event loop for a transport alone: timers never fire, what comes soon runs at once."""

    def call_later(self, delay: float, function: Any, *arguments: Any) -> _Timer:
        """Set a timer that never fires."""
        return _Timer()

    def call_soon(self, function: Any, *arguments: Any, context: Any = None) -> None:
        """Run `function` at once."""
        function(*arguments)


@contextmanager
def idle_loop() -> Iterator[None]:
    """Make an `IdleLoop` the running event loop of this thread."""
    before = asyncio._get_running_loop()
    asyncio._set_running_loop(cast(Any, IdleLoop()))
    try:
        yield
    finally:
        asyncio._set_running_loop(before)


class NativeLane:
    """The native transport with a session that keeps what it is told. Use it under `idle_loop`."""

    has_waiting = False

    def __init__(
        self, settings: Settings | None = None, kind: type[NativeTransport] = NativeTransport
    ) -> None:
        settings = settings or _SETTINGS
        self.limits = TransportLimits(
            settings.max_message_bytes,
            settings.write_timeout_s,
            settings.inbox_max_messages,
            settings.inbox_max_bytes,
            TurnBudget(LIMIT_BYTES),
            lambda: 0.0,
        )
        self.messages: list[tuple[bool, bytes]] = []
        self.errors: list[int] = []
        self.losses: list[int] = []
        self.last_seen = 0.0
        self.context = copy_context()
        self.is_held = False
        self.socket = MemorySocket()
        self.transport = kind(cast(Any, self.socket), set())
        self.transport.bind(self)

    def feed(self, piece: bytes) -> None:
        """Receive bytes, unless the socket is closed."""
        if not self.socket.is_over:
            self.transport.data_received(piece)

    def hold(self) -> None:
        """Have too many messages: nothing more is to be delivered."""
        self.is_held = True
        self.transport.pause_reading()

    def release(self) -> None:
        """Have room for messages again."""
        self.is_held = False
        self.transport.resume_reading()

    def outcome(self) -> Outcome:
        """End, and tell what came out."""
        self.transport.connection_lost(None)
        code, pongs = None, []
        for opcode, payload in split(bytes(self.socket.written)):
            if opcode == Opcode.CLOSE:
                code = int.from_bytes(payload[:2]) if payload else NO_CODE
            elif opcode == Opcode.PONG:
                pongs.append(payload)
        return Outcome(self.messages, code, pongs)

    # What the transport calls: see `hubbub.transports.transport.Session`

    def receive(self, frame: Frame) -> None:
        """Keep a message."""
        if self.is_held:
            raise AssertionError("a message was delivered to a client that is not read from")
        self.messages.append((frame.is_text, bytes(frame.payload)))

    def charge_frame(self, *, droppable: bool) -> bool:
        """Have no limit."""
        return True

    def flush(self) -> None:
        """Have nothing to flush."""

    def violated(self, code: int, reason: str) -> None:
        """Keep the code of a violation."""
        self.errors.append(code)

    def closed(self, close: Close) -> None:
        """Keep the code of an end."""
        self.losses.append(close.code)

    def write_blocked(self) -> None:
        """Watch nothing."""

    def write_resumed(self) -> None:
        """Have nothing that waits."""

    def failed(self, error: BaseException | None) -> None:
        """Have no part that fails."""

    def connection_lost(self) -> None:
        """Forget nothing."""

    def server_stopping(self) -> None:
        """Have no server."""


def native(pieces: list[bytes], deflates: bool = False) -> Outcome:
    """Feed `pieces` to the native transport, under `idle_loop`."""
    lane = NativeLane(kind=DeflatingTransport if deflates else NativeTransport)
    for piece in pieces:
        lane.feed(piece)
    return lane.outcome()


# The reader's lane


class ReaderLane:
    """The reader alone, read from in many small turns. One that is idle gives place to a new one."""

    BUDGET = 3

    def __init__(self, deflates: bool = False) -> None:
        self.messages: list[tuple[bool, bytes]] = []
        self.code: int | None = None
        self._pongs: list[bytes] = []
        self._deflates = deflates
        self._reader = FrameReader(LIMIT_BYTES, deflates=deflates)

    def feed(self, piece: bytes) -> None:
        """Receive bytes, unless the connection has ended."""
        has_more = True
        while has_more and self.code is None:
            events = self._reader.read(piece, self.BUDGET)
            has_more, piece = self._reader.has_more, b""
            if not events and has_more and self._reader.left > 0:
                raise AssertionError("there is more, and it was not read")
            for event in events:
                self._take(event)
        if self._reader.is_idle:
            self._reader = FrameReader(LIMIT_BYTES, deflates=self._deflates)

    def _take(self, event: Event) -> None:
        if self.code is not None:
            raise AssertionError("something comes after the end")
        if isinstance(event, Frame):
            self.messages.append((event.is_text, bytes(event.payload)))
        elif isinstance(event, Ping):
            self._pongs.append(event.payload)
        elif isinstance(event, PeerClose):
            self.code = close_code(event.echo)
        elif isinstance(event, Violation):
            self.code = close_code(event.wire)
            if self.code != event.code:
                raise AssertionError(f"{event} writes another code")

    def outcome(self) -> Outcome:
        """Tell what came out."""
        return Outcome(self.messages, self.code, self._pongs)


def close_code(wire: bytes) -> int | None:
    """Return the code of a close frame; None for what is none."""
    frames = split(wire)
    if [opcode for opcode, _ in frames] != [Opcode.CLOSE]:
        return None
    payload = frames[0][1]
    return int.from_bytes(payload[:2]) if payload else NO_CODE


def read(pieces: list[bytes], deflates: bool = False) -> Outcome:
    """Feed `pieces` to the reader alone."""
    lane = ReaderLane(deflates)
    for piece in pieces:
        lane.feed(piece)
    return lane.outcome()


# The core's lane


class Oracle(ServerProtocol):
    """The core, and the one rule in which Hubbub differs from it.

    A control frame may stand between fragments and is no part of their message (RFC 6455 section
    5.4): neither does a close frame there break the protocol, nor is it or a ping too large for it.
    """

    _limit: int | None = None

    @property
    def max_message_size(self) -> int | None:
        """The limit for the frame that begins now: the core asks when its first byte is there."""
        if self._limit is not None and self.reader.buffer[0] & 0x08:
            return max(self._limit, LONGEST_CONTROL_BYTES) + (self.current_size or 0)
        return self._limit

    @max_message_size.setter
    def max_message_size(self, limit: int | None) -> None:
        self._limit = limit

    def recv_frame(self, frame: WireFrame) -> None:
        """Take a frame."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class CoreLane:
    """The core alone: joins fragments, and checks text, as its callers have to."""

    def __init__(self, limit: int = LIMIT_BYTES) -> None:
        self.core = Oracle(state=OPEN, max_size=limit)
        self.messages: list[tuple[bool, bytes]] = []
        self.code: int | None = None
        self._parts: list[bytes] = []
        self._is_text = False
        self._is_closing = False

    @property
    def has_received_close(self) -> bool:
        """Tell whether the peer's close frame came, or something that is as good as one."""
        return self.core.close_rcvd is not None or self.core.parser_exc is not None

    def close(self, code: int) -> None:
        """Send a close frame; from here on only the peer's counts (RFC 6455 section 7.1.2)."""
        self.core.send_close(code)
        self.code = code
        self._is_closing = True

    def feed(self, piece: bytes) -> None:
        """Receive bytes, unless the connection has ended."""
        if self._is_closing:
            self.core.receive_data(piece)
            self.core.events_received()
        elif self.code is None:
            self.core.receive_data(piece)
            self._take_events()
            if self.code is None and self.core.close_sent is not None:
                self.code = int(self.core.close_sent.code)

    def _take_events(self) -> None:
        for event in self.core.events_received():
            assert isinstance(event, WireFrame)
            if event.opcode in (Opcode.TEXT, Opcode.BINARY):
                self._is_text, self._parts = event.opcode is Opcode.TEXT, []
            if event.opcode in MESSAGES:
                self._parts.append(bytes(event.data))
                if event.fin and not self._end_message():
                    return

    def _end_message(self) -> bool:
        payload = b"".join(self._parts)
        if self._is_text and not is_utf8(payload):
            self.code = 1007
            return False
        self.messages.append((self._is_text, payload))
        return True

    def outcome(self) -> Outcome:
        """Tell what came out."""
        written = b"".join(self.core.data_to_send())
        pongs = [payload for opcode, payload in split(written) if opcode == Opcode.PONG]
        return Outcome(self.messages, self.code, pongs)


def core(pieces: list[bytes], deflates: bool = False) -> Outcome:
    """Feed `pieces` to the core alone; with compression, to the core and what inflates for it.

    The lane inflates most messages without either.
    """
    slack = slack_bytes(LIMIT_BYTES) if deflates else 0
    lane = CoreLane(LIMIT_BYTES + slack)
    lane.core.extensions = [Inflater(slack)] if deflates else []
    for piece in pieces:
        lane.feed(piece)
    return lane.outcome()


def compare(pieces: list[bytes], deflates: bool = False) -> None:
    """Feed all lanes, under `idle_loop`; raise `AssertionError` where one of ours differs from the core's."""
    theirs = core(pieces, deflates)
    for lane in (native, read):
        ours = lane(pieces, deflates)
        # A pong that is owed when the connection fails may be left out by either side.
        is_same = ours[:2] == theirs[:2] and (theirs.code is not None or ours.pongs == theirs.pongs)
        if not is_same:
            raise AssertionError(f"{pieces!r}: {lane.__name__} {ours}, core {theirs}")
