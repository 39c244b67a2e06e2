"""PresenceCalls: the application's handlers of joins and leaves, called in order.

What must not live here: who has come or gone (`presence`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..limits import printable
from ..model import ClientInfo
from .signature import Function, name_of
from .tasks import is_being_cancelled

if TYPE_CHECKING:
    from .core import Core

MOST_CALLS = 10_000
"""How many joins and leaves of one room may wait for handlers that are slower than they come; while so many
wait, others are left out."""
CALLS_A_TURN = 100
"""For how many joins and leaves of one room handlers are called in one turn of the event loop."""


class PresenceCalls:
    """Calls of handlers, those of one room one after another. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._waiting: dict[str, deque[tuple[Sequence[Function], ClientInfo]]] = {}

    def add(self, room: str, functions: Sequence[Function], infos: Sequence[ClientInfo]) -> None:
        """Have handlers called for each of `infos`, after those that wait already."""
        if not functions or not infos:
            return
        calls = self._waiting.get(room)
        is_new = calls is None
        if calls is None:
            calls = self._waiting[room] = deque()
        if len(calls) >= MOST_CALLS:  # those that come at once may be more: they are known already
            text = "handlers of joins and leaves are too slow in %s: %d calls are left out"
            room_name = printable(room, 50)
            self._core.log.log(logging.ERROR, "presence", text, room_name, len(infos))
        else:
            calls.extend((functions, info) for info in infos)
        if is_new:
            self._core.lifecycle.spawn(self._run(room, calls), f"joins {room[:50]}")

    async def _run(self, room: str, calls: deque[tuple[Sequence[Function], ClientInfo]]) -> None:
        try:
            while calls:
                for _ in range(min(len(calls), CALLS_A_TURN)):
                    functions, info = calls.popleft()
                    for function in functions:
                        await self._call(function, room, info)
                if calls:
                    await asyncio.sleep(0)
        finally:
            if self._waiting.get(room) is calls:
                del self._waiting[room]

    async def _call(self, function: Function, room: str, info: ClientInfo) -> None:
        """Call a handler. Whatever it raises ends here."""
        try:
            result: Any = function(room, info)
            if hasattr(result, "__await__"):
                await result
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                raise
            self._core.stats.handler_errors += 1
            text = "the handler %s failed"
            self._core.log.log(logging.ERROR, "presence", text, name_of(function), error=error)
