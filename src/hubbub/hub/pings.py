"""Pings: what the hub says now and then to clients of dialects that expect to hear from it.

What must not live here: whether a client is alive (`liveness`), what a ping looks like (a dialect).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, cast

from ..dialects.dialect import Dialect, Ping, PingingDialect

if TYPE_CHECKING:
    from .core import Core
    from .session import ClientSession

TICK_S = 1.0
"""How often it is looked who is due; so many parts of a second's clients are due at once."""


class Pings:
    """Pings each client of such a dialect once in its interval. Event loop only; made anew for each.

    The clients of a dialect are spread over the ticks of its interval, so that those who came together
    are not all pinged together.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._slots: dict[Dialect, list[dict[ClientSession, None]]] = {}
        self._where: dict[ClientSession, int] = {}
        self._turn = 0
        self._will_tick = False

    def __len__(self) -> int:
        """How many clients are pinged."""
        return len(self._where)

    def add(self, session: ClientSession) -> None:
        """Ping a client from now on, for the first time after half an interval at least."""
        dialect = session.variant.dialect
        interval_s = getattr(dialect, "ping_interval_s", None)
        if interval_s is None or session.close is not None:
            return
        slots = self._slots.get(dialect)
        if slots is None:
            count = max(1, round(cast(PingingDialect, dialect).ping_interval_s / TICK_S))
            slots = self._slots[dialect] = [{} for _ in range(count)]
        count = len(slots)
        number = (self._turn + random.randint((count + 1) // 2, count)) % count
        slots[number][session] = None
        self._where[session] = number
        self._tick_later()

    def remove(self, session: ClientSession) -> None:
        """Ping a client no more. One that is not pinged is no error."""
        number = self._where.pop(session, None)
        if number is not None:
            del self._slots[session.variant.dialect][number][session]

    def tick(self) -> None:
        """Ping those who are due."""
        self._turn += 1
        publishing = self._core.publishing
        for slots in self._slots.values():
            due = list(slots[self._turn % len(slots)])
            variant = due[0].variant if due else None
            frame = None if variant is None else variant.encode(Ping())
            if frame is not None:
                for session in due:
                    publishing.send(session, frame, is_encoded=True)

    def _tick_later(self) -> None:
        if not self._will_tick:
            self._will_tick = True
            self._core.lifecycle.schedule(self._tick_and_go_on, TICK_S)

    def _tick_and_go_on(self) -> None:
        self._will_tick = False
        if self._where and self._core.pings is self:
            self.tick()
            self._tick_later()
