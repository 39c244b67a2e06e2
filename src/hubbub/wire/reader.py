"""The reader: bytes of RFC 6455 from one peer in, messages and control frames out.

What must not live here: sockets, a hub, a clock, an event loop; whatever has to be asked of anybody
(may this client send so many pings?) or done (answer them). The native transport calls it.

`read_common` is the function that a compiled lane could replace: it has no state, and takes the
frames that nearly all are: final, masked, text or binary in one piece under 64 KiB. Whatever else
comes is left to a `FrameReader`. That reads right control frames, inflates common frames, and leaves
the rest to the Sans-IO core of `websockets`, which rules on RFC 6455.

A reader exists while something is pending: part of a frame, the fragments of a message, what a turn
has left over. A connection that waits for its next message needs none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from ..errors import ABNORMAL, INVALID_DATA, MESSAGE_TOO_BIG, NO_STATUS, is_sendable
from ..limits import too_big
from .deflate import Inflater, inflate, slack_bytes
from .frame import Frame, header

try:
    from websockets.speedups import apply_mask as apply_mask
except ImportError:  # pragma: no cover - the C extension is part of every wheel
    from websockets.utils import apply_mask as apply_mask

CORE_FRAME_COST = 8
"""For how many common frames one counts that is none: it goes through the core, or is inflated."""
COST_BYTES = 4096
"""So many inflated bytes count as one common frame more: a thousand bytes may become a megabyte."""
LONGEST_CONTROL_BYTES = 125
"""The longest payload of a control frame (RFC 6455 section 5.5)."""

_CLOSE = 0x8
_CLOSE_FRAME, _PING_FRAME, _PONG_FRAME = 0x88, 0x89, 0x8A
_CONTROL = frozenset((_CLOSE_FRAME, _PING_FRAME, _PONG_FRAME))
"""The first bytes of control frames: final, no reserved bits."""
_COMMON = frozenset((0x81, 0x82))
_DEFLATED = frozenset((0xC1, 0xC2))
_OPCODES = frozenset(int(opcode) for opcode in Opcode)
_CONTROL_BIT = 0x08  # of an opcode
_FIN_BIT = 0x80
_TINY_BYTES = 126
"""A fragment shorter than this, and not the last, is of no use to anybody."""
NOT_UTF8 = "invalid UTF-8 in a text message"
# Not from logging's own book, where a configuration for "hubbub" would reset its level: the core's
# DEBUG lines show what clients send.
CORE_LOGGER = logging.Logger("hubbub.websockets", logging.WARNING)
CORE_LOGGER.parent = logging.getLogger("hubbub")


class _Core(ServerProtocol):
    """The core; of a message that is too large it says what every transport says."""

    max_message_bytes: int | None = None

    def fail(self, code: int, reason: str = "") -> None:
        """Fail the connection (RFC 6455 section 7.1.7)."""
        super().fail(code, too_big(self.max_message_bytes) if code == MESSAGE_TOO_BIG else reason)


@dataclass(slots=True)
class Ping:
    """A ping; its payload is owed back."""

    payload: bytes


@dataclass(slots=True)
class Pong:
    """A pong."""

    payload: bytes


@dataclass(slots=True)
class PeerClose:
    """The peer's close frame. `echo` is the frame that answers it. Nothing comes after it."""

    code: int
    reason: str
    echo: bytes


@dataclass(slots=True)
class Violation:
    """The peer broke RFC 6455 or the limit. Nothing comes after it.

    `wire` is the close frame that says so.
    """

    code: int
    reason: str
    wire: bytes


class Due(Enum):
    """What has to be paid for before it is read."""

    FRAGMENT = "fragment"
    """A fragment that is tiny, and not the last of its message. It is read by the next `read`."""


Event = Frame | Ping | Pong | PeerClose | Violation | Due


def close_frame(code: int, reason: str) -> bytes:
    """Return the close frame of a server (RFC 6455 section 5.5.1)."""
    payload = code.to_bytes(2) + reason.encode()
    return header(_CLOSE, len(payload)) + payload


