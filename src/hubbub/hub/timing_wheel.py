"""TimingWheel: one wheel for all clients, which says who is due a ping and who is overdue.

What must not live here: sockets, timers, the clock (the time is an argument). `liveness` advances
the wheel once per `tick_s`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

_ROUNDING = 1e-6
"""A turn that is early by this part of a tick is on time: floating-point seconds do not add up."""

_LATE_TICKS = 2
"""A turn later than so many ticks says nothing about the peers: half the margin between the ping
and the end of the wait would be gone before their pongs could be read."""


class HasLastSeen(Protocol):
    """What the wheel needs of its members."""

    last_seen: float
    """When the peer last gave a sign of life, in seconds of the caller's clock."""


T = TypeVar("T", bound=HasLastSeen)


class TimingWheel(Generic[T]):
    """A timing wheel over `pong_timeout_s`.

    A member is looked at when it has been silent for `ping_interval_s` (it gets a ping) and again
    just before it has been silent for `pong_timeout_s` (it is overdue). A member that talks costs
    one look per `ping_interval_s`. Deadlines are rounded down to a tick, so an overdue member is
    found at most one tick early and never late.

    A turn that comes far too late (the machine slept, the loop was blocked) says nothing about
    the peers: that time is given back to every member.
    """

    def __init__(self, ping_interval_s: float, pong_timeout_s: float, now: float) -> None:
        self.ping_interval_s = ping_interval_s
        self.pong_timeout_s = pong_timeout_s
        margin = pong_timeout_s - ping_interval_s
        self.tick_s: float = min(1.0, ping_interval_s / 4, margin / 4)
        self._slots: list[dict[T, None]] = [
            {} for _ in range(int(pong_timeout_s / self.tick_s) + 3)
        ]
        self._where: dict[T, int] = {}
        self._turn = 0
        self._last = now

    def __len__(self) -> int:
        return len(self._where)

    def add(self, member: T, now: float) -> None:
        """Watch `member` from now on; it counts as seen now."""
        member.last_seen = now
        self._place(member, now + self.ping_interval_s)

    def remove(self, member: T) -> None:
        """Stop watching `member`. Unknown members are no error."""
        slot = self._where.pop(member, None)
        if slot is not None:
            self._slots[slot].pop(member, None)

    def advance(self, now: float, ping: Callable[[T], None], overdue: Callable[[T], None]) -> None:
        """Move the wheel to `now`; call `ping` and `overdue` for the members that are due."""
        late = now - self._last - self.tick_s
        if late > _LATE_TICKS * self.tick_s:
            self._give_back(late, now)
        ticks = int((now - self._last) / self.tick_s + _ROUNDING)
        if ticks <= 0:
            return
        self._last += ticks * self.tick_s
        for _ in range(min(ticks, len(self._slots))):
            self._turn = (self._turn + 1) % len(self._slots)
            due, self._slots[self._turn] = self._slots[self._turn], {}
            for member in due:
                # What is done about one member may remove another.
                if self._where.get(member) == self._turn:
                    del self._where[member]
                    self._check(member, now, ping, overdue)

    def _check(
        self, member: T, now: float, ping: Callable[[T], None], overdue: Callable[[T], None]
    ) -> None:
        silent_s = now - member.last_seen
        # A deadline less than a tick ahead would be found late at the next look.
        if silent_s > self.pong_timeout_s - self.tick_s:
            overdue(member)
            return
        if silent_s > self.ping_interval_s - self.tick_s:
            self._place(member, member.last_seen + self.pong_timeout_s)
            ping(member)
        else:
            self._place(member, member.last_seen + self.ping_interval_s)

    def _place(self, member: T, deadline: float) -> None:
        steps = int((deadline - self._last) / self.tick_s)
        steps = max(1, min(steps, len(self._slots) - 1))
        slot = (self._turn + steps) % len(self._slots)
        self._slots[slot][member] = None
        self._where[member] = slot

    def _give_back(self, late_s: float, now: float) -> None:
        for member in self._where:
            # Who spoke after the sleep, before this turn, owes nothing and is given nothing.
            member.last_seen = min(member.last_seen + late_s, now)
