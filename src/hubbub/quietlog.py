"""QuietLog: log lines that a hostile client could cause at will, a few of each kind and no more.

What must not live here: what is said. One object serves a hub; `inbound`, `warden` and `hub` use it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from .limits import LogLimiter

logger = logging.getLogger("hubbub")


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
