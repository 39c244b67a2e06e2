"""The figures of a load, and which side was the limit."""

from __future__ import annotations

from typing import Any

import pytest

from hubbub.bench.accounting import Counters, Histogram
from hubbub.bench.ipc import Plan
from hubbub.bench.result import Measured, bottleneck, doubt, in_ms, latencies_ms, make_result


def times(*values_us: int) -> Histogram:
    histogram = Histogram()
    for value in values_us:
        histogram.add(value)
    return histogram


def counters(**counts: Any) -> Counters:
    return Counters(latency=times(*range(1000, 11_000, 100)), **counts)


def measured(**changes: Any) -> Measured:
    whole = counters(sent=100, delivered=1000, bytes_in=50_000)
    usual: dict[str, Any] = {
        "plan": Plan(url="ws://ann:secret@127.0.0.1/ws?token=x", clients=10, rate=50.0, seconds=2),
        "connected": list(range(10)),
        "refused": {},
        "failed": {},
        "disconnected": {},
        "connect_s": 0.5,
        "publishers": (0,),
        "counters": whole,
        "window": whole,
        "seconds": 2.0,
        "processes": [(0.25, times(100, 200)), (0.5, times(300))],
        "is_whole": True,
    }
    return Measured(**{**usual, **changes})


def test_figures() -> None:
    result = make_result(measured())
    assert result.url == "ws://127.0.0.1/ws"
    assert (result.clients, result.connects_per_second) == (10, 20.0)
    assert (result.messages_per_second, result.deliveries_per_second) == (50.0, 500.0)
    assert result.bytes_per_second == 25_000.0
    assert (result.loop, result.rate, result.seconds) == ("open", 50.0, 2.0)
    assert result.expect == "room"
    assert result.latency_ms["max"] == 10.9
    assert result.latency_ms["p50"] == pytest.approx(5.9, rel=0.016)
    assert [process.cpu_share for process in result.processes] == [0.25, 0.5]
    assert not result.interrupted


def test_what_came_after_the_publishers_stopped_counts_but_not_per_second() -> None:
    result = make_result(measured(window=counters(sent=100, delivered=600, bytes_in=10)))
    assert (result.delivered, result.deliveries_per_second) == (1000, 300.0)


def test_what_was_due_and_not_sent_fell_behind() -> None:
    late = counters(sent=90, delivered=900, held_back=4)
    assert make_result(measured(counters=late, window=late)).fell_behind == 6
    assert make_result(measured(window=None)).fell_behind == 0


def test_nothing_is_measured_yet() -> None:
    result = make_result(
        measured(
            counters=Counters(),
            window=None,
            seconds=0.0,
            processes=[],
            publishers=(),
        )
    )
    assert result.deliveries_per_second is None
    assert set(result.latency_ms.values()) == {None}
    assert result.limited_by is None
    assert in_ms(None) is None
    assert latencies_ms(Histogram())["p99"] is None


@pytest.mark.parametrize(
    ("changes", "limited_by", "because"),
    [
        ({}, "rate", "the rate was held"),
        ({"processes": [(0.2, times(1)), (0.93, times(1))]}, "generator", "93% of a core"),
        ({"processes": [(0.2, times(*[9000] * 100))]}, "generator", "9.0 ms late itself"),
        ({"processes": [(0.2, times(*[4000] * 100))]}, "rate", "20% of a core"),
        ({"window": counters(delivered=900)}, "server or network", "not all that was sent came"),
        (
            {"counters": counters(sent=90, delivered=1000)},
            "server or network",
            "not all that was sent",
        ),
        ({"counters": counters(sent=100, delivered=1000, lost=1)}, "server or network", "not all"),
        (
            {"counters": counters(sent=99, held_back=1)},
            "server or network",
            "1 messages were held back",
        ),
        ({"plan": Plan(url="ws://h/")}, "server or network", "when the last had come back"),
        (
            {"plan": Plan(url="ws://h/"), "counters": counters(timeouts=7)},
            "server or network",
            "gave up waiting for their own messages 7 times",
        ),
        ({"processes": []}, None, "interrupted"),
        ({"disconnected": {1006: 2}}, "server or network", "were disconnected: 2 of 10"),
    ],
)
def test_the_limit(changes: dict[str, Any], limited_by: str | None, because: str) -> None:
    result = make_result(measured(**changes))
    assert result.limited_by == limited_by
    assert because in result.because
    assert result.because.endswith(".")
    assert bottleneck(measured(**changes), result.fell_behind) == (limited_by, result.because)


def test_what_looks_like_the_wrong_expectation_is_said() -> None:
    assert doubt(measured()) == ""
    result = make_result(
        measured(counters=counters(sent=100, delivered=1000, unreached=9, stray=3))
    )
    assert result.because.endswith(
        " Perhaps --expect room does not fit this server; clients that got none of the messages they "
        "should have: 9; messages that came to clients which should not have them: 3."
    )
