"""Limits: rates, names, and what may stand in a log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import CommandError
from hubbub.limits import (
    MAX_CLIENT_ID_LENGTH,
    MAX_ROOM_NAME_BYTES,
    LogLimiter,
    TokenBucket,
    TurnBudget,
    check_room_name,
    escaped,
    is_client_id,
    printable,
    scrub_query,
)


def test_a_bucket_lets_its_burst_through_and_then_its_rate() -> None:
    bucket = TokenBucket(10.0, 5.0, 0.0)
    assert [bucket.take(0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [bucket.take(0.25) for _ in range(3)] == [True, True, False]
    assert [bucket.take(100.0) for _ in range(6)] == [True] * 5 + [False]


def test_who_comes_too_often_is_told_once_a_second() -> None:
    bucket = TokenBucket(1.0, 1.0, 0.0)
    assert [bucket.may_tell(now) for now in (0.0, 0.0, 0.9, 1.0, 1.9, 2.5)] == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]


def test_a_turn_has_its_share_and_the_first_charge_is_told() -> None:
    budget = TurnBudget(10)
    assert not budget.charge(0)
    assert (budget.charge(4), budget.is_spent) == (True, False)
    assert (budget.charge(5), budget.is_spent) == (False, False)
    assert (budget.charge(100), budget.is_spent) == (False, True)
    budget.renew()
    assert not budget.is_spent
    assert (budget.charge(10), budget.is_spent) == (True, True)


def test_a_bucket_holds_at_least_one() -> None:
    bucket = TokenBucket(0.5, 0.1, 0.0)
    assert bucket.take(0.0)
    assert not bucket.take(1.9)
    assert bucket.take(2.0)


@given(
    gaps=st.lists(st.floats(0.0, 2.0), min_size=10, max_size=100),
    rate=st.floats(0.1, 50.0),
    burst=st.floats(0.0, 20.0),
)
def test_no_schedule_gets_more_than_burst_and_rate(
    gaps: list[float], rate: float, burst: float
) -> None:
    bucket, now, taken = TokenBucket(rate, burst, 0.0), 0.0, 0
    for gap in gaps:
        now += gap
        taken += bucket.take(now)
    assert taken <= max(1.0, burst) + rate * now + 1e-6


def test_the_log_limiter_counts_what_it_holds_back() -> None:
    limiter = LogLimiter(per_second=1.0, burst=2.0)
    assert [limiter.allow("dead", 0.0) for _ in range(5)] == [0, 0, None, None, None]
    assert limiter.allow("slow", 0.0) == 0, "kinds do not stand in one another's way"
    assert limiter.allow("dead", 10.0) == 3
    assert limiter.allow("dead", 10.0) == 0


@pytest.mark.parametrize("name", ["red", "a b", "chat:ünï", "x" * MAX_ROOM_NAME_BYTES, "a@b", "*"])
def test_room_names_that_are_allowed(name: str) -> None:
    assert check_room_name(name) is name


@pytest.mark.parametrize(
    "name",
    ["", "@ann", "a\nb", "tab\t", "x" * 257, "ü" * 129, None, 7, b"red", "\ud800", "a\u202eb"],
)
def test_room_names_that_are_not(name: object) -> None:
    with pytest.raises(CommandError) as error:
        check_room_name(name)
    assert error.value.code == "bad_room"


@pytest.mark.parametrize("text", ["a", "user-1", "a.b:c@d+e_f", "9" * MAX_CLIENT_ID_LENGTH])
def test_client_ids_that_are_allowed(text: str) -> None:
    assert is_client_id(text)


@pytest.mark.parametrize("text", ["", " ", "a b", "a/b", "a\n", "<b>", "9" * 65])
def test_client_ids_that_are_not(text: str) -> None:
    assert not is_client_id(text)


@given(st.text())
def test_printable_text_has_one_line_and_a_bound(text: str) -> None:
    shown = printable(text, 20)
    assert len(shown) <= 21
    assert shown.isprintable()


def test_printable_leaves_what_is_harmless() -> None:
    assert printable("héllo wörld") == "héllo wörld"
    assert printable("a\r\nb\x1b[31m\u202e") == "a\ufffd\ufffdb\ufffd[31m\ufffd"
    assert printable("abc", 2) == "ab…"


@given(st.text())
def test_escaped_is_one_printable_line_that_says_it_all(text: str) -> None:
    line = escaped(text)
    assert line.isprintable()
    assert line == text or len(line) > len(text)


@given(st.binary())
def test_no_query_whatever_brings_more_than_printable_ascii(query: bytes) -> None:
    assert not set(scrub_query(query)) - set(range(0x21, 0x7F))


@pytest.mark.parametrize(
    ("query", "scrubbed"),
    [
        (b"", b""),
        (b"room=red&x=1", b"room=red&x=1"),
        (b"token=abc", b"token=***"),
        (b"a=1&Token=abc=def&b=2", b"a=1&Token=***&b=2"),
        (b"access_token=a&jwt=b&key=c&secret=d", b"access_token=***&jwt=***&key=***&secret=***"),
        (b"token", b"token"),
        (b"tokens=5", b"tokens=5"),
        (b"\xff=1&token=\xff", b"%FF=1&token=***"),
        (b"x=\x1b[31m\r\nINFO:&%74oken=a", b"x=%1B[31m%0D%0AINFO:&%74oken=***"),
    ],
)
def test_secrets_in_a_query_do_not_reach_a_log(query: bytes, scrubbed: bytes) -> None:
    assert scrub_query(query) == scrubbed
