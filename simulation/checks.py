"""The model beside what was measured: what it says of each point, and how far that is off.

    python -m simulation.checks

prints it. Four numbers are fitted, each to one figure that no check uses: which share of a turn's fixed cost is each
room's, how many times what a publication adds in one room it adds in many, how long it is on its way beside
all work, and by how much longer after a rest. Not here: the model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import lru_cache, partial
from statistics import median
from typing import NamedTuple

from .cluster import Shape, lag, throughput
from .costs import CHECKED, TOLD, Costs, Rounds, client_bytes, costs_of, results, typical
from .storm import back_at_once

TOLERANCE = 0.2
ROOMS = 16
SHARES = tuple(share / 50 for share in range(26))
TIMES = tuple(1 + times / 20 for times in range(21))
FITTED_SHARE = "valkey_1_1_per_core_s"
FITTED_TIMES = "valkey_1_64_per_core_s"
FITTED_PATHS = (100, 400)
"""The rates of the figures to which the time on the way is fitted."""


class Fit(NamedTuple):
    """The numbers that are fitted."""

    share: float = 0.0
    many_rooms: float = 1.0
    path_s: float = 0.0
    rest: float = 0.0

    def costs(self, rows: Mapping[str, Rounds], memory: float, workers: int = 2) -> Costs:
        """Return the costs with them, where so many workers share a core."""
        # What one worker costs is taken for that of one of two.
        found = costs_of(rows, memory, self.share, self.many_rooms, max(2, workers))
        return dataclasses.replace(found, path_s=self.path_s, rest=self.rest)


def on_one_core(workers: int) -> Shape:
    """Return what the benchmark runs: all on one core."""
    return Shape(workers, is_one_core=True)


def lag_name(rate: int) -> str:
    return f"valkey_{rate}_p50_ms"


def fit(rows: Mapping[str, Rounds], memory: float) -> Fit:
    """Fit the numbers."""
    fitted = Fit()

    def miss(name: str, changed: Fit) -> float:
        return abs(said(rows, memory, changed, name) / measured(rows, name) - 1)

    for _ in range(2):  # the second time each knows what the other is
        shares = (fitted._replace(share=share) for share in SHARES)
        fitted = min(shares, key=partial(miss, FITTED_SHARE))
        times = (fitted._replace(many_rooms=times) for times in TIMES)
        fitted = min(times, key=partial(miss, FITTED_TIMES))
    costs = fitted.costs(rows, memory)
    roots = [math.sqrt(1 / rate) for rate in FITTED_PATHS]
    paths = [
        measured(rows, lag_name(rate)) / 1e3 - median(lag(costs, on_one_core(2), ROOMS, rate))
        for rate in FITTED_PATHS
    ]
    rest = max(0.0, (paths[0] - paths[1]) / (roots[0] - roots[1]))
    return fitted._replace(path_s=paths[1] - rest * roots[1], rest=rest)


@lru_cache
def kept() -> tuple[Mapping[str, Rounds], float, Fit]:
    """Return the results that are kept, the memory of a client, and what is fitted to them."""
    rows, memory = results()["rows"], client_bytes()
    return rows, memory, fit(rows, memory)


def measured_costs() -> Costs:
    """Return the costs by the results that are kept."""
    rows, memory, fitted = kept()
    return fitted.costs(rows, memory)


def said(rows: Mapping[str, Rounds], memory: float, fitted: Fit, name: str) -> float:
    """Return what the model says of a figure of `CHECKED` or `TOLD`."""
    kind, first, second, *_ = name.split("_")
    if kind == "back":
        return back_at_once(fitted.costs(rows, memory), int(first), int(second))
    if name.endswith("_ms"):
        lags = lag(fitted.costs(rows, memory), on_one_core(2), ROOMS, float(first))
        return (lags[len(lags) * 99 // 100] if second == "p99" else median(lags)) * 1e3
    workers = int(first)
    costs = fitted.costs(rows, memory, workers)
    return throughput(costs, on_one_core(workers), ROOMS, int(second))


def measured(rows: Mapping[str, Rounds], name: str) -> float:
    """Return what was measured of a figure."""
    if name.startswith("back"):
        return typical(rows["storm"], name)
    return typical(rows["lag" if name.endswith("_ms") else "through"], name)


@lru_cache
def compared() -> dict[str, tuple[float, float]]:
    """Return for each figure of `CHECKED` and `TOLD` what was measured and what the model says."""
    rows, memory, fitted = kept()
    return {
        name: (measured(rows, name), said(rows, memory, fitted, name)) for name in CHECKED + TOLD
    }


def main() -> None:
    for name, (real, model) in compared().items():
        print(f"{name:28} measured {real:12,.3f}  model {model:12,.3f}  {model / real - 1:+.1%}")


if __name__ == "__main__":
    main()
