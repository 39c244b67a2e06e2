"""Make the sections "Rooms that remember" and "Brokers" of `docs/benchmarks.md`. Not here: measuring. Called by
`run.py`."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from . import text
from .about import BUSY, about_rows, commits, dates, differ, when
from .brokers import BROKER_ROWS
from .report import holds, spread, table
from .rooms import ROOM_ROWS, Figure, Found, RoomRow


def section(results: dict[str, Any]) -> list[str]:
    """Return the lines of the section about rooms that remember."""
    lines = section_of("Rooms that remember", text.ROOMS, ROOM_ROWS, results)
    return [*lines, text.ROOM_PEERS, ""]


def broker_section(results: dict[str, Any]) -> list[str]:
    """Return the lines of the section about brokers."""
    return [*section_of("Brokers", text.BROKERS, BROKER_ROWS, results), text.ONE_AT_A_TIME, ""]


def section_of(
    title: str, words: str, rows: Sequence[RoomRow], results: dict[str, Any]
) -> list[str]:
    lines = [f"## {title}", "", opening(words, results), ""]
    lines += ["The targets, and what was measured:", ""]
    lines += table(("goal", "asked", "measured", "holds"), goal_lines(rows, results["rows"]))
    for row in rows:
        rounds = results["rows"].get(row.key)
        if rounds is not None:
            lines += row_section(row, rounds, when(results, row.key))
    return lines


def opening(words: str, results: dict[str, Any]) -> str:
    """Say of all rows what holds for all, and that each says of itself what does not."""
    abouts = list(about_rows(results, results["rows"]).values())
    words = words.format(date=dates(abouts), commit=commits(abouts))
    loads = [about["load_before"] for about in abouts]
    if max(loads) >= BUSY:
        words += " " + text.ROOMS_BUSY.format(load=loads_shown(loads))
    if differ(abouts):
        return f"{words} {text.MIXED}"
    return f"{text.QUICK}\n{words}" if abouts[0]["is_quick"] else words


def loads_shown(loads: Sequence[float]) -> str:
    least, most = min(loads), max(loads)
    return f"{most}" if least == most else f"{least} to {most}"


def goal_lines(
    rows: Sequence[RoomRow], found: dict[str, list[Found]]
) -> list[tuple[str, str, str, str]]:
    """Return a line for each figure of which anything is asked."""
    return [
        (
            f"{row.key}: {figure.title}",
            asked(figure),
            figure_line(figure, found.get(row.key, []))[2],
            verdict(figure, found.get(row.key, [])),
        )
        for row in rows
        for figure in row.figures
        if asked(figure)
    ]


def asked(figure: Figure) -> str:
    """Write what is asked of a figure; nothing where nothing is."""
    limit = figure.most if figure.least is None else figure.least
    if limit is None:
        return ""
    if figure.most == 0:
        return "none"
    which = "at most" if figure.least is None else "at least"
    return f"{which} {limit:g} {figure.unit}".rstrip()


def values_of(figure: Figure, rounds: Sequence[Found]) -> list[float]:
    return [values[figure.name] for values in rounds if figure.name in values]


def value_of(figure: Figure, rounds: Sequence[Found]) -> float | None:
    """Return what counts of a figure: its median, or the worst."""
    found = values_of(figure, rounds)
    if not found:
        return None
    return max(found) if figure.is_worst else median(found)


def verdict(figure: Figure, rounds: Sequence[Found]) -> str:
    """Say whether a target is met, by the value as it is shown."""
    value = value_of(figure, rounds)
    if value is not None:
        value = round(value, figure.digits)
    infinity = float("inf")
    least = -infinity if figure.least is None else figure.least
    most = infinity if figure.most is None else figure.most
    return holds(value, least=least, most=most)


def row_section(row: RoomRow, rounds: Sequence[Found], told: str = "") -> list[str]:
    how_many = "One round." if len(rounds) == 1 else f"{len(rounds)} rounds."
    lines = [figure_line(figure, rounds) for figure in row.figures]
    head = ("what", "unit", "measured", "spread", "asked")
    return [
        f"### {row.title}",
        "",
        f"{row.note} {how_many} {told}".rstrip(),
        "",
        *table(head, lines),
    ]


def figure_line(figure: Figure, rounds: Sequence[Found]) -> tuple[str, ...]:
    def write(value: float) -> str:
        return f"{value:,.{figure.digits}f}"

    value = value_of(figure, rounds)
    return (
        figure.title,
        figure.unit or "–",
        "–" if value is None else write(value),
        spread(values_of(figure, rounds), write),
        asked(figure) or "–",
    )
