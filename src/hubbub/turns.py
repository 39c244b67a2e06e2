"""Turns: what many ask for at once is parted among turns of the event loop, so that nothing else
has to wait until all of it is done.

What must not live here: what is done in a turn, and how much of it fits. After a cut of the network thousands
shake hands, say who they are and come back to their rooms, all in the same moment.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """The places of one event loop's turns, `most` in each, in the order of asking. Event loop only.

    Who has waited goes on in the turn after the one whose place it was given; so a turn may have a few
    more than `most` in it, never twice as many.
    """

    def __init__(self, most: int) -> None:
        self.most = self._left = most
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    async def take(self, places: int = 1) -> None:
        """Take a place, or several: in this turn, if it has them, and else in a later one.

        Nobody overtakes who has no place yet. Who takes `most` has a whole turn.
        """
        if not self.take_now(places):
            await self.wait(places)

    def take_now(self, places: int = 1) -> bool:
        """Take places of this turn; False if it has not so many, or others wait for them."""
        if self._left == self.most:
            asyncio.get_running_loop().call_soon(self._begin)
        if places > self._left or self._waiting:
            return False
        self._left -= places
        return True

    def wait(self, places: int = 1) -> asyncio.Future[None]:
        """Return what is done when a later turn has places; who cancels it takes none. After `take_now`."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((future, places))
        return future

    def _begin(self) -> None:
        """Begin a turn: its first places are for who waits."""
        self._left = self.most
        while self._waiting:
            future, places = self._waiting[0]
            if not future.done():  # else who asked for it has been cancelled
                if places > self._left:
                    break
                future.set_result(None)
                self._left -= places
            self._waiting.popleft()
        if self._left < self.most:
            asyncio.get_running_loop().call_soon(self._begin)
