"""The turns in which handshakes begin: when thousands come in one moment, as after a cut of the network,
everything else has its turn of the event loop in between.

What must not live here: what a handshake is (`uvicorn_protocol`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

MOST_A_TURN = 64
"""How many handshakes begin in one turn. To read a head and start its call takes some 0.05 ms."""


class Beginnings:
    """What is to be begun in one event loop, in the order of coming. Event loop only."""

    def __init__(self) -> None:
        self._left = MOST_A_TURN
        self._waiting: deque[Callable[[], None]] = deque()

    def add(self, begin: Callable[[], None]) -> None:
        """Begin something: at once if this turn has room for it, and else in a later one."""
        if self._left == MOST_A_TURN:
            asyncio.get_running_loop().call_soon(self._next)
        if self._left:
            self._left -= 1
            begin()
        else:
            self._waiting.append(begin)

    def _next(self) -> None:
        """Begin a turn: its first places are for who waits."""
        loop = asyncio.get_running_loop()
        count = min(len(self._waiting), MOST_A_TURN)
        self._left = MOST_A_TURN - count
        if count:
            loop.call_soon(self._next)
        for _ in range(count):
            try:
                self._waiting.popleft()()
            except Exception as error:
                text = "a handshake could not begin"
                loop.call_exception_handler({"message": text, "exception": error})


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Beginnings] = WeakKeyDictionary()


def begin_soon(begin: Callable[[], None]) -> None:
    """Begin something in the running event loop; see `Beginnings.add`."""
    loop = asyncio.get_running_loop()
    found = _of_loops.get(loop)
    if found is None:
        found = _of_loops[loop] = Beginnings()
    found.add(begin)
