"""Turns: what many clients ask for at once is parted among turns of the event loop, so that nothing else
has to wait until all of it is done.

What must not live here: what is done in a turn. Who connects, and who joins a room by a command, takes a
place here first: after a cut of the network thousands do both in the same moment.
"""

from __future__ import annotations

import asyncio
from collections import deque

MOST_A_TURN = 16
"""How many places a turn has. Somebody who comes back to a room, with a hundred publications to be given,
takes some 0.2 ms."""


class Turns:
    """The places of one event loop's turns, in the order of asking. Event loop only.

    Who has waited goes on in the turn after the one whose place it was given; so a turn may have a few
    more than `most` in it, never twice as many.
    """

    def __init__(self, most: int = MOST_A_TURN) -> None:
        self._most = self._left = most
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether who asks for a place now has to wait."""
        return not self._left or bool(self._waiting)

    async def take(self, places: int = 1) -> None:
        """Take a place, or several: in this turn, if it has them, and else in a later one.

        Nobody overtakes who has no place yet. Who takes as many as a turn has gets a whole one.
        """
        if self._left == self._most:
            asyncio.get_running_loop().call_soon(self._begin)
        if places <= self._left and not self._waiting:
            self._left -= places
        else:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((future, places))
            await future

    def _begin(self) -> None:
        """Begin a turn: its first places are for who waits."""
        self._left = self._most
        while self._waiting:
            future, places = self._waiting[0]
            if not future.done():  # else who asked for it has been cancelled
                if places > self._left:
                    break
                future.set_result(None)
                self._left -= places
            self._waiting.popleft()
        if self._left < self._most:
            asyncio.get_running_loop().call_soon(self._begin)
