"""Hub: its names, and that it is a front: what the parts do has their tests."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from hubbub import Client, Hub, Settings, SettingsError
from hubbub.hub.core import core_of
from hubbub.hub.hub import all_hubs
from hubbub.testing import FakeClock, connect

pytestmark = pytest.mark.anyio

PUBLIC = {
    *("on_connect", "on_message", "on", "on_disconnect", "on_drop", "authenticate", "validate"),
    *("every", "lifespan", "router", "routes", "mount", "attach", "api"),
    *("broadcast", "publish", "disconnect", "kick", "nodes", "start", "stop", "authorize"),
    *("room", "everybody", "to_user", "clients_of", "client", "client_count", "rooms"),
    *("is_running", "stats", "settings"),
    *("room_rules", "history", "cursor", "rpc", "verify_tokens"),
    *("metrics", "health", "drain"),
    *("on_join", "on_leave", "presence_info", "presence", "presence_stats"),
}


def test_fault_23_a_hub_shows_applications_what_they_need_and_nothing_else() -> None:
    assert len(PUBLIC) == 45
    assert {name for name in dir(Hub) if not name.startswith("_")} == PUBLIC
    assert {name for name in dir(Hub()) if not name.startswith("_")} == PUBLIC


def test_settings_come_as_an_object_or_as_keywords() -> None:
    settings = Settings(max_clients=3)
    assert Hub(settings).settings is settings
    assert Hub(max_clients=3).settings.max_clients == 3
    with pytest.raises(TypeError, match="not both"):
        Hub(settings, max_clients=3)
    with pytest.raises(SettingsError):
        Hub(max_clients=0)


def test_the_hubs_of_a_process_can_be_listed_while_they_live() -> None:
    hub = Hub()
    assert hub in all_hubs()
    number = len(all_hubs())
    del hub
    gc.collect()
    assert len(all_hubs()) < number


async def test_a_hub_is_true_counted_and_gone_through() -> None:
    hub = Hub()
    assert hub
    await hub.start()
    ann, bob = connect(hub, client_id="ann"), connect(hub, client_id="bob")
    assert len(hub) == hub.client_count == 2
    seen: list[Client] = []
    for client in hub:
        seen.append(client)
        client.close()
    assert seen == [ann.client, bob.client]
    assert len(hub) == 0
    await hub.stop()


async def test_the_clock_has_moved_to_the_test_kit_and_still_works_with_a_warning() -> None:
    hub, clock = Hub(), FakeClock()
    with pytest.warns(DeprecationWarning, match="set_clock") as said:
        hub.clock = clock
    assert said[0].filename == __file__
    assert core_of(hub).clock is clock
    old: Any = hub
    with pytest.warns(DeprecationWarning, match="set_clock"):
        assert old.clock is clock
    with pytest.raises(AttributeError, match="'Hub' object has no attribute 'fanout'"):
        _ = old.fanout
