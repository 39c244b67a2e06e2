"""One client of a load: its handshake, and a cheap way to read what it gets.

What must not live here: counting (`accounting`), who sends when (`worker`, which owns the
sockets). RFC 6455 belongs to the client core of `websockets`; the common frame alone (final,
unmasked, text or binary) is read here, as `transports.uvicorn` does on the server's side.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.typing import Origin, Subprotocol
from websockets.uri import parse_uri

from ..errors import ABNORMAL, NORMAL
from .accounting import DeliveryTracker, Marker, Receiver

MAX_MESSAGE_BYTES = 64 * 1024**2
MAX_ANSWER_BYTES = 64 * 1024
"""How long the head of the answer to a handshake may be."""
MAX_UNSENT_BYTES = 4 * 1024**2
"""How much may wait for a server that does not read; what is due then is held back."""

_HEAD_END = b"\r\n\r\n"
_OPCODES = frozenset(int(opcode) for opcode in Opcode)
_logger = logging.Logger("hubbub.bench", logging.CRITICAL)


class Refusal(Exception):
    """A client was not let in: `status` is the HTTP status, or None when there was no answer."""

    def __init__(self, why: str, status: int | None = None) -> None:
        self.why = why
        self.status = status
        super().__init__(why)


class Listener(Protocol):
    """Who owns the sockets: it has the tracker of the phase, and is told of an end."""

    tracker: DeliveryTracker

    def opened(self, socket: LoadSocket) -> None:
        """A handshake was accepted."""

    def ended(self, socket: LoadSocket, code: int) -> None:
        """A socket that was open has ended; `code` is the server's close code, or 1006."""


