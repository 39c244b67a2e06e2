"""The report shows what an outcome says."""

from __future__ import annotations

from stress import report
from stress.scenario import Outcome


def test_an_outcome_becomes_a_row_and_what_failed_is_said() -> None:
    outcome = Outcome("floods", "portable", "2 clients", 10, 9, 1024, 4096, 2048, 12.0, 3.0)
    outcome.moved, outcome.faults = {"dead": 2}, ["one is missing"]
    row = {**outcome.as_dict(), "on": "2026-01-01", "commit": "abc", "machine": "two cores"}
    text = report.part("hostile", {"floods": row})
    assert "| floods, portable transport | 2 clients | 9 of 10 | 1.0 / 4.0 / 2.0 | 12 (3) |" in text
    assert "`dead` +2" in text
    assert "**floods: did not hold:** one is missing" in text
    assert "0 of 1 held. two cores." in text
    text = report.part("hostile", {"floods": row, "more": {**row, "machine": "four cores"}})
    assert "0 of 2 held. two cores; four cores." in text


def test_what_was_done_to_a_fleet_is_a_row_of_what_clients_got() -> None:
    outcome = Outcome("broker killed", "native", "2 clients; for 3 s", 10, 10)
    outcome.found = {"lost": 0, "told": 2, "whole after, s": 0.5, "elsewhere after, s": 0.3}
    row = {**outcome.as_dict(), "on": "2026-01-01", "commit": "abc", "machine": "two cores"}
    text = report.part("brokers", {"broker_killed": row})
    assert "| broker killed: `broker_killed` | 2 clients; for 3 s | 10 of 10 | 0 | - |" in text
    assert "| 2 | - | 0.5 | - | - | 0.3 | - | - |" in text
    outcome.faults = ["3 lost"]
    failed = report.part("brokers", {"broker_killed": {**row, **outcome.as_dict()}})
    assert "**broker killed: did not hold:** 3 lost" in failed


def test_the_figures_of_an_outcome_are_one_line() -> None:
    outcome = Outcome("floods", "native", "2 clients", 10, 9, 1024, 4096, 2048, 12.0, 3.0)
    outcome.moved, outcome.found = {"dead": 2}, {"close codes": [1009, 3013]}
    assert report.figures(outcome.as_dict()) == (
        "deliveries: 9 of 10; memory, MiB: 1.0 / 4.0 / 2.0; block, ms: 12; dead: +2; close codes: 1009, 3013"
    )
    outcome = Outcome("broker killed", "native", "2 clients", 10, 10)
    outcome.found = {"lost": 0, "whole after, s": 0.5}
    assert report.figures(outcome.as_dict()) == (
        "deliveries: 10 of 10; lost: 0; whole after, s: 0.5"
    )
