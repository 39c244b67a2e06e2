"""Settings: what is accepted, what is refused and with which words, and where a value came from."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.errors import SettingsError
from hubbub.settings import ENV_PREFIX, SLOW_POLICIES, Row, Settings, parse, rows, shown

ROWS = {row.name: row for row in rows()}
LEAST: dict[str, Any] = {spec.name: spec.metadata["least"] for spec in dataclasses.fields(Settings)}


def test_s13_the_defaults_are_dmmvc_s_where_it_names_one() -> None:
    settings = Settings()
    assert settings.write_timeout_s == 10
    assert settings.pong_timeout_s == 60
    assert settings.ping_interval_s == 54
    assert settings.max_message_bytes == 512
    assert settings.outbox_max_entries == 256


def test_s13_a_ping_interval_that_cannot_work_is_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(ping_interval_s=60)
    assert str(caught.value) == (
        "ping_interval_s = 60.0 (keyword): must be smaller than pong_timeout_s, which is 60 seconds"
    )


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().max_clients = 5  # type: ignore[misc]


def test_keywords_win_over_the_environment_and_that_over_the_defaults() -> None:
    environ = {"HUBBUB_MAX_CLIENTS": "10", "HUBBUB_SLOW_POLICY": "latest", "PATH": "/bin"}
    settings = Settings.load(environ, max_clients=20)
    assert settings.max_clients == 20
    assert settings.slow_policy == "latest"
    assert settings.pong_timeout_s == 60
    assert settings.source("max_clients") == "keyword"
    assert settings.source("slow_policy") == "environment, HUBBUB_SLOW_POLICY"
    assert settings.source("pong_timeout_s") == "default"


def test_the_real_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBUB_MAX_MESSAGE_BYTES", "4KiB")
    assert Settings.load().max_message_bytes == 4096


def test_fault_18_an_environment_is_text() -> None:
    with pytest.raises(SettingsError, match=r"HUBBUB_MAX_CLIENTS = 5 .*must be text"):
        Settings.load({"HUBBUB_MAX_CLIENTS": 5})  # type: ignore[dict-item]


def test_settings_made_by_hand_know_their_sources_too() -> None:
    settings = Settings(max_clients=5)
    assert settings.source("max_clients") == "keyword"
    assert settings.source("max_message_bytes") == "default"


def test_an_unknown_keyword_names_the_nearest_right_one() -> None:
    with pytest.raises(SettingsError, match=r"ping_intervall \(k.*did you mean ping_interval_s\?"):
        Settings.load({}, ping_intervall=3)  # type: ignore[call-arg]


def test_an_unknown_variable_names_the_nearest_right_one() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({"HUBBUB_MAX_CLIENT": "3"})
    assert caught.value.nearest == "HUBBUB_MAX_CLIENTS"
    assert str(caught.value) == (
        "HUBBUB_MAX_CLIENT (environment): no such setting; did you mean HUBBUB_MAX_CLIENTS?"
    )


def test_what_an_unknown_name_was_given_is_not_shown_since_it_may_be_a_secret() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({"HUBBUB_ORIGIN_KEY": "hunter2"})
    of_variable = caught.value
    with pytest.raises(SettingsError) as caught:
        Settings.load({}, origin_key="hunter2")  # type: ignore[call-arg]
    for error in (of_variable, caught.value):
        assert "hunter2" not in f"{error} {error!r} {vars(error)}"
        assert error.value is None


def test_an_unknown_name_that_is_near_nothing_gets_no_hint() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({}, zzz=1)  # type: ignore[call-arg]
    assert caught.value.nearest is None
    with pytest.raises(SettingsError) as caught:
        Settings.load({"HUBBUB_ZZZ": "1"})
    assert "did you mean" not in str(caught.value)
    assert "a variable of your own must not begin with HUBBUB_" in str(caught.value)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("text", ["", " \t"])
def test_fault_16_an_empty_variable_is_one_that_is_not_set(name: str, text: str) -> None:
    settings = Settings.load({ROWS[name].env: text})
    assert getattr(settings, name) == ROWS[name].default
    assert settings.source(name) == "default"


KUBERNETES = {
    "HUBBUB_SERVICE_HOST": "10.0.0.1",
    "HUBBUB_SERVICE_PORT": "80",
    "HUBBUB_SERVICE_PORT_HTTP": "80",
    "HUBBUB_PORT": "tcp://10.0.0.1:80",
    "HUBBUB_PORT_80_TCP": "tcp://10.0.0.1:80",
    "HUBBUB_PORT_80_TCP_PROTO": "tcp",
    "HUBBUB_PORT_80_TCP_PORT": "80",
    "HUBBUB_PORT_80_TCP_ADDR": "10.0.0.1",
    "HUBBUB_PORT_53_UDP": "udp://10.0.0.1:53",
    "HUBBUB_WEB_2_SERVICE_HOST": "10.0.0.2",
    "HUBBUB_WEB_2_PORT": "tcp://10.0.0.2:80",
    "HUBBUB_MAX_CLIENTS_PORT_80_TCP_ADDR": "10.0.0.3",
    # What links between Docker containers add.
    "HUBBUB_NAME": "/app/hubbub",
    "HUBBUB_ENV_PATH": "/usr/bin",
}
"""What Kubernetes puts into a container beside services "hubbub", "hubbub-web-2" and another."""


@pytest.mark.parametrize("variable", KUBERNETES)
def test_fault_16_variables_that_kubernetes_makes_say_nothing(variable: str) -> None:
    assert Settings.load({variable: KUBERNETES[variable]}) == Settings()


def test_fault_16_settings_beside_those_of_kubernetes_count() -> None:
    assert Settings.load({**KUBERNETES, "HUBBUB_MAX_CLIENTS": "5"}).max_clients == 5


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("HUBBUB_PORT", "8000", "no such setting"),
        ("HUBBUB_NAME", "hub", "no such setting"),
        ("HUBBUB_PORTS", "tcp://10.0.0.1:80", "no such setting"),
        ("HUBBUB_MAX_CLIENTS_", "5", "did you mean HUBBUB_MAX_CLIENTS?"),
        ("HUBBUB_PONG_TIMEOUT", "5", "did you mean HUBBUB_PONG_TIMEOUT_S?"),
    ],
)
def test_fault_16_a_misspelled_setting_is_still_told(variable: str, text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({**KUBERNETES, variable: text})
    assert caught.value.field == variable
    assert words in str(caught.value)


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
    ],
)
def test_text_is_read_as_people_write_it(name: str, text: str, value: Any) -> None:
    assert parse(name, text, source="test") == value


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
        return st.sampled_from(row.choices)
    kinds: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(least, 2**63 - 1),
        float: st.floats(least, 1e12, allow_nan=False) if least is not None else st.none(),
        tuple[str, ...]: st.lists(
            st.sampled_from(
                ["*", "null", "same-origin", "https://a.example", "http://*.b.example:8"]
            )
        ).map(tuple),
    }
    found = kinds[row.kind]
    return found if row.none is None else st.none() | found


@settings(deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", ROWS)
def test_what_is_shown_is_read_back_the_same(name: str, data: st.DataObject) -> None:
    value = data.draw(values_of(ROWS[name]))
    assert parse(name, shown(value), source="test") == value


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


def test_rows_describe_every_field_for_the_generators() -> None:
    assert list(ROWS) == [spec.name for spec in dataclasses.fields(Settings)]
    row = ROWS["max_message_bytes"]
    assert (row.env, row.flag) == ("HUBBUB_MAX_MESSAGE_BYTES", "--max-message-bytes")
    assert (row.kind, row.none, row.unit) == (int, "no limit", "bytes")
    assert ROWS["slow_policy"].choices == SLOW_POLICIES
    for row in ROWS.values():
        assert row.doc.endswith("."), row.name
        assert row.unit, row.name


def test_numbers_of_time_and_size_say_so_in_their_names() -> None:
    for row in ROWS.values():
        if row.unit == "seconds":
            assert row.name.endswith("_s")
        if row.unit == "bytes":
            assert row.name.endswith("_bytes")
