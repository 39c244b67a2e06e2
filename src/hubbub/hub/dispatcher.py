"""Dispatcher: all that one connection, one message or one disconnect of a client may cause.

What must not live here: sockets, the tables (`registry`), how fast a client may send (`rates`), and
what becomes of an error (`handler_errors`). The session and the registry call it.

Handlers of one client run one at a time, in the order of arrival; different clients' handlers run
concurrently. A plain function runs in place. A coroutine that has to wait becomes a task, and what
the client sends meanwhile waits in its inbox, while pings and the end of the connection are taken.
All run in the context (see `contextvars`) of the client's handshake, or in a copy of it.

"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from ..dialects.dialect import RefreshDue
from ..errors import CommandError
from ..model import EVERYBODY, Close, Handshake
from ..stats import Stats
from ..wire.frame import Frame
from .handler_errors import HandlerErrors
from .handlers import Handlers
from .inbox import Inbox
from .signature import Function
from .tasks import is_being_cancelled

if TYPE_CHECKING:
    from .core import Core
    from .session import ClientSession


Failed = Callable[["ClientSession", BaseException], None]
"""What takes what a handler has raised."""

_ANSWERED: object = object()
"""The verdict on a message for which the validation raised: the client has its answer already."""


class Dispatcher:
    """Calls the application's handlers. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._handlers: Handlers = core.handlers
        self._settings = core.settings
        self._log = core.log
        self._errors: HandlerErrors = core.handler_errors
        self.stats: Stats = core.stats

    def connected(self, session: ClientSession, handshake: Handshake) -> None:
        """Run the connect handlers, one after another, before the client's first message.

        One that closes the client is the last: the others would meet a client that is gone.
        """
        session.is_handling = True
        try:
            self._run_connect(session, handshake)
        finally:
            if session.handler_task is None:
                self.handler_done(session)

    def _run_connect(self, session: ClientSession, handshake: Handshake) -> None:
        rest = self._start_connect(session, handshake)
        if rest is not None:
            self._wait(session, rest)

    def _start_connect(
        self, session: ClientSession, handshake: Handshake
    ) -> Coroutine[Any, Any, None] | None:
        """Run the connect handlers; return what is left to await, None when all is done."""
        return self._run_each(
            session,
            self._handlers.connect,
            (session.client, handshake),
            self._errors.not_connected,
            lambda: session.close is None,
        )

    def keep(self, session: ClientSession, frame: Frame) -> None:
        """Let a message wait for the running handler; stop the socket when too many do."""
        inbox = session.inbox
        if inbox is None:
            settings = self._settings
            inbox = session.inbox = Inbox(settings.inbox_max_messages, settings.inbox_max_bytes)
        if inbox.push(frame):
            session.transport.pause_reading()

    def take(self, session: ClientSession, frame: Frame) -> None:
        """Hand a message to its handler."""
        only = self._handlers.only
        if only is None:
            self._route(session, frame)
            return
        # The common hub has one handler. What follows is `_handle` and `_call`, written out.
        try:
            message = frame.text_seen if only.takes_text else None
            if message is None:
                message = only.decode(frame)
        except (Exception, asyncio.CancelledError) as error:  # nobody cancels a decoder
            self._errors.undecodable(session, error)
            return
        try:
            result = only.function(session.client, message)
            if result is None:
                return
            is_done = not hasattr(result, "__await__")
        except (Exception, asyncio.CancelledError) as error:
            self._errors.failed(session, error)
            return
        if is_done:
            self._errors.returned(only.function, result)
        else:
            self._wait(session, self._finish(session, result))

    def _route(self, session: ClientSession, frame: Frame) -> None:
        """Find the handler of a message by its type, after validation if there is one."""
        handlers = self._handlers
        if handlers.relays and handlers.validate is None:
            self._core.publishing.broadcast(EVERYBODY, frame)
            return
        try:
            function, message = handlers.route(frame)
        except (Exception, asyncio.CancelledError) as error:  # nobody cancels a decoder
            self._errors.undecodable(session, error)
            return
        if handlers.validate is not None:
            self._validate(session, frame, function, message)
        else:
            self._handle(session, frame, function, message)

    def disconnected(self, session: ClientSession) -> None:
        """Run the disconnect handlers of a client that has gone, after its own have ended.

        What it had sent before it left is still handled, unless the server closed the connection.
        The running handler is cancelled after `handler_grace_s`.
        """
        assert session.close is not None
        if session.close.by_server:
            self._drop_waiting(session)
        if session.handler_task is not None:
            self._limit(session, session.handler_task)
        elif not session.is_handling and self._handlers.disconnect:
            # In the context of the handshake, not in that of whoever ended the connection.
            session.context.copy().run(self._run_disconnect, session, session.close)
        # Else a handler takes its first step, or its only one; `handler_done` comes after it.

    def _limit(self, session: ClientSession, task: asyncio.Task[None]) -> None:
        """Give the handler of a client that has gone a bounded time to end."""
        grace_s = self._settings.handler_grace_s
        if grace_s is not None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(grace_s, self._cancel, session, task)
            task.add_done_callback(lambda _: timer.cancel())

    def _cancel(self, session: ClientSession, task: asyncio.Task[None]) -> None:
        if not task.done():
            self.stats.handlers_cancelled += 1
            text = "client %s has gone; its handler still ran after %g s and was cancelled"
            grace_s = self._settings.handler_grace_s
            self._log.log(logging.INFO, "cancelled", text, session.label, grace_s)
            task.cancel()

    def _drop_waiting(self, session: ClientSession) -> None:
        if session.inbox is not None:
            self.stats.unhandled += session.inbox.clear()

    def _run_disconnect(self, session: ClientSession, close: Close) -> None:
        arguments = (session.client, close)
        failed = self._errors.failed
        rest = self._run_each(session, self._handlers.disconnect, arguments, failed)
        if rest is not None:
            name = f"disconnect {session.label}"
            self._core.lifecycle.spawn(rest, name, is_last=True)

    def _run_each(
        self,
        session: ClientSession,
        functions: Sequence[tuple[Function, int]],
        arguments: tuple[Any, ...],
        failed: Failed,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> Coroutine[Any, Any, None] | None:
        """Call functions one after another; return what is left to await, None when all is done."""
        for position, (function, arity) in enumerate(functions):
            if not goes_on():
                return None
            result = self._call(session, function, arguments[:arity], failed)
            if result is not None:
                left = functions[position + 1 :]
                return self._run_rest(session, result, left, arguments, failed, goes_on)
        return None

    async def _run_rest(
        self,
        session: ClientSession,
        first: Awaitable[Any],
        functions: Sequence[tuple[Function, int]],
        arguments: tuple[Any, ...],
        failed: Failed,
        goes_on: Callable[[], bool],
    ) -> None:
        await self._finish(session, first, failed)
        for function, arity in functions:
            if not goes_on():
                return
            result = self._call(session, function, arguments[:arity], failed)
            if result is not None:
                await self._finish(session, result, failed)

    def drained(self, session: ClientSession, count: int) -> None:
        """Run the drop handlers: the client missed `count` messages and is writable again."""
        if session.close is None and self._handlers.drop:
            session.context.copy().run(self._notify_dropped, session, count)

    def request_refresh(self, session: ClientSession, left_s: float) -> None:
        """Ask a client for a new token, since its own ends in `left_s` seconds."""
        self._core.publishing.tell(session, RefreshDue(left_s))

    def _notify_dropped(self, session: ClientSession, count: int) -> None:
        for function in self._handlers.drop:
            result = self._call(session, function, (session.client, count))
            if result is not None:
                self._core.lifecycle.spawn(self._finish(session, result), f"drop {session.label}")

    def _validate(
        self, session: ClientSession, frame: Frame, function: Function | None, message: Any
    ) -> None:
        verdict = self._verdict(session, message)
        if hasattr(verdict, "__await__"):
            later = self._handle_later(session, frame, function, message, verdict)
            self._wait(session, later)
        elif self._is_accepted(session, verdict):
            self._handle(session, frame, function, message)

    def _verdict(self, session: ClientSession, message: Any) -> Any:
        """Ask the validation about a message; return its answer, which may have to be awaited."""
        validate = self._handlers.validate
        if validate is None:
            return True
        try:
            verdict = validate(session.client, message)
            hasattr(verdict, "__await__")  # an object of the application's may raise here too
        except (Exception, asyncio.CancelledError) as error:
            self._errors.invalid(session, error)
            return _ANSWERED
        return verdict

    def _is_accepted(self, session: ClientSession, verdict: Any) -> bool:
        """Tell whether a message goes on to its handler; answer if the validation said no."""
        if verdict is False:
            refusal = CommandError("invalid_message", "the message was refused")
            self._errors.reject(session, refusal)
        return verdict is not False and verdict is not _ANSWERED

    async def handle(self, session: ClientSession, frame: Frame) -> None:
        """Hand a message to its handler and wait until that has ended: one step of a longer task."""
        try:
            function, message = self._handlers.route(frame)
        except (Exception, asyncio.CancelledError) as error:  # nobody cancels a decoder
            self._errors.undecodable(session, error)
            return
        verdict = self._verdict(session, message)
        await self._handle_later(session, frame, function, message, verdict)

    async def _handle_later(
        self,
        session: ClientSession,
        frame: Frame,
        function: Function | None,
        message: Any,
        verdict: Any,
    ) -> None:
        """Wait for the validation's answer, if need be, and for the handler."""
        if hasattr(verdict, "__await__"):
            try:
                verdict = await verdict
            except asyncio.CancelledError as error:
                if is_being_cancelled():
                    raise
                self._errors.failed(session, error)  # only something that the validation awaited
                return
            except Exception as error:
                self._errors.invalid(session, error)
                return
        if not self._is_accepted(session, verdict):
            return
        if function is None:
            self._core.publishing.broadcast(EVERYBODY, frame)
            return
        result = self._call(session, function, (session.client, message))
        if result is not None:
            await self._finish(session, result)

    def _handle(
        self, session: ClientSession, frame: Frame, function: Function | None, message: Any
    ) -> None:
        if function is None:
            self._core.publishing.broadcast(EVERYBODY, frame)
            return
        result = self._call(session, function, (session.client, message))
        if result is not None:
            self._wait(session, self._finish(session, result))

    def _call(
        self,
        session: ClientSession,
        function: Function,
        arguments: tuple[Any, ...],
        failed: Failed | None = None,
    ) -> Awaitable[Any] | None:
        """Call a handler; return what has to be awaited, None when all is done.

        What it raises goes to `failed` (None: as ever).
        """
        try:
            result = function(*arguments)
            if result is None:
                return None
            is_done = not hasattr(result, "__await__")
        except (Exception, asyncio.CancelledError) as error:
            # Nobody cancels a call: the error is that of a future which the function has asked.
            (failed or self._errors.failed)(session, error)
            return None
        if is_done:
            self._errors.returned(function, result)
        return None if is_done else result

    async def _finish(
        self, session: ClientSession, result: Awaitable[Any], failed: Failed | None = None
    ) -> None:
        try:
            value = await result
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                raise
            # Only something that the handler awaited.
            (failed or self._errors.failed)(session, error)
        except Exception as error:
            (failed or self._errors.failed)(session, error)
        else:
            if value is not None and asyncio.iscoroutine(result):
                self._errors.returned(result, value)

    def _wait(self, session: ClientSession, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as the client's one task; its messages wait meanwhile."""
        task = self._core.lifecycle.spawn(work, f"handler {session.label}")
        if not task.done():
            session.handler_task = task
            task.add_done_callback(lambda _: self._ended(session, task), context=session.context)
            if session.close is not None:
                self._limit(session, task)

    def _ended(self, session: ClientSession, task: asyncio.Task[None]) -> None:
        session.handler_task = None
        if session.close is not None and task.cancelling():
            self._drop_waiting(session)
        if session.is_held:  # its socket was not read: its silence says nothing about it
            session.last_seen = max(session.last_seen, self._core.clock())
        self.handler_done(session)

    def handler_done(self, session: ClientSession) -> None:
        """Take what waits for the client's handler, until one waits again, or all is done."""
        while (inbox := session.inbox) is not None and session.handler_task is None:
            was_full = inbox.is_full
            frame = inbox.pop()
            if frame is None:
                session.inbox = None
            else:
                if was_full and not inbox.is_full:
                    session.transport.resume_reading()
                self.take(session, frame)
        if session.handler_task is None:
            session.is_handling = False
            if session.close is not None:
                self.disconnected(session)
