"""Room rules: what can be a rule, which rooms it is for, and how it is read and shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hubbub import Hub, RoomRules, Settings, SettingsError
from hubbub.room_rules import checked_rules, matches, read_rules, shown_rules

WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "no name": (lambda: RoomRules(""), "a name, or a prefix"),
    "two stars": (lambda: RoomRules("a*b*"), "a name, or a prefix"),
    "a number": (lambda: RoomRules(5), "a name, or a prefix"),  # type: ignore[arg-type]
    "negative history": (lambda: RoomRules("a", history=-1), "a whole number, at least 0"),
    "true history": (lambda: RoomRules("a", history=True), "a whole number"),
    "half a message": (lambda: RoomRules("a", history=1.5), "a whole number"),  # type: ignore[arg-type]
    "no time": (lambda: RoomRules("a", history_ttl_s=0), "at least 0.01"),
    "never": (lambda: RoomRules("a", history_ttl_s=float("nan")), "at least 0.01"),
    "no bytes": (lambda: RoomRules("a", history_bytes=0), "at least 1"),
    "maybe": (lambda: RoomRules("a", recover=1), "True or False"),  # type: ignore[arg-type]
    "policy": (lambda: RoomRules("a", slow_policy="newest"), "one of disconnect"),  # type: ignore[arg-type]
    "publish": (lambda: RoomRules("a", publish="all"), '"server", "members"'),  # type: ignore[arg-type]
    "cache of nothing": (lambda: RoomRules("a", cache=True), "needs history=1"),
    "presence": (lambda: RoomRules("a", presence=1), "True or False"),  # type: ignore[arg-type]
    "told": (lambda: RoomRules("a", join_leave=None), "True or False"),  # type: ignore[arg-type]
    "told of whom": (lambda: RoomRules("a", join_leave=True), "needs presence=True"),
    "told to nobody": (lambda: RoomRules("a", join_leave_max_members=0), "at least 1"),
    "grace": (lambda: RoomRules("a", leave_grace_s=-1), "a number, at least 0"),
    "stream of nothing": (lambda: RoomRules("a", stream=True), "needs recover=True and a history"),
    "stream from now on": (
        lambda: RoomRules("a", stream=True, history=5, recover=False),
        "needs recover=True",
    ),
    "stream of one": (
        lambda: RoomRules("a", stream=True, history=5, cache=True),
        "needs all pieces",
    ),
    "a user's room": (lambda: RoomRules("@ann"), "fits no room: .*must not begin with '@'"),
    "all users' rooms": (lambda: RoomRules("@*"), "fits no room: .*must not begin with '@'"),
    "too long": (lambda: RoomRules("a" * 257), "fits no room: .*at most 256 bytes"),
    "too long a beginning": (lambda: RoomRules("é" * 129 + "*"), "fits no room: .*at most 256"),
    "turned around": (lambda: RoomRules("a\u202eb*"), r"fits no room: .*U\+202E"),
    "no room for them": (
        lambda: RoomRules("a", history=100, history_bytes=99),
        "too small for history=100: raise it",
    ),
    "grace of nobody": (lambda: RoomRules("a", leave_grace_s=5), "needs presence=True"),
    "many of nobody": (
        lambda: RoomRules("a", presence=True, join_leave_max_members=5),
        "needs presence=True and join_leave=True",
    ),
    "latest": (lambda: RoomRules("a", history=5, slow_policy="latest"), "write cache=True"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_rule_that_cannot_be_says_what_to_write(name: str) -> None:
    make, expected = WRONG[name]
    with pytest.raises(SettingsError, match=expected) as caught:
        make()
    assert caught.value.field == "room_rules"


@pytest.mark.parametrize(
    ("pattern", "room", "fits"),
    [
        ("chat", "chat", True),
        ("chat", "chat:1", False),
        ("chat:*", "chat:1", True),
        ("chat:*", "chat:", True),
        ("chat:*", "chat", False),
        ("*", "anything", True),
        ("a" * 256, "a" * 256, True),
        ("a" * 256 + "*", "a" * 256, True),
    ],
)
def test_a_pattern_is_a_name_or_a_prefix(pattern: str, room: str, fits: bool) -> None:
    assert matches(pattern, room) is fits
    assert RoomRules(pattern).fits(room) is fits


@pytest.mark.parametrize(
    "patterns", [("a*", "ab"), ("a", "a"), ("*", "b*"), ("a*", "ab*"), ("x", "a*", "x")]
)
def test_a_rule_that_can_never_fit_is_an_error(patterns: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="is never used, since"):
        checked_rules([RoomRules(pattern) for pattern in patterns])


def test_rules_in_a_useful_order_are_right() -> None:
    rules = [RoomRules("ab"), RoomRules("ab*"), RoomRules("a*"), RoomRules("*")]
    assert checked_rules(rules) == tuple(rules)
    assert checked_rules(rules[0]) == (rules[0],)


@pytest.mark.parametrize("value", ["chat:*", 5, [{"pattern": "a"}], ["a"]])
def test_what_is_no_list_of_rules_is_an_error(value: Any) -> None:
    with pytest.raises(SettingsError, match="room_rules"):
        checked_rules(value)


def test_rules_are_shown_as_they_are_read() -> None:
    rules = (RoomRules("chat:*", history=100, publish="members"), RoomRules("é"))
    text = shown_rules(rules)
    assert text == '[{"pattern": "chat:*", "history": 100, "publish": "members"}, {"pattern": "é"}]'
    assert read_rules(text) == rules
    assert read_rules("") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[{"pattern": "a", "histori": 5}]',
            "has no 'histori'; the fields of a rule are pattern, hi",
        ),
        ('[{"history": 5}]', "needs a pattern; the fields"),
        ('[{"pattern": "a", "history": "5"}]', "history must be a whole number"),
    ],
)
def test_a_wrong_rule_of_the_environment_says_what_is_wrong(text: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected) as caught:
        Settings.load({"HUBBUB_ROOM_RULES": text})
    assert caught.value.source == "environment, HUBBUB_ROOM_RULES"


@pytest.mark.parametrize("text", ["{", "5", "[5]", "[" * 9999])
def test_text_that_is_no_rules_is_an_error_of_the_setting(text: str) -> None:
    with pytest.raises(SettingsError, match=r"must be a list in JSON, as in \[\{") as caught:
        Settings.load({"HUBBUB_ROOM_RULES": text})
    assert caught.value.field == "room_rules"


def test_the_environment_gives_rules() -> None:
    settings = Settings.load({"HUBBUB_ROOM_RULES": '[{"pattern": "a*", "history": 3}]'})
    assert settings.room_rules == (RoomRules("a*", history=3),)


def test_a_rule_says_whether_clients_recover() -> None:
    assert RoomRules("a", history=1).recovers
    assert not RoomRules("a").recovers
    assert not RoomRules("a", history=1, recover=False).recovers


MAKING: list[Callable[..., object]] = [RoomRules, Hub().room_rules]


@pytest.mark.parametrize("make", MAKING, ids=["RoomRules", "hub.room_rules"])
@pytest.mark.parametrize(("name", "hint"), [("histroy", "; did you mean history?"), ("zzz", ".")])
def test_a_field_that_is_none_is_told_which_there_are(
    name: str, hint: str, make: Callable[..., object]
) -> None:
    with pytest.raises(TypeError) as caught:
        make("a", **{name: 3})
    told = f"RoomRules has no {name!r}{hint} Its fields: pattern, history, history_ttl_s,"
    assert str(caught.value).startswith(told)


def test_a_rule_without_a_pattern_is_none() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'pattern'"):
        MAKING[0](history=3)
