"""Settings' environment: which variables are settings, which are others', and which are mistakes."""

from __future__ import annotations

import pytest

from hubbub.errors import SettingsError
from hubbub.settings import Settings
from setting_rows import ROWS


def test_the_real_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBUB_MAX_MESSAGE_BYTES", "4KiB")
    assert Settings.load().max_message_bytes == 4096


def test_fault_18_an_environment_is_text() -> None:
    with pytest.raises(SettingsError, match=r"HUBBUB_MAX_CLIENTS = 5 .*must be text"):
        Settings.load({"HUBBUB_MAX_CLIENTS": 5})  # type: ignore[dict-item]


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
