"""The nouns that travel, and how a handshake reads its own headers."""

from __future__ import annotations

import dataclasses
import json
import re
import time
import timeit
from datetime import datetime
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from fastapi.encoders import jsonable_encoder
from hypothesis import given
from hypothesis import strategies as st

from hubbub.model import (
    EVERYBODY,
    USER_PREFIX,
    ClientInfo,
    Close,
    Handshake,
    Identity,
    Position,
    Receipt,
)


def handshake(query: str = "", **headers: str) -> Handshake:
    return Handshake(
        "/ws", {name.replace("_", "-"): value for name, value in headers.items()}, query
    )


def test_a_receipt_without_history_has_no_position() -> None:
    assert Receipt(3) == (3, None, False)
    assert Receipt(3, Position(7, "e1")).position == Position(7, "e1")


def test_a_position_is_an_object_in_json_and_nothing_in_its_place() -> None:
    """As a list it would be taken for no position by every client: a page would show all twice."""
    position = Position(7, "e")
    shown = {"offset": 7, "epoch": "e"}
    assert (msgspec.to_builtins(position), position.as_dict()) == (shown, shown)
    assert jsonable_encoder({"cursor": position}) == {"cursor": shown}
    with pytest.raises(TypeError):
        json.dumps(position)
    assert len({position, Position(7, "e")}) == 1
    with pytest.raises(AttributeError):  # the hub's own is in every receipt
        position.offset += 1  # type: ignore[misc]
    assert min(position, Position(3, "e")).offset == 3


def test_a_handshake_knows_the_parameters_of_its_path() -> None:
    scope = {"type": "websocket", "path_params": {"room": "red"}}
    assert Handshake("/rooms/red/ws", {}, scope=scope).path_params == {"room": "red"}
    assert Handshake("/ws", {}, scope={"type": "websocket"}).path_params == {}
    assert Handshake("/ws", {}).path_params == {}


def test_a_close_is_the_peer_s_unless_said_otherwise() -> None:
    assert Close(1000) == (1000, "", False)


def test_everybody_is_a_name_that_no_application_uses() -> None:
    assert EVERYBODY == ""


def test_an_identity_is_anonymous_by_default_and_cannot_be_changed() -> None:
    identity = Identity()
    assert (identity.user, identity.client_id, dict(identity.meta)) == (None, None, {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        identity.user = "root"  # type: ignore[misc]
    with pytest.raises(TypeError):
        identity.meta["x"] = 1  # type: ignore[index]


@pytest.mark.parametrize("user", ["\ud800", "ann\udfff"])
def test_a_user_has_a_name_in_utf_8(user: str) -> None:
    with pytest.raises(ValueError, match=r"must not hold U\+D[8F][0-9A-F]{2}: half of a surrogate"):
        Identity(user)
    assert Identity("ä€𝄞\0").user == "ä€𝄞\0"


@pytest.mark.parametrize("expires_at", [None, 0, -1.5, 1_795_000_000, 1e10])
def test_an_identity_ends_at_a_unix_time(expires_at: float | None) -> None:
    assert Identity(expires_at=expires_at).expires_at == expires_at


@pytest.mark.parametrize("expires_at", [float("nan"), float("inf"), 1_795_000_000_000, 10**400])
def test_a_time_in_milliseconds_is_no_unix_time(expires_at: float) -> None:
    with pytest.raises(ValueError, match="must be a Unix time in seconds"):
        Identity(expires_at=expires_at)


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        (
            {"user": 42},
            "Identity.user must be a str or None; of another key, write str(key), not int: 42",
        ),
        ({"user": b"ann"}, "Identity.user must be a str or None; of another key"),
        ({"client_id": 5}, "Identity.client_id must be a str or None"),
        ({"subprotocol": ["chat"]}, "Identity.subprotocol must be a str or None"),
        ({"meta": 5}, 'Identity.meta must be a mapping, as in meta={"role": "admin"}, not int: 5'),
        ({"meta": None}, "Identity.meta must be a mapping"),
        ({"meta": [("role", "admin")]}, "Identity.meta must be a mapping"),
        ({"expires_at": "1795000000"}, "expires_at must be a Unix time in seconds, or None"),
        ({"expires_at": True}, "not bool: True"),
        ({"expires_at": datetime(2026, 1, 1)}, "of a datetime, write when.timestamp()"),
    ],
)
def test_fault_07_an_identity_of_the_wrong_types_is_an_error_at_once(
    keywords: dict[str, Any], text: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(text)):
        Identity(**keywords)


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"path": b"/ws"}, "Handshake.path must be a str, not bytes: b'/ws'"),
        ({"headers": [("host", "x")]}, "Handshake.headers must be a mapping"),
        ({"query_string": b"a=1"}, "Handshake.query_string must be a str, not bytes: b'a=1'"),
        ({"subprotocols": "chat"}, """Handshake.subprotocols must be a tuple, as in ("chat",)"""),
        ({"address": ("127.0.0.1", 80)}, "Handshake.address must be a str or None, not tuple"),
        ({"scheme": None}, "Handshake.scheme must be a str, not NoneType: None"),
        ({"scope": None}, "Handshake.scope must be a mapping"),
    ],
)
def test_fault_07_a_handshake_of_the_wrong_types_is_an_error_at_once(
    keywords: dict[str, Any], text: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(text)):
        Handshake(**{"path": "/ws", "headers": {}, **keywords})


