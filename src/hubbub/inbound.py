"""Inbound: all that one connection, one message or one goodbye of a client may cause.

What must not live here: sockets, and the registry's books (it is called). Transports and the
registry call it.

Handlers of one client run one at a time, in the order of arrival; different clients' handlers run
concurrently. A plain function runs in place. A coroutine that has to wait becomes a task, and what
the client sends meanwhile waits in its inbox, while pings and the end of the connection are taken.
All run in the context (see `contextvars`) of the client's handshake, or in a copy of it.

What a handler may raise, and what becomes of it, is decided in one place: `_failed`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from .client import Client
from .errors import INTERNAL_ERROR, POLICY_VIOLATION, TOO_MANY_MESSAGES, CommandError
from .frame import Frame
from .handlers import Handlers
from .inbox import Inbox
from .limits import BURST_S, LEAST_FRAMES_PER_SECOND, TokenBucket, explain, printable
from .model import EVERYBODY, Close, Handshake
from .quietlog import QuietLog
from .raised import close_of
from .settings import Settings
from .signature import Function, name_of
from .stats import Stats
from .ticker import is_being_cancelled


class Desk(Protocol):
    """What inbound asks of the registry."""

    def publish_logged(self, key: str, frame: Frame, exclude: Client | None) -> None: ...
    def send(self, client: Client, frame: Frame) -> bool: ...
    def disconnect_client(self, client: Client, code: int, reason: str) -> None: ...
    def spawn(
        self, coroutine: Coroutine[Any, Any, None], name: str, *, is_last: bool = False
    ) -> asyncio.Task[None]: ...


class Inbound:
    """Calls the application's handlers. Event loop only."""

    def __init__(
        self,
        desk: Desk,
        handlers: Handlers,
        settings: Settings,
        stats: Stats,
        log: QuietLog,
        clock: Callable[[], float],
    ) -> None:
        self._desk = desk
        self._handlers = handlers
        self._settings = settings
        self._stats = stats
        self._clock = clock
        self._log = log

    def connected(self, client: Client, handshake: Handshake) -> None:
        """Run the connect handlers, one after another, before the client's first message.

        One that closes the client is the last: the others would meet a client that is gone.
        """
        client.busy = True
        try:
            self._connect_first(client, handshake)
        finally:
            if client.task is None:
                self._go_on(client)

    def _connect_first(self, client: Client, handshake: Handshake) -> None:
        for position, (function, arity) in enumerate(self._handlers.connect):
            if client.close_info is not None:
                return
            result = self._call(client, function, (client, handshake)[:arity])
            if result is not None:
                rest = self._handlers.connect[position + 1 :]
                self._wait(client, self._connect_rest(client, handshake, result, rest))
                return

    async def _connect_rest(
        self,
        client: Client,
        handshake: Handshake,
        first: Awaitable[Any],
        rest: list[tuple[Function, int]],
    ) -> None:
        await self._finish(client, first)
        for function, arity in rest:
            if client.close_info is not None:
                return
            result = self._call(client, function, (client, handshake)[:arity])
            if result is not None:
                await self._finish(client, result)

    def receive(self, client: Client, frame: Frame) -> None:
        """Take one whole message: hand it to its handler, or keep it while the client is busy."""
        stats = self._stats
        stats.messages_in += 1
        stats.bytes_in += len(frame.payload)
        bucket = client.bucket
        # `seen` is now: transports note it when bytes come, before they make messages of them.
        if bucket is not None and not bucket.take(client.seen):
            self._too_many(client, bucket)
        elif client.busy:
            self._keep(client, frame)
        else:
            client.busy = True  # for plain handlers too: who closes the client in one ends it first
            try:
                self._take(client, frame)
            finally:
                if client.task is None and client.inbox is None and client.close_info is None:
                    client.busy = False  # `_go_on` would do no more
                elif client.task is None:
                    self._go_on(client)

    def _keep(self, client: Client, frame: Frame) -> None:
        """Let a message wait for the running handler; stop the socket when too many do."""
        inbox = client.inbox
        if inbox is None:
            settings = self._settings
            inbox = client.inbox = Inbox(settings.inbox_max_messages, settings.inbox_max_bytes)
        if inbox.push(frame):
            client.transport.pause_reading()

    def _take(self, client: Client, frame: Frame) -> None:
        """Hand a message to its handler."""
        only = self._handlers.only
        if only is None:
            self._route(client, frame)
            return
        # The common hub has one handler. What follows is `_handle` and `_call`, written out.
        try:
            message = frame.text_seen if only.takes_text else None
            if message is None:
                message = only.decode(frame)
        except Exception as error:
            self._undecodable(client, error)
            return
        try:
            result = only.function(client, message)
            if result is None:
                return
            is_done = not hasattr(result, "__await__")
        except (Exception, asyncio.CancelledError) as error:
            self._failed(client, error)
            return
        if is_done:
            self._returned(only.function, result)
        else:
            self._wait(client, self._finish(client, result))

    def admits_frame(self, client: Client, *, is_droppable: bool) -> bool:
        """Charge a frame that costs work and is no message: a ping, a pong, a tiny fragment.

        Under `messages_per_second` a client may send as many of these again, and at least
        `LEAST_FRAMES_PER_SECOND`. False: there are too many, and this one is to be dropped; one
        that cannot be dropped (a fragment) has closed the client.
        """
        rate = self._settings.messages_per_second
        if rate is None:
            return True
        bucket = client.frame_bucket
        if bucket is None:
            rate = max(rate, LEAST_FRAMES_PER_SECOND)
            bucket = client.frame_bucket = TokenBucket(rate, rate * BURST_S, client.seen)
        if bucket.take(client.seen):
            return True
        self._stats.rate_limited += 1
        is_closed = self._settings.on_rate_limit == "close" or not is_droppable
        text = "client %s sent more than %g pings or fragments per second; "
        text += "closed" if is_closed else "they are dropped"
        self._log.log(logging.INFO, "rate", text, client.id, bucket.rate_per_second)
        if is_closed:
            self._desk.disconnect_client(client, TOO_MANY_MESSAGES, "too many frames")
        return False

    def _route(self, client: Client, frame: Frame) -> None:
        """Find the handler of a message by its type, after validation if there is one."""
        handlers = self._handlers
        if handlers.message is None and handlers.echoes and handlers.validate is None:
            self._desk.publish_logged(EVERYBODY, frame, None)
            return
        try:
            function, message = handlers.route(frame)
        except Exception as error:
            self._undecodable(client, error)
            return
        if handlers.validate is not None:
            self._validate(client, frame, function, message)
        else:
            self._handle(client, frame, function, message)

    def disconnected(self, client: Client) -> None:
        """Run the disconnect handlers of a client that has gone, after its own have ended.

        What it had sent before it left is still handled, unless the server closed the connection.
        The running handler is cancelled after `handler_grace_s`.
        """
        assert client.close_info is not None
        if client.close_info.by_server:
            self._drop_waiting(client)
        if client.task is not None:
            self._limit(client, client.task)
        elif not client.busy:
            # In the context of the handshake, not in that of whoever ended the connection.
            client.context.copy().run(self._say_disconnected, client, client.close_info)
        # Else a handler takes its first step, or its only one; `_go_on` comes after it.

    def _limit(self, client: Client, task: asyncio.Task[None]) -> None:
        """Give the handler of a client that has gone a bounded time to end."""
        grace_s = self._settings.handler_grace_s
        if grace_s is not None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(grace_s, self._cancel, client, task)
            task.add_done_callback(lambda _: timer.cancel())

    def _cancel(self, client: Client, task: asyncio.Task[None]) -> None:
        if not task.done():
            self._stats.handlers_cancelled += 1
            text = "client %s has gone; its handler still ran after %g s and was cancelled"
            grace_s = self._settings.handler_grace_s
            self._log.log(logging.INFO, "cancelled", text, client.id, grace_s)
            task.cancel()

    def _drop_waiting(self, client: Client) -> None:
        if client.inbox is not None:
            self._stats.unhandled += client.inbox.clear()

    def _say_disconnected(self, client: Client, close: Close) -> None:
        for position, (function, arity) in enumerate(self._handlers.disconnect):
            result = self._call(client, function, (client, close)[:arity])
            if result is not None:
                rest = self._disconnect_rest(client, close, result, position + 1)
                self._desk.spawn(rest, f"goodbye {client.id}", is_last=True)
                return

    async def _disconnect_rest(
        self, client: Client, close: Close, first: Awaitable[Any], start: int
    ) -> None:
        await self._finish(client, first)
        for function, arity in self._handlers.disconnect[start:]:
            result = self._call(client, function, (client, close)[:arity])
            if result is not None:
                await self._finish(client, result)

    def caught_up(self, client: Client, count: int) -> None:
        """Run the drop handlers: the client missed `count` messages and is writable again."""
        if client.close_info is None and self._handlers.drop:
            client.context.copy().run(self._say_missed, client, count)

    def _say_missed(self, client: Client, count: int) -> None:
        for function in self._handlers.drop:
            result = self._call(client, function, (client, count))
            if result is not None:
                self._desk.spawn(self._finish(client, result), f"drop {client.id}")

    def _validate(
        self, client: Client, frame: Frame, function: Function | None, message: Any
    ) -> None:
        validate = self._handlers.validate
        assert validate is not None
        try:
            verdict = validate(client, message)
            is_waiting = hasattr(verdict, "__await__")
        except (Exception, asyncio.CancelledError) as error:
            self._invalid(client, error)
        else:
            if is_waiting:
                later = self._validate_later(client, frame, function, message, verdict)
                self._wait(client, later)
            elif verdict is False:
                self._refuse(client, CommandError("invalid_message", "the message was refused"))
            else:
                self._handle(client, frame, function, message)

    async def _validate_later(
        self,
        client: Client,
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
            self._failed(client, error)  # only something that the validation awaited
            return
        except Exception as error:
            self._invalid(client, error)
            return
        if is_valid is False:
            self._refuse(client, CommandError("invalid_message", "the message was refused"))
        elif function is None:
            self._desk.publish_logged(EVERYBODY, frame, None)
        else:
            result = self._call(client, function, (client, message))
            if result is not None:
                await self._finish(client, result)

    def _handle(
        self, client: Client, frame: Frame, function: Function | None, message: Any
    ) -> None:
        if function is None:
            self._desk.publish_logged(EVERYBODY, frame, None)
            return
        result = self._call(client, function, (client, message))
        if result is not None:
            self._wait(client, self._finish(client, result))

    def _call(
        self, client: Client, function: Function, arguments: tuple[Any, ...]
    ) -> Awaitable[Any] | None:
        """Call a handler; return what has to be awaited, None when all is done."""
        try:
            result = function(*arguments)
            if result is None:
                return None
            is_done = not hasattr(result, "__await__")
        except (Exception, asyncio.CancelledError) as error:
            # Nobody cancels a call: the error is that of a future which the function has asked.
            self._failed(client, error)
            return None
        if is_done:
            self._returned(function, result)
        return None if is_done else result

    async def _finish(self, client: Client, result: Awaitable[Any]) -> None:
        try:
            value = await result
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                raise
            self._failed(client, error)  # only something that the handler awaited
        except Exception as error:
            self._failed(client, error)
        else:
            if value is not None and asyncio.iscoroutine(result):
                self._returned(result, value)

    def _returned(self, function: object, value: object) -> None:
        """Say that nobody reads what a handler returned; a bool is what `client.send` answered."""
        if type(value) is not bool:
            text = "%s returned a value of the type %s, which nobody reads; to answer, call "
            text += "client.send(…)"
            self._log.log(
                logging.WARNING, "returned", text, name_of(function), type(value).__name__
            )

    def _wait(self, client: Client, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as the client's one task; its messages wait meanwhile."""
        task = self._desk.spawn(work, f"handler {client.id}")
        if not task.done():
            client.task = task
            task.add_done_callback(lambda _: self._ended(client, task), context=client.context)
            if client.close_info is not None:
                self._limit(client, task)

    def _ended(self, client: Client, task: asyncio.Task[None]) -> None:
        client.task = None
        if client.close_info is not None and task.cancelling():
            self._drop_waiting(client)
        if client.is_held:  # its socket was not read: its silence says nothing about it
            client.seen = max(client.seen, self._clock())
        self._go_on(client)

    def _go_on(self, client: Client) -> None:
        """Take what waits for the client's handler, until one waits again, or all is done."""
        while (inbox := client.inbox) is not None and client.task is None:
            was_full = inbox.is_full
            frame = inbox.pop()
            if frame is None:
                client.inbox = None
            else:
                if was_full and not inbox.is_full:
                    client.transport.resume_reading()
                self._take(client, frame)
        if client.task is None:
            client.busy = False
            if client.close_info is not None:
                self.disconnected(client)

    def _too_many(self, client: Client, bucket: TokenBucket) -> None:
        """One message too many: count it, then close, or drop it and say so now and then."""
        self._stats.rate_limited += 1
        limit = self._settings.messages_per_second
        if self._settings.on_rate_limit == "close":
            text = "client %s sent more than %g messages per second; closed"
            self._log.log(logging.INFO, "rate", text, client.id, limit)
            self._desk.disconnect_client(client, TOO_MANY_MESSAGES, "too many messages")
            return
        text = "client %s sent more than %g messages per second; they are dropped"
        self._log.log(logging.INFO, "rate", text, client.id, limit)
        if bucket.may_tell(client.seen):
            message = f"more than {limit:g} messages per second; the message was dropped"
            error = CommandError("too_many_messages", message, temporary=True)
            self._desk.send(client, self._handlers.dialect.error(error))

    def _refuse(self, client: Client, error: CommandError) -> None:
        """An invalid message: count it, then answer, ignore or close as set.

        The log gets the error's code alone: its text may quote the message, and so a token in it.
        """
        self._stats.invalid += 1
        text = "client %s sent an invalid message: %s"
        self._log.log(logging.INFO, "invalid", text, client.id, printable(error.code))
        action = self._settings.on_invalid
        if action == "reply":
            self._reply(client, error)
        elif action == "close":
            self._desk.disconnect_client(client, POLICY_VIOLATION, error.message)

    def _undecodable(self, client: Client, error: Exception) -> None:
        """A decoder raised: it refuses the message, or code of the application in it has failed."""
        if isinstance(error, CommandError):
            self._refuse(client, error)
        else:
            self._failed(client, error)

    def _invalid(self, client: Client, error: BaseException) -> None:
        """The validation raised: it refuses the message, or has failed."""
        if isinstance(error, ValueError) and not isinstance(error, CommandError):
            error = CommandError("invalid_message", explain(error))
        if isinstance(error, CommandError):
            self._refuse(client, error)
        else:
            self._failed(client, error)

    def _reply(self, client: Client, error: CommandError) -> None:
        """Answer with an error; one that no message can carry is a handler's failure."""
        try:
            frame = self._handlers.dialect.error(error)
        except Exception as wrong:
            self._broken(client, wrong)
        else:
            self._desk.send(client, frame)

    def _failed(self, client: Client, error: BaseException) -> None:
        """What a handler raised: answer, close, or log and close, by the kind of error.

        Here, and nowhere else, ends whatever the application's code raises. See `raised`.
        """
        if isinstance(error, CommandError):
            self._reply(client, error)
            return
        close = close_of(error)
        if close is None:
            self._broken(client, error)
        else:
            self._desk.disconnect_client(client, *close)

    def _broken(self, client: Client, error: BaseException) -> None:
        """A handler did not do its work: count it, log it, and close the client if set so."""
        self._stats.handler_errors += 1
        text = "client %s: a handler failed"
        self._log.log(logging.ERROR, "handler", text, client.id, error=error)
        # A future that somebody cancelled broke off one message; the client is not to blame.
        is_broken = not isinstance(error, asyncio.CancelledError)
        if is_broken and self._settings.on_handler_error == "close":
            self._desk.disconnect_client(client, INTERNAL_ERROR, "internal error")
