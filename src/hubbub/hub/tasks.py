"""Tasks: the coroutines that a hub runs beside its callbacks, so that none outlives it.

What must not live here: what they do. `lifecycle` keeps one `TaskSet` for each run.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from ..limits import printable
from .signature import Shape, name_of, read

logger: logging.Logger = logging.getLogger("hubbub")

_CANCEL_ROUNDS = 2
"""How often a task is cancelled: one that swallows the first time often ends at the second."""
_CANCEL_ROUND_S = 0.5
_LEAST_ROUND_S = 0.05
_MOST_NAMES = 5
"""How many names of late tasks one line of the log tells."""
_CANCEL_SHARE = 0.05
"""Which part of the time for the end one such round may take, but for `_LEAST_ROUND_S`."""


SHAPE = Shape(
    "every(…)", (), 0, advice="nobody reads that; what a tick has to say it broadcasts itself"
)
"""What a function for a periodic task looks like."""


class PeriodicTask:
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
        logger.exception("the periodic task %s failed; it goes on", name_of(self.function))


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


class TaskSet:
    """Handlers that wait, and periodic tasks. Event loop only."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._last: set[asyncio.Task[None]] = set()
        self._periodic: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return len(self._running) + len(self._last)

    def spawn(
        self, coroutine: Coroutine[Any, Any, None], name: str, *, is_last: bool = False
    ) -> asyncio.Task[None]:
        """Run `coroutine`; where Python can (3.12), its first step happens within this call.

        `is_last` is for disconnect handlers: they come after the other handlers of their client, and
        so end after them.
        """
        loop = asyncio.get_running_loop()
        if sys.version_info >= (3, 12):
            task: asyncio.Task[None] = asyncio.Task(
                coroutine, loop=loop, name=name, eager_start=True
            )
        else:
            task = loop.create_task(coroutine, name=name)
        if not task.done():
            running = self._last if is_last else self._running
            running.add(task)
            task.add_done_callback(running.discard)
        return task

    def repeat(self, periodic: PeriodicTask) -> None:
        """Run a periodic task until the end."""
        task = asyncio.get_running_loop().create_task(periodic.run(), name="hubbub periodic task")
        self._periodic.append(task)

    async def end(self, timeout_s: float) -> None:
        """End all tasks within `timeout_s` seconds: they may finish, then they are cancelled.

        Periodic tasks are cancelled at once. Handlers get half of the time; the disconnect handlers, which
        wait for them, what is left. Each that had to be cancelled is named in the log.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        round_s = min(_CANCEL_ROUND_S, max(_LEAST_ROUND_S, timeout_s * _CANCEL_SHARE))
        await _cancel(self._periodic, round_s)
        self._periodic.clear()
        await _end(self._running, began + timeout_s / 2, round_s)
        await _end(self._last, began + timeout_s - _CANCEL_ROUNDS * round_s, round_s)


async def _end(running: set[asyncio.Task[None]], deadline: float, round_s: float) -> None:
    """Let tasks, and those that follow them, finish until `deadline`, by the loop's clock.

    Those that do not are cancelled.
    """
    me = {asyncio.current_task()}
    while waiting := running - me:
        left_s = max(0.0, deadline - asyncio.get_running_loop().time())
        await asyncio.wait(waiting, timeout=left_s)
        if not left_s:
            break
    late = running - me
    if late:
        names = ", ".join(sorted(task.get_name() for task in late)[:_MOST_NAMES])
        text = "the hub stops: %d tasks did not end in time and are cancelled: %s"
        logger.warning(text, len(late), printable(names))
    await _cancel(late, round_s)


async def _cancel(tasks: Iterable[asyncio.Task[None]], round_s: float) -> None:
    """Cancel tasks and see them end. One that takes no notice must not hold up a shutdown."""
    waiting = set(tasks)
    for _ in range(_CANCEL_ROUNDS):
        for task in waiting:
            task.cancel()
        if waiting:
            _, waiting = await asyncio.wait(waiting, timeout=round_s)
    for task in waiting:
        logger.error("the task %s cannot be cancelled; it is left behind", task.get_name())
