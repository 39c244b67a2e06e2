"""The portable transport: any ASGI server, through `receive` and `send`.

What must not live here: handshakes (`asgi.endpoint`), rooms, handlers. One task per client reads beside the
ASGI call's own task, which writes.

What ASGI cannot do: pings (the server's own keep-alive decides who is dead), shared frames, and a
look at the socket's buffer. Backpressure is the `await` on `send`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from ..errors import (
    ABNORMAL,
    MESSAGE_TOO_BIG,
    NO_STATUS,
    SERVICE_RESTART,
    should_come_back,
)
from ..limits import too_big
from ..model import Close
from ..wire.frame import Batch, Frame

if TYPE_CHECKING:
    from .transport import Session

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

_LOOK_S = 1.0
"""While too many messages wait for a handler, as many again are taken this often. ASGI tells of the
end of a connection, and so of the server's own, only behind the messages that came before."""
_CLOSE_S = 1.0
"""How long a close may take when the server has cancelled the ASGI call."""


class ASGITransport:
    """One client's connection through an ASGI server. See `transport.Transport`."""

    deflates = False
    """Compression is the server's own business: it gets whole messages."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.writable: bool = True
        self.write_wire: Callable[[bytes], object] | None = None
        self._receive = receive
        self._send = send
        self._batch: Batch | None = None
        self._close_frame: tuple[int, str] | None = None
        self._is_over = False
        self._is_closing = False
        self._sent = 0
        self._wake: asyncio.Future[None] | None = None
        self._resumed: asyncio.Future[None] | None = None
        self._ahead = 0.0
        self._writing: asyncio.Task[Any] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def bind(self, session: Session) -> None:
        """See `Transport.bind`."""
        self._session = session

    async def run(self) -> None:
        """Serve the client until its connection ends. The ASGI call is this."""
        self._writing = asyncio.current_task()
        self._reading = asyncio.get_running_loop().create_task(self._read(), name="hubbub read")
        self._reading.add_done_callback(self._reading_ended)
        code = ABNORMAL
        try:
            await self._write_until_over()
        except asyncio.CancelledError:
            code = SERVICE_RESTART
            if not self._is_over:
                await self._send_close_quickly()
                raise
        finally:
            self.writable = False
            self._is_over = True
            if self._timer is not None:
                self._timer.cancel()
            # Before the next await: a cancelled scope of anyio's cancels that one as well.
            self._session.closed(Close(code))
            self._session.connection_lost()
            await self._stop_reading()

    # The hub's side

    def write(self, batch: Batch) -> None:
        """See `Transport.write`."""
        self._batch = batch
        self.writable = False
        self._session.write_blocked()
        self._wake_up()

    def close(self, code: int, reason: str) -> None:
        """See `Transport.close`."""
        if self._close_frame is None:
            self._close_frame = (code, reason)
            timeout_s = self._session.limits.write_timeout_s
            if timeout_s is not None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(timeout_s, self.abort)
            self._wake_up()

    def abort(self) -> None:
        """See `Transport.abort`. ASGI has no way to cut; the call ends, and the server closes."""
        if not self._is_over:
            self._is_over = True
            self._wake_up()
            if self._wake is None and self._writing is not None:  # it waits for the server's `send`
                self._writing.cancel()

    def ping(self) -> bool:
        """See `Transport.ping`: ASGI knows no pings."""
        return False

    def pause_reading(self) -> None:
        """See `Transport.pause_reading`."""
        self._ahead = 0.0
        self._resumed = asyncio.get_running_loop().create_future()

    def resume_reading(self) -> None:
        """See `Transport.resume_reading`."""
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)
        self._resumed = None

    def write_progress(self) -> int:
        """See `Transport.write_progress`."""
        return self._sent

    # Writing

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _write_until_over(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._is_over:
            if self._batch is not None:
                if not await self._write_batch(self._batch):
                    await self._await_the_end()
                    return
                self._batch = None
                self.writable = True
                self._session.write_resumed()
            elif self._is_closing and self._reading is not None:  # the reader has seen to it
                await asyncio.wait((self._reading,))
                return
            elif self._close_frame is not None:
                await self._stop_reading()
                await self._send_close(*self._close_frame)
                return
            else:
                self._wake = loop.create_future()
                await self._wake
                self._wake = None

    async def _await_the_end(self) -> None:
        """The peer takes no more. How it ended, the reader learns, perhaps later than the writer."""
        if self._reading is not None:
            await asyncio.wait((self._reading,), timeout=_CLOSE_S)

    async def _send_close(self, code: int, reason: str) -> None:
        # Nobody reads now: granian sends no close frame while the application waits in `receive`.
        if await self._try({"type": "websocket.close", "code": code, "reason": reason}):
            return
        # daphne refuses to send codes between 1001 and 2999, and the socket would stay open.
        base = 4000 if should_come_back(code) else 4500
        await self._try({"type": "websocket.close", "code": base + code % 500, "reason": reason})

    async def _send_close_quickly(self) -> None:
        """The server ends this call: hypercorn, at its own end."""
        if self._batch is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._stop_reading()
                    await self._send_close(SERVICE_RESTART, "service restart")

    async def _stop_reading(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _write_batch(self, batch: Batch) -> bool:
        for frame in batch.frames:
            event: Message = {"type": "websocket.send"}
            if frame.is_text:
                event["text"] = frame.text
            else:
                event["bytes"] = frame.payload
            if not await self._try(event):
                return False
            self._sent += 1
        return True

    async def _try(self, event: Message) -> bool:
        """Send one event; False when the client is gone. Servers raise what they like then."""
        try:
            await self._send(event)
        except Exception:
            return False
        return True

    # Reading

    def _reading_ended(self, reading: asyncio.Task[None]) -> None:
        """Close a client that nobody reads any more: a middleware's `receive` may raise what it likes."""
        if reading is self._reading and not self._is_over and self._close_frame is None:
            self._session.failed(None if reading.cancelled() else reading.exception())

    async def _read(self) -> None:
        session = self._session
        while not self._is_over:
            if self._resumed is not None and self._ahead <= 0:
                await asyncio.wait((self._resumed,), timeout=_LOOK_S)
                self._ahead = 1.0
            event = await self._receive()
            if self._resumed is None:  # else it is old news, and says nothing about the peer
                session.last_seen = session.limits.clock()
            if event["type"] == "websocket.disconnect":
                self._is_over = True
                code = event.get("code") or NO_STATUS
                session.closed(Close(code, event.get("reason") or ""))
                self._wake_up()
            elif event["type"] == "websocket.receive" and self._close_frame is None:
                self._take(event)
                if self._close_frame is not None:
                    await self._close_at_once(*self._close_frame)
                    return

    async def _close_at_once(self, code: int, reason: str) -> None:
        """A message has ended the connection: say so before the server reads on, if nothing goes first.

        A server answers pings behind messages that nobody takes any more, and the peer would believe that
        they have arrived.
        """
        if self._batch is None and not self._session.has_waiting:
            self._is_closing = True
            await self._send_close(code, reason)

    def _look_ahead(self, size: int) -> None:
        """Charge what is taken while reading has stopped: a part of what an inbox holds."""
        limits = self._session.limits
        self._ahead -= max(1 / limits.read_ahead_messages, size / limits.read_ahead_bytes)

    def _take(self, event: Message) -> None:
        text: str | None = event.get("text")
        if text is not None:
            frame = Frame(text.encode(), True)
        else:
            frame = Frame(bytes(event.get("bytes") or b""), False)
        if self._resumed is not None:
            self._look_ahead(len(frame.payload))
        limit = self._session.limits.max_message_bytes
        if limit is not None and len(frame.payload) > limit:
            self._session.flush()
            self.close(MESSAGE_TOO_BIG, too_big(limit))
            self._session.violated(MESSAGE_TOO_BIG, too_big(limit))
        else:
            self._session.receive(frame)
