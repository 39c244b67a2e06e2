"""Core: the parts are wired once, and those of one event loop are made anew for each."""

from __future__ import annotations

import asyncio

from hubbub import Hub
from hubbub.hub.core import core_of
from hubbub.hub.fanout import Fanout
from hubbub.limits import TURN_INFLATED_BYTES
from hubbub.testing import FakeClock, set_clock


def test_the_parts_know_one_another() -> None:
    core = core_of(Hub(max_clients=3))
    assert core.dispatcher.stats is core.stats
    assert core.settings.max_clients == 3
    assert type(core.fanout) is Fanout


def test_each_event_loop_gets_parts_of_its_own_and_the_rest_stays() -> None:
    hub = Hub(max_message_bytes=77)
    core = core_of(hub)
    kept = (core.registry, core.dispatcher, core.stats, core.admission, core.lifecycle)
    made = []
    for _ in range(2):
        asyncio.run(hub.start())
        made.append((core.fanout, core.liveness, core.limits))
    assert all(first is not second for first, second in zip(*made, strict=True))
    assert kept == (core.registry, core.dispatcher, core.stats, core.admission, core.lifecycle)


def test_transports_are_told_the_settings_and_the_clock() -> None:
    hub, clock = Hub(max_message_bytes=77, write_timeout_s=3, inbox_max_messages=5), FakeClock()
    set_clock(hub, clock)
    asyncio.run(hub.start())
    limits = core_of(hub).limits
    assert (limits.max_message_bytes, limits.write_timeout_s) == (77, 3)
    assert limits.read_ahead_messages == 5
    assert limits.clock is clock
    assert limits.inflating.charge(TURN_INFLATED_BYTES)
    assert limits.inflating.is_spent
