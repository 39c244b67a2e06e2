"""Time, cores and links: events in the order of their time, and things that do one piece of work after another.

Not here: what work there is (`cluster.py`, `storm.py`). No clock and no chance of its own: the same calls
give the same results.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count

Action = Callable[[], None]


class Simulation:
    """What happens, by its time in seconds."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._events: list[tuple[float, int, Action]] = []
        self._numbers = count()

    def after(self, delay_s: float, action: Action) -> None:
        """Have something done later; what is due at one time is done in the order of the calls."""
        heapq.heappush(self._events, (self.now_s + delay_s, next(self._numbers), action))

    def run(self, until_s: float = float("inf")) -> None:
        """Do what is due, until there is nothing or the time is over."""
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, action = heapq.heappop(self._events)
            action()


class Core:
    """A core: it does one piece of work after another, each without a break."""

    def __init__(self, simulation: Simulation) -> None:
        self.busy_s = 0.0
        self._simulation = simulation
        self._waiting: deque[tuple[Callable[[], float], Action]] = deque()
        self._is_busy = False

    def __len__(self) -> int:
        return len(self._waiting)

    def do(self, work: Callable[[], float], then: Action) -> None:
        """Have work done in its turn: `work` begins it and says how long it takes, `then` comes at its end."""
        self._waiting.append((work, then))
        if not self._is_busy:
            self._next()

    def _next(self) -> None:
        self._is_busy = bool(self._waiting)
        if self._is_busy:
            work, then = self._waiting.popleft()
            cost_s = work()
            self.busy_s += cost_s
            self._simulation.after(cost_s, lambda: self._end(then))

    def _end(self, then: Action) -> None:
        then()
        self._next()


class Link:
    """A way with a bandwidth: what is sent leaves one after another, and arrives `delay_s` later."""

    def __init__(self, simulation: Simulation, bytes_per_s: float, delay_s: float = 0.0) -> None:
        self.sent_bytes = 0
        self._simulation = simulation
        self._bytes_per_s = bytes_per_s
        self._delay_s = delay_s
        self._free_s = 0.0

    def send(self, size: int, then: Action) -> None:
        """Send some bytes; `then` comes when the last has arrived."""
        now_s = self._simulation.now_s
        self._free_s = max(self._free_s, now_s) + size / self._bytes_per_s
        self.sent_bytes += size
        self._simulation.after(self._free_s - now_s + self._delay_s, then)
