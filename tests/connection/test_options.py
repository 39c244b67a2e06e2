"""What the keywords of the Python client may be: pure, so nothing is connected."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from hubbub import Position
from hubbub.connection.options import (
    check_address,
    check_headers,
    headers_option,
    origin_option,
    proxy_option,
    since_option,
    state_option,
    subprotocols_option,
    url_option,
)


class TestUrl:
    def test_an_address_is_made_ready(self) -> None:
        assert url_option("http://localhost/ws#x") == "ws://localhost/ws"

    @pytest.mark.parametrize(
        "function",
        [
            lambda: "ws://h/",
            lambda attempt=0: "ws://h/",
            lambda *arguments: "ws://h/",
            functools.partial(str.lower, "WS://H/"),
            dict,  # a builtin that does not say what it takes
        ],
    )
    def test_a_function_without_arguments(self, function: Callable[..., Any]) -> None:
        assert url_option(function) is function

    def test_a_function_that_wants_some(self) -> None:
        with pytest.raises(TypeError, match="called without arguments: missing"):
            url_option(lambda attempt: "ws://h/")

    @pytest.mark.parametrize("value", [None, 5, b"ws://h/", ["ws://h/"]])
    def test_what_is_no_address(self, value: object) -> None:
        with pytest.raises(TypeError, match="url must be a str"):
            url_option(value)
        with pytest.raises(TypeError, match="url must be a str"):
            check_address(value)


class TestHeaders:
    def test_none_are_none(self) -> None:
        assert headers_option(None, None) == {}

    def test_they_are_copied(self) -> None:
        headers = {"X-Token": "abc"}
        checked = headers_option(headers, None)
        headers["X-Token"] = "\n"
        assert checked == {"X-Token": "abc"}

    def test_latin_1_is_allowed(self) -> None:
        assert check_headers({"X-Name": "J\xf6rg\tX"}) == {"X-Name": "J\xf6rg\tX"}

    @pytest.mark.parametrize("name", ["", "a b", "a:", "a\n", "\xe4", 5])
    def test_names_that_are_none(self, name: Any) -> None:
        with pytest.raises(ValueError, match="is no name of a header"):
            check_headers({name: "x"})

    @pytest.mark.parametrize("value", ["a\r\nb", "a\n", "\x00", "\N{EURO SIGN}"])
    def test_values_that_no_header_may_have_are_not_shown(self, value: str) -> None:
        with pytest.raises(ValueError, match="the value of X-Token has characters") as caught:
            check_headers({"X-Token": f"secret{value}"})
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("name", ["Connection", "UPGRADE", "host", "Sec-WebSocket-Key"])
    def test_the_handshake_s_own(self, name: str) -> None:
        with pytest.raises(ValueError, match="the handshake sets"):
            check_headers({name: "x"})

    def test_the_origin_once(self) -> None:
        assert headers_option({"Origin": "http://h"}, None) == {"Origin": "http://h"}
        with pytest.raises(ValueError, match="given twice"):
            headers_option({"Origin": "http://h"}, "http://h")


class TestSubprotocols:
    def test_none_and_some(self) -> None:
        assert subprotocols_option(None) == subprotocols_option([]) == ()
        assert subprotocols_option(["chat.v2", "chat"]) == ("chat.v2", "chat")

    @pytest.mark.parametrize("value", ["chat", b"chat", 5, {"chat"}])
    def test_what_is_no_list(self, value: object) -> None:
        with pytest.raises(TypeError, match="must be a list of str"):
            subprotocols_option(value)

    @pytest.mark.parametrize("value", [[""], ["a,b"], [5], ["a", "a"]])
    def test_what_cannot_be_offered(self, value: object) -> None:
        with pytest.raises(ValueError, match="subprotocols"):
            subprotocols_option(value)


def test_origin() -> None:
    assert origin_option("https://example.com") == "https://example.com"
    assert origin_option(None) is None
    for wrong in ("", "x\n"):
        with pytest.raises(ValueError, match="is no origin"):
            origin_option(wrong)
    with pytest.raises(TypeError, match="origin must be"):
        origin_option(5)


def test_proxy() -> None:
    assert proxy_option(True) is True
    assert proxy_option(None) is None
    assert proxy_option("http://u:p@h:8080") == "http://u:p@h:8080"
    for wrong in (False, 5, b"http://h"):
        with pytest.raises(TypeError, match="proxy must be"):
            proxy_option(wrong)
    for unusable in ("", "h:80", "http://", "http://secret@h", "http://u:secret@h:x", "http://h/x"):
        with pytest.raises(ValueError, match="proxy=") as caught:
            proxy_option(unusable)
        assert "secret" not in str(caught.value)


def test_on_state() -> None:
    async def awaited(state: str) -> None:
        raise AssertionError

    state_option(None)
    state_option(print)
    with pytest.raises(TypeError, match="plain function"):
        state_option(awaited)
    with pytest.raises(TypeError, match="on_state must be a function"):
        state_option("print")


class TestSince:
    @pytest.mark.parametrize(
        "since",
        [Position(5, "e"), {"offset": 5, "epoch": "e"}, (5, "e"), [5, "e"]],
    )
    def test_a_position_in_each_form(self, since: object) -> None:
        assert since_option(since) == Position(5, "e")

    def test_none_and_the_beginning(self) -> None:
        assert since_option(None) is None
        assert since_option({}) == since_option(Position(0, "")) == Position(0, "")

    @pytest.mark.parametrize(
        "since",
        [
            {"offset": 5},
            {"epoch": "e"},
            {"offset": 0},
            {"ofset": 5, "epoch": "e"},
            {"at": (5, "e")},
        ],
    )
    def test_half_a_position(self, since: object) -> None:
        with pytest.raises(TypeError, match="since must be a Position or"):
            since_option(since)

    @pytest.mark.parametrize("since", [5, "5", "5e", (), (5,), (5, "e", 1), b"5e", {5, "e"}])
    def test_what_is_none(self, since: object) -> None:
        with pytest.raises(TypeError, match="since must be a Position or"):
            since_option(since)

    @pytest.mark.parametrize(
        ("offset", "epoch"),
        [("5", "e"), (5.0, "e"), (True, "e"), (None, "e"), (5, None), (5, b"e")],
    )
    def test_parts_of_a_wrong_type(self, offset: Any, epoch: Any) -> None:
        for since in (
            Position(offset, epoch),
            {"offset": offset, "epoch": epoch},
            (offset, epoch),
        ):
            with pytest.raises(TypeError, match="a position is a whole number and a str"):
                since_option(since)

    @pytest.mark.parametrize(
        ("since", "message"),
        [
            (Position(-1, "e"), "is not negative"),
            (Position(2**64, "e"), "no offset is as large"),
            (Position(5, ""), "offset 5 says nothing without its epoch"),
            ({"offset": 5, "epoch": ""}, "offset 5 says nothing without its epoch"),
        ],
    )
    def test_parts_that_cannot_be(self, since: object, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            since_option(since)
