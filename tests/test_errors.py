"""The error tree and the table of close codes."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, CloseCode

from hubbub import errors
from hubbub.errors import (
    CLOSE_CODES,
    MAX_REASON_BYTES,
    RECONNECT_RANGES,
    BrokerUnavailable,
    CommandError,
    Disconnected,
    HubbubError,
    MissingExtra,
    PositionLost,
    ProtocolError,
    PublishedInPart,
    Refused,
    SettingsError,
    StreamUnheard,
    TokenError,
    TokenExpired,
    TokenInvalid,
    TokenKeysUnavailable,
    close_word,
    fit_reason,
    is_sendable,
    retry_after_of,
    should_come_back,
    with_retry_after,
)
from hubbub.model import Position, Receipt


def classes() -> set[type[HubbubError]]:
    members = (value for _, value in inspect.getmembers(errors, inspect.isclass))
    return {value for value in members if issubclass(value, HubbubError)}


def test_every_error_descends_from_the_root_and_stands_in_the_tree_that_is_drawn() -> None:
    assert errors.__doc__ is not None
    for error in classes():
        assert error.__name__ in errors.__doc__
        assert error.__doc__


@pytest.mark.parametrize(
    "error",
    [
        SettingsError("ping_interval_s", "x", "a number", nearest="ping"),
        Refused(403, "no", "No.", headers={"X-A": "b"}, details={"a": 1}),
        CommandError("no", "No.", temporary=True),
        ProtocolError(1002, "wrong"),
        Disconnected(4000, "gone"),
        MissingExtra("redis", "valkey"),
        TokenInvalid("it is another's", is_foreign=True),
        TokenKeysUnavailable(),
        PositionLost("red", is_other_epoch=True),
        StreamUnheard("red", 2.0),
        PublishedInPart(BrokerUnavailable("away"), [Receipt(0, Position(1, "e")), None]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_crosses_to_another_process_as_it_is(error: HubbubError) -> None:
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)


def test_codes_are_unique_and_in_order() -> None:
    codes = [row.code for row in CLOSE_CODES]
    assert codes == sorted(set(codes))


def test_every_constant_is_in_the_table() -> None:
    numbers = {
        value
        for name, value in vars(errors).items()
        if name.isupper() and isinstance(value, int) and name != "MAX_REASON_BYTES"
    }
    assert numbers <= {row.code for row in CLOSE_CODES}
    assert len(numbers) > 10


def test_the_table_knows_every_code_of_the_rfc_and_its_registry() -> None:
    assert {int(code) for code in CloseCode} <= {row.code for row in CLOSE_CODES}


@pytest.mark.parametrize("row", CLOSE_CODES, ids=lambda row: str(row.code))
def test_should_come_back_equals_the_table(row: errors.CloseCode) -> None:
    assert should_come_back(row.code) is row.come_back


@given(st.integers(3000, 4999))
def test_from_3000_on_the_range_decides(code: int) -> None:
    (expected,) = [back for first, last, back in RECONNECT_RANGES if first <= code <= last]
    assert should_come_back(code) is expected


def test_the_ranges_cover_3000_to_4999_without_gaps_or_overlaps() -> None:
    covered = [code for first, last, _ in RECONNECT_RANGES for code in range(first, last + 1)]
    assert covered == list(range(3000, 5000))


@given(st.integers(0, 2999) | st.integers(5000, 70000))
def test_an_unknown_code_is_an_accident(code: int) -> None:
    if code not in {row.code for row in CLOSE_CODES}:
        assert should_come_back(code)


@given(st.integers(0, 70000))
def test_is_sendable_agrees_with_websockets(code: int) -> None:
    try:
        Close(code, "").check()
    except Exception:
        assert not is_sendable(code)
    else:
        assert is_sendable(code)


@given(st.text(st.characters(), max_size=200))
def test_a_fitted_reason_always_goes_into_a_close_frame(reason: str) -> None:
    fitted = fit_reason(reason)
    raw = fitted.encode()
    assert len(raw) <= MAX_REASON_BYTES
    clean = reason.encode("utf-8", "replace").decode()
    assert clean.startswith(fitted)
    if len(clean.encode()) <= MAX_REASON_BYTES:
        assert fitted == clean
    else:
        assert len(raw) > MAX_REASON_BYTES - 4, "no more is cut than one character"


def test_a_reason_with_half_a_surrogate_pair_becomes_sendable() -> None:
    assert fit_reason("no \ud83d more") == "no ? more"


def test_settings_error_names_field_value_source_and_the_nearest_right_name() -> None:
    error = SettingsError(
        "ping_intervall_s", 3, "no such setting", source="environment", nearest="ping_interval_s"
    )
    assert str(error) == (
        "ping_intervall_s = 3 (environment): no such setting; did you mean ping_interval_s?"
    )
    assert (error.field, error.value, error.nearest) == ("ping_intervall_s", 3, "ping_interval_s")
    assert isinstance(error, ValueError)
    error = SettingsError("api_key", None, "no such setting", shows_value=False)
    assert str(error) == "api_key (keyword): no such setting"


def test_refused_has_words_of_its_own_for_each_status() -> None:
    assert Refused().body() == {"error": "Unauthorized", "code": "unauthorized"}
    assert Refused(503).body()["code"] == "unavailable"
    assert Refused(418).body() == {"error": "Refused", "code": "refused"}


def test_refused_carries_what_the_application_says() -> None:
    error = Refused(
        403, "bad_origin", "Not from there", headers={"x-why": "origin"}, details={"origin": "evil"}
    )
    assert error.status == 403
    assert error.headers == {"x-why": "origin"}
    assert error.body() == {"error": "Not from there", "code": "bad_origin", "origin": "evil"}
    assert str(error) == "403 bad_origin: Not from there"


@pytest.mark.parametrize("status", [0, 101, 200, 302, 399, 600])
def test_refused_takes_http_errors_only(status: int) -> None:
    with pytest.raises(ValueError, match="400 to 599"):
        Refused(status)


@pytest.mark.parametrize(
    ("keywords", "what"),
    [
        ({"code": 5}, "code must be a str or None, not int: 5"),
        ({"message": b"no"}, "message must be a str or None, not bytes: b'no'"),
        ({"status": "403"}, "status must be an HTTP error, 400 to 599, not '403'"),
        ({"headers": {"Retry-After": 5}}, "a header is a str and a str, not 'Retry-After': 5"),
        ({"headers": {"X": "a\r\nY: b"}}, "no header may be 'X'"),
        ({"headers": {"X y": "a"}}, "no header may be 'X y'"),
        ({"headers": {"X": "\u20ac"}}, "no header may be 'X'"),
        ({"details": {"why": object()}}, "not JSON serializable"),
        ({"details": {"why": float("nan")}}, "not JSON compliant"),
    ],
)
def test_refused_says_at_once_what_no_answer_can_carry(keywords: dict[str, Any], what: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(what)):
        Refused(**keywords)


def test_command_error_has_a_reply() -> None:
    assert CommandError("full", "The room is full.").reply() == {
        "type": "error",
        "code": "full",
        "message": "The room is full.",
    }
    assert CommandError("busy", "Later.", temporary=True).reply()["temporary"] is True


def test_errors_build_their_text_from_their_data() -> None:
    assert str(ProtocolError(1002, "reserved bits")) == "1002 reserved bits"
    assert str(Disconnected()) == "3503"
    assert str(Disconnected(4001, "bye")) == "4001 bye"
    assert str(CommandError("full", "No.")) == "full: No."


def test_errors_of_tokens_say_how_a_handshake_is_refused() -> None:
    for error, status, code in (
        (TokenInvalid("no"), 401, "token_invalid"),
        (TokenExpired(), 401, "token_expired"),
        (TokenKeysUnavailable(), 503, "token_keys_unavailable"),
    ):
        assert isinstance(error, TokenError)
        refused = error.refusal()
        assert (refused.status, refused.code, refused.message) == (status, code, str(error))
    assert TokenExpired().claim == "exp"


def test_missing_extra_says_what_to_type() -> None:
    error = MissingExtra("jinja2", "demo")
    assert str(error) == "jinja2 is not installed: run  pip install 'hubbub[demo]'"
    assert isinstance(error, ImportError)
    assert str(MissingExtra("fastapi", "fastapi")).endswith("pip install 'fastapi'")


@given(st.floats(-10, 1e9), st.text(max_size=90))
def test_a_reason_can_say_when_to_come_back_and_is_short_enough(seconds: float, text: str) -> None:
    reason = with_retry_after("service restart", seconds)
    assert len(reason.encode()) <= MAX_REASON_BYTES
    assert retry_after_of(reason) == pytest.approx(min(max(seconds, 0.001), 3600), abs=0.001)
    assert retry_after_of(f"{reason} {text}x") == 0.0


@pytest.mark.parametrize(
    ("reason", "seconds"),
    [
        ("", 0),
        ("service restart", 0),
        ("retry after 3 s", 3),
        ("maintenance, retry after 2.5 s", 2.5),
        ("retry after 31536000 s", 3600),
        ("retry after -3 s", 0),
        ("retry after s", 0),
        ("retry after 3 s.", 0),
    ],
)
def test_what_a_reason_says_of_coming_back(reason: str, seconds: float) -> None:
    assert retry_after_of(reason) == seconds


def test_every_close_code_has_a_word() -> None:
    words = [close_word(row.code) for row in CLOSE_CODES]
    assert len(set(words)) == len(words)
    assert all(re.fullmatch(r"[a-zA-Z_]+", word) for word in words)
    assert [close_word(code) for code in (4000, 4999, 3999, 0)] == ["application"] * 2 + [
        "other"
    ] * 2
