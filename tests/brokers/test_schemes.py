"""Schemes: a URL becomes a broker, or an error that says what to write."""

from __future__ import annotations

import sys

import pytest

from hubbub import Hub, MemoryBroker, MissingExtra, Settings, SettingsError
from hubbub.brokers.broker import as_broker
from hubbub.brokers.schemes import SCHEMES, broker_at
from hubbub.brokers.valkey import ValkeyBroker
from hubbub.hub.core import core_of


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_example_is_a_broker(scheme: str) -> None:
    example, _ = SCHEMES[scheme]
    assert example.startswith(f"{scheme}://")
    broker = broker_at(f" {example} ")
    assert as_broker(broker) is broker
    assert isinstance(broker, MemoryBroker) == (scheme == "memory")


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("valky://:secret@host", "no scheme 'valky'; did you mean valkey://?"),
        ("secret@host:6379", "it has no scheme"),
        ("", "it has no scheme"),
        ("http://:secret@host", "no scheme 'http'"),
        ("memory://secret", "written memory:// alone"),
        ("valkey://:secret@host/secret", "no number"),
        ("nats://secret@host/secret", "it has a path"),
    ],
)
def test_what_is_none_is_told_with_examples_and_without_the_url(url: str, what: str) -> None:
    with pytest.raises(SettingsError) as caught:
        broker_at(url, "--broker")
    assert what in str(caught.value).replace("\\", "")
    assert str(caught.value).startswith("broker (--broker): ")
    assert "secret" not in str(caught.value)


def test_a_package_that_is_missing_is_told_when_the_hub_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtra, match=r"pip install 'hubbub\[valkey\]'"):
        Hub(broker="valkey://localhost")
    Hub(broker="memory://")


def test_a_hub_takes_a_url_an_object_or_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(hub: Hub) -> str:
        return type(core_of(hub).broker).__name__

    assert chosen(Hub()) == "MemoryBroker"
    assert chosen(Hub(broker="redis://localhost")) == "ValkeyBroker"
    assert chosen(Hub(Settings(broker="redis://localhost"))) == "ValkeyBroker"
    monkeypatch.setenv("HUBBUB_BROKER", "valkey://:secret@localhost/1")
    hub = Hub()
    assert chosen(hub) == "ValkeyBroker"
    assert hub.settings.source("broker") == "environment, HUBBUB_BROKER"
    assert hub.stats()["settings"] == {"broker": "valkey://localhost/1"}
    assert "secret" not in f"{hub!r} {hub.settings!r} {hub.stats()} {core_of(hub).broker!r}"
    assert chosen(Hub(broker="memory://")) == chosen(Hub(broker=MemoryBroker())) == "MemoryBroker"
    with pytest.raises(TypeError, match="a Settings object or keywords"):
        Hub(Settings(), broker="memory://")
    monkeypatch.setenv("HUBBUB_BROKER", "valky://:secret@localhost")
    with pytest.raises(SettingsError, match="HUBBUB_BROKER") as caught:
        Hub()
    assert "secret" not in str(caught.value)


def test_a_broker_of_a_url_has_its_prefix() -> None:
    broker = broker_at("valkey://:secret@localhost?prefix=shop")
    assert isinstance(broker, ValkeyBroker)
    assert repr(broker) == "<ValkeyBroker valkey://localhost prefix='shop'>"
    hub = Hub(broker="valkey://localhost?prefix=shop", broker_prefix="chat")
    assert repr(core_of(hub).broker) == "<ValkeyBroker valkey://localhost prefix='shop.chat'>"
    with pytest.raises(SettingsError, match="a prefix of 1 to 64"):
        Hub(broker="valkey://localhost", broker_prefix="a b")
    hub = Hub(broker="nats://secret@one,two?prefix=shop", broker_prefix="chat")
    assert repr(core_of(hub).broker) == "<NatsBroker nats://one:4222,two:4222 prefix='shop.chat'>"
    assert hub.stats()["settings"] == {"broker": "nats://one,two", "broker_prefix": "chat"}
