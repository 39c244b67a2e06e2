"""Tickers: functions that a hub calls every so many seconds while it runs.

What must not live here: anything about clients; whether somebody listens is asked through a
callable. The registry starts and stops them.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any

from .signature import Shape, name_of, read

SHAPE = Shape(
    "every(…)", (), 0, advice="nobody reads that; what a tick has to say it broadcasts itself"
)
"""What a function for a ticker looks like."""

logger: logging.Logger = logging.getLogger("hubbub")


class Ticker:
    """Calls `function` every `period_s` seconds.

    A tick that takes longer than the period makes the next one late; ticks never overlap, and
    those missed are not made up for. An exception is logged and the next tick comes.
    """

    def __init__(
        self, function: Callable[[], Any], period_s: float, is_wanted: Callable[[], bool]
    ) -> None:
        check_period(period_s)
        read(function, SHAPE)
        self.function = function
        self.period_s = period_s
        self._is_wanted = is_wanted

    async def run(self) -> None:
        """Tick until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self.period_s
        # Asked each time, since a function may swallow the cancellation.
        while not is_being_cancelled():
            await asyncio.sleep(max(0.0, due - loop.time()))
            if self._is_wanted():
                await self._tick()
            now = loop.time()
            due = max(due + self.period_s, now)

    async def _tick(self) -> None:
        try:
            result = self.function()
            if hasattr(result, "__await__"):
                await result
        except asyncio.CancelledError:
            if is_being_cancelled():
                raise
            self._log_failure()  # only something that the function awaited
        except Exception:
            self._log_failure()

    def _log_failure(self) -> None:
        logger.exception("the ticker %s failed; it goes on", name_of(self.function))


def check_period(period_s: object) -> None:
    """Raise `TypeError` for what is no number of seconds, `ValueError` for one that cannot be."""
    if callable(period_s):
        raise TypeError(
            f"@hub.every: {name_of(period_s)} stands where the period belongs: write @hub.every(5) "
            "above it, with a number of seconds"
        )
    text = f"@hub.every({period_s!r}): the period is a number of seconds above zero"
    if isinstance(period_s, bool) or not isinstance(period_s, (int, float)):
        raise TypeError(text)
    if not 0 < period_s < math.inf:
        raise ValueError(text)


def is_being_cancelled() -> bool:
    """Tell whether somebody has asked the running task to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
