"""The Python client: `hubbub.connect(url)`, a connection that comes back by itself.

What must not live here: anything of the server's side, WebSocket frames (they belong to the
`websockets` library), and the rules of when to come back, which are in `connect_rules`. Programs
call it, and so does `hubbub connect`. Not thread-safe: a connection belongs to one event loop.

The states, and what moves between them:

    connecting --handshake done--> open
    connecting --failed, or 429, 503--> waiting --delay over--> connecting
    connecting --401, 403--> closed
    open --closed, should_come_back(code)--> waiting
    open --closed for good--> closed
    any --close()--> closed
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import ssl as ssl_module
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, cast, overload

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.protocol import State as SocketState
from websockets.typing import Origin, Subprotocol

from . import connect_rules as rules
from .connect_rules import Backoff, Ending, OfflineQueue
from .errors import NORMAL, Disconnected, is_sendable
from .frame import encode
from .limits import printable
from .model import Close

__all__ = ["Backoff", "Connection", "State", "connect"]

logger: logging.Logger = logging.getLogger("hubbub.connect")

State = Literal["connecting", "open", "waiting", "closed"]
T = TypeVar("T")
Url = str | Callable[[], str | Awaitable[str]]
Headers = Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]

MAX_INBOX_MESSAGES = 16
"""How many messages are read ahead of the program. Beyond it the socket is left unread, and the
server's rules for slow clients apply."""


@dataclass(frozen=True, kw_only=True)
class _Options:
    """What `connect` was told; the names are those of its keywords."""

    headers: Headers | None
    subprotocols: Sequence[str] | None
    origin: str | None
    max_message_bytes: int | None
    open_timeout_s: float | None
    close_timeout_s: float
    ping_interval_s: float | None
    ping_timeout_s: float | None
    reconnect: bool
    proxy: str | Literal[True] | None
    ssl: ssl_module.SSLContext | None


def connect(
    url: Url,
    *,
    min_delay_s: float = 0.5,
    max_delay_s: float = 20.0,
    fixed_delay_s: float | None = None,
    max_queue: int = 100,
    max_queue_bytes: int = 2**20,
    headers: Headers | None = None,
    subprotocols: Sequence[str] | None = None,
    origin: str | None = None,
    max_message_bytes: int | None = 2**20,
    open_timeout_s: float | None = 10.0,
    close_timeout_s: float = 5.0,
    ping_interval_s: float | None = 20.0,
    ping_timeout_s: float | None = 20.0,
    reconnect: bool = True,
    proxy: str | Literal[True] | None = True,
    ssl: ssl_module.SSLContext | None = None,
    on_state: Callable[[State], object] | None = None,
) -> Connection:
    """Return a connection to a WebSocket server, to be used with `async with`.

        async with connect("ws://localhost:8080/ws") as connection:
            await connection.send({"type": "say", "text": "hello"})
            async for message in connection:
                print(message)

    `url` begins with ws:// or wss:// (http:// and https:// are taken for them), or is a function,
    plain or async, that returns it: it is called before every attempt, which is the place to
    refresh a token. If it raises `Disconnected` the connection ends with that; another exception
    counts as a failed attempt. `headers` are added to the handshake; a function here is called
    before every attempt too. `subprotocols` are offered in this order. `origin` is the Origin
    header (None: none, which servers take for "no browser").

    `min_delay_s`, `max_delay_s`, `fixed_delay_s`: see `Backoff`; all in seconds. `reconnect=False`
    makes one attempt and never comes back. `max_queue` messages of together `max_queue_bytes` are
    kept while offline (0: none); one more drops the oldest, which `connection.dropped` counts. `max_message_bytes` bounds an
    incoming message (None: no limit). `open_timeout_s` bounds an attempt (None: no limit),
    `close_timeout_s` a close. A ping is sent every `ping_interval_s` (None: never); a server that
    does not answer it within `ping_timeout_s` (None: for ever) is given up. `proxy`: True takes
    the system's, None none, a string is its address. `ssl` replaces the default TLS context.
    `on_state` is called with each new state.

    Raises `ValueError` for an address or a number that cannot be right. The network begins with
    `async with`, which waits for the first attempt, whether it succeeds or not; a refusal or an
    end for good is raised by the iteration, as `Disconnected`.
    """
    options = _Options(
        headers=headers,
        subprotocols=subprotocols,
        origin=origin,
        max_message_bytes=max_message_bytes,
        open_timeout_s=open_timeout_s,
        close_timeout_s=close_timeout_s,
        ping_interval_s=ping_interval_s,
        ping_timeout_s=ping_timeout_s,
        reconnect=reconnect,
        proxy=proxy,
        ssl=ssl,
    )
    return Connection(
        rules.websocket_url(url) if isinstance(url, str) else url,
        options,
        Backoff(min_delay_s, max_delay_s, fixed_delay_s),
        OfflineQueue(max_queue, max_queue_bytes),
        on_state,
    )


