"""The native transport: a socket of uvicorn's after the hub took it.

What must not live here: rooms, limits, handlers, the handshake (`protocol_uvicorn`, which makes a
`NativeTransport` when a hub has accepted).

The split of work on inbound bytes: this module finds the frame boundaries, and reads the common
frames itself: final, masked, text or binary in one piece under 64 KiB, and right control frames.
Every other frame, whole, and every violation goes to the Sans-IO core of `websockets`, which rules
on RFC 6455.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from ..errors import ABNORMAL, INVALID_DATA, MESSAGE_TOO_BIG, NO_STATUS, is_sendable
from ..limits import too_big
from ..model import Close
from ..wire.frame import Batch, Frame, header

try:
    from websockets.speedups import apply_mask as apply_mask
except ImportError:  # pragma: no cover - the C extension is part of every wheel
    from websockets.utils import apply_mask as apply_mask

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
CORE_FRAME_COST = 8
"""For how many common frames one counts that goes through the core, or is inflated."""
COST_BYTES = 4096
"""So many inflated bytes count as one common frame more: a thousand bytes may become a megabyte."""
CLOSING_BYTES = 512
"""How many bytes one turn looks through for the close frame of a client that we have closed."""

LONGEST_CONTROL_BYTES = 125
"""The longest payload of a control frame (RFC 6455 section 5.5)."""

_PING = b"\x89\x00"
_CLOSE, _PONG = 0x8, 0xA
_CLOSE_FRAME, _PING_FRAME, _PONG_FRAME = 0x88, 0x89, 0x8A
_CONTROL = frozenset((_CLOSE_FRAME, _PING_FRAME, _PONG_FRAME))
"""The first bytes of control frames: final, no reserved bits."""
CONTROL_BIT = 0x08  # of an opcode
_FIN_BIT = 0x80
_TINY_BYTES = 126
"""A fragment shorter than this, and not the last, is of no use to anybody."""
# Not from logging's own book, where a configuration for "hubbub" would reset its level: the core's
# DEBUG lines show what clients send.
CORE_LOGGER = logging.Logger("hubbub.websockets", logging.WARNING)
CORE_LOGGER.parent = logging.getLogger("hubbub")

_OPEN, _CLOSE_PENDING, _CLOSING, _FAILED, _LOST = range(5)
# _CLOSE_PENDING: a close frame is owed after what still waits; _CLOSING: it is sent, the peer's is
# awaited; _FAILED: the connection has failed, the peer may still read why.


class _Core(ServerProtocol):
    """The core; of a message that is too large it says what every transport says."""

    max_message_bytes: int | None = None

    def fail(self, code: int, reason: str = "") -> None:
        """Fail the connection (RFC 6455 section 7.1.7)."""
        super().fail(code, too_big(self.max_message_bytes) if code == MESSAGE_TOO_BIG else reason)


class NativeTransport(asyncio.Protocol):
    """One client's socket, from the end of its handshake to its end. See `transport.Transport`."""

    __slots__ = (
        "_after",
        "_blocked",
        "_buffer",
        "_close_frame",
        "_core",
        "_extra_cost",
        "_is_stopped",
        "_is_text",
        "_message",
        "_need",
        "_paused",
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
        self._buffer: bytearray | None = None
        self._need = 0
        self._core: ServerProtocol | None = None
        self._extra_cost = 0
        self._message: bytearray | None = None
        self._is_text = False
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
        session.last_seen = session.limits.clock()
        if self._state != _OPEN:
            self._keep_tail(data)
            return
        buffer = self._buffer
        if buffer is None and not self._paused:
            session.context.run(self._parse, data)
            return
        buffer = self._keep(data)
        if len(buffer) >= self._need and not self._paused:
            self._buffer = None
            session.context.run(self._parse, buffer)

    def eof_received(self) -> bool:
        """The peer sends no more; without a close frame that is the end."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._state = _LOST
        self.writable = False
        self._rest = None
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

    def progress(self) -> int:
        """See `Transport.progress`."""
        rest = 0 if self._rest is None else len(self._rest)
        return rest + self._socket.get_write_buffer_size()

    # Reading

    def _stop_reading(self) -> None:
        if not self._socket.is_closing() and self._socket.is_reading():
            self._socket.pause_reading()

    def _start_reading(self) -> None:
        if not self._socket.is_closing() and not self._socket.is_reading():
            self._socket.resume_reading()

    def _keep(self, data: bytes | bytearray) -> bytearray:
        buffer = self._buffer
        if buffer is None:
            buffer = self._buffer = bytearray(data)
        else:
            buffer += data
        return buffer

    def _pause(self) -> None:
        self._paused = True
        self._stop_reading()

    def _read_on_soon(self) -> None:
        if not self._will_read_on:  # a second call would take a second share of each turn
            self._will_read_on = True
            asyncio.get_running_loop().call_soon(self._read_on, context=self._session.context)

    def _read_on(self) -> None:
        self._will_read_on = False
        if not self._paused or self._is_stopped:
            return
        self._paused = False
        if self._state != _OPEN:
            return
        self._start_reading()
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self._parse(buffer)

    def _parse(self, data: bytes | bytearray) -> None:
        """Take frame after frame from `data`; keep what is not whole yet."""
        position = self._need = 0
        left = TURN_FRAMES
        end = len(data)
        session = self._session
        receive = session.receive
        limit = session.limits.max_message_bytes
        while end - position >= 2 and self._state == _OPEN and not self._paused:
            first, second = data[position], data[position + 1]
            if (first == 0x81 or first == 0x82) and 0x80 <= second < 0xFF and self._message is None:
                length = second - 0x80
                start = position + 6
                if length == 126:
                    if end - position < 4:
                        break
                    length = data[position + 2] << 8 | data[position + 3]
                    start = position + 8
                if limit is None or length <= limit:
                    stop = start + length
                    if stop > end:
                        self._need = stop - position
                        break
                    position = stop
                    left -= 1
                    if left <= 0:
                        self._rest_a_turn()
                    payload = apply_mask(data[start:stop], data[start - 4 : start])
                    if first == 0x82:
                        receive(Frame(payload, False))
                        continue
                    try:
                        text = payload.decode()
                    except UnicodeDecodeError:
                        self._fail_utf8()
                    else:
                        receive(Frame(payload, True, text))
                    continue
            used = self._read_control_or_slow(data, position, end)
            if used == 0:
                break
            position += used
            left -= CORE_FRAME_COST + self._extra_cost
            self._extra_cost = 0
            if left <= 0:
                self._rest_a_turn()
        if self._message is None and self._state == _OPEN:
            self._core = None
        if position < end:
            self._keep_tail(data[position:])

    def _keep_tail(self, tail: bytes | bytearray) -> None:
        """Keep what is not taken yet; in it may be the close frame of a client that we close."""
        if self._state == _CLOSING and self._buffer is None:
            self._await_close(tail)
        elif self._state in (_OPEN, _CLOSE_PENDING, _CLOSING):
            self._keep(tail)

    def _rest_a_turn(self) -> None:
        """Let the others have their turn before more is taken from this socket."""
        if self._state == _OPEN and not self._paused:
            self._pause()
            self._read_on_soon()

    def _read_control_or_slow(self, data: bytes | bytearray, position: int, end: int) -> int:
        """Take one frame of any other kind; return its size, 0 if it is not whole."""
        first, second = data[position], data[position + 1]
        if first not in _CONTROL or not 0x80 <= second < 0xFE:
            return self._read_slow(data, position, end)
        size = 6 + second - 0x80
        if end - position < size:
            self._need = size
            return 0
        start, stop = position + 6, position + size
        payload = apply_mask(data[start:stop], data[start - 4 : start])
        if not self._handle_control(first, payload):
            self._feed(self._new_core(self._longest(first)), bytes(data[position:stop]))
        return size

    def _handle_control(self, first: int, payload: bytes) -> bool:
        """Take a whole control frame (RFC 6455 section 5.5); False leaves it to the core."""
        if first in (_PONG_FRAME, _PING_FRAME):
            is_admitted = self._session.charge_frame(droppable=True)
            if first == _PING_FRAME and is_admitted:
                self._write_control(header(_PONG, len(payload)) + payload)
            return True
        code, reason = NO_STATUS, ""
        if payload:
            try:
                code, reason = int.from_bytes(payload[:2]), payload[2:].decode()
            except UnicodeDecodeError:
                return False
            if len(payload) < 2 or not is_sendable(code):
                return False
        self._answer_close(code, reason, header(_CLOSE, len(payload)) + payload)
        return True

    def _read_slow(self, data: bytes | bytearray, position: int, end: int) -> int:
        """Give one frame to the core; return its size, 0 if it is not whole.

        Of a frame that is wrong from its header on (unmasked, unknown opcode, too large) the core
        gets the header alone, and answers with the right close code.
        """
        first, second = data[position], data[position + 1]
        limit = self._longest(first)
        length = second & 0x7F
        size = 2
        if second & 0x80 and (first & 0x0F) in _OPCODES:
            header = 2
            if length >= 126:
                header = 4 if length == 126 else 10
                if end - position < header:
                    self._need = header
                    return 0
                length = int.from_bytes(data[position + 2 : position + header])
            is_over = limit is not None and length > limit
            size = header if is_over else header + 4 + length
        if end - position < size:
            self._need = size
            return 0
        # RFC 6455 section 5.4: a control frame may stand between fragments and is no part of their
        # message. The core thinks otherwise, so such a frame gets one of its own.
        core = self._new_core(limit) if first & CONTROL_BIT else self._use_core()
        is_tiny = not first & (_FIN_BIT | CONTROL_BIT) and length < _TINY_BYTES
        if not is_tiny or self._session.charge_frame(droppable=False):
            self._feed(core, bytes(data[position : position + size]))
        return size

    # The core's lane

    def _use_core(self) -> ServerProtocol:
        if self._core is None:
            self._core = self._new_core(self._frame_limit())
        return self._core

    def _frame_limit(self) -> int | None:
        return self._session.limits.max_message_bytes

    def _new_core(self, limit: int | None) -> ServerProtocol:
        core = _Core(state=OPEN, max_size=limit, logger=CORE_LOGGER)
        core.max_message_bytes = self._session.limits.max_message_bytes
        return core

    def _longest(self, first: int) -> int | None:
        """Return how long the frame that begins with `first` may be: what its message has left."""
        limit = self._frame_limit()
        if limit is None:
            return None
        if first & CONTROL_BIT:
            return max(limit, LONGEST_CONTROL_BYTES)
        return limit if self._core is None else limit - (self._core.current_size or 0)

    def _feed(self, core: ServerProtocol, data: bytes) -> None:
        core.receive_data(data)
        for event in core.events_received():
            if isinstance(event, WireFrame) and self._state == _OPEN:
                self._take_event(event)
        if self._state != _OPEN:
            return
        out = b"".join(core.data_to_send())
        if core.parser_exc is not None:
            self._fail(core, out)
        elif core.close_rcvd is not None:
            close = core.close_rcvd
            self._answer_close(int(close.code), close.reason, out)
        else:
            if out:
                self._write_control(out)

    def _take_event(self, event: WireFrame) -> None:
        opcode = event.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            self._is_text = opcode is Opcode.TEXT
            self._message = bytearray(event.data)
        elif opcode is Opcode.CONT and self._message is not None:
            self._message += event.data
        else:
            return
        if event.fin:
            frame = Frame(bytes(self._message), self._is_text)
            self._message = None
            if self._is_text and not frame.has_text():
                self._fail_utf8()
            else:
                self._session.receive(frame)

    def _fail_utf8(self) -> None:
        """RFC 6455 section 8.1: a text message that is not UTF-8 fails the connection."""
        core = self._use_core()
        core.fail(INVALID_DATA, "invalid UTF-8 in a text message")
        self._fail(core, b"".join(core.data_to_send()))

    def _fail(self, core: ServerProtocol, out: bytes) -> None:
        """Tell the peer what it did wrong, and give it a moment to read it (section 7.1.7)."""
        self._session.flush()
        code, reason = ABNORMAL, ""
        if core.close_sent is not None:
            code, reason = int(core.close_sent.code), core.close_sent.reason
        self._state = _FAILED
        self.writable = False
        self._write_last(out)
        self._end_within(LINGER_S)
        if self._socket.can_write_eof():
            self._socket.write_eof()
        self._session.violated(code, reason)

    def _answer_close(self, code: int, reason: str, echo: bytes) -> None:
        """The peer sent a close frame: echo its close frame and end (section 7.1.1)."""
        self._session.flush()
        self._state = _FAILED
        self.writable = False
        self._write_last(echo)
        if self._socket.get_write_buffer_size():
            self._end_within(LINGER_S)
        self._socket.close()
        self._session.closed(Close(code, reason))

    def _send_close(self) -> None:
        assert self._close_frame is not None
        code, reason = self._close_frame
        self.writable = False
        self._state = _CLOSING
        core = self._use_core()
        core.send_close(code, reason)
        self._write_last(b"".join(core.data_to_send()))
        self._paused = self._is_stopped = False
        self._start_reading()
        if self._buffer is not None:
            # Later: asyncio's transport must not be closed within `resume_writing`.
            asyncio.get_running_loop().call_soon(self._await_on)

    def _await_close(self, data: bytes | bytearray) -> None:
        """After our close frame: drop all but the peer's own (section 7.1.2)."""
        core = self._use_core()
        core.receive_data(data[:CLOSING_BYTES])
        core.events_received()
        core.data_to_send()
        if core.close_rcvd is not None or core.parser_exc is not None:
            self._state = _FAILED
            self._socket.close()
        elif len(data) > CLOSING_BYTES:
            # Who floods goes on flooding for as long as the close may take.
            self._buffer = bytearray(data[CLOSING_BYTES:])
            self._stop_reading()
            asyncio.get_running_loop().call_soon(self._await_on)

    def _await_on(self) -> None:
        buffer, self._buffer = self._buffer, None
        if self._state == _CLOSING and buffer is not None:
            self._start_reading()
            self._await_close(buffer)

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


_OPCODES = frozenset(int(opcode) for opcode in Opcode)
