"""The result of `hubbub bench`: figures, and which side was the limit.

What must not live here: how they were counted (`accounting`), how they are shown (`cli.bench`).
Pure: `run` hands over what was measured and gets a `Result`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from ..connection.addresses import without_secrets
from .accounting import Counters, Expect, Histogram
from .ipc import Plan

FULL = 0.9
"""A share of a core from which on a worker process is called full."""
LATE_MS = 5.0
"""A lateness (p99) under this is not called the limit, whatever the latencies are."""
KEPT_UP = 0.95
"""The share of the deliveries that must come while the publishers send, for the rate to be held."""

LimitedBy = Literal["generator", "server or network", "rate"]

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999, "max": 1.0}


class Measured(NamedTuple):
    """What was measured. `window` is what had come when the publishers stopped."""

    plan: Plan
    connected: list[int]
    refused: dict[int, int]
    failed: dict[str, int]
    disconnected: dict[int, int]
    connect_s: float | None
    publishers: tuple[int, ...]
    counters: Counters
    window: Counters | None
    seconds: float
    processes: list[tuple[float, Histogram]]
    is_whole: bool


class ProcessShare(msgspec.Struct, frozen=True):
    """What one worker process cost: its share of a core, and how late it was (p99)."""

    cpu_share: float
    late_p99_ms: float | None


class Result(msgspec.Struct, kw_only=True):
    """What came of a load. Units are in the names; None where nothing was measured.

    The counts are those of `accounting.Counters`. `fell_behind` are messages of an open loop that
    were due and not sent. `messages_per_second`, `deliveries_per_second` and `bytes_per_second` are
    of the time in which the publishers sent, the bytes with frame headers. `limited_by` is the side
    that the figures are the limit of; "rate" when the chosen rate was held, so neither was.
    """

    url: str
    interrupted: bool
    limited_by: LimitedBy | None
    because: str
    clients: int
    clients_asked: int
    connects_per_second: float | None
    refused: dict[int, int]
    failed: dict[str, int]
    disconnected: dict[int, int]
    expect: Expect
    loop: Literal["open", "closed"]
    rate: float | None
    publishers: int
    rooms: int
    size_bytes: int
    seconds: float
    sent: int
    fell_behind: int
    held_back: int
    timeouts: int
    unreached: int
    delivered: int
    lost: int
    cut_off: int
    duplicated: int
    reordered: int
    damaged: int
    stray: int
    others: int
    messages_per_second: float | None
    deliveries_per_second: float | None
    bytes_per_second: float | None
    latency_ms: dict[str, float | None]
    processes: list[ProcessShare]


def make_result(measured: Measured) -> Result:
    """Turn what was measured into figures, and say which side was the limit."""
    plan, counters = measured.plan, measured.counters
    window = measured.window or counters
    seconds = measured.seconds
    due = round((plan.rate or 0) * plan.seconds) if measured.window is not None else 0
    fell_behind = max(due - counters.sent - counters.held_back, 0)
    limited_by, because = bottleneck(measured, fell_behind)
    counts = {
        name: getattr(counters, name)
        for name in Counters.__struct_fields__
        if name not in ("latency", "lateness", "bytes_in")
    }
    return Result(
        url=without_secrets(plan.url),
        interrupted=not measured.is_whole,
        limited_by=limited_by,
        because=f"{because} {doubt(measured)}".rstrip(),
        clients=len(measured.connected),
        clients_asked=plan.clients,
        connects_per_second=_per_second(len(measured.connected), measured.connect_s or 0.0),
        refused=measured.refused,
        failed=measured.failed,
        disconnected=measured.disconnected,
        expect=plan.expect,
        loop="closed" if plan.rate is None else "open",
        rate=plan.rate,
        publishers=len(measured.publishers),
        rooms=plan.rooms,
        size_bytes=plan.size,
        seconds=round(seconds, 3),
        fell_behind=fell_behind,
        messages_per_second=_per_second(window.sent, seconds),
        deliveries_per_second=_per_second(window.delivered, seconds),
        bytes_per_second=_per_second(window.bytes_in, seconds),
        latency_ms=latencies_ms(counters.latency),
        processes=[
            ProcessShare(round(share, 3), in_ms(late.at(0.99)))
            for share, late in measured.processes
        ],
        **counts,
    )


def _per_second(count: int, seconds: float) -> float | None:
    return round(count / seconds, 1) if seconds > 0 else None


def in_ms(value_us: int | None) -> float | None:
    """Return microseconds as milliseconds."""
    return None if value_us is None else value_us / 1000


def latencies_ms(histogram: Histogram) -> dict[str, float | None]:
    """Return the percentiles that are shown, in milliseconds."""
    return {name: in_ms(histogram.at(share)) for name, share in PERCENTILES.items()}


def bottleneck(measured: Measured, fell_behind: int) -> tuple[LimitedBy | None, str]:
    """Say which side was the limit, and in one sentence why."""
    window = measured.window
    if window is None or not measured.processes:
        return None, "It was interrupted before there was enough to bottleneck."
    fullest = max(share for share, _ in measured.processes)
    if fullest >= FULL:
        return "generator", (
            f"The generator was the limit, not the server: one of its processes used "
            f"{fullest:.0%} of a core. More --processes, where there are cores for them, or another "
            "machine would show more."
        )
    if measured.disconnected:
        gone = sum(measured.disconnected.values())
        return "server or network", (
            f"Clients were disconnected: {gone:,} of {len(measured.connected):,}. The figures are "
            "not those of a load that the server bears."
        )
    late_ms = max(in_ms(late.at(0.99)) or 0.0 for _, late in measured.processes)
    p99_ms = in_ms(measured.counters.latency.at(0.99)) or 0.0
    if late_ms >= LATE_MS and late_ms * 2 >= p99_ms:
        return "generator", (
            f"The generator was the limit, not the server: it was {late_ms:.1f} ms late itself "
            "(p99), which is in the latencies. Give it a core that nobody else uses."
        )
    if measured.counters.held_back:
        return "server or network", (
            f"The server or the network was the limit: {measured.counters.held_back:,} messages were "
            "held back, since the server did not read those before them."
        )
    if measured.plan.rate is None and measured.counters.timeouts:
        return "server or network", (
            f"The server or the network was the limit: publishers gave up waiting for their own "
            f"messages {measured.counters.timeouts:,} times."
        )
    if measured.plan.rate is None:
        return "server or network", (
            f"The server or the network was the limit: the generator used {fullest:.0%} of a core, "
            "and each message left when the last had come back."
        )
    came = measured.counters.delivered
    missed = measured.counters.lost + measured.counters.cut_off
    if not fell_behind and not missed and window.delivered >= KEPT_UP * came:
        return "rate", (
            f"Neither side was the limit: the rate was held, and the generator used {fullest:.0%} "
            "of a core. A higher --rate would show more."
        )
    return "server or network", (
        f"The server or the network was the limit: not all that was sent came while it was sent, "
        f"and the generator used {fullest:.0%} of a core."
    )


def doubt(measured: Measured) -> str:
    """Say that --expect may not fit the server where the counts look like it; else nothing."""
    stray, unreached = measured.counters.stray, measured.counters.unreached
    signs = []
    if unreached:
        signs.append(f"clients that got none of the messages they should have: {unreached:,}")
    if stray:
        signs.append(f"messages that came to clients which should not have them: {stray:,}")
    if not signs:
        return ""
    return f"Perhaps --expect {measured.plan.expect} does not fit this server; {'; '.join(signs)}."
