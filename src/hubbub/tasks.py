"""Tasks: the coroutines that a hub runs beside its callbacks, so that none outlives it.

What must not live here: what they do. The registry keeps one `Tasks` per run.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine, Iterable
from typing import Any

from .ticker import Ticker

logger = logging.getLogger("hubbub")

_CANCEL_ROUNDS = 2
"""How often a task is cancelled: one that swallows the first time often ends at the second."""
_CANCEL_ROUND_S = 0.5


GOODBYE = "goodbye"
"""How the names of tasks begin that run disconnect handlers."""


class Tasks:
    """Handlers that wait, and tickers. Event loop only."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._tickers: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `coroutine`; where Python can (3.12), its first step happens within this call."""
        loop = asyncio.get_running_loop()
        if sys.version_info >= (3, 12):
            task: asyncio.Task[None] = asyncio.Task(
                coroutine, loop=loop, name=name, eager_start=True
            )
        else:
            task = loop.create_task(coroutine, name=name)
        if not task.done():
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return task

    def repeat(self, ticker: Ticker) -> None:
        """Run a ticker until the end."""
        task = asyncio.get_running_loop().create_task(ticker.run(), name="hubbub ticker")
        self._tickers.append(task)

    async def end(self, grace_s: float) -> None:
        """Stop the tickers; let the others finish within `grace_s`, then cancel them.

        Goodbyes have a grace of their own, after that: they wait for the handlers.
        """
        await _cancel(self._tickers)
        self._tickers.clear()
        await self._end_those(grace_s, are_goodbyes=False)
        await self._end_those(grace_s, are_goodbyes=True)

    async def _end_those(self, grace_s: float, *, are_goodbyes: bool) -> None:
        running = {
            task
            for task in self._running
            if task is not asyncio.current_task()
            and task.get_name().startswith(GOODBYE) is are_goodbyes
        }
        if running:
            _, late = await asyncio.wait(running, timeout=grace_s)
            await _cancel(late)


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and see them end. One that takes no notice must not hold up a shutdown."""
    waiting = set(tasks)
    for _ in range(_CANCEL_ROUNDS):
        for task in waiting:
            task.cancel()
        if waiting:
            _, waiting = await asyncio.wait(waiting, timeout=_CANCEL_ROUND_S)
    for task in waiting:
        logger.error("the task %s cannot be cancelled; it is left behind", task.get_name())
