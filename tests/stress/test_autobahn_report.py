"""The Autobahn reports are read right: what is bad fails, whatever its name is, and the page says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stress.autobahn_report import (
    RESULTS,
    Case,
    Outcome,
    as_json,
    groups,
    listed,
    part,
    place,
    read,
)
from stress.autobahn_suite import TESTEES, failures_of, report
from stress.page import PAGE


def case(number: str = "1.1.1", behavior: str = "OK", close: str = "OK") -> Case:
    return Case(number, behavior, close, 1000, 5)


def outcome(*cases: Case, name: str = "native", **options: Any) -> Outcome:
    return Outcome(name, "a server", cases=list(cases), **options)


def test_an_index_of_the_suite_is_read_in_the_order_of_the_cases(tmp_path: Path) -> None:
    told = {"behavior": "OK", "behaviorClose": "OK", "remoteCloseCode": None, "duration": 3}
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"native": {"9.10.1": told, "9.2.1": told, "10.1.1": told}}))
    assert [case.number for case in read(index)] == ["9.2.1", "9.10.1", "10.1.1"]
    assert place("9.10.1") > place("9.2.1")


@pytest.mark.parametrize(
    ("behavior", "close", "is_bad"),
    [
        ("OK", "OK", False),
        ("NON-STRICT", "OK", False),
        ("INFORMATIONAL", "INFORMATIONAL", False),
        ("FAILED", "OK", True),
        ("OK", "UNCLEAN", True),
        ("OK", "WRONG CODE", True),
        ("OK", "FAILED BY CLIENT", True),
        ("UNIMPLEMENTED", "OK", True),
        ("SOMETHING NEW", "OK", True),
    ],
)
def test_what_is_bad_is_bad(behavior: str, close: str, is_bad: bool) -> None:
    found = case("12.1.1", behavior, close)
    assert found.is_bad is is_bad
    assert bool(failures_of(outcome(found))) is is_bad


def test_only_group_13_may_be_declined() -> None:
    assert not case("13.3.1", "UNIMPLEMENTED").is_bad
    assert case("12.3.1", "UNIMPLEMENTED").is_bad


def test_a_known_failure_is_listed_and_does_not_fail_until_it_is_gone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing = outcome(case("7.1.5", "FAILED", "WRONG CODE"), known={"7.1.5": "its cause"})
    assert failures_of(failing) == []
    assert list(listed(failing)) == [("WRONG CODE", "7.1.5", "its cause")]
    assert failing.counts()["FAILED"] == 1
    assert report([failing])
    mended = outcome(case("7.1.5"), known={"7.1.5": "its cause"})
    assert "take it out" in failures_of(mended)[0]
    assert not report([mended])
    assert "WRONG: 7.1.5" in capsys.readouterr().out


def test_tracebacks_in_the_native_servers_log_are_wrong() -> None:
    assert failures_of(outcome(case(), log_errors=2)) == ["2 tracebacks in the server's log"]
    assert failures_of(outcome(case(), name="portable", log_errors=2)) == []


def test_nothing_at_all_is_no_success() -> None:
    assert failures_of(outcome()) == ["no case was run"]


def test_a_wrong_code_counts_as_a_failure_even_where_the_behavior_is_right() -> None:
    assert outcome(case(close="WRONG CODE"), case()).counts() == {"OK": 1, "WRONG CODE": 1}


def test_groups_are_counted() -> None:
    assert groups([case("1.1.1"), case("1.2.1"), case("10.1.1")]) == "1 (2), 10 (1)"


def test_every_case_that_is_listed_has_a_reason() -> None:
    about = {"suite": "1", "date": "2026-11-25", "commit": "abc", "versions": "uvicorn 1"}
    text = part(json.loads(as_json([outcome(case("6.4.1", "NON-STRICT"), case())], about)))
    assert "- **native**: a server. Suite 1, on 2026-11-25, commit `abc`, uvicorn 1." in text
    assert "| native | 1 (1), 6 (1) | 1 | 1 | 0 | 0 | 0 |" in text
    assert "- native, NON-STRICT: 6.4.1. Text is checked when" in text
    for testee in json.loads(RESULTS.read_text(encoding="utf-8"))["testees"]:
        assert all(reason for _, _, reason in testee["listed"])


def test_a_testee_that_was_not_run_again_stays_as_it_was() -> None:
    about = {"suite": "1", "date": "2026-11-25", "commit": "abc", "versions": "uvicorn 1"}
    first = json.loads(as_json([outcome(case()), outcome(case(), name="portable")], about))
    again = outcome(case(), case("1.1.2"))
    kept = json.loads(as_json([again], {**about, "commit": "def"}, first["testees"]))["testees"]
    told = {testee["name"]: (testee["groups"], testee["commit"]) for testee in kept}
    assert told == {"native": ("1 (2)", "def"), "portable": ("1 (1)", "abc")}


def test_the_kept_results_are_clean_and_the_page_has_them() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert part(results).strip() in PAGE.read_text(encoding="utf-8")
    known = {testee.name: testee.known for testee in TESTEES}
    for testee in results["testees"]:
        bad = {"FAILED", "UNCLEAN", "WRONG CODE", "FAILED BY CLIENT", "NO CLOSE"} & set(
            testee["counts"]
        )
        assert not bad or known[testee["name"]], testee
