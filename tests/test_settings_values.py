"""Settings' values: what is accepted, what is refused and with which words, and how it is shown."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.errors import SettingsError
from hubbub.room_rules import RoomRules
from hubbub.settings import Settings
from hubbub.settings_values import ENV_PREFIX, Row, parse, shown, visible
from setting_rows import ROWS

LEAST: dict[str, Any] = {spec.name: spec.metadata["least"] for spec in dataclasses.fields(Settings)}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_message_bytes", "64KiB", 65536),
        ("max_message_bytes", "1_000", 1000),
        ("max_message_bytes", "1.5 kb", 1500),
        ("max_message_bytes", "2mb", 2_000_000),
        ("max_message_bytes", "none", None),
        ("outbox_max_bytes", "1GiB", 1024**3),
        ("write_timeout_s", " 2.5 ", 2.5),
        ("write_timeout_s", "None", None),
        ("client_id_from_query", "on", True),
        ("client_id_from_query", "No", False),
        (
            "origins",
            "https://a.example, https://*.b.example",
            ("https://a.example", "https://*.b.example"),
        ),
        ("slow_policy", "latest", "latest"),
        ("workers_ok", "1", True),
        ("workers_ok", "no", False),
        ("workers_ok", "refuse", "refuse"),
    ],
)
def test_text_is_read_as_people_write_it(name: str, text: str, value: Any) -> None:
    assert parse(ROWS[name], text, source="test") == value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("max_message_bytes", "big", "must be a whole number of bytes, or none (no limit)"),
        ("max_message_bytes", "infMiB", "must be a whole number of bytes, or none (no limit)"),
        ("max_message_bytes", "nanKiB", "must be a whole number of bytes, or none (no limit)"),
        ("max_message_bytes", "4k", "(no limit), such as 4096 or 4KiB"),
        ("max_message_bytes", "0", "at least 1"),
        ("max_clients", "null pointer", "must be a whole number of clients, or none"),
        ("max_clients", "1.5", "must be a whole number of clients"),
        ("pong_timeout_s", "soon", "must be a number of seconds"),
        ("pong_timeout_s", "none", "must be a number of seconds"),
        ("pong_timeout_s", "inf", "at least 0.05"),
        ("client_id_from_query", "perhaps", "must be yes or no"),
        ("slow_policy", "drop", "must be one of disconnect, drop_oldest, drop_newest, latest"),
        ("on_invalid", "none", "must be one of reply, ignore, close"),
        ("workers_ok", "never", "must be one of yes, no, refuse"),
        ("origins", "example.com", "must be origins such as"),
    ],
)
def test_a_wrong_variable_is_refused_with_field_value_and_unit(
    name: str, text: str, words: str
) -> None:
    variable = ENV_PREFIX + name.upper()
    with pytest.raises(SettingsError) as caught:
        Settings.load({variable: text})
    assert caught.value.field == name
    assert words in str(caught.value)
    assert f"(environment, {variable})" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_message_bytes", "512"),
        ("max_message_bytes", 512.0),
        ("max_message_bytes", True),
        ("max_message_bytes", 0),
        ("max_message_bytes", 10**400),
        ("pong_timeout_s", 10**400),
        ("outbox_max_entries", None),
        ("pong_timeout_s", float("nan")),
        ("pong_timeout_s", float("inf")),
        ("client_id_from_query", 1),
        ("slow_policy", "drop"),
        ("slow_policy", None),
        ("workers_ok", "yes"),
        ("workers_ok", None),
        ("workers_ok", 1),
        ("origins", 5),
        ("origins", ("https://a.example", 5)),
        ("origins", "https://a.example,https://b.example"),
        ("origins", "https://a.example/path"),
        ("origins", "https://"),
    ],
)
def test_a_wrong_keyword_is_refused(name: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**{name: value})
    assert caught.value.field == name


def test_a_whole_number_of_seconds_becomes_a_float() -> None:
    assert type(Settings(pong_timeout_s=70).pong_timeout_s) is float


def test_origins_are_normalised_and_one_string_is_one_origin() -> None:
    assert Settings(origins="HTTPS://Example.COM/").origins == ("https://example.com",)  # type: ignore[arg-type]
    assert Settings(origins=["*"]).origins == ("*",)  # type: ignore[arg-type]
    assert Settings(origins=("null", "http://[::1]:8000")).origins == ("null", "http://[::1]:8000")


def values_of(row: Row) -> st.SearchStrategy[Any]:
    """All right values of a setting."""
    least = LEAST[row.name]
    if row.choices:
        return st.sampled_from([*row.choices, *((True, False) if row.kind is bool else ())])
    kinds: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        str: st.from_regex(r"[a-z/ ]{1,9}\.txt", fullmatch=True).map(str.strip)
        | st.sampled_from(["memory://", "valkey://localhost:6379/1", "unix:///run/v.sock"]),
        int: st.integers(least, 2**63 - 1),
        float: st.floats(least, 1e12, allow_nan=False) if least is not None else st.none(),
        tuple[str, ...]: st.lists(
            st.sampled_from(
                ["*", "null", "same-origin", "https://a.example", "http://*.b.example:8"]
            )
        ).map(tuple),
        tuple[RoomRules, ...]: st.lists(
            st.builds(
                RoomRules,
                st.from_regex(r"[a-c]{1,3}", fullmatch=True),
                history=st.integers(0, 9),
                history_ttl_s=st.floats(0.01, 1e9),
                publish=st.sampled_from([None, "members"]),
            ),
            unique_by=lambda rule: rule.pattern,
        ).map(tuple),
    }
    found = kinds[row.kind]
    return found if row.none is None else st.none() | found


@settings(deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", ROWS)
def test_what_is_shown_is_read_back_the_same(name: str, data: st.DataObject) -> None:
    value = data.draw(values_of(ROWS[name]))
    assert parse(ROWS[name], shown(value), source="test") == value


@settings(deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", ROWS)
def test_any_text_is_either_read_or_refused_with_a_settings_error(
    name: str, data: st.DataObject
) -> None:
    text = data.draw(
        st.text(max_size=12)
        | st.from_regex(r"-?[0-9.e_]{0,6}(inf|nan|[KMG]i?B)?", fullmatch=True)
        | st.just("9" * 400)
    )
    with contextlib.suppress(SettingsError):
        Settings.load({ROWS[name].env: text})


def test_of_a_url_nothing_is_shown_that_may_be_secret() -> None:
    secret = "valkey://ann:pass@db.example:6379/1?prefix=x"
    assert shown(secret) == visible(secret) == "valkey://db.example:6379/1"
    assert visible("https://example.com") == "https://example.com"
    assert visible(("a://b:c@d",)) == ("a://b:c@d",), "a list is of no such"
    assert "pass" not in repr(Settings(broker=secret))
