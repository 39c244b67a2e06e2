"""A socket that comes back: what every connection of a client program stands on.

What must not live here: what is said over the socket (`plain_connection`, `room_connection`), what the
keywords may be (`options`), how a socket is opened (`handshake`), and the rules of when to come back
(`retry`). Not thread-safe: a connection belongs to one event loop.

The states, and what moves between them; what an end means is decided in `failures.outcome_of`:

    connecting --open enough to be used--> open
    connecting --failed or refused, may come back--> waiting
    connecting --failed or refused for good--> closed
    open --closed, may come back--> waiting
    open --closed for good--> closed
    waiting --delay over--> connecting
    any --close()--> closed

One task goes from attempt to attempt; while there is a socket a second one sends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Literal, NoReturn, Self

from ..errors import MAX_REASON_BYTES, NORMAL, Disconnected, is_sendable
from ..model import Close
from .client_socket import ClientSocket
from .failures import outcome_of
from .handshake import open_socket
from .options import Options
from .outcome import Outcome
from .retry import Backoff, RetryLimit

logger: logging.Logger = logging.getLogger("hubbub.connect")

State = Literal["connecting", "open", "waiting", "closed"]


class Reconnecting(ABC):
    """A connection that comes back by itself. A subclass says what is received and sent.

    It owes `_receive` and `_send_in_background`, calls `_set_open` when the connection can be used, and
    is told of ends by `_ended` and `_finished`.
    """

    def __init__(
        self,
        options: Options,
        backoff: Backoff,
        on_state: Callable[[State], object] | None = None,
    ) -> None:
        self.on_state = on_state
        self.last_close: Close | None = None
        self.retry_in_s: float | None = None
        self.subprotocol: str | None = None
        self._options = options
        self._backoff = backoff
        self._state: State = "connecting"
        self._change = asyncio.Event()
        self._retry_limit = RetryLimit()
        self._socket: ClientSocket | None = None
        self._opened_at: float | None = None
        self._runner: asyncio.Task[None] | None = None
        self._error: Disconnected | None = None
        self._is_closing = False

    @property
    def state(self) -> State:
        """What the connection does now: "connecting", "open", "waiting" or "closed"."""
        return self._state

    # What a subclass says.

    async def _prepare(self) -> None:  # noqa: B027 (not all have something to do)
        """Do what an attempt needs before there is a socket, within `open_timeout_s`."""

    @abstractmethod
    async def _receive(self, socket: ClientSocket) -> NoReturn:
        """Receive until the connection ends; raise what it ends with."""

    @abstractmethod
    async def _send_in_background(self, socket: ClientSocket) -> None:
        """Send until nothing more can be sent; `_wake` is called when that may be so."""

    def _ended(self, outcome: Outcome) -> None:  # noqa: B027 (not all have something to do)
        """Hear how an attempt or a connection ended."""

    def _finished(self) -> None:  # noqa: B027 (not all have something to do)
        """Hear that it is over for good, before the state is "closed"."""

    async def _tidy(self) -> None:  # noqa: B027 (not all have something to do)
        """Wait for what still runs, when no more attempt follows."""

    # Beginning and end.

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            raise RuntimeError(f"a {type(self).__name__} can be entered once; call connect() again")
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
        await self.close()

    async def wait_open(self) -> None:
        """Wait until the connection is open. Raises `Disconnected` if it is closed instead."""
        self._require_entered()
        await self._wait_until(lambda: self._state in ("open", "closed"))
        if self._state == "closed":
            raise self._closed_error()

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close for good; the iteration then ends without an error. A second call does nothing.

        What still waits to be sent is dropped: see the class. Raises `ValueError` for a code or a reason
        (over 123 bytes) that no close frame may carry; nothing has changed then.
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

    # The task behind it: one attempt after the other.

    async def _run(self) -> None:
        error: Disconnected | None = None
        try:
            outcome = await self._run_attempts()
            if not (self._is_closing or outcome.is_normal):
                error = outcome.as_error()
        finally:
            self._finish(error)
            await self._tidy()

    async def _run_attempts(self) -> Outcome:
        """Make one attempt after the other; return how the last one ended."""
        while True:
            self._set_state("connecting")
            outcome = await self._attempt()
            self.last_close = outcome.close
            self._ended(outcome)
            may_retry = self._retry_limit.allows(outcome) and self._options.reconnect
            if self._is_closing or not may_retry:
                return outcome
            await self._wait_to_retry(outcome)

    async def _attempt(self) -> Outcome:
        """Connect, and receive as long as it lasts. Whatever ends it becomes an outcome here."""
        try:
            async with asyncio.timeout(self._options.open_timeout_s) as limit:
                await self._prepare()
                socket = await open_socket(self._options)
            await self._use(socket)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                error = TimeoutError("no answer in time")
            return outcome_of(error)

    async def _use(self, socket: ClientSocket) -> NoReturn:
        """Receive and send until the connection ends, which raises what it ends with."""
        self._socket = socket
        self.subprotocol = socket.subprotocol
        # Beside the reading and not before it: two sides that both only write stop each other.
        sender = asyncio.create_task(self._send_in_background(socket), name="hubbub.connect.send")
        try:
            await self._receive(socket)
        finally:
            if self._opened_at is not None:
                self._backoff.record_uptime(time.monotonic() - self._opened_at)
            self._opened_at = None
            socket.transport.abort()
            await socket.wait_closed()
            self._wake()
            # Not cancelled: it ends by itself now, and knows whether its last message went out.
            await asyncio.wait([sender])
            self._socket = None

    def _set_open(self) -> None:
        """Note that the connection can be used from now on."""
        self._opened_at = time.monotonic()
        self._retry_limit.opened()
        self._set_state("open")

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
        self._finished()
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
