"""The result of `hubbub bench` in words and figures, for people.

What must not live here: drawing and printing (`cli.bench`, which calls it), the figures' making
(`result`).
"""

from __future__ import annotations

from .result import Result, latencies_ms
from .run import Snapshot


def live_rows(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Return what is shown while the load runs."""
    counters = snapshot.counters
    lines = [
        ("clients", f"{snapshot.clients:,}"),
        ("disconnected", by_key(snapshot.disconnected)),
    ]
    if snapshot.stage in ("warming up", "measuring", "waiting for the last"):
        seconds = max(snapshot.seconds, 0.001)
        is_publishing = snapshot.stage != "waiting for the last"
        pace = f", {counters.delivered / seconds:,.0f} per second" if is_publishing else ""
        lines += [
            ("sent", f"{counters.sent:,}"),
            ("delivered", f"{counters.delivered:,}{pace}"),
            ("missing", f"{counters.lost:,}"),
            ("latency", latency_line(latencies_ms(counters.latency))),
        ]
    shares = ", ".join(f"{share:.0%}" for share in snapshot.cpu_shares)
    return [*lines, ("generator", f"{shares or '-'} of a core")]


def rows(result: Result) -> list[tuple[str, str]]:
    """Return the result as names and figures."""
    return [
        *_rows_of_connections(result),
        ("expected", expectation(result)),
        ("load", load_line(result)),
        *_rows_of_messages(result),
        ("latency", latency_line(result.latency_ms)),
        *_rows_of_generator(result),
    ]


def _rows_of_connections(result: Result) -> list[tuple[str, str]]:
    pace = result.connects_per_second
    asked = f" of {result.clients_asked:,}" if result.clients != result.clients_asked else ""
    lines = [
        ("clients", f"{result.clients:,}{asked}, {figure(pace)} connects per second"),
        ("disconnected", by_key(result.disconnected)),
    ]
    if result.refused:
        lines.append(("refused", by_key(result.refused, "with status")))
    if result.failed:
        lines.append(("failed", "; ".join(f"{n:,}: {why}" for why, n in result.failed.items())))
    return lines


def _rows_of_messages(result: Result) -> list[tuple[str, str]]:
    lost = f"{result.lost:,}"
    if result.cut_off:
        lost += f", and {result.cut_off:,} that disconnected clients did not get"
    lines = [
        ("sent", f"{result.sent:,}, {figure(result.messages_per_second)} per second"),
        ("delivered", f"{result.delivered:,}, {figure(result.deliveries_per_second)} per second"),
        ("received", f"{figure(result.bytes_per_second)} bytes per second"),
        ("lost", lost),
        ("duplicated", f"{result.duplicated:,}"),
        ("reordered", f"{result.reordered:,}"),
    ]
    rare = {
        "damaged": result.damaged,
        "stray": result.stray,
        "fell behind by": result.fell_behind,
        "held back": result.held_back,
        "timeouts": result.timeouts,
        "unreached clients": result.unreached,
        "other messages": result.others,
    }
    return lines + [(name, f"{count:,}") for name, count in rare.items() if count]


def _rows_of_generator(result: Result) -> list[tuple[str, str]]:
    each = [
        f"{process.cpu_share:.0%} of a core, {milliseconds(process.late_p99_ms)} ms late (p99)"
        for process in result.processes
    ]
    limit = result.limited_by or "not known"
    return [("generator", "; ".join(each) or "-"), ("limited by", limit)]


def expectation(result: Result) -> str:
    """Say who should get a message, by --expect."""
    if result.expect == "all" or (result.expect == "room" and result.rooms == 1):
        return "every client gets every message"
    return {
        "room": "a message is for the clients of its room",
        "others": "a message is for the others of its room",
        "self": "a message is for its publisher alone",
    }[result.expect]


def load_line(result: Result) -> str:
    """Say in one line what was put on the server."""
    pace = "each waits for its last message to come back"
    if result.rate is not None:
        pace = f"{result.rate:,g} messages per second"
    rooms = f", {result.rooms:,} rooms" if result.rooms > 1 else ""
    publishers = f"{result.publishers:,} publisher{'s' if result.publishers != 1 else ''}"
    return f"{publishers}{rooms}, {pace}, {result.size_bytes:,} bytes, {result.seconds:.1f} s"


def by_key(counts: dict[int, int], how: str = "with code") -> str:
    """Return counts by close code or status in one line; 0 when there are none."""
    each = ", ".join(f"{count:,} {how} {key}" for key, count in counts.items())
    return each or "0"


def latency_line(latencies: dict[str, float | None]) -> str:
    """Return the percentiles in one line, narrow enough for a terminal of 80 columns."""
    parts = (f"{name.replace('_', '.')} {milliseconds(value)}" for name, value in latencies.items())
    return f"{', '.join(parts)} ms"


def milliseconds(value: float | None) -> str:
    """Return milliseconds with three figures, without the unit."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def figure(value: float | None) -> str:
    """Return a number per second, rounded to a whole one from ten on."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
