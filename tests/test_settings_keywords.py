"""The keywords of `Hub(...)` are those of `Settings`, in name, type and order."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, get_type_hints

import pytest

from hubbub import Hub, RoomRules, Settings, SettingsError
from hubbub.settings import rows
from hubbub.settings_keywords import HubKeywords, SettingsKeywords

WIDER = {
    tuple[str, ...]: Sequence[str],
    tuple[RoomRules, ...]: Sequence[RoomRules],
}
"""Where a keyword takes more than the setting keeps: any sequence becomes a tuple."""


def test_fault_33_the_keywords_are_the_settings() -> None:
    hints = get_type_hints(Settings)
    kinds = {row.name: WIDER.get(hints[row.name], hints[row.name]) for row in rows()}
    assert get_type_hints(SettingsKeywords) == kinds
    names = [row.name for row in rows() if row.name != "broker"]
    assert list(HubKeywords.__annotations__) == names
    assert list(SettingsKeywords.__annotations__) == [*names, "broker"]
    assert SettingsKeywords.__required_keys__ == frozenset(), "each may be left out"


@pytest.mark.parametrize(
    ("function", "name"), [(Hub.__init__, "HubKeywords"), (Settings.load, "SettingsKeywords")]
)
def test_fault_33_a_hub_and_settings_take_just_these(function: Any, name: str) -> None:
    (keywords,) = [
        parameter.annotation
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.VAR_KEYWORD
    ]
    assert keywords == f"Unpack[{name}]"


def test_every_keyword_is_taken_with_its_default() -> None:
    defaults: dict[str, Any] = {row.name: row.default for row in rows()}
    assert Hub(**defaults).settings == Settings()


def test_a_wrong_name_is_an_error_at_run_time_too() -> None:
    wrong: dict[str, Any] = {"max_client": 5}
    with pytest.raises(SettingsError, match=r"did you mean max_clients\?"):
        Hub(**wrong)