class LoadSocket(asyncio.Protocol):
    """A WebSocket client that counts instead of keeping what it gets.

    `opened` is a future: it is done when the handshake is, or fails with a `Refusal`.
    """

    def __init__(
        self,
        listener: Listener,
        receiver: Receiver,
        core: ClientProtocol,
        opened: asyncio.Future[None],
    ) -> None:
        self.receiver = receiver
        self._listener = listener
        self._core = core
        self._opened = opened
        self._socket: asyncio.Transport
        self._rest: bytes | None = b""  # None: the handshake is done and nothing waits
        self._is_live = False
        self._is_leaving = False
        self._parts: list[bytes] | None = None

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there: ask for a WebSocket."""
        self._socket = cast(asyncio.Transport, transport)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if self._rest is None:
            tracker = self._listener.tracker
            if data == tracker.chunk:
                tracker.record(self.receiver, tracker.markers, tracker.others, len(data))
                return
            self._parse(data)
            return
        data = self._rest + data
        self._rest = None
        if self._is_live:
            self._parse(data)
        else:
            self._read_answer(data)

    def eof_received(self) -> bool:
        """The server sends no more: that may be the end of a refusal's body."""
        if not self._is_live:
            self._core.receive_eof()
            self._check_refusal()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if not self._opened.done():
            why = str(exc) if exc else "the server closed the connection without an answer"
            self._opened.set_exception(Refusal(why))
        if self._is_live and self.receiver.is_open:
            self.receiver.is_open = False
            if not self._is_leaving:
                close = self._core.close_rcvd
                self._listener.ended(self, int(close.code) if close else ABNORMAL)

    # The worker's side

    def can_send(self) -> bool:
        """Tell whether the server reads what it is sent."""
        return self._socket.get_write_buffer_size() <= MAX_UNSENT_BYTES

    def send(self, message: bytes) -> None:
        """Send a text message."""
        if not self._socket.is_closing():
            self._socket.write(Frame(Opcode.TEXT, message).serialize(mask=True))

    def leave(self) -> None:
        """Begin the closing handshake."""
        self._is_leaving = True
        if self._is_live and self._core.state is OPEN and not self._socket.is_closing():
            self._core.send_close(NORMAL)
            self._flush()

    def abort(self) -> None:
        """End the connection now."""
        self._is_leaving = True
        self._socket.abort()

    def _flush(self) -> None:
        for piece in self._core.data_to_send():
            if piece:
                self._socket.write(piece)

    # The handshake

    def _read_answer(self, data: bytes) -> None:
        head, found, rest = data.partition(_HEAD_END)
        if not found:
            if len(data) > MAX_ANSWER_BYTES:
                self._refuse(Refusal("the answer to the handshake is no HTTP"))
                return
            self._rest = data
            return
        self._core.receive_data(head + found)
        if self._core.state is OPEN:
            self._core.events_received()
            self._is_live = True
            if not self._opened.done():
                self._opened.set_result(None)
            if rest:
                self._parse(rest)
            return
        # A refusal: the core reads its body, to its end.
        self.data_received = self._read_body  # type: ignore[method-assign]
        self._read_body(rest)

    def _read_body(self, data: bytes) -> None:
        self._core.receive_data(data)
        self._check_refusal()

    def _check_refusal(self) -> None:
        error = self._core.handshake_exc
        if error is None:
            return
        if isinstance(error, InvalidStatus):
            response = error.response
            self._refuse(Refusal(response.reason_phrase, response.status_code))
        else:
            self._refuse(Refusal(str(error)))

    def _refuse(self, refusal: Refusal) -> None:
        if not self._opened.done():
            self._opened.set_exception(refusal)
        self._socket.abort()

    # Frames

    def _parse(self, data: bytes) -> None:
        """Take frame after frame; keep what is not whole yet."""
        tracker = self._listener.tracker
        damaged = tracker.counters.damaged
        position, end = 0, len(data)
        markers: list[Marker] = []
        others = 0
        is_plain = True
        while end - position >= 2:
            first, length = data[position], data[position + 1]
            start = position + 2
            if (first == 0x81 or first == 0x82) and length < 127 and self._parts is None:
                if length == 126:
                    if end - position < 4:
                        break
                    length = data[start] << 8 | data[start + 1]
                    start += 2
                stop = start + length
                if stop > end:
                    break
                marker = tracker.read(data, start, stop)
                position = stop
            else:
                used = self._frame_size(data, position, end)
                if used == 0:
                    break
                is_plain = False
                message = self._feed(data[position : position + used])
                position += used
                if message is None:
                    continue
                marker = tracker.read(message, 0, len(message))
            if marker is None:
                others += 1
            else:
                markers.append(marker)
        if position < end:
            self._rest = data[position:]
        elif is_plain and damaged == tracker.counters.damaged:
            tracker.remember(data, tuple(markers), others)
        tracker.record(self.receiver, markers, others, position)

    def _frame_size(self, data: bytes, position: int, end: int) -> int:
        """Return the size of a frame for the core, 0 when it is not whole.

        Of a frame that is wrong from its header on (masked, unknown opcode, too large) the core
        gets the header alone, and answers with the right close code.
        """
        first, second = data[position], data[position + 1]
        if second & 0x80 or (first & 0x0F) not in _OPCODES:
            return 2
        length, header = second, 2
        if second >= 126:
            header = 4 if second == 126 else 10
            if end - position < header:
                return 0
            length = int.from_bytes(data[position + 2 : position + header])
        size = header if length > MAX_MESSAGE_BYTES else header + length
        return size if end - position >= size else 0

    def _feed(self, data: bytes) -> bytes | None:
        """Give a frame to the core; return the message that it ends."""
        core = self._core
        core.receive_data(data)
        whole: bytes | None = None
        for event in core.events_received():
            if isinstance(event, Frame):
                whole = self._take_event(event) or whole
        if not self._socket.is_closing():
            self._flush()
            if core.close_rcvd is not None or core.parser_exc is not None:
                self._socket.close()
        return whole

    def _take_event(self, event: Frame) -> bytes | None:
        if event.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._parts = []
        if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT) and self._parts is not None:
            self._parts.append(bytes(event.data))
            if event.fin:
                whole, self._parts = b"".join(self._parts), None
                return whole
        return None


def make_core(
    url: str, headers: Mapping[str, str], origin: str | None, subprotocols: Sequence[str]
) -> ClientProtocol:
    """Return a core that has asked for a WebSocket; no extension is offered."""
    core = ClientProtocol(
        parse_uri(url),
        origin=None if origin is None else Origin(origin),
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        max_size=MAX_MESSAGE_BYTES,
        logger=_logger,
    )
    request = core.connect()
    request.headers["User-Agent"] = "hubbub bench"
    for name, value in headers.items():
        if name in request.headers:
            del request.headers[name]
        request.headers[name] = value
    core.send_request(request)
    return core
