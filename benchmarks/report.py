"""Make `docs/benchmarks.md` of the results. Not here: measuring anything. Called by `run.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from . import page_parts, text
from .about import Results, when
from .measure import FULL
from .plot import chart
from .rows import (
    CORE,
    ERRORS,
    FOUR,
    GOALS,
    MOST_GROWTH_SPREAD,
    MOST_IDLE_SHARE,
    MOST_MEMORY_KIB,
    MOST_P99_MS,
    MOST_STALL_RATIO,
    P99,
    ROWS,
    SERIES,
    Metric,
    Row,
    Run,
    Series,
)
from .servers import BY_NAME, JOINED, OURS, PEERS

Pair = dict[str, Any]
GoalLine = tuple[str, str, str, str, str]
"""The goal, what is asked, what was measured, whether it holds, what bare system calls reach."""

SUMMARY = ("one", "burst64", "rooms", "echo", "memory", "handshakes")


# Values


def value_of(run: Run | None, metric: Metric) -> float | None:
    """Return the metric of a run; None when the run failed or had nothing of it to measure."""
    if run is None or "error" in run or (metric is P99 and not run["delivered"]):
        return None
    try:
        value = metric.of(run)
    except (ZeroDivisionError, KeyError):
        return None
    return value if value > 0 or metric.is_less_better else None


def pairs_of(results: Results, row: Row) -> list[Pair]:
    """Return the pairs of a row; of one that reads another row's runs, those."""
    pairs: list[Pair] = results["rows"].get(row.runs_of or row.key, [])
    return pairs


def known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def middle(values: Iterable[float | None]) -> float | None:
    found = known(values)
    return median(found) if found else None


def runs_of(pairs: Sequence[Pair], name: str, variant: str = "") -> list[Run]:
    """Return the runs of one server in a row; a run of ours that several pairs share comes once."""
    side = "ours" if name == OURS.name else "theirs"
    found = [
        pair[side][variant]
        for pair in pairs
        if (side == "ours" or pair["peer"] == name) and variant in pair[side]
    ]
    return [run for place, run in enumerate(found) if run not in found[:place]]


def ratios(pairs: Sequence[Pair], peer: str, metric: Metric, variant: str = "") -> list[float]:
    """Return ours to theirs for each pair of one peer."""
    found = []
    for pair in pairs:
        if pair["peer"] != peer:
            continue
        ours = value_of(pair["ours"].get(variant), metric)
        theirs = value_of(pair["theirs"].get(variant), metric)
        if ours is not None and theirs is not None:
            found.append(metric.ratio(ours, theirs))
    return known(found)


def remarks(runs: Sequence[Run]) -> str:
    """Say what was wrong in any of the runs."""
    found = []
    for error in {run["error"] for run in runs if "error" in run}:
        found.append(error.split(";")[0])
    sound = [run for run in runs if "error" not in run]
    for name in ERRORS:
        most = max((run[name] for run in sound), default=0)
        if most:
            found.append(f"**{most:,} {name}**")
    behind = max((run["unfinished"] for run in sound), default=0)
    if behind:
        found.append(f"fell behind by {behind:,}")
    if any(run["limit"] == "generator" for run in sound):
        found.append("generator was the limit")
    return ", ".join(found) or "–"


def brief(run: Run) -> str:
    """Say in one line what came of a run, for whoever watches."""
    if "error" in run:
        return str(run["error"])
    done = run["handshakes"] or run["delivered"]
    rate = done / run["cpu_s"] if run["cpu_s"] else 0
    grown = (run["memory_begin_kib"] - run["memory_before_kib"]) / run["clients"]
    return (
        f"{rate:12,.0f} per CPU-s  p99 {run['latency_us']['p99'] / 1000:9.2f} ms  "
        f"{run['server_share']:4.0%} core  {grown:6.1f} KiB  {remarks([run])}"
    )


def spread(values: Sequence[float], write: Callable[[float], str]) -> str:
    """Write the least and the greatest value."""
    return f"{write(min(values))} – {write(max(values))}" if values else "–"