words = st.text(st.characters(codec="utf-8"), max_size=10)


@given(st.dictionaries(words, words, max_size=5))
def test_the_query_is_what_was_encoded(parameters: dict[str, str]) -> None:
    assert handshake(urlencode(parameters)).query == parameters


def test_of_a_repeated_parameter_the_last_value_counts_and_empty_ones_are_kept() -> None:
    assert handshake("a=1&a=2&b=").query == {"a": "2", "b": ""}


names = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,8}", fullmatch=True)


@given(st.dictionaries(names, st.text(st.characters(min_codepoint=32, max_codepoint=126))))
def test_cookies_written_by_python_are_read_back(cookies: dict[str, str]) -> None:
    jar: SimpleCookie = SimpleCookie()
    reserved = {"expires", "path", "comment", "domain", "max-age", "secure", "httponly", "version"}
    kept = {name: value for name, value in cookies.items() if name.lower() not in reserved}
    kept = {name: value for name, value in kept.items() if name.lower() != "samesite"}
    for name, value in kept.items():
        jar[name] = value
    line = "; ".join(f"{name}={morsel.coded_value}" for name, morsel in jar.items())
    assert handshake(cookie=line).cookies == kept


def test_one_malformed_cookie_does_not_hide_the_others() -> None:
    line = 'prefs={"theme": "dark"}; session=abc; broken; =nameless'
    assert handshake(cookie=line).cookies["session"] == "abc"


@pytest.mark.parametrize("part", ["\\", "\\1", "\\101", '"', "a=b; "], ids=repr)
def test_fault_08_reading_cookies_takes_time_that_grows_with_their_length(part: str) -> None:
    """Sixteen times as much takes about 16 times as long; where time grew squared, 256 times."""

    def seconds(size: int) -> float:
        line = 'a="' + part * (size // len(part)) + '"'
        read = timeit.Timer(lambda: handshake(cookie=line).cookies, timer=time.thread_time)
        return min(read.repeat(repeat=7, number=3))  # of this thread's own time

    assert seconds(64_000) < 80 * seconds(4_000)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ('"a b"', "a b"),
        (r'"\"a\\"', '"a\\'),
        (r'"\101\377\1"', "A\xff1"),
        ('"', '"'),
        ('""', ""),
        ('"half', '"half'),
        (r"a\101", r"a\101"),
    ],
)
def test_the_quotes_and_escapes_of_a_cookie_are_taken_away(value: str, read: str) -> None:
    assert handshake(cookie=f"a={value}").cookies == {"a": read}


def test_no_cookie_header_no_cookies() -> None:
    assert handshake().cookies == {}


@given(st.text(max_size=60))
def test_no_cookie_header_is_too_strange_to_read(line: str) -> None:
    assert isinstance(handshake(cookie=line).cookies, dict)


def test_origin_and_host_are_headers() -> None:
    request = handshake(origin="https://a.example", host="b.example:8000")
    assert (request.origin, request.host) == ("https://a.example", "b.example:8000")
    assert (handshake().origin, handshake().host) == (None, None)


@pytest.mark.parametrize(
    ("authorization", "query", "token"),
    [
        ("Bearer abc", "", "abc"),
        ("bearer  abc ", "", "abc"),
        ("Bearer abc", "token=xyz", "abc"),
        ("Bearer ", "token=xyz", "xyz"),
        ("Basic abc", "token=xyz", "xyz"),
        ("Basic abc", "", None),
        ("", "token=xyz", "xyz"),
        ("", "token=", None),
        ("", "", None),
    ],
)
def test_the_token_is_the_header_s_else_the_query_s(
    authorization: str, query: str, token: str | None
) -> None:
    assert handshake(query, authorization=authorization).token == token


def test_a_handshake_does_not_show_its_scope() -> None:
    request = Handshake("/ws", {}, scope={"session": {"secret": "s3cr3t"}})
    assert "s3cr3t" not in repr(request)


@pytest.mark.parametrize("user", ["ann", "", "-c1", "c1", "@ann"])
def test_no_anonymous_client_has_the_key_of_a_user(user: str) -> None:
    key = ClientInfo("c1", user).key
    assert key == ClientInfo("c2", user).key, "all clients of a user are one person"
    for client_id in ("c1", user, USER_PREFIX + user, "-" + user, key, key[1:]):
        assert ClientInfo(client_id).key != key
    assert ClientInfo("c1").key != ClientInfo("c2").key
