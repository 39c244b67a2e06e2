"""Plain messages over a connection that comes back: each is a text, bytes or JSON, and no more.

What must not live here: the connection itself (`reconnecting`), and rooms (`room_connection`). Programs
get one from `connect`, and `hubbub connect` does.

A message leaves the queue when the operating system has taken all its bytes (with TLS: all but 64
KiB): one that a broken connection took half of cannot have arrived, so it waits for the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TypeVar, overload

import msgspec
from websockets.exceptions import ConnectionClosed

from ..wire.frame import Frame, encode
from .client_socket import ClientSocket
from .offline_queue import OfflineQueue
from .options import Options
from .reconnecting import Reconnecting, State, logger
from .retry import Backoff

T = TypeVar("T")

MAX_INBOX_MESSAGES = 16
"""How many messages are read ahead of the program. Beyond it the socket is left unread, and the
server's rules for slow clients apply."""


class Connection(Reconnecting):
    """A connection that comes back: iterate over it to receive, `send` to send.

    Made by `connect`. Attributes to read: `state` ("connecting", "open", "waiting", "closed");
    `dropped`, how many messages were given to `send` and will never be sent; `last_close`, how the
    last connection or attempt ended (None: none did yet); `retry_in_s`, the delay that the state
    "waiting" began with (None in other states); `subprotocol`, what the server chose. What still waits
    in the queue when it is closed is dropped and counted: `flush` first if it matters, as the end of
    `async with` does by itself.
    """

    def __init__(
        self,
        options: Options,
        backoff: Backoff,
        queue: OfflineQueue,
        on_state: Callable[[State], object] | None = None,
    ) -> None:
        super().__init__(options, backoff, on_state)
        self.dropped: int = 0
        self._inbox: deque[str | bytes] = deque()
        self._queue = queue
        self._send_order = asyncio.Lock()
        self._is_first_written = False
        self._last_sent: Frame | None = None

    @property
    def queued(self) -> int:
        """How many messages wait for the next connection."""
        return len(self._queue)

    def __repr__(self) -> str:
        return f"<Connection {self._state}, {len(self._queue)} queued, {self.dropped} dropped>"

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.flush(self._options.close_timeout_s)
        await super().__aexit__(kind, error, traceback)

    def subscribe(self, *arguments: Any, **keywords: Any) -> NoReturn:
        """Raise `TypeError`: rooms need a connection of the dialect "centrifuge"."""
        raise TypeError(
            'a plain connection has no rooms; write  connect(url, dialect="centrifuge")  with the '
            'address of a route that has that dialect, as in hub.router(path, dialect="centrifuge")'
        )

    async def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until no message is queued, `timeout_s` seconds at most (None: no limit).

        Returns whether the operating system has taken all of them: False when the time is over, and
        when messages were dropped meanwhile.
        """
        self._require_entered()
        before = self.dropped
        try:
            async with asyncio.timeout(timeout_s):
                await self._wait_until(lambda: not self._queue or self._state == "closed")
        except TimeoutError:
            return False
        return not self._queue and self.dropped == before

    # Sending.

    async def send(self, data: Any) -> bool:
        """Send `str` as text, `bytes` as binary, anything else as JSON text.

        Returns True when the operating system has taken the message, False when it is queued for
        the next connection; a message that the queue has no room for is dropped, which `dropped`
        counts. Waits while the socket takes nothing. Raises `Disconnected` when the connection is
        closed for good before the message was sent, `TypeError` or `ValueError` for what cannot be
        encoded. A `send` that is cancelled while it waits for others has sent nothing; after that
        the message goes out all the same.

        The promise is at most once, in order. A message that the operating system had not taken
        when a connection broke waits for the next one. What it had taken, and what the server had
        not read yet, may be lost.
        """
        self._require_entered()
        frame = encode(data)
        async with self._send_order:
            self._require_not_ended()
            self._queue.append(frame)
            if self._socket is not None:
                await self._send_queued(self._socket)
            if self._last_sent is frame:
                return True
            self._require_not_ended()
            self._count_dropped(self._queue.trim(), "the offline queue is full")
        return False

    async def _send_queued(self, socket: ClientSocket) -> None:
        """Send what is queued as long as the socket is open. The caller holds `_send_order`."""
        try:
            while self._queue:
                if not self._is_first_written:
                    if socket.is_over:
                        return
                    frame = self._queue.first
                    await socket.send(frame.payload, text=frame.is_text)  # does not wait
                    self._is_first_written = True
                # Whoever is cancelled here leaves the rest to `_send_in_background`.
                if socket.paused:
                    await socket.drained()
                self._is_first_written = False
                if socket.has_lost_bytes or not self._queue:  # empty: closed for good meanwhile
                    return
                self._last_sent = self._queue.take()
        except ConnectionClosed:
            logger.debug("the connection closed while a message was on its way")
        finally:
            self._wake()

    async def _send_in_background(self, socket: ClientSocket) -> None:
        """Send what no caller of `send` waits for: what was queued before the connection was open,
        and what a cancelled `send` left.
        """
        while not socket.is_over:
            await self._wait_until(lambda: self._queue or socket.is_over)
            async with self._send_order:
                await self._send_queued(socket)

    def _count_dropped(self, count: int, why: str) -> None:
        # A warning for the first and then for every power of two: never silent, never a flood.
        before, self.dropped = self.dropped, self.dropped + count
        if before.bit_length() != self.dropped.bit_length():
            logger.warning("%s: %d messages dropped so far", why, self.dropped)

    async def ping(self) -> bool:
        """Send a ping and wait for its pong: all that was sent before has arrived then.

        Returns False when no connection is open, or when it ends before the pong comes.
        """
        self._require_entered()
        try:
            if (socket := self._socket) is None:
                return False
            await (await socket.ping())
        except ConnectionClosed:
            return False
        return True

    # Receiving.

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        return self

    async def __anext__(self) -> str | bytes:
        self._require_entered()
        await self._wait_until(lambda: bool(self._inbox) or self._state == "closed")
        if self._inbox:
            message = self._inbox.popleft()
            self._wake()
            return message
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    @overload
    def json(self) -> AsyncIterator[Any]: ...

    @overload
    def json(self, kind: type[T]) -> AsyncIterator[T]: ...

    @overload
    def json(self, kind: Any) -> AsyncIterator[Any]: ...

    def json(self, kind: Any = Any) -> AsyncIterator[Any]:
        """Iterate over the messages as JSON, validated as `kind` (a msgspec Struct, say).

        A message that is not JSON, or not of that kind, raises `msgspec.DecodeError` or
        `msgspec.ValidationError`, both `ValueError`; the iteration may be taken up again.
        """
        return _JsonMessages(self, msgspec.json.Decoder(kind))

    async def _receive(self, socket: ClientSocket) -> NoReturn:
        self._set_open()
        while True:
            message = await socket.recv()
            await self._wait_until(self._has_room)
            self._inbox.append(message)
            self._wake()

    def _has_room(self) -> bool:
        return len(self._inbox) < MAX_INBOX_MESSAGES or self._is_closing

    def _finished(self) -> None:
        self._count_dropped(self._queue.clear(), "closed with messages in the queue")


class _JsonMessages(Generic[T]):
    """The messages of a connection, decoded. A class, so that a bad message does not end it."""

    def __init__(self, connection: Connection, decoder: msgspec.json.Decoder[T]) -> None:
        self._connection = connection
        self._decoder = decoder

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return self._decoder.decode(await self._connection.__anext__())
