"""Live data: the prices of three shares that walk at random."""

from __future__ import annotations

import random
from collections import deque

from .clock import iso_now

MAX_TICKS = 90
SHARES = {"Harbour": 100.0, "Meadow": 86.0, "Attic": 114.0}
"""Name and first price; each price is drawn back to its first a little, so it never wanders off."""


class Market:
    """Prices, and the last `MAX_TICKS` of them."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()
        self._prices = dict(SHARES)
        self._ticks: deque[dict[str, object]] = deque(maxlen=MAX_TICKS)

    def step(self) -> dict[str, float]:
        """Move every price by a step and return them."""
        for name, home in SHARES.items():
            price = self._prices[name]
            step = self._rng.gauss(0, 1.1) + (home - price) * 0.03
            self._prices[name] = round(max(1.0, price + step), 2)
        return dict(self._prices)

    def tick(self) -> dict[str, object]:
        """Move every price by a step and return `{"type": "tick", "time": …, "prices": {…}}`."""
        tick: dict[str, object] = {"type": "tick", "time": iso_now(), "prices": self.step()}
        self._ticks.append(tick)
        return tick

    def history(self) -> list[dict[str, object]]:
        """Return the last ticks, oldest first."""
        return list(self._ticks)
