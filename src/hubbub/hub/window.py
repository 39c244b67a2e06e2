"""Window: how much of what one hub publishes in quantity is on its way to the broker at once; the rest waits its turn.

What must not live here: what is published (`publishing`), what the broker bounds itself (`brokers`): a window keeps
below that, so that who publishes much is held up and not refused. While the broker is away nobody is held up, and
the broker says how long what is published waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

MOST = 1000
"""How many publications are on their way at once."""
MOST_BYTES = 8 * 1024**2
"""How many bytes of messages; a larger one goes alone."""
LOOK_S = 0.25
"""How often who waits looks whether the broker is still there."""


class Window:
    """See the module. `is_up` says whether the broker is there. Of one event loop, and used in that only."""

    def __init__(self, is_up: Callable[[], bool]) -> None:
        self._is_up = is_up
        self._count = 0
        self._nbytes = 0
        self._line = asyncio.Lock()  # who waits for it gets it in the order of the calls
        self._has_left = asyncio.Event()

    @asynccontextmanager
    async def place(self, size: int) -> AsyncIterator[None]:
        """Hold a place for a message of so many bytes, when all who came before have theirs."""
        async with self._line:
            while not self._fits(size) and self._is_up():
                await self._until_one_has_left()
            self._count += 1
            self._nbytes += size
        try:
            yield
        finally:
            self._count -= 1
            self._nbytes -= size
            self._has_left.set()

    def _fits(self, size: int) -> bool:
        return not self._count or (self._count < MOST and self._nbytes + size <= MOST_BYTES)

    async def _until_one_has_left(self) -> None:
        self._has_left.clear()
        try:
            async with asyncio.timeout(LOOK_S):
                await self._has_left.wait()
        except TimeoutError:
            pass
