"""The result of a load in words and figures."""

from __future__ import annotations

from typing import Any

import pytest

from bench.results import result
from hubbub.bench.accounting import Counters
from hubbub.bench.run import Snapshot, Stage
from hubbub.bench.table import (
    by_key,
    expectation,
    figure,
    latency_line,
    live_rows,
    load_line,
    milliseconds,
    rows,
)


def test_all_is_well() -> None:
    assert rows(result()) == [
        ("clients", "1,000, 1,234 connects per second"),
        ("disconnected", "0"),
        ("expected", "every client gets every message"),
        ("load", "1 publisher, 50 messages per second, 128 bytes, 10.0 s"),
        ("sent", "500, 50 per second"),
        ("delivered", "500,000, 50,000 per second"),
        ("received", "6,600,000 bytes per second"),
        ("lost", "0"),
        ("duplicated", "0"),
        ("reordered", "0"),
        ("latency", "p50 1.23, p90 2, p99 3.5, p99.9 12.2, max 250 ms"),
        ("generator", "50% of a core, 0.25 ms late (p99)"),
        ("limited by", "rate"),
    ]


def test_all_is_not_well() -> None:
    shown = dict(
        rows(
            result(
                clients=990,
                refused={503: 8},
                failed={"Connection refused": 2},
                disconnected={1006: 3, 3008: 1},
                **dict.fromkeys(("fell_behind", "held_back", "timeouts", "lost"), 1234),
                **dict.fromkeys(("cut_off", "damaged", "stray", "others", "unreached"), 5),
                limited_by=None,
                processes=[],
            )
        )
    )
    assert shown["clients"] == "990 of 1,000, 1,234 connects per second"
    assert shown["refused"] == "8 with status 503"
    assert shown["failed"] == "2: Connection refused"
    assert shown["disconnected"] == "3 with code 1006, 1 with code 3008"
    assert shown["lost"] == "1,234, and 5 that disconnected clients did not get"
    assert [shown[name] for name in ("fell behind by", "held back", "timeouts")] == (["1,234"] * 3)
    assert [
        shown[name] for name in ("damaged", "stray", "other messages", "unreached clients")
    ] == ["5"] * 4
    assert (shown["generator"], shown["limited by"]) == ("-", "not known")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"expect": "all", "rooms": 2}, "every client gets every message"),
        ({"expect": "room", "rooms": 2}, "a message is for the clients of its room"),
        ({"expect": "others"}, "a message is for the others of its room"),
        ({"expect": "self"}, "a message is for its publisher alone"),
    ],
)
def test_what_was_expected(changes: dict[str, Any], text: str) -> None:
    assert expectation(result(**changes)) == text


def test_the_load() -> None:
    assert load_line(result(rate=None, publishers=20, rooms=4, seconds=0.5)) == (
        "20 publishers, 4 rooms, each waits for its last message to come back, 128 bytes, 0.5 s"
    )


def test_figures() -> None:
    assert [figure(value) for value in (None, 0.25, 9.96, 10.4, 12_345.6)] == [
        *("-", "0.2", "10.0", "10", "12,346")
    ]
    assert [milliseconds(value) for value in (None, 0.0123, 5.678, 99.95, 1234.5)] == [
        *("-", "0.0123", "5.68", "100", "1234")
    ]
    assert latency_line({"p50": None, "p99_9": 1.0}) == "p50 -, p99.9 1 ms"
    assert by_key({}) == "0"


def snapshot(stage: Stage) -> Snapshot:
    counters = Counters(sent=20, delivered=2000, lost=3)
    counters.latency.add(1500)
    return Snapshot(stage, 0.5, 2.0, 100, counters, [0.25, 0.5], {1006: 1})


def test_what_is_shown_meanwhile() -> None:
    assert live_rows(snapshot("connecting")) == [
        ("clients", "100"),
        ("disconnected", "1 with code 1006"),
        ("generator", "25%, 50% of a core"),
    ]
    shown = dict(live_rows(snapshot("measuring")))
    assert shown["sent"] == "20"
    assert shown["delivered"] == "2,000, 1,000 per second"
    assert shown["missing"] == "3"
    assert shown["latency"].startswith("p50 1.5, ")
    assert dict(live_rows(snapshot("waiting for the last")))["delivered"] == "2,000"
