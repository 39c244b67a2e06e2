"""The native transport: a socket of uvicorn's after the hub took it.

What must not live here: rooms, limits, handlers, the handshake (`uvicorn_protocol`, which makes a
`NativeTransport` when a hub has accepted), and the bytes of RFC 6455 (`wire.reader` reads them).

How a connection ends, and what becomes of what the peer sends meanwhile:

| state | the peer's bytes | event | what is done | next state |
|---|---|---|---|---|
| OPEN | are read | `close` is called | reading stops if anything waits | CLOSE_PENDING |
| OPEN | are read | the peer's close frame | it is echoed, the socket is closed | FAILED |
| OPEN | are read | a violation | a close frame says why; `LINGER_S` to read it | FAILED |
| CLOSE_PENDING | are kept | all that waits is written | our close frame is sent | CLOSING |
| CLOSING | are dropped | the peer's close frame, or a violation | the socket is closed | FAILED |
| FAILED | are dropped | | | |
| any | | the socket is gone | the session is told | LOST |

CLOSE_PENDING and CLOSING together may take `write_timeout_s`, then the socket is aborted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..model import Close
from ..wire.frame import Batch, Frame, header
from ..wire.reader import (
    Due,
    Event,
    FrameReader,
    PeerClose,
    Ping,
    Pong,
    Violation,
    close_frame,
    read_common,
)

if TYPE_CHECKING:
    from .transport import Session

PIECE_BYTES = 64 * 1024
"""A write larger than `LARGE_WRITE_BYTES` is fed to the socket in pieces of this size."""
LARGE_WRITE_BYTES = 256 * 1024
CLOSE_TIMEOUT_S = 10.0
"""How long a close may take when `write_timeout_s` is None."""
LINGER_S = 2.0
"""How long a peer that broke the protocol may take to read why."""
TURN_FRAMES = 256
"""How many common frames one socket may bring in one turn of the event loop; what is left waits for
the next turn. A megabyte of the smallest frames would otherwise hold up everybody for seconds."""
CLOSING_BYTES = 512
"""How many bytes one turn looks through for the close frame of a client that we have closed."""

_PING = b"\x89\x00"
_PONG = 0xA

_OPEN, _CLOSE_PENDING, _CLOSING, _FAILED, _LOST = range(5)


class NativeTransport(asyncio.Protocol):
    """One client's socket, from the end of its handshake to its end. See `transport.Transport`."""

    __slots__ = (
        "_after",
        "_blocked",
        "_close_frame",
        "_is_stopped",
        "_paused",
        "_reader",
        "_rest",
        "_server_connections",
        "_session",
        "_socket",
        "_state",
        "_timer",
        "_will_read_on",
        "writable",
        "write_wire",
    )

    _session: Session
    deflates = False

    def __init__(self, socket: asyncio.Transport, server_connections: set[Any]) -> None:
        self._socket = socket
        self._server_connections = server_connections
        self.write_wire: Callable[[bytes], object] | None = socket.write
        self.writable: bool = True
        self._blocked = False
        self._state = _OPEN
        self._reader: FrameReader | None = None  # there is one while something is pending
        self._paused = False
        self._is_stopped = False
        self._will_read_on = False
        self._rest: memoryview | None = None
        self._after = b""
        self._close_frame: tuple[int, str] | None = None
        self._timer: asyncio.TimerHandle | None = None
        server_connections.add(self)

    def bind(self, session: Session) -> None:
        """See `Transport.bind`."""
        self._session = session
        self.writable = not self._socket.is_closing()

    # asyncio's side

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket."""
        session = self._session
        limits = session.limits
        session.last_seen = limits.clock()
        if self._state != _OPEN or self._paused:
            self._hold(data)
        elif self._reader is not None:
            session.context.run(self._read, self._reader, data)
        else:
            frames, used, need = read_common(data, TURN_FRAMES, limits.max_message_bytes)
            if used < len(data):
                reader = self._use_reader()
                reader.keep(data[used:], need)
                if frames:
                    reader.unread(frames)
                elif need:
                    return
                session.context.run(self._read, reader)
            elif len(frames) == 1:
                session.context.run(session.receive, frames[0])
            else:
                session.context.run(self._take, iter(frames))

    def eof_received(self) -> bool:
        """The peer sends no more; without a close frame that is the end."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._state = _LOST
        self.writable = False
        self._rest = self._reader = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._server_connections.discard(self)
        if hasattr(self, "_session"):  # else it was lost before anybody had it
            self._session.connection_lost()

    def pause_writing(self) -> None:
        """The socket's buffer is over its high-water mark."""
        self._blocked = True
        self.writable = False
        self._session.write_blocked()

    def resume_writing(self) -> None:
        """The socket's buffer has drained."""
        self._blocked = False
        self._write_rest()
        session = self._session
        session.write_resumed()
        if self._state == _CLOSE_PENDING and self._rest is None and not session.has_waiting:
            self._send_close()

    def shutdown(self) -> None:
        """The server begins to shut down: the hub closes all its clients, paced."""
        self._session.server_stopping()

    # The hub's side

    def write(self, batch: Batch) -> None:
        """See `Transport.write`."""
        wire = batch.wire
        if len(wire) <= LARGE_WRITE_BYTES:
            self._socket.write(wire)
        else:
            # In pieces, so that an event loop that copies what it cannot send copies little.
            self._rest = memoryview(wire)
            self._write_rest()
            if not self.writable:
                self._session.write_blocked()

    def close(self, code: int, reason: str) -> None:
        """See `Transport.close`."""
        if self._state != _OPEN:
            return
        self._state = _CLOSE_PENDING
        self._close_frame = (code, reason)
        self._end_within(self._session.limits.write_timeout_s or CLOSE_TIMEOUT_S)
        if self._rest is None and not self._session.has_waiting:
            self._send_close()
        else:
            self._stop_reading()

    def abort(self) -> None:
        """See `Transport.abort`."""
        self._socket.abort()

    def ping(self) -> bool:
        """See `Transport.ping`. A socket with a frame half written gets none: it must take that."""
        if self._rest is None and self._state == _OPEN:
            self._socket.write(_PING)
        return True

    def pause_reading(self) -> None:
        """See `Transport.pause_reading`."""
        self._is_stopped = True
        self._pause()

    def resume_reading(self) -> None:
        """See `Transport.resume_reading`."""
        self._is_stopped = False
        self._read_on_soon()

    def write_progress(self) -> int:
        """See `Transport.write_progress`."""
        rest = 0 if self._rest is None else len(self._rest)
        return rest + self._socket.get_write_buffer_size()

    # Reading

    def _stop_reading(self) -> None:
        if not self._socket.is_closing() and self._socket.is_reading():
            self._socket.pause_reading()

    def _start_reading(self) -> None:
        if not self._socket.is_closing() and not self._socket.is_reading():
            self._socket.resume_reading()

    def _pause(self) -> None:
        self._paused = True
        self._stop_reading()

    def _read_on_soon(self) -> None:
        if not self._will_read_on:  # a second call would take a second share of each turn
            self._will_read_on = True
            asyncio.get_running_loop().call_soon(self._read_on, context=self._session.context)

    def _read_on(self) -> None:
        self._will_read_on = False
        reader = self._reader
        if self._state == _CLOSING:
            if reader is not None:
                self._start_reading()
                self._find_close(reader)
        elif self._paused and not self._is_stopped:
            self._paused = False
            if self._state == _OPEN:
                self._start_reading()
                if reader is not None:
                    self._read(reader)

    def _rest_a_turn(self) -> None:
        """Let the others have their turn before more is taken from this socket."""
        if self._state == _OPEN and not self._paused:
            self._pause()
            self._read_on_soon()

    def _use_reader(self) -> FrameReader:
        if self._reader is None:
            limit = self._session.limits.max_message_bytes
            self._reader = FrameReader(limit, deflates=self.deflates)
        return self._reader

    def _hold(self, data: bytes) -> None:
        """Keep bytes while reading is paused; in them may be the close frame of a client that we close."""
        if self._state == _CLOSING and not self._will_read_on:
            self._find_close(self._use_reader(), data)
        elif self._state in (_OPEN, _CLOSE_PENDING, _CLOSING):
            self._use_reader().keep(data)

    def _read(self, reader: FrameReader, data: bytes = b"") -> None:
        """Take what the reader has kept, and `data`, as far as one turn may."""
        inflating = self._session.limits.inflating if self.deflates else None
        left = TURN_FRAMES
        while left > 0 and self._state == _OPEN and not self._paused:
            may_inflate = inflating is None or not inflating.is_spent
            events = reader.read(data, left, may_inflate=may_inflate)
            if inflating is not None and inflating.charge(reader.inflated):
                asyncio.get_running_loop().call_soon(inflating.renew)
            self._take(iter(events))
            if not reader.has_more:
                break
            data, left = b"", reader.left
        if reader.is_idle or self._state in (_FAILED, _LOST):
            self._reader = None
        elif left <= 0:
            self._rest_a_turn()

    def _take(self, events: Iterator[Event]) -> None:
        """Act on events; give back to the reader what comes after one that pauses or closes."""
        receive = self._session.receive
        for event in events:
            if type(event) is Frame:
                receive(event)
            else:
                self._take_other(event)
            if self._paused or self._state != _OPEN:
                rest = list(events)
                if rest and (self._state == _OPEN or self._reader is not None):
                    self._use_reader().unread(rest)
                return

    def _take_other(self, event: Event) -> None:
        """Act on what is no message; the session is asked first whether it may cost anything."""
        if isinstance(event, (Ping, Pong)):
            if self._session.charge_frame(droppable=True) and isinstance(event, Ping):
                self._write_control(header(_PONG, len(event.payload)) + event.payload)
        elif isinstance(event, PeerClose):
            self._answer_close(event)
        elif isinstance(event, Violation):
            self._fail(event)
        elif event is Due.FRAGMENT:
            self._session.charge_frame(droppable=False)

    # The end

    def _fail(self, violation: Violation) -> None:
        """Tell the peer what it did wrong, and give it a moment to read it (section 7.1.7)."""
        self._session.flush()
        self._state = _FAILED
        self.writable = False
        self._write_last(violation.wire)
        self._end_within(LINGER_S)
        if self._socket.can_write_eof():
            self._socket.write_eof()
        self._session.violated(violation.code, violation.reason)

    def _answer_close(self, close: PeerClose) -> None:
        """The peer sent a close frame: echo its close frame and end (section 7.1.1)."""
        self._session.flush()
        self._state = _FAILED
        self.writable = False
        self._write_last(close.echo)
        if self._socket.get_write_buffer_size():
            self._end_within(LINGER_S)
        self._socket.close()
        self._session.closed(Close(close.code, close.reason))

    def _send_close(self) -> None:
        assert self._close_frame is not None
        self.writable = False
        self._state = _CLOSING
        self._write_last(close_frame(*self._close_frame))
        self._paused = self._is_stopped = False
        self._start_reading()
        if self._reader is not None:
            # Later: asyncio's transport must not be closed within `resume_writing`.
            self._read_on_soon()

    def _find_close(self, reader: FrameReader, data: bytes = b"") -> None:
        """After our close frame: drop all but the peer's own (section 7.1.2)."""
        if reader.find_close(data, CLOSING_BYTES):
            self._state = _FAILED
            self._reader = None
            self._socket.close()
        elif reader.has_more:
            # Who floods goes on flooding for as long as the close may take.
            self._stop_reading()
            self._read_on_soon()

    # Writing

    def _write_rest(self) -> None:
        rest = self._rest
        while rest is not None and not self._blocked:
            self._rest = rest[PIECE_BYTES:] if len(rest) > PIECE_BYTES else None
            self._socket.write(rest[:PIECE_BYTES])
            rest = self._rest
        if rest is None and self._after and not self._blocked:
            self._socket.write(self._after)
            self._after = b""
        self.writable = (
            rest is None and not self._blocked and self._state in (_OPEN, _CLOSE_PENDING)
        )

    def _write_control(self, out: bytes) -> None:
        """Write a pong, but never into the middle of a frame, and not to a peer that takes nothing.

        Of several that wait the last is enough (RFC 6455 section 5.5.3): whoever sends pings and
        does not read fills nobody's memory.
        """
        if self._rest is None and not self._blocked:
            self._socket.write(out)
        else:
            self._after = out

    def _write_last(self, out: bytes) -> None:
        """Write the last frame of the connection, after the frame that is being written."""
        if self._rest is not None:
            self._socket.write(self._rest)
            self._rest = None
        self._socket.write(out)

    def _end_within(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._socket.abort)


class DeflatingTransport(NativeTransport):
    """The socket of a client that negotiated permessage-deflate without context takeover.

    It holds nothing that other sockets do not: its reader inflates, and ends with the message.
    """

    __slots__ = ()
    deflates = True