class Connection:
    """A connection that comes back: iterate over it to receive, `send` to send.

    Made by `connect`. Attributes to read: `state` ("connecting", "open", "waiting", "closed");
    `dropped`, how many messages were given to `send` and will never be sent; `last_close`, how the
    last connection or attempt ended (None: none did yet); `retry_in_s`, the delay that the state
    "waiting" began with (None in other states); `subprotocol`, what the server chose.
    """

    def __init__(
        self,
        url: Url,
        options: _Options,
        backoff: Backoff,
        queue: OfflineQueue,
        on_state: Callable[[State], object] | None = None,
    ) -> None:
        self.on_state = on_state
        self.dropped: int = 0
        self.last_close: Close | None = None
        self.retry_in_s: float | None = None
        self.subprotocol: str | None = None
        self._url = url
        self._options = options
        self._backoff = backoff
        self._state: State = "connecting"
        self._inbox: deque[str | bytes] = deque()
        self._queue = queue
        self._send_order = asyncio.Lock()
        self._change = asyncio.Event()
        self._socket: ClientConnection | None = None
        self._runner: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        self._is_closing = False

    @property
    def state(self) -> State:
        """What the connection does now: "connecting", "open", "waiting" or "closed"."""
        return self._state

    @property
    def queued(self) -> int:
        """How many messages wait for the next connection."""
        return len(self._queue)

    def __repr__(self) -> str:
        return f"<Connection {self._state}, {len(self._queue)} queued, {self.dropped} dropped>"

    # Beginning and end.

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            raise RuntimeError("a Connection can be entered once; call connect() again")
        self._runner = asyncio.create_task(self._run(), name="hubbub.connect")
        try:
            await self._until(lambda: self._state != "connecting")
        except asyncio.CancelledError:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.flush(self._options.close_timeout_s)
        await self.close()

    async def wait_open(self) -> None:
        """Wait until the connection is open. Raises `Disconnected` if it is closed instead."""
        self._require_entered()
        await self._until(lambda: self._state in ("open", "closed"))
        if self._state == "closed":
            raise self._closed_error()

    async def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until no message is queued; False after `timeout_s` seconds (None: no limit)."""
        self._require_entered()
        try:
            async with asyncio.timeout(timeout_s):
                await self._until(lambda: not self._queue or self._state == "closed")
        except TimeoutError:
            return False
        return not self._queue

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close for good; the iteration then ends without an error. A second call does nothing.

        What still waits in the queue is dropped and counted: `flush` first if it matters, as the
        end of `async with` does by itself. Raises `ValueError` for a code that no close frame may
        carry.
        """
        if not is_sendable(code):
            raise ValueError(f"code={code}: no close frame may carry it; 1000 or 3000-4999 may")
        runner, socket = self._runner, self._socket
        self._is_closing = True
        try:
            if socket is not None:
                self._wake()
                await socket.close(code, reason)
            elif runner is not None:
                runner.cancel()
            if runner is not None:
                await asyncio.wait([runner])
        except asyncio.CancelledError:
            if runner is not None:
                runner.cancel()
                await asyncio.wait([runner])
            raise
        finally:
            self._finish(None)

    # Sending.

    async def send(self, data: Any) -> bool:
        """Send `str` as text, `bytes` as binary, anything else as JSON text.

        Returns True when the message went into the open socket, False when it was queued for the
        next connection. Waits while the socket takes nothing. Raises `Disconnected` when the
        connection is closed for good. What was in flight when a connection broke may be lost: the
        promise is at most once, in order.
        """
        self._require_entered()
        frame = encode(data)
        async with self._send_order:
            if self._state == "closed" or self._is_closing:
                raise self._closed_error()
            self._queue.append(frame)
            await self._send_queued()
            is_sent = not self._queue
            self._count_dropped(self._queue.trim(), "the offline queue is full")
        return is_sent

    async def _send_queued(self) -> None:
        """Send what is queued as long as the socket is open. The caller holds `_send_order`."""
        while self._queue and (socket := self._socket) and socket.state is SocketState.OPEN:
            # Taken out first: from here on the bytes are written, whatever happens to the wait for
            # room behind them, and a message must not go out twice.
            frame = self._queue.take()
            try:
                await socket.send(frame.payload, text=frame.is_text)
            except ConnectionClosed:
                logger.debug("the connection closed while a message was on its way")
        if not self._queue:
            self._wake()

    async def _flush_queue(self) -> None:
        async with self._send_order:
            await self._send_queued()

    def _count_dropped(self, count: int, why: str) -> None:
        # A warning for the first and then for every power of two: never silent, never a flood.
        before, self.dropped = self.dropped, self.dropped + count
        if before.bit_length() != self.dropped.bit_length():
            logger.warning("%s: %d messages dropped so far", why, self.dropped)

    # Receiving.

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        return self

    async def __anext__(self) -> str | bytes:
        self._require_entered()
        await self._until(lambda: bool(self._inbox) or self._state == "closed")
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

    # The task behind it: one attempt after the other.

    async def _run(self) -> None:
        try:
            while True:
                self._become("connecting")
                ending = await self._attempt()
                self.last_close = ending.close
                if self._is_closing or not (ending.comes_back and self._options.reconnect):
                    break
                await self._wait(ending)
        except asyncio.CancelledError:
            self._finish(None)
            raise
        except Disconnected as error:  # what the function for the address may say
            self.last_close = Close(error.code, error.reason)
            self._finish(error)
            return
        except Exception as error:
            text = printable(str(error))
            logger.error("the connection ended: %s: %s", type(error).__name__, text)
            self._finish(error)
            return
        code, reason, _ = ending.close
        is_over = self._is_closing or code == NORMAL
        self._finish(None if is_over else Disconnected(code, reason))

    async def _attempt(self) -> Ending:
        try:
            async with asyncio.timeout(self._options.open_timeout_s):
                socket = await self._open()
        except InvalidStatus as error:
            return rules.refused(error.response)
        except TimeoutError:
            return rules.failed("no answer in time")
        except (OSError, InvalidHandshake) as error:
            return rules.failed(str(error))
        return await self._stay(socket)

    async def _open(self) -> ClientConnection:
        options = self._options
        url, headers = self._url, options.headers
        try:
            url = url if isinstance(url, str) else await _result(url)
            headers = await _result(headers) if callable(headers) else headers
        except (Disconnected, OSError):
            raise
        except Exception as error:
            raise OSError(f"the function for the address failed, {error!r}") from error
        url = rules.websocket_url(url)
        # An address without TLS takes no context, and one with TLS makes its own of True.
        tls: dict[str, Any] = {"ssl": options.ssl or True} if url.startswith("wss:") else {}
        return await open_websocket(
            url,
            additional_headers=headers,
            subprotocols=cast("Sequence[Subprotocol] | None", options.subprotocols),
            origin=cast("Origin | None", options.origin),
            max_size=options.max_message_bytes,
            open_timeout=None,
            close_timeout=options.close_timeout_s,
            ping_interval=options.ping_interval_s,
            ping_timeout=options.ping_timeout_s,
            proxy=options.proxy,
            **tls,
        )

    async def _stay(self, socket: ClientConnection) -> Ending:
        """Receive until the connection ends, and say how it did."""
        opened = time.monotonic()
        self._socket = socket
        self.subprotocol = socket.subprotocol
        # Beside the reading and not before it: two sides that both only write stop each other.
        flusher = asyncio.create_task(self._flush_queue(), name="hubbub.connect.flush")
        try:
            self._become("open")
            while True:
                message = await socket.recv()
                await self._until(self._has_room)
                self._inbox.append(message)
                self._wake()
        except ConnectionClosed as error:
            return rules.closed(error)
        finally:
            self._socket = None
            self._backoff.stood(time.monotonic() - opened)
            flusher.cancel()
            socket.transport.abort()
            await asyncio.wait([flusher])
            await socket.wait_closed()

    def _has_room(self) -> bool:
        return len(self._inbox) < MAX_INBOX_MESSAGES or self._is_closing

    async def _wait(self, ending: Ending) -> None:
        self.retry_in_s = delay = self._backoff.next_delay(ending.retry_after_s)
        code, reason, _ = ending.close
        # One warning for each time that it is lost; how the attempts go on is for those who ask.
        level = logging.WARNING if self._backoff.attempts == 1 else logging.INFO
        logger.log(level, "not connected: %d %r; next attempt in %.1f s", code, reason, delay)
        self._become("waiting")
        await asyncio.sleep(delay)
        self.retry_in_s = None

    def _finish(self, error: Exception | None) -> None:
        if self._state == "closed":
            return
        self._error = error
        self.retry_in_s = None
        self._count_dropped(self._queue.clear(), "closed with messages in the queue")
        self._become("closed")

    def _become(self, state: State) -> None:
        self._state = state
        self._wake()
        if self.on_state is None:
            return
        try:
            self.on_state(state)
        except Exception:
            logger.exception("on_state failed")

    # Waiting for one another.

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            await self._change.wait()

    def _wake(self) -> None:
        """Let everybody who waits in `_until` look again."""
        self._change.set()
        self._change = asyncio.Event()

    def _require_entered(self) -> None:
        if self._runner is None and self._state != "closed":
            raise RuntimeError("use it as  async with connect(url) as connection:")

    def _closed_error(self) -> Exception:
        return self._error or Disconnected(*(self.last_close or Close(NORMAL, "closed"))[:2])


class _JsonMessages(Generic[T]):
    """The messages of a connection, decoded. A class, so that a bad message does not end it."""

    def __init__(self, connection: Connection, decoder: msgspec.json.Decoder[T]) -> None:
        self._connection = connection
        self._decoder = decoder

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return self._decoder.decode(await self._connection.__anext__())


async def _result(function: Callable[[], T | Awaitable[T]]) -> T:
    result = function()
    if inspect.isawaitable(result):
        return cast("T", await result)
    return result
