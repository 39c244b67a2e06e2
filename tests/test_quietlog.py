"""QuietLog: a few lines of each kind, and how many were held back."""

from __future__ import annotations

import logging

import pytest

from hubbub.quietlog import QuietLog
from hubbub.testing import FakeClock


def test_a_flood_of_one_kind_leaves_the_others_their_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "hubbub")
    clock = FakeClock()
    log = QuietLog(clock)
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


def test_an_error_brings_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    error = RuntimeError("on purpose")
    QuietLog(FakeClock()).log(logging.ERROR, "kind", "it failed", error=error)
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is error
