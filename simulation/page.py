"""The numbers of `docs/scaling.md`: tables that are computed from what was measured and from the model.

Not here: the numbers themselves (`costs.py`, `checks.py`, `plan.py`, `storm.py`), and the words around them,
which people write. Called by `tools/gen_docs.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.about import about_rows, commits, dates
from benchmarks.page_parts import replaced

from .checks import ROOMS, compared, measured_costs
from .cluster import Shape, lag
from .costs import CHECKED, TOLD, Cost, Costs, results
from .plan import LOADS, WORKER_CLIENTS, Plan, each, most_clients, plan
from .storm import Storm, Zone

PAGE = Path(__file__).resolve().parent.parent / "docs" / "scaling.md"
MILLIONS = (1_000_000, 100_000_000)
TITLES = {
    "valkey_2_1_per_core_s": "publications in a second of the core, 2 workers, one at a time",
    "valkey_4_1_per_core_s": "the same, 4 workers",
    "valkey_2_64_per_core_s": "the same, 2 workers, bursts of 64",
    "valkey_4_64_per_core_s": "the same, 4 workers, bursts of 64",
    "valkey_1600_p50_ms": "lag between workers at 1,600 publications a second, p50, ms",
    "local_400_p50_ms": "the same at 400, through `local://`",
    "local_1600_p50_ms": "the same at 1,600, through `local://`",
    "back_1000_100_cpu_s": "1,000 clients come back, 100 missed by each, s",
    "local_2_1_per_core_s": "publications through `local://`, 2 workers, one at a time",
    "local_4_1_per_core_s": "the same, 4 workers",
    "local_4_64_per_core_s": "the same, 4 workers, bursts of 64",
    "local_2_64_per_core_s": "publications through `local://`, 2 workers, bursts of 64",
    "valkey_100_p99_ms": "lag between workers at 100 publications a second, p99, ms",
    "valkey_400_p99_ms": "the same at 400",
    "valkey_1600_p99_ms": "the same at 1,600",
    "local_400_p99_ms": "the same at 400, through `local://`",
    "local_1600_p99_ms": "the same at 1,600, through `local://`",
}


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, marks, *lines))


def number(value: float) -> str:
    """Write a number with three digits that count."""
    if value >= 100:
        digits = max(0, len(str(int(value))) - 3)
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def cost_table(costs: Costs) -> str:
    def row(title: str, cost: Cost, more: float = 0.0) -> tuple[str, ...]:
        values = (each(cost, 1) + more, each(cost, 64))
        return title, *(f"{value * 1e6:.2f}" for value in values)

    lines = [
        row("where it is published", costs.publish),
        row("in the broker's server", costs.serve),
        row("there, for each worker that it goes to", costs.serve_worker),
        row("in each worker that has members", costs.receive),
        row("for each client", costs.write),
    ]
    come_back = (costs.back_s * 1e6, costs.missed_s * 1e6)
    head = ("a publication costs, µs", "alone in its turn", "with 63 of its room")
    words = (
        f"A client that comes back costs {come_back[0]:,.0f} µs, handshake and joining included, and "
        f"{come_back[1]:.1f} µs for each message that it missed. It has {costs.client_bytes:,.0f} bytes of "
        "memory at its worker, and the kernel takes some 4 KiB more."
    )
    return f"{table(head, lines)}\n\n{words}"


def check_table(names: Sequence[str]) -> str:
    found = {name: compared()[name] for name in names}
    lines = [
        (TITLES[name], number(real), number(model), f"{model / real - 1:+.0%}")
        for name, (real, model) in found.items()
    ]
    return table(("what", "measured", "the model says", "off by"), lines)


def plan_rows(found: Sequence[Plan]) -> Iterator[tuple[str, ...]]:
    def row(title: str, *values: str) -> tuple[str, ...]:
        return title, *values

    yield row("publications a second", *(number(each.publications_per_s) for each in found))
    yield row("deliveries a second", *(number(each.deliveries_per_s) for each in found))
    yield row("workers, a core each", *(number(each.workers) for each in found))
    yield row("machines of 8 cores", *(number(each.machines) for each in found))
    yield row("workers that a publication goes to", *(number(each.copies) for each in found))
    yield row("brokers, a core each", *(number(each.brokers) for each in found))
    yield row("connections of each broker", *(number(each.connections) for each in found))
    yield row("of all brokers, Gbit/s", *(number(each.broker_bytes_per_s * 8e-9) for each in found))
    yield row("to all clients, Gbit/s", *(number(each.client_bytes_per_s * 8e-9) for each in found))
    yield row("memory, GB", *(number(each.memory_bytes / 1e9) for each in found))
    yield row("one broker is enough", *("yes" if each.is_one_broker else "no" for each in found))
    yield row(
        "each worker can know each broker",
        *("yes" if each.is_possible else "**no**" for each in found),
    )


def plan_tables(costs: Costs) -> str:
    parts = []
    for load in LOADS:
        found = [plan(costs, clients, load) for clients in MILLIONS]
        limit = number(most_clients(costs, load))
        head = (load.name, *(f"{clients:,} clients" for clients in MILLIONS))
        parts.append(table(head, plan_rows(found)))
        parts.append(f"One broker's core is enough up to some {limit} clients of this kind.")
    return "\n\n".join(parts)


STORMS = (
    ("one zone of three, 20,000 clients at a worker, all notice at once", WORKER_CLIENTS // 2, 0.0),
    ("the same, they notice within 30 s", WORKER_CLIENTS // 2, 30.0),
    ("two zones of three, all notice at once", 2 * WORKER_CLIENTS, 0.0),
    ("one zone of three, 5,000 clients at a worker", 2_500, 0.0),
)


def storm_table(costs: Costs) -> str:
    lines = []
    for title, lost, notice_s in STORMS:
        found = Storm(costs, Zone(lost, notice_s=notice_s)).run()
        lines.append(
            (
                title,
                f"{lost:,}",
                *(f"{value:,.1f}" for value in (found.half_s, found.most_s, found.all_s)),
                f"{found.attempts:.2f}",
                f"{found.longest_wait_s:.1f}",
            )
        )
    head = (
        "what is lost",
        "come to each worker",
        "half are back, s",
        "99 %, s",
        "all, s",
        "attempts for each",
        "longest wait, s",
    )
    return table(head, lines)


def lag_table(costs: Costs) -> str:
    """How late publications are as one broker gets more to do, with 16 workers."""
    shape = Shape(workers=16, members=10, bytes_per_s=10e9 / 8)
    lines = []
    for rate in (1_000, 5_000, 10_000, 20_000, 40_000):
        lags = lag(costs, shape, ROOMS * 16, rate, seconds=0.25)
        values = (lags[len(lags) // 2], lags[len(lags) * 99 // 100])
        lines.append((f"{rate:,}", *(f"{value * 1e3:.2f}" for value in values)))
    return table(("publications a second", "p50, ms", "p99 of what waits, ms"), lines)


def page() -> str:
    """Return the page with its tables written anew."""
    found, costs = results(), measured_costs()
    text = PAGE.read_text(encoding="utf-8")
    abouts = list(about_rows(found, found["rows"]).values())
    processors = ", ".join(dict.fromkeys(each["machine"]["processor"] for each in abouts))
    when = f"Measured on {dates(abouts)} at commit `{commits(abouts)}`, {processors}."
    parts = {
        "costs": f"{cost_table(costs)}\n\n{when}",
        "checks": check_table(CHECKED),
        "told": check_table(TOLD),
        "plans": plan_tables(costs),
        "lags": lag_table(costs),
        "storms": storm_table(costs),
    }
    for name, part in parts.items():
        text = replaced(text, name, part)
    return text
