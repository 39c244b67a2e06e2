"""Dispatcher: all that one connection, one message or one disconnect of a client may cause.

What must not live here: sockets, and the tables (`registry`). The session and the registry call it.

Handlers of one client run one at a time, in the order of arrival; different clients' handlers run
concurrently. A plain function runs in place. A coroutine that has to wait becomes a task, and what
the client sends meanwhile waits in its inbox, while pings and the end of the connection are taken.
All run in the context (see `contextvars`) of the client's handshake, or in a copy of it.

What a handler may raise, and what becomes of it, is decided in one place: `_handler_failed`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from ..dialects.dialect import ErrorReply, Event, RefreshDue
from ..errors import INTERNAL_ERROR, POLICY_VIOLATION, CommandError
from ..limits import BURST_S, LEAST_FRAMES_PER_SECOND, TokenBucket, explain, printable
from ..model import EVERYBODY, Close, Handshake
from ..raised import close_of
from ..stats import Stats
from ..wire.frame import Frame
from .disconnects import FRAMES_LIMITED, RATE_LIMITED
from .handlers import Handlers
from .inbox import Inbox
from .signature import Function, name_of
from .tasks import is_being_cancelled

if TYPE_CHECKING:
    from .core import Core
    from .session import ClientSession


class Dispatcher:
    """Calls the application's handlers. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._handlers: Handlers = core.handlers
        self._settings = core.settings
        self._log = core.log
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
        except Exception as error:
            self._undecodable(session, error)
            return
        try:
            result = only.function(session.client, message)
            if result is None:
                return
            is_done = not hasattr(result, "__await__")
        except (Exception, asyncio.CancelledError) as error:
            self._handler_failed(session, error)
            return
        if is_done:
            self._returned(only.function, result)
        else:
            self._wait(session, self._finish(session, result))

    def charge_frame(self, session: ClientSession, *, droppable: bool) -> bool:
        """Charge a frame that costs work and is no message: a ping, a pong, a tiny fragment.

        Under `messages_per_second` a client may send as many of these again, and at least
        `LEAST_FRAMES_PER_SECOND`. False: there are too many, and this one is to be dropped; one
        that cannot be dropped (a fragment) has closed the session.
        """
        rate = self._settings.messages_per_second
        if rate is None:
            return True
        bucket = session.frame_bucket
        if bucket is None:
            rate = max(rate, LEAST_FRAMES_PER_SECOND)
            bucket = session.frame_bucket = TokenBucket(rate, rate * BURST_S, session.last_seen)
        if bucket.take(session.last_seen):
            return True
        self.stats.rate_limited += 1
        if self._settings.on_rate_limit == "close" or not droppable:
            self._core.registry.end(session, FRAMES_LIMITED, bucket.rate_per_second)
        else:
            text = "client %s sent more than %g pings or fragments per second; they are dropped"
            self._log.log(logging.WARNING, "rate", text, session.name, bucket.rate_per_second)
        return False

    def _route(self, session: ClientSession, frame: Frame) -> None:
        """Find the handler of a message by its type, after validation if there is one."""
        handlers = self._handlers
        if handlers.message is None and handlers.echoes and handlers.validate is None:
            self._core.publishing.broadcast(EVERYBODY, frame)
            return
        try:
            function, message = handlers.route(frame)
        except Exception as error:
            self._undecodable(session, error)
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
        elif not session.is_handling:
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
            self._log.log(logging.INFO, "cancelled", text, session.name, grace_s)
            task.cancel()

    def _drop_waiting(self, session: ClientSession) -> None:
        if session.inbox is not None:
            self.stats.unhandled += session.inbox.clear()

    def _run_disconnect(self, session: ClientSession, close: Close) -> None:
        rest = self._run_each(session, self._handlers.disconnect, (session.client, close))
        if rest is not None:
            name = f"disconnect {session.name}"
            self._core.lifecycle.spawn(rest, name, is_last=True)

    def _run_each(
        self,
        session: ClientSession,
        functions: Sequence[tuple[Function, int]],
        arguments: tuple[Any, ...],
        goes_on: Callable[[], bool] = lambda: True,
    ) -> Coroutine[Any, Any, None] | None:
        """Call functions one after another; return what is left to await, None when all is done."""
        for position, (function, arity) in enumerate(functions):
            if not goes_on():
                return None
            result = self._call(session, function, arguments[:arity])
            if result is not None:
                left = functions[position + 1 :]
                return self._run_rest(session, result, left, arguments, goes_on)
        return None

    async def _run_rest(
        self,
        session: ClientSession,
        first: Awaitable[Any],
        functions: Sequence[tuple[Function, int]],
        arguments: tuple[Any, ...],
        goes_on: Callable[[], bool],
    ) -> None:
        await self._finish(session, first)
        for function, arity in functions:
            if not goes_on():
                return
            result = self._call(session, function, arguments[:arity])
            if result is not None:
                await self._finish(session, result)

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
                self._core.lifecycle.spawn(self._finish(session, result), f"drop {session.name}")

    def _validate(
        self, session: ClientSession, frame: Frame, function: Function | None, message: Any
    ) -> None:
        validate = self._handlers.validate
        assert validate is not None
        try:
            verdict = validate(session.client, message)
            is_waiting = hasattr(verdict, "__await__")
        except (Exception, asyncio.CancelledError) as error:
            self._invalid(session, error)
        else:
            if is_waiting:
                later = self._validate_later(session, frame, function, message, verdict)
                self._wait(session, later)
            elif verdict is False:
                self._reject(session, CommandError("invalid_message", "the message was refused"))
            else:
                self._handle(session, frame, function, message)

    async def _validate_later(
        self,
        session: ClientSession,
        frame: Frame,
        function: Function | None,
        message: Any,
        verdict: Awaitable[Any],
    ) -> None:
        try:
            is_valid = await verdict
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                raise
            self._handler_failed(session, error)  # only something that the validation awaited
            return
        except Exception as error:
            self._invalid(session, error)
            return
        if is_valid is False:
            self._reject(session, CommandError("invalid_message", "the message was refused"))
        elif function is None:
            self._core.publishing.broadcast(EVERYBODY, frame)
        else:
            result = self._call(session, function, (session.client, message))
            if result is not None:
                await self._finish(session, result)

    async def handle(self, session: ClientSession, frame: Frame) -> None:
        """Hand a message to its handler and wait until that has ended: one step of a longer task."""
        handlers = self._handlers
        try:
            function, message = handlers.route(frame)
        except Exception as error:
            self._undecodable(session, error)
            return
        if handlers.validate is None:
            is_valid: Any = True
        else:
            try:
                is_valid = handlers.validate(session.client, message)
            except Exception as error:
                self._invalid(session, error)
                return
        if hasattr(is_valid, "__await__"):
            await self._validate_later(session, frame, function, message, is_valid)
        elif is_valid is False:
            self._reject(session, CommandError("invalid_message", "the message was refused"))
        elif function is None:
            self._core.publishing.broadcast(EVERYBODY, frame)
        else:
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
        self, session: ClientSession, function: Function, arguments: tuple[Any, ...]
    ) -> Awaitable[Any] | None:
        """Call a handler; return what has to be awaited, None when all is done."""
        try:
            result = function(*arguments)
            if result is None:
                return None
            is_done = not hasattr(result, "__await__")
        except (Exception, asyncio.CancelledError) as error:
            # Nobody cancels a call: the error is that of a future which the function has asked.
            self._handler_failed(session, error)
            return None
        if is_done:
            self._returned(function, result)
        return None if is_done else result

    async def _finish(self, session: ClientSession, result: Awaitable[Any]) -> None:
        try:
            value = await result
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                raise
            self._handler_failed(session, error)  # only something that the handler awaited
        except Exception as error:
            self._handler_failed(session, error)
        else:
            if value is not None and asyncio.iscoroutine(result):
                self._returned(result, value)

    def _returned(self, function: object, value: object) -> None:
        """Say that nobody reads what a handler returned; a bool is what `session.send` answered."""
        if type(value) is not bool:
            text = "%s returned a value of the type %s, which nobody reads; to answer, call "
            text += "client.send(…)"
            self._log.log(
                logging.WARNING, "returned", text, name_of(function), type(value).__name__
            )

    def _wait(self, session: ClientSession, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as the client's one task; its messages wait meanwhile."""
        task = self._core.lifecycle.spawn(work, f"handler {session.name}")
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

    def rate_limited(self, session: ClientSession, bucket: TokenBucket) -> None:
        """One message too many: count it, then close, or drop it and say so now and then."""
        self.stats.rate_limited += 1
        limit = self._settings.messages_per_second
        if self._settings.on_rate_limit == "close":
            self._core.registry.end(session, RATE_LIMITED, limit)
            return
        text = "client %s sent more than %g messages per second; they are dropped"
        self._log.log(logging.WARNING, "rate", text, session.name, limit)
        if bucket.may_tell(session.last_seen):
            message = f"more than {limit:g} messages per second; the message was dropped"
            error = CommandError("too_many_messages", message, temporary=True)
            self._core.publishing.tell(session, ErrorReply(None, error))

    def _reject(self, session: ClientSession, error: CommandError) -> None:
        """An invalid message: count it, then answer, ignore or close as set.

        The log gets the error's code alone: its text may quote the message, and so a token in it.
        """
        self.stats.invalid += 1
        text = "client %s sent an invalid message: %s"
        self._log.log(logging.INFO, "invalid", text, session.name, printable(error.code))
        action = self._settings.on_invalid
        if action == "reply":
            self._reply(session, error)
        elif action == "close":
            self._core.registry.disconnect(session, POLICY_VIOLATION, error.message)

    def _undecodable(self, session: ClientSession, error: Exception) -> None:
        """A decoder raised: it refuses the message, or code of the application in it has failed."""
        if isinstance(error, CommandError):
            self._reject(session, error)
        else:
            self._handler_failed(session, error)

    def _invalid(self, session: ClientSession, error: BaseException) -> None:
        """The validation raised: it refuses the message, or has failed."""
        if isinstance(error, ValueError) and not isinstance(error, CommandError):
            error = CommandError("invalid_message", explain(error))
        if isinstance(error, CommandError):
            self._reject(session, error)
        else:
            self._handler_failed(session, error)

    def _reply(
        self, session: ClientSession, error: CommandError, number: int | None = None
    ) -> None:
        """Answer with an error."""
        self._answer(session, ErrorReply(number, error))

    def _answer(self, session: ClientSession, event: Event) -> bool:
        """Say what a client waits for; what no message can carry is a handler's failure: False."""
        try:
            frame = session.variant.dialect.encode(event)
        except Exception as wrong:
            self._broken(session, wrong)
            return False
        if frame is not None:
            self._core.publishing.send(session, frame, is_encoded=True)
        return True

    def _handler_failed(self, session: ClientSession, error: BaseException) -> None:
        """What a handler raised: answer, close, or log and close, by the kind of error.

        Here, and nowhere else, ends whatever the application's code raises. See `raised`.
        """
        if isinstance(error, CommandError):
            self._reply(session, error)
            return
        close = close_of(error)
        if close is None:
            self._broken(session, error)
        else:
            self._core.registry.disconnect(session, *close)

    def _broken(self, session: ClientSession, error: BaseException) -> None:
        """A handler did not do its work: count it, log it, and close the client if set so."""
        self.stats.handler_errors += 1
        text = "client %s: a handler failed"
        self._log.log(logging.ERROR, "handler", text, session.name, error=error)
        # A future that somebody cancelled broke off one message; the client is not to blame.
        is_broken = not isinstance(error, asyncio.CancelledError)
        if is_broken and self._settings.on_handler_error == "close":
            self._core.registry.disconnect(session, INTERNAL_ERROR, "internal error")
