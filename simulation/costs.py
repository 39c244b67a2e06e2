"""What things cost: computed from what was measured, and from nothing else.

The results of `make bench` are the only source: `benchmarks/results/brokers.json`, and `benchmarks.json` for
the memory of a client. Which figures are used here and which the model is checked with is said in `CHECKED`.
Not here: the model (`cluster.py`, `storm.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
BURST = 64
"""The burst of the row "cost"."""
MANY = 100
"""Its larger number of clients at a worker."""

Rounds = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Cost:
    """What a turn of an event loop costs, in seconds: `turn_s` whatever is in it, `run_s` for each room that it has
    anything for, `each_s` for each publication."""

    turn_s: float
    run_s: float
    each_s: float

    def of(self, runs: int, each: int) -> float:
        """Return what a turn costs with so many rooms and publications."""
        return self.turn_s + runs * self.run_s + each * self.each_s


@dataclass(frozen=True)
class Costs:
    """All costs: in the worker that publishes, in each worker that has members, in the broker's server (and there for
    each worker that it is sent to), for each client that a worker writes to, and for one that comes back."""

    publish: Cost
    receive: Cost
    write: Cost
    serve: Cost
    serve_worker: Cost
    back_s: float
    missed_s: float
    path_s: float
    """How long a publication is on its way beside all that work, where one follows another at once."""
    rest: float
    """By how much longer, for each root of a second that the processes have rested before it (in roots of a second):
    a core that has nothing to do sleeps, the deeper the longer."""
    read: Cost
    """Of the benchmark's own clients, on a core of theirs."""
    client_bytes: float

    def path_after(self, rest_s: float) -> float:
        """Return how long a publication is on its way that comes so long after the one before."""
        return max(0.0, self.path_s + self.rest * math.sqrt(rest_s))


CHECKED = (
    "valkey_2_1_per_core_s",
    "valkey_4_1_per_core_s",
    "valkey_2_64_per_core_s",
    "valkey_4_64_per_core_s",
    "valkey_1600_p50_ms",
    "local_400_p50_ms",
    "local_1600_p50_ms",
    "back_1000_100_cpu_s",
    "local_2_1_per_core_s",
    "local_4_1_per_core_s",
    "local_4_64_per_core_s",
)
"""What the model has to say within 20 %. None of these figures is used for a cost."""
TOLD = (
    "local_2_64_per_core_s",
    "valkey_100_p99_ms",
    "valkey_400_p99_ms",
    "valkey_1600_p99_ms",
    "local_400_p99_ms",
    "local_1600_p99_ms",
)
"""What the model does not know, and is told beside it: the spread of single publications, which is the machine's."""


def typical(rounds: Rounds, name: str) -> float:
    """Return the median of a figure over all rounds. Machines are quicker at one time and slower at another, and the best
    round of one row does not belong to the best of another."""
    return median(values[name] for values in rounds if name in values)


def line(one: float, many: float, count: int) -> tuple[float, float]:
    """Return what is there anyway and what is added by each, of a cost for one and for `count`."""
    each = max(0.0, (many - one) / (count - 1))
    return max(0.0, one - each), each


def split(one: float, many: float, share: float, many_rooms: float = 1.0) -> Cost:
    """Return the cost of a turn of microseconds for one publication and for a burst, with a share of what is
    there anyway that is each room's."""
    fixed, each = line(one, many, BURST)
    return Cost(fixed * (1 - share) * 1e-6, fixed * share * 1e-6, each * many_rooms * 1e-6)


def costs_of(
    rows: Mapping[str, Rounds],
    client_bytes: float,
    share: float,
    many_rooms: float = 1.0,
    workers: int = 2,
) -> Costs:
    """Return the costs, given which share of a turn's fixed cost is each room's, and how many times what each
    publication adds in one room it adds in many. `workers` is how many share a core (2 or 4): the more there are,
    the colder each finds its caches."""
    found = rows["cost"]

    def burst(workers: int, clients: int, count: int, which: str) -> float:
        return typical(found, f"w{workers}_c{clients}_b{count}_{which}_us") * count

    def received_by(workers: int, count: int) -> tuple[float, float]:
        _, each = line(burst(2, 1, count, "other"), burst(2, MANY, count, "other"), MANY)
        return max(0.0, burst(workers, 1, count, "other") - each), each

    received = [received_by(workers, count) for count in (1, BURST)]
    publisher = [
        burst(workers, 1, count, "publisher") - burst(workers, 1, count, "other")
        for count in (1, BURST)
    ]
    served = [
        line(burst(1, 1, count, "broker"), burst(4, 1, count, "broker"), 4) for count in (1, BURST)
    ]
    back = {missed: typical(rows["storm"], f"back_250_{missed}_cpu_s") / 250 for missed in (0, 100)}
    reading = [typical(rows["through"], f"valkey_1_{count}_generator_us") for count in (1, BURST)]
    return Costs(
        publish=split(publisher[0], publisher[1], share, many_rooms),
        receive=split(received[0][0], received[1][0], share, many_rooms),
        write=split(received[0][1], received[1][1], 1.0, many_rooms),
        serve=split(served[0][0], served[1][0], share, many_rooms),
        serve_worker=split(served[0][1], served[1][1], share, many_rooms),
        back_s=back[0],
        missed_s=max(0.0, back[100] - back[0]) / 100,
        path_s=0.0,
        rest=0.0,
        read=split(reading[0], reading[1] * BURST, 1.0),
        client_bytes=client_bytes,
    )


def results() -> dict[str, Any]:
    """Return what was measured of brokers."""
    found: dict[str, Any] = json.loads((RESULTS / "brokers.json").read_text(encoding="utf-8"))
    return found


def client_bytes() -> float:
    """Return the memory of a client at the server, in bytes, as the row "memory" has it."""
    rows = json.loads((RESULTS / "benchmarks.json").read_text(encoding="utf-8"))["rows"]
    runs = [pair["ours"][""] for pair in rows["memory"]]
    sound = [run for run in runs if "error" not in run]
    kib: list[float] = [
        (run["memory_begin_kib"] - run["memory_before_kib"]) / run["clients"] for run in sound
    ]
    return 1024 * median(kib)
