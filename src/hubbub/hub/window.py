"""Window: how much of what one hub publishes in quantity is on its way to the broker at once; the rest waits its turn.

What must not live here: what is published (`publishing`), what the broker bounds itself (`brokers`): the window is
below that, so that what goes through it alone is held up and not refused. A hub's own verbs do not go
through it and fill the same bounds: beside them, who waits here may be refused all the same.

While the broker is away, who waits is let in when nothing has left for a while: the broker says then how long what is
published waits. Of several servers one may be away, and the others answer: then nobody is let in too early.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import Callable

MOST = 1000
"""How many publications are on their way at once."""
MOST_BYTES = 8 * 1024**2
"""How many bytes of messages; a larger one goes alone."""
LOOK_S = 1.0
"""How often it is looked, while somebody waits, whether anything has left, or the broker is still there."""


class Window:
    """See the module. `is_up` says whether the broker is there. Of one event loop, and used in that only."""

    def __init__(self, is_up: Callable[[], bool]) -> None:
        self._is_up = is_up
        self._count = 0
        self._nbytes = 0
        self._line: deque[tuple[int, Future[None]]] = deque()
        """The sizes of those who wait, in the order of the calls."""
        self._let_in_now = 0
        """How many have been let in, and have not gone on yet: who is called in this turn goes behind them."""
        self._timer: asyncio.TimerHandle | None = None
        self._has_left = False
        """Whether somebody has left since the last look."""

    async def enter(self, size: int) -> None:
        """Take a place for a message of so many bytes, when all who came before have theirs."""
        if not (self._line or self._let_in_now) and self._fits(size):
            self._take(size)
            return
        place: Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((size, place))
        self._look_later()
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                self._let_in()
            else:  # it was let in, and cancelled in the same turn
                self._let_in_now -= 1
                self.leave(size)
            raise
        self._let_in_now -= 1
        if not self._let_in_now:
            self._let_in()

    def leave(self, size: int) -> None:
        """Give the place back, and let in at once all who fit now."""
        self._count -= 1
        self._nbytes -= size
        self._has_left = True
        self._let_in()

    def _let_in(self, *, all_of_them: bool = False) -> None:
        line = self._line
        while line:
            size, place = line[0]
            if not place.done():  # else who waited has given up
                if not (all_of_them or self._fits(size)):
                    return
                self._take(size)
                self._let_in_now += 1
                place.set_result(None)
            line.popleft()

    def _take(self, size: int) -> None:
        self._count += 1
        self._nbytes += size

    def _fits(self, size: int) -> bool:
        return not self._count or (self._count < MOST and self._nbytes + size <= MOST_BYTES)

    def _look_later(self) -> None:
        if self._line and self._timer is None:
            self._has_left = False
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._line:
            self._let_in(all_of_them=not (self._has_left or self._is_up()))
        self._look_later()
