"""The Python client: `hubbub.connect(url)`, a connection that comes back by itself.

What must not live here: anything of the server's side, WebSocket frames (they belong to the
`websockets` library), what the keywords may be (`options`), how a socket is opened (`handshake`),
and the rules of when to come back (`retry`). Programs call it, and so does `hubbub connect`. Not
thread-safe: a connection belongs to one event loop.

The states, and what moves between them; what an end means is decided in `failures.outcome_of`:

    connecting --handshake done--> open
    connecting --failed or refused, may come back--> waiting --delay over--> connecting
    connecting --failed or refused for good--> closed
    open --closed, may come back--> waiting
    open --closed for good--> closed
    any --close()--> closed

One task goes from attempt to attempt; while a connection is open a second one sends what is queued.
A message leaves the queue when the operating system has taken all its bytes (with TLS: all but 64
KiB): one that a broken connection took half of cannot have arrived, so it waits for the next one.
"""

from __future__ import annotations

import asyncio
import logging
import ssl as ssl_module
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, Generic, Literal, NoReturn, Self, TypeVar, overload

import msgspec
from websockets.exceptions import ConnectionClosed

from ..errors import MAX_REASON_BYTES, NORMAL, Disconnected, is_sendable
from ..model import Close
from ..wire.frame import Frame, encode
from . import options as checks
from .client_socket import ClientSocket
from .failures import outcome_of
from .handshake import open_socket
from .offline_queue import OfflineQueue
from .options import Headers, Options, Proxy, Url
from .outcome import Outcome
from .retry import Backoff, RetryLimit

logger: logging.Logger = logging.getLogger("hubbub.connect")

State = Literal["connecting", "open", "waiting", "closed"]
T = TypeVar("T")