def read_common(
    data: bytes | bytearray, budget: int, limit: int | None
) -> tuple[list[Frame], int, int]:
    """Take common frames from the beginning of `data`, `budget` of them at most.

    Returns the messages; how many bytes they were; and how many bytes the next frame needs, if it
    is common and not whole yet (else 0). It stops at the first frame that is not common, not whole,
    longer than `limit` or not UTF-8: what that is, a `FrameReader` finds out.
    """
    frames: list[Frame] = []
    position = need = 0
    end = len(data)
    while end - position >= 2 and budget > 0:
        first, second = data[position], data[position + 1]
        if (first != 0x81 and first != 0x82) or not 0x80 <= second < 0xFF:
            break
        length = second - 0x80
        start = position + 6
        if length == 126:
            if end - position < 4:
                break
            length = data[position + 2] << 8 | data[position + 3]
            start = position + 8
        if limit is not None and length > limit:
            break
        stop = start + length
        if stop > end:
            need = stop - position
            break
        payload = apply_mask(data[start:stop], data[start - 4 : start])
        if first == 0x81:
            try:
                text = payload.decode()
            except UnicodeDecodeError:
                break
            frames.append(Frame(payload, True, text))
        else:
            frames.append(Frame(payload, False))
        position = stop
        budget -= 1
    return frames, position, need


