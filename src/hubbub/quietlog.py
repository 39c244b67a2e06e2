"""QuietLog: log lines that a hostile client could cause at will, a few of each kind and no more.

What must not live here: what is said. One object serves a hub; its parts use it.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable

from .limits import LogLimiter, escaped

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


class QuietLog:
    """Writes to the logger `hubbub`, limited by kind; says with the next line how many it held back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._limiter = LogLimiter()

    def log(
        self,
        level: int,
        kind: str,
        text: str,
        *arguments: object,
        error: BaseException | None = None,
    ) -> None:
        """Log `text % arguments`, with the traceback of `error`, unless too many of its kind came."""
        held = self._limiter.allow(kind, self._clock())
        if held is None:
            return
        if held:
            text += " (%d more like it were not logged)"
            arguments += (held,)
        logger.log(level, text, *arguments, exc_info=error)
