"""Limits: rates, names, and what may stand in a log."""

from __future__ import annotations

import sys
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import CommandError
from hubbub.limits import (
    MAX_CLIENT_ID_LENGTH,
    MAX_ROOM_NAME_BYTES,
    TokenBucket,
    TurnBudget,
    check_room_name,
    checked_user,
    escaped,
    explain,
    is_client_id,
    printable,
    scrub_query,
    shown_url,
    too_big,
)


def test_a_user_is_named_by_a_text_that_has_bytes() -> None:
    assert checked_user("@ä€𝄞") == "@ä€𝄞"
    with pytest.raises(TypeError, match="write str"):
        checked_user(42)
    with pytest.raises(ValueError, match=r"U\+DFFF"):
        checked_user("\udfff")


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


FORBIDDEN = [
    (0x00, 0x1F),
    (0x7F, 0x9F),
    (0x2028, 0x202E),
    (0x2066, 0x2069),
    (0xD800, 0xDFFF),
]
"""The first and the last character of each run that no room's name has."""


def is_room_name(name: str) -> bool:
    try:
        return check_room_name(name) is name
    except CommandError:
        return False


def test_fault_27_each_character_is_in_a_room_s_name_or_not_by_the_rule() -> None:
    """All of Unicode, so that the tables of this Python decide nothing."""
    never = {point for first, last in FORBIDDEN for point in range(first, last + 1)}
    refused = {point for point in range(sys.maxunicode + 1) if not is_room_name(f"a{chr(point)}")}
    assert refused == never


@pytest.mark.parametrize(("first", "last"), FORBIDDEN)
def test_fault_27_the_refusal_names_the_character(first: int, last: int) -> None:
    for point in (first, last):
        with pytest.raises(CommandError, match=rf"must not hold U\+{point:04X}"):
            check_room_name(f"room {chr(point)}")
    assert is_room_name(f"room {chr(last + 1)}")
    assert first == 0 or is_room_name(f"room {chr(first - 1)}")


@pytest.mark.parametrize(
    "name",
    [
        "10\N{NO-BREAK SPACE}000 m",
        "\N{FAMILY}\N{ZERO WIDTH JOINER}\N{WOMAN}",
        "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}",
        "نامه\N{ZERO WIDTH NON-JOINER}ای",
        "\N{WAVING BLACK FLAG}\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "co\N{SOFT HYPHEN}op",
        "\N{IDEOGRAPHIC SPACE}",
        "\N{ZERO WIDTH NO-BREAK SPACE}",
        "שלום\N{RIGHT-TO-LEFT MARK}",
        "\U0001fae9",  # Unicode 16: Python 3.13 does not know it
        "\U000effff",
        "\ue000",
        " ",
    ],
)
def test_fault_27_names_that_people_write_are_allowed(name: str) -> None:
    assert check_room_name(name) is name


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


class Order(pydantic.BaseModel):
    amount: int
    token: Literal["a", "b"] = "a"


class Basket(pydantic.BaseModel):
    orders: list[Order]
    kind: str


class Strange(ValueError):
    """An error that only looks like one of pydantic's."""

    def errors(self) -> list[str]:
        return []


def invalid(model: type[pydantic.BaseModel], data: Any) -> pydantic.ValidationError:
    with pytest.raises(pydantic.ValidationError) as caught:
        model.model_validate(data)
    return caught.value


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (invalid(Order, {"amount": "hunter2"}), "amount: Input should be a valid integer"),
        (invalid(Order, {"amount": 1, "token": "hunter2"}), "token: Input should be 'a' or 'b'"),
        (
            invalid(Basket, {"orders": [{"amount": 1}, {"amount": "hunter2"}]}),
            "orders.1.amount: Input should be a valid integer",
        ),
        (invalid(Basket, "hunter2"), "Input should be a valid dictionary"),
        (ValueError("one\ntwo"), "one\ufffdtwo"),
        (ValueError(), "the message was refused"),
        (Strange("strange"), "strange"),
        (ValueError("x" * 300), "x" * 200 + "…"),
    ],
)
def test_fault_18_what_is_wrong_with_a_message_is_one_line(error: Exception, text: str) -> None:
    line = explain(error)
    assert line.startswith(text)
    assert line.isprintable()
    assert "hunter2" not in line
    assert "http" not in line


def test_fault_18_the_first_of_several_faults_and_how_many_follow() -> None:
    assert explain(invalid(Basket, {})) == "orders: Field required (and 1 more)"


def test_fault_18_what_is_too_big_says_which_setting_says_so() -> None:
    assert too_big(512) == "the message is larger than max_message_bytes, which is 512"


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
        (b"api_key=a&API_KEY=b&api=c", b"api_key=***&API_KEY=***&api=c"),
        (b"access_token=a&jwt=b&key=c&secret=d", b"access_token=***&jwt=***&key=***&secret=***"),
        (b"token", b"token"),
        (b"tokens=5", b"tokens=5"),
        (b"\xff=1&token=\xff", b"%FF=1&token=***"),
        (b"x=\x1b[31m\r\nINFO:&%74oken=a", b"x=%1B[31m%0D%0AINFO:&%74oken=***"),
    ],
)
def test_secrets_in_a_query_do_not_reach_a_log(query: bytes, scrubbed: bytes) -> None:
    assert scrub_query(query) == scrubbed


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("valkey://u:p@one:6379,two:6379/1?prefix=shop", "valkey://one:6379,two:6379/1"),
        ("valkey+sentinel://u:p@one:1/m?sentinel_password=sec@ret", "valkey+sentinel://…"),
        ("valkeys://one?ca=/etc/x@secret", "valkeys://…"),
        ("valkeys://one?ca=http://x", "valkeys://one"),
        ("valkey://u:12?34@one:6379", "valkey://…"),
        ("valkey://u:12#34@one:6379", "valkey://…"),
        ("valkey://u:p://q@one", "valkey://one"),
        ("u:p@one:6379", "one:6379"),
        ("secret word", "…"),
    ],
)
def test_a_shown_url_has_nothing_of_who_logs_in(url: str, shown: str) -> None:
    assert shown_url(url) == shown