class FrameReader:
    """What one peer sends, read as it comes.

    What it owes: in the order of their bytes, however those are cut, whole messages (`Frame`:
    unmasked, UTF-8 checked, fragments joined, inflated if `deflates`, at most `limit` bytes) and
    control frames (`Ping`, `Pong`, `PeerClose`); or a `Violation`, as soon as the bytes cannot become
    right any more. It keeps what is not whole, one message at most, and what is beyond the budget.

    What it is owed: after `PeerClose` and `Violation` nothing is read. What is `Due` is paid before
    the next `read`; for a client that cannot pay there is none. Who cannot take the rest of a list
    gives it back (`unread`). Who has sent a close frame calls `find_close` from then on.

    A list of events ends with the first that is no common frame, so that nothing costly is done
    ahead of what the caller makes of it. Each `read` sets:

    `is_idle`   nothing is pending: a new reader would do as well
    `has_more`  there is more to read: at once, if some of the budget is `left`, else in the next turn
    `left`      what is left of the budget: a common frame costs 1, any other `CORE_FRAME_COST`, and
                1 for every `COST_BYTES` inflated; it may end below 0
    `inflated`  how many bytes this call has inflated
    """

    __slots__ = (
        "_core",
        "_deflates",
        "_frame_limit",
        "_is_paid",
        "_is_text",
        "_kept",
        "_limit",
        "_message",
        "_need",
        "_unread",
        "has_more",
        "inflated",
        "is_idle",
        "left",
    )

    def __init__(self, limit: int | None, *, deflates: bool = False) -> None:
        self._limit = limit
        self._deflates = deflates
        self._frame_limit = limit
        if deflates and limit is not None:
            self._frame_limit = limit + slack_bytes(limit)
        self._kept = bytearray()
        self._need = 0  # so many bytes have to be there before it is worth while to look
        self._core: ServerProtocol | None = None
        self._message: bytearray | None = None
        self._is_text = False
        self._is_paid = False
        self._unread: list[Event] = []
        self.has_more: bool = False
        self.is_idle: bool = True
        self.left: int = 0
        self.inflated: int = 0

    def keep(self, data: bytes, need: int = 0) -> None:
        """Keep `data` for the next `read`, which finds nothing unless `need` bytes are there."""
        self._kept += data
        self._need = need
        self.is_idle = False

    def unread(self, events: Iterable[Event]) -> None:
        """Take back the last events of the last `read`: the next one begins with them."""
        self._unread = [*events, *self._unread]
        self.is_idle = False

    def read(
        self, data: bytes | bytearray, budget: int, *, may_inflate: bool = True
    ) -> list[Event]:
        """Take `data`; return what comes next in it and in what was kept.

        Unless it `may_inflate`, it stops before a frame that it may have to inflate.
        """
        self.inflated = 0
        self.has_more = False
        kept = self._kept
        if kept or self._unread:
            kept += data
            data = kept
        events: list[Event] = []
        used = 0
        if self._unread:
            events, self._unread = self._unread, events
            budget -= len(events)
            self.has_more = True
        elif data and len(data) >= self._need:
            self._need = 0
            if self._message is None and budget > 0 and data[0] in _COMMON:
                frames, used, self._need = read_common(data, budget, self._limit)
                events += frames
                budget -= len(frames)
            if budget <= 0:
                self.has_more = used < len(data)
            elif not self._need and len(data) - used >= 2:
                if self._deflates and not may_inflate and not data[used] & _CONTROL_BIT:
                    self.has_more, budget = True, 0
                elif size := self._read_rare(data, used, events):
                    used += size
                    budget -= CORE_FRAME_COST + self.inflated // COST_BYTES
                    self.has_more = used < len(data)
            if self._message is None and not self.has_more:
                self._core = None
        self.left = budget
        if data is kept:
            del kept[:used]
        elif used < len(data):
            kept += data[used:]
        self.is_idle = not kept and self._message is None
        return events

    def find_close(self, data: bytes | bytearray, most: int) -> bool:
        """After our close frame: drop all but the peer's own (RFC 6455 section 7.1.2).

        Looks through what was kept and `data`, at most `most` bytes; `has_more` tells whether some
        are left. Returns whether the close frame has come, or a violation, which is as good.
        """
        kept = self._kept
        kept += data
        unread, self._unread = self._unread, []
        core = self._use_core()
        core.receive_data(bytes(kept[:most]))
        core.events_received()
        core.data_to_send()
        del kept[:most]
        self.has_more = bool(kept)
        is_read = bool(unread) and isinstance(unread[-1], (PeerClose, Violation))
        return is_read or core.close_rcvd is not None or core.parser_exc is not None

    def _read_rare(self, data: bytes | bytearray, at: int, events: list[Event]) -> int:
        """Take the frame that begins `at`; return its size, 0 if it is not whole, or has to wait."""
        first, second = data[at], data[at + 1]
        if first in _CONTROL and 0x80 <= second < 0xFE:
            return self._read_control(data, at, events)
        if (
            first in _DEFLATED
            and 0x80 <= second < 0xFF
            and self._deflates
            and self._message is None
        ):
            size = self._read_deflated(data, at, events)
            if size:
                return size
        return self._read_slow(data, at, events)

    def _read_control(self, data: bytes | bytearray, at: int, events: list[Event]) -> int:
        """Take a control frame (RFC 6455 section 5.5); a close frame that is wrong is the core's."""
        first, start = data[at], at + 6
        stop = start + data[at + 1] - 0x80
        if stop > len(data):
            self._need = stop - at
            return 0
        payload = apply_mask(data[start:stop], data[start - 4 : start])
        if first == _PING_FRAME:
            events.append(Ping(payload))
        elif first == _PONG_FRAME:
            events.append(Pong(payload))
        elif (close := _read_close(payload)) is not None:
            events.append(close)
        else:
            self._feed(self._new_core(self._longest(first)), data[at:stop], events)
        return stop - at

    def _read_deflated(self, data: bytes | bytearray, at: int, events: list[Event]) -> int:
        """Inflate the common frame here: a whole message, right and under 64 KiB.

        Browsers send nothing else, and the core takes seven times as long. What is faulty, too
        large, or not whole yet is left to it.
        """
        length = data[at + 1] - 0x80
        start = at + 6
        if length == 126:
            length = int.from_bytes(data[at + 2 : at + 4])
            start = at + 8
        stop = start + length
        limit = self._frame_limit
        if stop > len(data) or (limit is not None and length > limit):
            return 0
        payload = inflate(apply_mask(data[start:stop], data[start - 4 : start]), self._limit)
        if payload is None:
            return 0
        self.inflated += len(payload)
        self._end_message(Frame(payload, data[at] == 0xC1), events)
        return stop - at

    def _read_slow(self, data: bytes | bytearray, at: int, events: list[Event]) -> int:
        """Give one frame to the core, a tiny fragment only when it is paid for.

        Of a frame that is wrong from its header on (unmasked, unknown opcode, too large) the core
        gets the header alone, and answers with the right close code.
        """
        first, second = data[at], data[at + 1]
        limit = self._longest(first)
        length = second & 0x7F
        size = 2
        if second & 0x80 and (first & 0x0F) in _OPCODES:
            head = 2 if length < 126 else 4 if length == 126 else 10
            if len(data) - at < head:
                self._need = head
                return 0
            if head > 2:
                length = int.from_bytes(data[at + 2 : at + head])
            is_over = limit is not None and length > limit
            size = head if is_over else head + 4 + length
        if len(data) - at < size:
            self._need = size
            return 0
        if not first & (_FIN_BIT | _CONTROL_BIT) and length < _TINY_BYTES and not self._is_paid:
            self._is_paid = self.has_more = True
            events.append(Due.FRAGMENT)
            return 0
        self._is_paid = False
        # RFC 6455 section 5.4: a control frame may stand between fragments and is no part of their
        # message. The core thinks otherwise, so such a frame gets one of its own.
        core = self._new_core(limit) if first & _CONTROL_BIT else self._use_core()
        self._feed(core, data[at : at + size], events)
        return size

    # The core's lane

    def _longest(self, first: int) -> int | None:
        """Return how long the frame that begins with `first` may be: what its message has left."""
        limit = self._frame_limit
        if limit is None:
            return None
        if first & _CONTROL_BIT:
            return max(limit, LONGEST_CONTROL_BYTES)
        return limit if self._core is None else limit - (self._core.current_size or 0)

    def _use_core(self) -> ServerProtocol:
        if self._core is None:
            self._core = self._new_core(self._frame_limit)
            if self._deflates:
                self._core.extensions = [Inflater((self._frame_limit or 0) - (self._limit or 0))]
        return self._core

    def _new_core(self, limit: int | None) -> ServerProtocol:
        core = _Core(state=OPEN, max_size=limit, logger=CORE_LOGGER)
        core.max_message_bytes = self._limit
        return core

    def _feed(self, core: ServerProtocol, data: bytes | bytearray, events: list[Event]) -> None:
        core.receive_data(bytes(data))
        for event in core.events_received():
            if isinstance(event, WireFrame):
                self._take_event(event, events)
        out = b"".join(core.data_to_send())
        if core.parser_exc is not None:
            close = core.close_sent
            code, reason = (ABNORMAL, "") if close is None else (int(close.code), close.reason)
            events.append(Violation(code, reason, out))
        elif core.close_rcvd is not None:
            events.append(PeerClose(int(core.close_rcvd.code), core.close_rcvd.reason, out))

    def _take_event(self, event: WireFrame, events: list[Event]) -> None:
        if event.opcode is Opcode.TEXT or event.opcode is Opcode.BINARY:
            self._is_text = event.opcode is Opcode.TEXT
            self._message = bytearray(event.data)
        elif event.opcode is Opcode.CONT and self._message is not None:
            self._message += event.data
        else:
            if event.opcode is Opcode.PING or event.opcode is Opcode.PONG:
                kind = Ping if event.opcode is Opcode.PING else Pong
                events.append(kind(bytes(event.data)))
            return
        if self._deflates:
            self.inflated += len(event.data)
        if event.fin:
            frame = Frame(bytes(self._message), self._is_text)
            self._message = None
            self._end_message(frame, events)

    def _end_message(self, frame: Frame, events: list[Event]) -> None:
        """RFC 6455 section 8.1: a text message that is not UTF-8 fails the connection."""
        if frame.is_text and not frame.has_text():
            wire = close_frame(INVALID_DATA, NOT_UTF8)
            events.append(Violation(INVALID_DATA, NOT_UTF8, wire))
        else:
            events.append(frame)


def _read_close(payload: bytes) -> PeerClose | None:
    """Return what a close frame says; None if it is wrong (RFC 6455 section 5.5.1)."""
    code, reason = NO_STATUS, ""
    if payload:
        try:
            code, reason = int.from_bytes(payload[:2]), payload[2:].decode()
        except UnicodeDecodeError:
            return None
        if len(payload) < 2 or not is_sendable(code):
            return None
    return PeerClose(code, reason, header(_CLOSE, len(payload)) + payload)
