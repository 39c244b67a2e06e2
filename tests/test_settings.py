"""Settings: the defaults, which source wins, and the rows that the documentation is made of."""

from __future__ import annotations

import dataclasses

import pytest

from hubbub.errors import SettingsError
from hubbub.room_rules import SLOW_POLICIES
from hubbub.settings import Settings
from setting_rows import ROWS


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


def test_settings_made_by_hand_know_their_sources_too() -> None:
    settings = Settings(max_clients=5)
    assert settings.source("max_clients") == "keyword"
    assert settings.source("max_message_bytes") == "default"


def test_an_unknown_keyword_names_the_nearest_right_one() -> None:
    with pytest.raises(SettingsError, match=r"ping_intervall \(k.*did you mean ping_interval_s\?"):
        Settings.load({}, ping_intervall=3)  # type: ignore[call-arg]


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
