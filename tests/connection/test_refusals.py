"""What an HTTP answer instead of the upgrade means, and what can be read in it."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connection.peers import response
from hubbub.connection.outcome import Retry
from hubbub.connection.refusals import (
    MAX_RETRY_AFTER_S,
    may_be_http,
    outcome_of_refusal,
    read_retry_after_s,
    read_status,
)
from hubbub.model import Close


@pytest.mark.parametrize("status", [401, 403])
def test_401_and_403_are_for_good_with_the_sentence_of_the_body(status: int) -> None:
    outcome = outcome_of_refusal(response(status, b'{"error": "No such token", "code": "x"}'))
    assert outcome[:2] == (Close(status, "No such token", by_server=True), Retry.NEVER)


@pytest.mark.parametrize("status", [408, 409, 421, 423, 425, 429, 500, 503])
def test_what_is_temporary_is_repeated(status: int) -> None:
    assert outcome_of_refusal(response(status)).retry is Retry.ALWAYS


@pytest.mark.parametrize("status", [200, 302, 404, 405, 426])
def test_a_wrong_place_is_tried_a_few_times(status: int) -> None:
    assert outcome_of_refusal(response(status)).retry is Retry.LIMITED


@pytest.mark.parametrize(("status", "expected"), [(429, 7.0), (503, 7.0), (500, 0.0)])
def test_retry_after_counts_for_429_and_503(status: int, expected: float) -> None:
    assert outcome_of_refusal(response(status, Retry_After="7")).retry_after_s == expected


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b"", "", "Some Phrase"),
        (b"go away\n", "text/plain; charset=utf-8", "go away"),
        (b"<html>", "text/html", "Some Phrase"),
        (b"[1]", "application/json", "Some Phrase"),
        (b'{"error": 5}', "application/json", "Some Phrase"),
        (b"\xff\xfe", "application/json", "Some Phrase"),
        (b"[" * 100_000, "application/json", "Some Phrase"),
        (b'{"error": "' + b"x" * 1000 + b'"}', "application/json", "x" * 200),
        (b"x" * 1000, "text/plain", "x" * 200),
    ],
)
def test_the_reason_of_other_bodies(body: bytes, kind: str, expected: str) -> None:
    assert outcome_of_refusal(response(401, body, Content_Type=kind)).close.reason == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"HTTP/1.0 503 Service Unavailable\r\n", (503, "Service Unavailable")),
        (b"HTTP/1.1 401\r\n", (401, "")),
        (b"HTTP/1.1 401 \xe9\n", (401, "\xe9")),
        (b"HTTP/1.1 401", (0, "")),
        (b"HTTP/1.1 999 No\r\n", (0, "")),
        (b"SSH-2.0-x\r\n", (0, "")),
    ],
)
def test_status_and_phrase(line: bytes, expected: tuple[int, str]) -> None:
    assert read_status(line) == expected


def test_what_may_become_http() -> None:
    assert all(map(may_be_http, (b"", b"HT", b"HTTP/1.1 2", b"HTTP/1.0")))
    assert not any(map(may_be_http, (b"SSH-", b"HTTP/2 200", b"\x15\x03")))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", 0),
        ("5", 5),
        (" 5 ", 5),
        ("-5", 0),
        ("soon", 0),
        ("nan", 0),
        ("inf", 0),
        ("1_0", 0),
        ("\N{ARABIC-INDIC DIGIT FIVE}", 0),
        ("9" * 5000, MAX_RETRY_AFTER_S),
    ],
)
def test_seconds(value: str, expected: float) -> None:
    assert read_retry_after_s(value) == expected


def test_a_date() -> None:
    date = email.utils.formatdate(1000.0, usegmt=True)
    assert read_retry_after_s(date, now=lambda: 990.0) == 10
    assert read_retry_after_s(date, now=lambda: 1010.0) == 0


def test_a_date_without_a_zone_is_in_gmt() -> None:
    date = email.utils.formatdate(1000.0, usegmt=True)
    for zoneless in (date.replace("GMT", "-0000"), "Thu Jan  1 00:16:40 1970"):
        assert read_retry_after_s(zoneless, now=lambda: 990.0) == 10


@pytest.mark.parametrize("year", ["0000", "0001", "9999", "99999", "9" * 20, "9" * 5000])
def test_fault_12_a_date_beyond_the_calendar(year: str) -> None:
    seconds = read_retry_after_s(f"Fri, 31 Dec {year} 23:59:59 GMT", now=lambda: 2e9)
    assert seconds == (MAX_RETRY_AFTER_S if year == "9999" else 0)


@given(st.text())
def test_no_header_is_an_error(value: str) -> None:
    assert 0 <= read_retry_after_s(value) <= MAX_RETRY_AFTER_S


def test_nobody_is_sent_away_for_days() -> None:
    assert read_retry_after_s("86400") == MAX_RETRY_AFTER_S
