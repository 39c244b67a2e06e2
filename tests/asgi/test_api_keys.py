"""API keys: what is one, what it may do, how fast, and that none is ever shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hubbub import ApiKey, SettingsError
from hubbub.asgi.api_keys import Caller, KeyRing, read_keys
from hubbub.testing import FakeClock

SECRET = "the-secret-of-a-key"
OTHER = "another-secret-0123"


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("short", ValueError),
        ("", ValueError),
        ("with a space in it, sadly", ValueError),
        ("n\u00e4chster-schl\u00fcssel", ValueError),
        ("line\nend-0123456789", ValueError),
        ("x" * 513, ValueError),
        (b"the-secret-of-a-key", TypeError),
        (None, TypeError),
    ],
)
def test_what_is_no_key_is_refused_and_not_shown(key: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        ApiKey(key)
    assert not key or str(key) not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": 5},
        {"methods": "publish"},
        {"methods": [5]},
        {"methods": 5},
        {"rooms": "news:*"},
        {"rooms": ["a*b"]},
        {"rooms": [""]},
        {"per_second": 0},
        {"per_second": -1},
        {"per_second": True},
        {"per_second": "5"},
        {"per_second": float("nan")},
        {"per_second": float("inf")},
    ],
)
def test_what_a_key_cannot_be_given_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        ApiKey(SECRET, **wrong)
    assert SECRET not in str(caught.value)


def test_a_key_shows_its_name_and_keeps_no_secret() -> None:
    key = ApiKey(SECRET, name="cron", methods=["publish"], rooms=["news:*"])
    assert repr(key) == "<ApiKey 'cron'>"
    held = [getattr(key, name) for name in ApiKey.__slots__]
    assert SECRET not in repr(held)
    assert SECRET.encode() not in held


@pytest.mark.parametrize(
    ("methods", "rooms", "allowed"),
    [
        (None, None, {"publish", "disconnect"}),
        (["publish"], None, {"publish"}),
        (["disconnect"], None, {"disconnect"}),
        (None, ["news:*"], {"publish"}),
        (["publish", "disconnect"], ["news:*"], {"publish", "disconnect"}),
        ([], None, set()),
    ],
)
def test_what_concerns_no_room_a_key_for_rooms_may_do_only_if_that_is_said(
    methods: list[str] | None, rooms: list[str] | None, allowed: set[str]
) -> None:
    key = ApiKey(SECRET, methods=methods, rooms=rooms)
    has_room = {"publish": True, "disconnect": False}
    assert {name for name, has in has_room.items() if key.may_call(name, has_room=has)} == allowed


def test_rooms_are_named_or_begin_so() -> None:
    key = ApiKey(SECRET, rooms=["news:*", "lobby"])
    rooms = ["news:", "news:1", "lobby", "lobby2", "new", "secret"]
    assert [room for room in rooms if key.may_use(room)] == ["news:", "news:1", "lobby"]
    assert ApiKey(SECRET).may_use("anything")
    assert not ApiKey(SECRET, rooms=[]).may_use("anything")


def test_a_caller_has_its_rate_and_a_burst_of_two_seconds() -> None:
    clock = FakeClock()
    caller = Caller(ApiKey(SECRET, per_second=2), clock)
    assert [caller.charge() for _ in range(5)] == [True] * 4 + [False]
    clock.advance(0.5)
    assert [caller.charge() for _ in range(2)] == [True, False]
    unlimited = Caller(ApiKey(SECRET), clock)
    assert all(unlimited.charge() for _ in range(1000))


def test_a_key_is_found_by_its_secret_and_by_nothing_else() -> None:
    ring = KeyRing([SECRET, ApiKey(OTHER, name="cron")], FakeClock())
    assert [key.name for key in ring.keys] == ["key 1", "cron"]
    for secret, name in ((SECRET, "key 1"), (OTHER, "cron")):
        caller = ring.find(secret)
        assert caller is not None
        assert caller.key.name == name
    for secret in ("", SECRET[:-1], f"{SECRET} ", SECRET.upper(), "\udc80", "\x00"):
        assert ring.find(secret) is None


def test_every_key_is_compared_in_constant_time_whichever_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    ring = KeyRing([SECRET, OTHER], FakeClock())
    monkeypatch.setattr("hubbub.asgi.api_keys.hmac.compare_digest", compare)
    for secret in (SECRET, OTHER, "nobody"):
        compared.clear()
        ring.find(secret)
        assert len(compared) == 2
        assert {len(part) for pair in compared for part in pair} == {32}


def test_an_api_has_a_list_of_keys_each_once() -> None:
    with pytest.raises(ValueError, match="lets nobody in"):
        KeyRing([], FakeClock())
    with pytest.raises(ValueError, match="number 2 is there already"):
        KeyRing([SECRET, ApiKey(SECRET, name="again")], FakeClock())
    wrong: Any = SECRET
    with pytest.raises(TypeError, match=r"keys=\[key\]"):
        KeyRing(wrong, FakeClock())


def test_a_file_has_a_key_in_each_line(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(
        f"# all may be done with this one\n{SECRET}\n\n"
        f'{{"key": "{OTHER}", "name": "cron", "methods": ["publish"], "rooms": ["news:*"], "per_second": 5}}\n',
        encoding="utf-8",
    )
    first, second = read_keys(str(path))
    assert first.is_same(ApiKey(SECRET))
    assert (first.methods, first.rooms, first.per_second) == (None, None, None)
    assert (second.name, second.rooms, second.per_second) == ("cron", ("news:*",), 5)
    assert second.methods == frozenset({"publish"})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("too-short", "line 2: an API key has 16 to 512"),
        ('{"key": "the-secret-of-a-key"', "line 2: it is no JSON object"),
        ('{"name": "the-secret-of-a-key"}', "line 2: an object has a key"),
        ('{"key": "the-secret-of-a-key", "room": []}', "line 2: an object has a key"),
        ('{"key": 5}', "line 2: an API key is a str"),
        ('{"key": "the-secret-of-a-key", "rooms": "x"}', "line 2: rooms of an API key is a list"),
        ('{"key": "the-secret-of-a-key", "rooms": ["a*b"]}', "line 2: rooms of an API key = "),
    ],
)
def test_a_line_that_is_none_is_named_and_not_shown(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# keys\n{line}\n", encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        read_keys(str(path))
    assert why in str(caught.value)
    assert "the-secret-of-a-key" not in str(caught.value)
    assert "too-short" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_cannot_be_read_or_has_no_key_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_keys(str(tmp_path / "nowhere"))
    path = tmp_path / "keys"
    path.write_text("# nothing\n\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="a file with a key in it"):
        read_keys(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="no text in UTF-8"):
        read_keys(str(path))
