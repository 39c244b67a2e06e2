"""RateLimitedLogger: a few lines of each kind, and how many were held back."""

from __future__ import annotations

import logging

import pytest

from hubbub.logs import RateLimitedLogger
from hubbub.testing import FakeClock


def test_a_flood_of_one_kind_leaves_the_others_their_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "hubbub")
    clock = FakeClock()
    log = RateLimitedLogger(clock)
    for number in range(100):
        log.log(logging.INFO, "flood", "line %d", number)
    log.log(logging.WARNING, "other", "something else")
    assert caplog.messages == [*(f"line {n}" for n in range(5)), "something else"]
    clock.advance(1)
    log.log(logging.INFO, "flood", "line %d", 100)
    assert caplog.messages[-1] == "line 100 (95 more like it were not logged)"
    clock.advance(1)
    log.log(logging.INFO, "flood", "line %d", 101)
    assert caplog.messages[-1] == "line 101"


def test_kinds_do_not_stand_in_one_anothers_way(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hubbub")
    clock = FakeClock()
    log = RateLimitedLogger(clock, per_second=1.0, burst=2.0)
    for _ in range(5):
        log.log(logging.INFO, "dead", "dead")
    log.log(logging.INFO, "slow", "slow")
    clock.advance(10)
    for _ in range(2):
        log.log(logging.INFO, "dead", "dead")
    held = "dead (3 more like it were not logged)"
    assert caplog.messages == ["dead", "dead", "slow", held, "dead"]


FORGED = "bad\nINFO: client admin connected\x1b[31m\r\n"


def quote(message: str) -> None:
    try:
        raise KeyError(message)
    except KeyError as error:
        raise ValueError(f"refused {message}") from error


@pytest.mark.parametrize("grouped", [False, True])
def test_the_text_of_an_exception_forges_no_line(
    grouped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    error: Exception
    try:
        quote(FORGED)
    except ValueError as caught:
        caught.add_note(FORGED)
        error = ExceptionGroup(FORGED, [caught]) if grouped else caught
    RateLimitedLogger(FakeClock()).log(logging.ERROR, "kind", "it failed", error=error)
    first, *rest = caplog.text.removesuffix("\n").split("\n")
    assert first.endswith("it failed")
    assert all(line.startswith("  ") and line.isprintable() for line in rest)
    assert any("raise ValueError(" in line for line in rest)
    assert any("INFO: client admin connected\\x1b[31m\\r" in line for line in rest)
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is error


def test_other_errors_of_the_hub_are_written_so_too(caplog: pytest.LogCaptureFixture) -> None:
    try:
        quote(FORGED)
    except ValueError:
        logging.getLogger("hubbub").exception("the periodic task failed")
    assert "\n  ValueError: refused bad\n  INFO" in caplog.text


def test_an_error_brings_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    error = RuntimeError("on purpose")
    RateLimitedLogger(FakeClock()).log(logging.ERROR, "kind", "it failed", error=error)
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is error
