"""Logs: log lines that a hostile client could cause at will, a few of each kind and no more.

What must not live here: what is said. One object serves a hub; its parts use it.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable

from .errors import REFUSED_BY_A_SETTING
from .limits import TokenBucket, escaped

logger: logging.Logger = logging.getLogger("hubbub")


def indent_error(record: logging.LogRecord) -> bool:
    """Indent the traceback of a log record, and escape the control characters in it.

    An exception may quote what a client sent, and a line end in that would begin a new, forged
    line of the log. `record.exc_info` stays as it is, for handlers that send it elsewhere.
    """
    if record.exc_info and record.exc_info[0] is not None and record.exc_text is None:
        text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        record.exc_text = "\n".join("  " + escaped(line) for line in text.split("\n"))
    return True


logger.addFilter(indent_error)


def level_of(code: str) -> tuple[int, str]:
    """Return the level and the kind of the line about a refusal.

    WARNING where a setting refused, which a newcomer has to see without logging set up; each level
    is a kind of its own, so that strangers without a token cannot hold back such a line.
    """
    if code in REFUSED_BY_A_SETTING:
        return logging.WARNING, "refused by a setting"
    return logging.INFO, "refused"


class RateLimitedLogger:
    """Writes to the logger `hubbub`, `per_second` lines of each kind, `burst` at once.

    A hostile client can cause an event as often as it likes, and must not fill a disk with it. The next
    line of a kind says how many were held back. `clock` gives seconds.
    """

    def __init__(
        self, clock: Callable[[], float], per_second: float = 1.0, burst: float = 5.0
    ) -> None:
        self._clock = clock
        self._per_second = per_second
        self._burst = burst
        self._buckets: dict[str, TokenBucket] = {}
        self._held: dict[str, int] = {}

    def log(
        self,
        level: int,
        kind: str,
        text: str,
        *arguments: object,
        error: BaseException | None = None,
    ) -> None:
        """Log `text % arguments`, with the traceback of `error`, unless too many of its kind came."""
        now = self._clock()
        bucket = self._buckets.get(kind)
        if bucket is None:
            bucket = self._buckets[kind] = TokenBucket(self._per_second, self._burst, now)
        if not bucket.take(now):
            self._held[kind] = self._held.get(kind, 0) + 1
            return
        held = self._held.pop(kind, 0)
        if held:
            text += " (%d more like it were not logged)"
            arguments += (held,)
        logger.log(level, text, *arguments, exc_info=error)
