"""HandlerErrors: what becomes of what the application's code raises, or returns.

What must not live here: the calls (`dispatcher`), and which exceptions ask for a close (`raised`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ..dialects.dialect import ErrorReply, Event
from ..errors import INTERNAL_ERROR, POLICY_VIOLATION, BrokerError, CommandError
from ..limits import explain, printable
from ..model import Close
from ..raised import answer_of, close_of
from .disconnects import NOT_BROUGHT_IN, TOO_MANY_ROOMS
from .signature import name_of

if TYPE_CHECKING:
    from .core import Core
    from .session import ClientSession


def _text_of(error: BaseException) -> str:
    return printable(str(error) or type(error).__name__)


class HandlerErrors:
    """Answers, closes or logs, by the kind of error and as the settings say. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._settings = core.settings
        self._log = core.log
        self._stats = core.stats

    def reject(self, session: ClientSession, error: CommandError) -> None:
        """An invalid message: count it, then answer, ignore or close as set.

        The log gets the error's code alone: its text may quote the message, and so a token in it.
        """
        self._stats.invalid += 1
        text = "client %s sent an invalid message: %s"
        self._log.log(logging.INFO, "invalid", text, session.label, printable(error.code))
        action = self._settings.on_invalid
        if action == "reply":
            self.reply(session, error)
        elif action == "close":
            self._core.registry.disconnect(session, POLICY_VIOLATION, error.message)

    def undecodable(self, session: ClientSession, error: BaseException) -> None:
        """A decoder raised: it refuses the message, or code of the application in it has failed."""
        if isinstance(error, CommandError):
            self.reject(session, error)
        else:
            self.failed(session, error)

    def invalid(self, session: ClientSession, error: BaseException) -> None:
        """The validation raised: it refuses the message, or has failed."""
        if isinstance(error, ValueError) and not isinstance(error, CommandError):
            error = CommandError("invalid_message", explain(error))
        if isinstance(error, CommandError):
            self.reject(session, error)
        else:
            self.failed(session, error)

    def failed(self, session: ClientSession, error: BaseException) -> None:
        """What a handler raised: answer, close, or log and close, by the kind of error.

        Here, and nowhere else, ends whatever the application's code raises. See `raised`.
        """
        answer = self.note_and_answer(session, error)
        if answer is not None:
            self.reply(session, answer)
            return
        close = close_of(error)
        if close is None:
            self._broken(session, error)
        else:
            self._core.registry.disconnect(session, *close)

    def note_and_answer(self, session: ClientSession, error: BaseException) -> CommandError | None:
        """Return what a client is answered for what a handler has raised; None for another error.

        What the broker has refused is counted, and noted by a line without a traceback: the handler is right.
        """
        if isinstance(error, BrokerError):
            self._stats.handler_errors += 1
            text = "client %s: a handler asked the broker in vain: %s; answered"
            self._log.log(logging.WARNING, "asked", text, session.label, _text_of(error))
        return answer_of(error)

    def not_connected(self, session: ClientSession, error: BaseException) -> None:
        """What a connect handler raised: what may pass closes the client, so that it comes back.

        It has had its one chance to be brought into its rooms. One that speaks in commands has asked for nothing
        that could be answered: it would never know of the rooms that were too many, and is closed for good.
        """
        answer = answer_of(error)
        is_plain = session.variant.dialect.is_plain
        if answer is not None and answer.code == "too_many_rooms" and not is_plain:
            self._core.registry.end(session, TOO_MANY_ROOMS, _text_of(error))
            return
        if answer is None or not answer.temporary:
            self.failed(session, error)
            return
        close = Close(NOT_BROUGHT_IN.code, answer.message)
        self._core.registry.end_as(session, NOT_BROUGHT_IN, close, detail=_text_of(error))

    def returned(self, function: object, value: object) -> None:
        """Say that nobody reads what a handler returned; a bool is what `client.send` answered."""
        if type(value) is not bool:
            text = "%s returned a value of the type %s, which nobody reads; to answer, call "
            text += "client.send(…)"
            self._log.log(
                logging.WARNING, "returned", text, name_of(function), type(value).__name__
            )

    def reply(self, session: ClientSession, error: CommandError, number: int | None = None) -> None:
        """Answer with an error: to a command of that number, to a message if it is None."""
        self.answer(session, ErrorReply(number, error))

    def answer(self, session: ClientSession, event: Event) -> int | None:
        """Say what a client waits for; return its bytes. What no message can carry is a handler's
        failure: None."""
        try:
            frame = session.variant.dialect.encode(event)
        except Exception as wrong:
            self._broken(session, wrong)
            return None
        if frame is None:
            return 0
        self._core.publishing.send(session, frame, is_encoded=True)
        return len(frame.payload)

    def _broken(self, session: ClientSession, error: BaseException) -> None:
        """A handler did not do its work: count it, log it, and close the client if set so."""
        self._stats.handler_errors += 1
        text = "client %s: a handler failed"
        self._log.log(logging.ERROR, "handler", text, session.label, error=error)
        # A future that somebody cancelled broke off one message; the client is not to blame.
        is_broken = not isinstance(error, asyncio.CancelledError)
        if is_broken and self._settings.on_handler_error == "close":
            self._core.registry.disconnect(session, INTERNAL_ERROR, "internal error")