MAX_INBOX_MESSAGES = 16
"""How many messages are read ahead of the program. Beyond it the socket is left unread, and the
server's rules for slow clients apply."""


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
    proxy: Proxy = True,
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
    counts as a failed attempt; what is no address ends it. `headers` are added to the handshake; a
    function here is called before every attempt too. Redirects are followed, but another origin
    gets no `headers`. `subprotocols` are offered in this order. `origin` is the Origin header
    (None: none, which servers take for "no browser").

    `min_delay_s`, `max_delay_s`, `fixed_delay_s`: see `Backoff`; all in seconds. `reconnect=False`
    makes one attempt and never comes back. `max_queue` messages of together `max_queue_bytes` are
    kept while offline (0: none); one more drops the oldest, which `connection.dropped` counts.
    `max_message_bytes` bounds an incoming message (None: no limit). `open_timeout_s` bounds an
    attempt (None: no limit), `close_timeout_s` a close. A ping is sent every `ping_interval_s`
    (None: never); a server that does not answer it within `ping_timeout_s` (None: for ever) is
    given up. `proxy`: True takes
    the system's, None none, a string is its address. `ssl` replaces the default TLS context of
    wss:. `on_state` is called with each new state.

    Raises `TypeError` or `ValueError` for an argument that cannot be right; nothing else here does.
    The network begins with `async with`, which waits for the first attempt, whether it succeeds or
    not; a refusal or an end for good is raised by the iteration, as `Disconnected`, whatever it was
    that failed.
    """
    checks.state_option(on_state)
    options = Options(
        url=checks.url_option(url),
        headers=checks.headers_option(headers, origin),
        subprotocols=checks.subprotocols_option(subprotocols),
        origin=checks.origin_option(origin),
        max_message_bytes=max_message_bytes,
        open_timeout_s=open_timeout_s,
        close_timeout_s=close_timeout_s,
        ping_interval_s=ping_interval_s,
        ping_timeout_s=ping_timeout_s,
        reconnect=reconnect,
        proxy=checks.proxy_option(proxy),
        ssl=ssl,
    )
    return Connection(
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
        options: Options,
        backoff: Backoff,
        queue: OfflineQueue,
        on_state: Callable[[State], object] | None = None,
    ) -> None:
        self.on_state = on_state
        self.dropped: int = 0
        self.last_close: Close | None = None
        self.retry_in_s: float | None = None
        self.subprotocol: str | None = None
        self._options = options
        self._backoff = backoff
        self._state: State = "connecting"
        self._inbox: deque[str | bytes] = deque()
        self._queue = queue
        self._send_order = asyncio.Lock()
        self._change = asyncio.Event()
        self._retry_limit = RetryLimit()
        self._socket: ClientSocket | None = None
        self._runner: asyncio.Task[None] | None = None
        self._error: Disconnected | None = None
        self._is_closing = False
        self._is_first_written = False
        self._last_sent: Frame | None = None

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
            await self._wait_until(lambda: self._state != "connecting")
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
        await self._wait_until(lambda: self._state in ("open", "closed"))
        if self._state == "closed":
            raise self._closed_error()

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

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close for good; the iteration then ends without an error. A second call does nothing.

        What still waits in the queue is dropped and counted: `flush` first if it matters, as the
        end of `async with` does by itself. Raises `ValueError` for a code or a reason (over 123
        bytes) that no close frame may carry; nothing has changed then.
        """
        if not is_sendable(code):
            raise ValueError(f"code={code}: no close frame may carry it; 1000 or 3000-4999 may")
        if len(reason.encode()) > MAX_REASON_BYTES:
            raise ValueError(f"reason: a close frame holds {MAX_REASON_BYTES} bytes of it")
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
                if (
                    socket.paused
                ):  # whoever is cancelled here leaves the rest to `_send_in_background`
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

    # The task behind it: one attempt after the other.

    async def _run(self) -> None:
        error: Disconnected | None = None
        try:
            outcome = await self._run_attempts()
            if not (self._is_closing or outcome.is_normal):
                error = outcome.as_error()
        finally:
            self._finish(error)

    async def _run_attempts(self) -> Outcome:
        """Make one attempt after the other; return how the last one ended."""
        while True:
            self._set_state("connecting")
            outcome = await self._attempt()
            self.last_close = outcome.close
            may_retry = self._retry_limit.allows(outcome) and self._options.reconnect
            if self._is_closing or not may_retry:
                return outcome
            await self._wait_to_retry(outcome)

    async def _attempt(self) -> Outcome:
        """Connect, and receive as long as it lasts. Whatever ends it becomes an outcome here."""
        try:
            async with asyncio.timeout(self._options.open_timeout_s) as limit:
                socket = await open_socket(self._options)
            await self._receive_until_closed(socket)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                error = TimeoutError("no answer in time")
            return outcome_of(error)

    async def _receive_until_closed(self, socket: ClientSocket) -> NoReturn:
        """Receive until the connection ends, which raises `ConnectionClosed`."""
        opened = time.monotonic()
        self._socket = socket
        self.subprotocol = socket.subprotocol
        self._retry_limit.opened()
        # Beside the reading and not before it: two sides that both only write stop each other.
        sender = asyncio.create_task(self._send_in_background(socket), name="hubbub.connect.send")
        try:
            self._set_state("open")
            while True:
                message = await socket.recv()
                await self._wait_until(self._has_room)
                self._inbox.append(message)
                self._wake()
        finally:
            self._backoff.record_uptime(time.monotonic() - opened)
            socket.transport.abort()
            await socket.wait_closed()
            self._wake()
            # Not cancelled: it ends by itself now, and knows whether its last message went out.
            await asyncio.wait([sender])
            self._socket = None

    def _has_room(self) -> bool:
        return len(self._inbox) < MAX_INBOX_MESSAGES or self._is_closing

    async def _wait_to_retry(self, outcome: Outcome) -> None:
        self.retry_in_s = delay = self._backoff.next_delay(outcome.retry_after_s)
        code, reason, _ = outcome.close
        # One warning for each time that it is lost; how the attempts go on is for those who ask.
        level = logging.WARNING if self._backoff.attempts == 1 else logging.INFO
        logger.log(level, "not connected: %d %r; next attempt in %.1f s", code, reason, delay)
        self._set_state("waiting")
        await asyncio.sleep(delay)
        self.retry_in_s = None

    def _finish(self, error: Disconnected | None) -> None:
        if self._state == "closed":
            return
        self._error = error
        self.retry_in_s = None
        self._count_dropped(self._queue.clear(), "closed with messages in the queue")
        self._set_state("closed")

    def _set_state(self, state: State) -> None:
        self._state = state
        self._wake()
        if self.on_state is None:
            return
        try:
            self.on_state(state)
        except Exception:
            logger.exception("on_state failed")

    # Waiting for one another.

    async def _wait_until(self, is_so: Callable[[], object]) -> None:
        while not is_so():
            await self._change.wait()

    def _wake(self) -> None:
        """Let everybody who waits in `_wait_until` look again."""
        self._change.set()
        self._change = asyncio.Event()

    def _require_entered(self) -> None:
        if self._runner is None and self._state != "closed":
            raise RuntimeError("use it as  async with connect(url) as connection:")

    def _require_not_ended(self) -> None:
        if self._state == "closed" or self._is_closing:
            raise self._closed_error()

    def _closed_error(self) -> Disconnected:
        close = None if self._is_closing else self.last_close
        return self._error or Disconnected(*(close or Close(NORMAL, "closed"))[:2])


class _JsonMessages(Generic[T]):
    """The messages of a connection, decoded. A class, so that a bad message does not end it."""

    def __init__(self, connection: Connection, decoder: msgspec.json.Decoder[T]) -> None:
        self._connection = connection
        self._decoder = decoder

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return self._decoder.decode(await self._connection.__anext__())
