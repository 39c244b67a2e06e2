"""Tickers: functions that a hub calls every so many seconds while it runs.

What must not live here: anything about clients; whether somebody listens is asked through a
callable. The registry starts and stops them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from .handlers import check_arity

logger = logging.getLogger("hubbub")


class Ticker:
    """Calls `function` every `period_s` seconds.

    A tick that takes longer than the period makes the next one late; ticks never overlap, and
    those missed are not made up for. An exception is logged and the next tick comes.
    """

    def __init__(
        self, function: Callable[[], Any], period_s: float, is_wanted: Callable[[], bool]
    ) -> None:
        if not period_s > 0:
            raise ValueError(f"every({period_s!r}): the period is a number of seconds above zero")
        check_arity(function, 0, 0, "f() without arguments")
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
        name = getattr(self.function, "__qualname__", repr(self.function))
        logger.exception("the ticker %s failed; it goes on", name)


def is_being_cancelled() -> bool:
    """Tell whether somebody has asked the running task to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
