"""The model beside what was measured: what it says of each point, and how far that is off.

    python -m simulation.checks

prints it. Three numbers are fitted, each to one figure that no check uses: which share of a turn's fixed cost is each
room's, how many times what a publication adds in one room it adds in many, and how long it is on its way beside
all work. Not here: the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache

from .cluster import Shape, lag, throughput
from .costs import CHECKED, Costs, Rounds, client_bytes, costs_of, least, results
from .storm import back_at_once

TOLERANCE = 0.2
ROOMS = 16
SHARES = tuple(share / 50 for share in range(26))
TIMES = tuple(1 + times / 20 for times in range(21))
FITTED_SHARE = "valkey_1_1_per_core_s"
FITTED_TIMES = "valkey_1_64_per_core_s"
FITTED_PATH = "valkey_400_p50_ms"


def on_one_core(workers: int) -> Shape:
    """Return what the benchmark runs: all on one core."""
    return Shape(workers, is_one_core=True)


def fit(rows: Mapping[str, Rounds], memory: float) -> Costs:
    """Return the costs with the three numbers fitted."""

    def miss(name: str, share: float, many_rooms: float) -> float:
        costs = costs_of(rows, memory, share, many_rooms)
        return abs(said(costs, name) / measured(rows, name) - 1)

    share, many_rooms = 0.0, 1.0
    for _ in range(2):  # the second time each knows what the other is
        share = min(SHARES, key=lambda each: miss(FITTED_SHARE, each, many_rooms))
        many_rooms = min(TIMES, key=lambda each: miss(FITTED_TIMES, share, each))
    costs = costs_of(rows, memory, share, many_rooms)
    work_s = median_of(lag(costs, on_one_core(2), ROOMS, 400))
    path_s = max(0.0, least(rows["lag"], FITTED_PATH) / 1e3 - work_s)
    return dataclasses.replace(costs, path_s=path_s)


@lru_cache
def measured_costs() -> Costs:
    """Return the costs by the results that are kept."""
    return fit(results()["rows"], client_bytes())


def median_of(values: list[float]) -> float:
    return values[len(values) // 2]


def said(costs: Costs, name: str) -> float:
    """Return what the model says of a figure of `CHECKED`."""
    kind, first, second, *_ = name.split("_")
    if kind == "back":
        return back_at_once(costs, int(first), int(second))
    if name.endswith("_ms"):
        return median_of(lag(costs, on_one_core(2), ROOMS, float(first))) * 1e3
    return throughput(costs, on_one_core(int(first)), ROOMS, int(second))


def measured(rows: Mapping[str, Rounds], name: str) -> float:
    """Return what was measured of a figure: the best of all rounds, since others on the machine only take."""
    if name.startswith("back"):
        return least(rows["storm"], name)
    if name.endswith("_ms"):
        return least(rows["lag"], name)
    return max(values[name] for values in rows["through"] if name in values)


def compare(rows: Mapping[str, Rounds], costs: Costs) -> dict[str, tuple[float, float]]:
    """Return for each figure what was measured and what the model says."""
    return {name: (measured(rows, name), said(costs, name)) for name in CHECKED}


def main() -> None:
    for name, (real, model) in compare(results()["rows"], measured_costs()).items():
        print(f"{name:28} measured {real:12,.3f}  model {model:12,.3f}  {model / real - 1:+.1%}")


if __name__ == "__main__":
    main()