def times(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


# Tables


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table: numbers to the right, words to the left."""
    words = ("server", "goal", "what", "which", "how", "versions", "command", "remarks")
    marks = ["---" if title.startswith(words) else "---:" for title in head]
    rows = [head, marks, *lines]
    return ["| " + " | ".join(row) + " |" for row in rows] + [""]


def names_in(pairs: Sequence[Pair]) -> list[str]:
    here = {pair["peer"] for pair in pairs}
    return [OURS.name, *(peer.name for peer in PEERS if peer.name in here)]


def row_table(row: Row, pairs: Sequence[Pair]) -> list[str]:
    metric = row.metric
    lines = []
    for name in names_in(pairs):
        runs = runs_of(pairs, name)
        values = known(value_of(run, metric) for run in runs)
        found = ratios(pairs, name, metric)
        lines.append(
            (
                BY_NAME[name].title,
                metric.shown(middle(values)),
                spread(values, metric.shown),
                times(middle(found)) if name != OURS.name else "1",
                spread(found, times),
                remarks(runs),
            )
        )
    unit = f"{metric.unit}, median"
    ratio = "theirs / ours" if metric.is_less_better else "ours / theirs"
    return table(("server", unit, "spread", ratio, "spread", "remarks"), lines)


def latency_line(name: str, runs: Sequence[Run]) -> tuple[str, ...]:
    sound = [run for run in runs if "error" not in run]

    def ms(which: str) -> str:
        return P99.shown(middle(run["latency_us"][which] for run in sound if run["delivered"]))

    core = middle(run["server_share"] for run in sound)
    grown = middle(float(run["memory_most_kib"] - run["memory_begin_kib"]) for run in sound)
    return (
        name,
        *(ms(which) for which in ("p50", "p99", "p99_9", "max")),
        "–" if core is None else f"{core:.0%}",
        "–" if grown is None else f"{grown / 1024:.1f}",
        remarks(runs),
    )


def latency_table(row: Row, pairs: Sequence[Pair]) -> list[str]:
    lines = []
    for name in names_in(pairs):
        for variant, _ in row.variants:
            title = BY_NAME[name].title + (f", {variant}" if variant else "")
            lines.append(latency_line(title, runs_of(pairs, name, variant)))
    head = ("server", "p50 ms", "p99", "p99.9", "max", "core", "memory grown MiB", "remarks")
    return table(head, lines)


def stall_table(pairs: Sequence[Pair]) -> list[str]:
    """How the p99 of the others changes when some clients stop reading."""
    lines = []
    for name in names_in(pairs):
        found = stall_ratios(pairs, name)
        lines.append((BY_NAME[name].title, times(middle(found)), spread(found, times)))
    return table(("server", "p99 stalled / calm", "spread"), lines)


def stall_ratios(pairs: Sequence[Pair], name: str) -> list[float]:
    calm = [value_of(run, P99) for run in runs_of(pairs, name, "calm")]
    stalled = [value_of(run, P99) for run in runs_of(pairs, name, "stalled")]
    return [b / a for a, b in zip(calm, stalled, strict=False) if a and b]


def sentence(words: str) -> str:
    return words[0].upper() + words[1:]


def row_section(row: Row, results: Results) -> list[str]:
    pairs = pairs_of(results, row)
    rounds = 1 + max((pair["repeat"] for pair in pairs), default=0)
    how_many = "One round." if rounds == 1 else f"{rounds} rounds."
    told = f"{row.note} {how_many} {when(results, row.runs_of or row.key)}".rstrip()
    lines = [f"### {row.title}", "", told, ""]
    if row.shows_latency:
        lines += latency_table(row, pairs)
    if row.key == "stall":
        lines += stall_table(pairs)
    elif not row.shows_latency or row.metric is not P99:
        lines += [f"{sentence(row.metric.title)}:", "", *row_table(row, pairs)]
    return lines


def summary(results: Results) -> list[str]:
    """One line for each server: its median, and how many times that ours is."""
    rows = [row for row in ROWS if row.key in SUMMARY and pairs_of(results, row)]
    lines = []
    for spec in (OURS, *PEERS):
        cells = []
        for row in rows:
            pairs = pairs_of(results, row)
            value = middle(value_of(run, row.metric) for run in runs_of(pairs, spec.name))
            ratio = middle(ratios(pairs, spec.name, row.metric))
            beside = "" if ratio is None else f" ({times(ratio)})"
            cells.append(row.metric.shown(value) + beside)
        if any(cell != "–" for cell in cells):
            lines.append((spec.title, *cells))
    head = [f"{text.COLUMNS[row.key]}, {row.metric.unit}" for row in rows]
    return table(("server", *head), lines)


# Goals


def goal_lines(results: Results) -> Iterator[GoalLine]:
    titles = {row.key: row for row in ROWS}
    for goal in GOALS:
        row = titles[goal.row]
        pairs = pairs_of(results, row)
        found = middle(ratios(pairs, goal.peer, row.metric))
        limit = limit_ratio(pairs, goal.peer, row.metric)
        what = f"{text.COLUMNS[goal.row]}, to {BY_NAME[goal.peer].title}"
        verdict = holds(found, least=goal.least)
        yield what, f"{goal.least:g} times", times(found), verdict, times(limit)
    yield from own_goals(results["rows"])
    yield from growth_goal(results)


def holds(value: float | None, *, least: float = float("-inf"), most: float = float("inf")) -> str:
    if value is None:
        return "not measured"
    return "yes" if least <= value <= most else "**no**"


def limit_ratio(pairs: Sequence[Pair], peer: str, metric: Metric) -> float | None:
    """Return how many times a peer's figure that of bare system calls is, joined as ours."""
    limit = middle(known(value_of(run, metric) for run in runs_of(pairs, JOINED)))
    theirs = middle(known(value_of(run, metric) for run in runs_of(pairs, peer)))
    return limit / theirs if limit and theirs else None


def own_goals(rows: dict[str, list[Pair]]) -> Iterator[GoalLine]:
    """The goals that compare ours with a number instead of with a peer."""
    for key, most, unit in (
        ("memory", MOST_MEMORY_KIB, "KiB"),
        ("paced_1m", MOST_P99_MS, "ms"),
        ("paced_5m", MOST_P99_MS, "ms"),
        ("idle_cpu", MOST_IDLE_SHARE * 100, "%"),
    ):
        row = next(row for row in ROWS if row.key == key)
        found = middle(value_of(run, row.metric) for run in runs_of(rows.get(key, []), OURS.name))
        value = None if found is None else found / row.metric.scale
        limit = middle(value_of(run, row.metric) for run in runs_of(rows.get(key, []), JOINED))
        shown = times(None if limit is None else limit / row.metric.scale)
        yield row.title, f"at most {most:g} {unit}", times(value), holds(value, most=most), shown
    core, limit = (
        middle(value_of(run, CORE) for run in runs_of(rows.get("paced_1m", []), name))
        for name in (OURS.name, JOINED)
    )
    what = "The same, a million deliveries a second: core"
    yield what, "not full", share(core), holds(core, most=FULL), share(limit)
    for key in ("burst512", "paced_5m"):
        row = next(row for row in ROWS if row.key == key)
        runs = [run for run in runs_of(rows.get(key, []), OURS.name) if "error" not in run]
        bad = float(max(run["lost"] + run["disconnected"] for run in runs)) if runs else None
        shown = "–" if bad is None else f"{bad:,.0f}"
        yield f"{row.title}: lost or disconnected", "none", shown, holds(bad, most=0), "–"
    found = middle(stall_ratios(rows.get("stall", []), OURS.name))
    what = "1 % stall: p99 of the others to the same without"
    most = MOST_STALL_RATIO
    yield what, f"at most {most:g} times", times(found), holds(found, most=most), "–"


def share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def growth_goal(results: Results) -> Iterator[GoalLine]:
    """How far the ratio to the kernel's own cost moves over the numbers of clients."""
    points = results["series"].get("by_clients", [])
    series = next(one for one in SERIES if one.key == "by_clients")
    ours, theirs = (dict(curve_of(points, name, series.metric)) for name in ("hubbub", "kernel"))
    found = [ours[x] / theirs[x] for x in ours if x in theirs]
    span = max(found) / min(found) - 1 if len(found) > 1 else None
    what = "Ratio to kernel `send()` from the fewest to the most clients"
    most = MOST_GROWTH_SPREAD
    yield what, f"within {most:.0%}", share(span), holds(span, most=most), "–"


# Growth


def curve_of(
    points: Sequence[dict[str, Any]], name: str, metric: Metric
) -> list[tuple[float, float]]:
    found: dict[float, list[float]] = {}
    for point in points:
        value = value_of(point["run"], metric)
        if point["name"] == name and value is not None:
            found.setdefault(point["x"], []).append(value)
    return [(x, median(values)) for x, values in sorted(found.items())]


def series_section(series: Series, results: Results) -> list[str]:
    points = results["series"][series.key]
    names = [name for name in (OURS.name, *series.peers) if curve_of(points, name, series.metric)]
    curves = {name: dict(curve_of(points, name, series.metric)) for name in names}
    lines = []
    for x in sorted({x for curve in curves.values() for x in curve}):
        runs = [point["run"] for point in points if point["x"] == x and point["name"] == OURS.name]
        values = [series.metric.shown(curves[name].get(x)) for name in names]
        lines.append((f"{x:,}", *values, remarks(runs)))
    titles = [f"{BY_NAME[name].title}, {series.metric.unit}" for name in names]
    told = f"{series.note} {when(results, series.key)}".strip()
    return [
        f"### {series.title}",
        "",
        *([told, ""] if told else []),
        f"![{series.title}](images/bench-{series.key}.svg)",
        "",
        *table((series.x_title, *titles, "remarks on ours"), lines),
    ]


def picture(series: Series, points: Sequence[dict[str, Any]]) -> str:
    lines = [
        (BY_NAME[name].title.replace("`", "").split(" (")[0], curve_of(points, name, series.metric))
        for name in (OURS.name, *series.peers)
    ]
    return chart(series.title, series.x_title, series.metric.title, lines)


# The page


def tables(results: Results) -> list[str]:
    """Return the tables of what was measured, without the page around them."""
    lines = summary(results)
    for row in ROWS:
        if pairs_of(results, row):
            lines += row_section(row, results)
    for series in SERIES:
        if results["series"].get(series.key):
            lines += series_section(series, results)
    return lines


def server_table(results: Results) -> list[str]:
    lines = []
    for spec in (OURS, *PEERS):
        versions = results["versions"].get(spec.name, {})
        shown = ", ".join(f"{name} {version}" for name, version in versions.items()) or "–"
        missing = results["missing"].get(spec.name)
        state = spec.note if missing is None else f"**missing** ({missing})"
        lines.append((spec.title, state, shown, f"`{spec.shown()}`"))
    return table(("server", "how", "versions", "command in `benchmarks/peers`"), lines)


def page(results: Results, rooms: Sequence[str] = ()) -> str:
    """Return docs/benchmarks.md; `rooms` is its section of rooms that remember."""
    measured = [row for row in ROWS if pairs_of(results, row)]
    grown = [series for series in SERIES if results["series"].get(series.key)]
    lines = [text.opening(results), *summary(results), text.READING]
    lines += ["## Goals", "", text.GOALS, ""]
    lines += table(("goal", "at least", "measured", "holds", text.LIMIT), goal_lines(results))
    lines += ["## The rows", ""]
    for row in measured:
        lines += row_section(row, results)
    lines += rooms
    lines += ["## How it grows", "", text.GROWTH, ""] if grown else []
    for series in grown:
        lines += series_section(series, results)
    lines += ["## The servers", "", text.SERVERS, "", *server_table(results)]
    lines += ["## The machine", "", *table(("what", "which"), results["machine"].items())]
    lines += [text.METHOD]
    return "\n".join(lines).rstrip() + "\n"


SHORT_NAMES = {
    "kernel": "a C program that only calls `send()`",
    "gorilla": "gorilla's hub in Go",
    "fastapi": "FastAPI's ConnectionManager",
}


def readme_part(results: Results) -> str:
    """Return the README's four lines: each row of small messages, and how it stands to three peers."""
    lines = []
    for row in ROWS:
        if row.key not in FOUR:
            continue
        pairs = pairs_of(results, row)
        ours = middle(value_of(run, row.metric) for run in runs_of(pairs, OURS.name))
        found = {name: middle(ratios(pairs, name, row.metric)) for name in SHORT_NAMES}
        compared = [
            f"{times(found[name])} times {SHORT_NAMES[name]}" for name in found if found[name]
        ]
        value = row.metric.shown(ours)
        lines.append(f"- **{row.title}**: {value} million; {', '.join(compared)}.")
    return "\n".join(lines)


def write(results: Results, docs: Path, rooms: Sequence[str] = ()) -> None:
    """Write the page and its pictures, and the README's summary."""
    readme = docs.parent / "README.md"
    filled = page_parts.replaced(
        readme.read_text(encoding="utf-8"), "benchmark", readme_part(results)
    )
    readme.write_text(filled, encoding="utf-8")
    (docs / "images").mkdir(parents=True, exist_ok=True)
    (docs / "benchmarks.md").write_text(page(results, rooms), encoding="utf-8")
    for series in SERIES:
        points = results["series"].get(series.key)
        if points and curve_of(points, OURS.name, series.metric):
            target = docs / "images" / f"bench-{series.key}.svg"
            target.write_text(picture(series, points), encoding="utf-8")
