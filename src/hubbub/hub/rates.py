"""Rates: how fast a client may send, and what becomes of more.

What must not live here: the buckets' arithmetic (`limits`), what is done with a message (`dispatcher`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..dialects.dialect import ErrorReply
from ..errors import CommandError
from ..limits import BURST_S, LEAST_FRAMES_PER_SECOND, TokenBucket
from .disconnects import FRAMES_LIMITED, RATE_LIMITED

if TYPE_CHECKING:
    from .core import Core
    from .session import ClientSession


class Rates:
    """Limits clients to `messages_per_second`, and their small frames too. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._settings = core.settings
        self._log = core.log
        self._stats = core.stats

    def message_limited(self, session: ClientSession, bucket: TokenBucket) -> None:
        """One message too many: count it, then close, or drop it and say so now and then."""
        self._stats.rate_limited += 1
        limit = self._settings.messages_per_second
        if self._settings.on_rate_limit == "close":
            self._core.registry.end(session, RATE_LIMITED, limit)
            return
        text = "client %s sent more than %g messages per second; they are dropped"
        self._log.log(logging.WARNING, "rate", text, session.label, limit)
        if bucket.may_tell(session.last_seen):
            message = f"more than {limit:g} messages per second; the message was dropped"
            error = CommandError("too_many_messages", message, temporary=True)
            self._core.publishing.tell(session, ErrorReply(None, error))

    def charge_command(self, session: ClientSession, number: int | None) -> bool:
        """Charge a command of a dialect. False: it is one too many, which has closed the client, or been
        answered; it is not carried out."""
        rate = self._settings.messages_per_second
        if rate is None:
            return True
        now = self._core.clock()
        bucket = session.command_bucket
        if bucket is None:
            bucket = session.command_bucket = TokenBucket(rate, rate * BURST_S, now)
        if bucket.take(now):
            return True
        if self._settings.on_rate_limit == "reply" and number is not None:
            self._stats.rate_limited += 1
            message = f"more than {rate:g} commands per second"
            error = CommandError("too_many_messages", message, temporary=True)
            self._core.publishing.tell(session, ErrorReply(number, error))
        else:
            self.message_limited(session, bucket)
        return False

    def charge_frame(self, session: ClientSession, *, droppable: bool) -> bool:
        """Charge a frame that costs work and is no message: a ping, a pong, a tiny fragment.

        Under `messages_per_second` a client may send as many of these again, and at least
        `LEAST_FRAMES_PER_SECOND`. False: there are too many, and this one is to be dropped; one
        that cannot be dropped (a fragment) has closed the client.
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
        self._stats.rate_limited += 1
        if self._settings.on_rate_limit == "close" or not droppable:
            self._core.registry.end(session, FRAMES_LIMITED, bucket.rate_per_second)
        else:
            text = "client %s sent more than %g pings or fragments per second; they are dropped"
            self._log.log(logging.WARNING, "rate", text, session.label, bucket.rate_per_second)
        return False
