"""DeadlineQueue: whose token ends when, and who is to be asked for a new one before that.

What must not live here: what becomes of them, timers, the clock (the time is an argument).
`liveness` advances it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Generic, TypeVar

ASK_AHEAD_S = 30.0
"""How long before the end a member is asked, or half of the time that is left, if that is less."""
GRACE_S = 25.0
"""How long after the end of its token a client of a dialect with commands is served on: it asks for a new one
just then, and that is on its way."""

_SPARE_ENTRIES = 16

T = TypeVar("T")


class DeadlineQueue(Generic[T]):
    """A heap of deadlines. A member without one is unknown here and costs nothing.

    With `warn_before`, a member is to be asked once before its deadline. What was renewed or removed
    stays in the heap as a number until it is due, but never longer than the heap is half full.
    """

    def __init__(self, *, warn_before: bool = False) -> None:
        self._warn_before = warn_before
        self._heap: list[tuple[float, int]] = []
        self._numbers: dict[T, int] = {}
        self._members: dict[int, tuple[T, float]] = {}
        self._next_number = 0

    def __len__(self) -> int:
        return len(self._members)

    def set(self, member: T, deadline: float, now: float) -> None:
        """Give `member` a deadline, in place of the one it may have."""
        self.remove(member)
        number = self._next_number
        self._next_number += 1
        self._numbers[member] = number
        self._members[number] = (member, deadline)
        ahead = min(ASK_AHEAD_S, max(0.0, deadline - now) / 2) if self._warn_before else 0.0
        heapq.heappush(self._heap, (deadline - ahead, number))

    def remove(self, member: T) -> None:
        """Forget a member. Unknown members are no error."""
        number = self._numbers.pop(member, None)
        if number is None:
            return
        del self._members[number]
        if len(self._heap) > 2 * len(self._members) + _SPARE_ENTRIES:
            self._heap = [entry for entry in self._heap if entry[1] in self._members]
            heapq.heapify(self._heap)

    def advance(
        self,
        now: float,
        ask: Callable[[T, float], None],
        expired: Callable[[T], None],
        most: float = math.inf,
    ) -> bool:
        """Call `expired` for who is at the end, `ask` with the seconds left for who is near it.

        Return whether there are more than `most` of them, and another turn is due.
        """
        count = 0
        while self._heap and self._heap[0][0] <= now:
            if self._heap[0][1] not in self._members:
                heapq.heappop(self._heap)
                continue
            if count >= most:
                return True
            count += 1
            _, number = heapq.heappop(self._heap)
            member, deadline = self._members[number]
            if deadline <= now:
                self.remove(member)
                expired(member)
            else:
                heapq.heappush(self._heap, (deadline, number))
                ask(member, deadline - now)
        return False
