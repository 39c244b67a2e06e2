"""Pings: clients of a dialect that expects them hear from the hub once in its interval."""

from __future__ import annotations

import itertools

import pytest

from array_dialect import ArrayDialect
from hubbub import Frame, Hub
from hubbub.dialects.dialect import Event, Ping
from hubbub.hub.core import core_of
from hubbub.testing import MemoryClient, connect, settle
from started_hub import started

pytestmark = pytest.mark.anyio

TICKS = 5


class Pinging(ArrayDialect):
    ping_interval_s: float = float(TICKS)

    def encode(self, event: Event) -> Frame | None:
        return Frame(b'["ping"]', True) if isinstance(event, Ping) else super().encode(event)


async def connected(hub: Hub, dialect: ArrayDialect, count: int = 1) -> list[MemoryClient]:
    peers = [connect(hub, dialect=dialect) for _ in range(count)]
    for peer in peers:
        peer.send('["connect", 1]')
    await settle(hub)
    return peers


def pings(peer: MemoryClient) -> int:
    return sum(str(message).count('"ping"') for message in peer.received)


async def test_each_is_pinged_once_in_an_interval_busy_or_not() -> None:
    hub = await started()
    peers = await connected(hub, Pinging(), 40)
    assert len(core_of(hub).pings) == 40
    counts = []
    for _ in range(3 * TICKS):
        core_of(hub).pings.tick()
        hub.broadcast("busy")
        await settle(hub)
        counts.append(sum(map(pings, peers)))
    assert {pings(peer) for peer in peers} == {3}
    early = (TICKS + 1) // 2 - 1
    assert counts[early - 1] == 0, "not before half an interval"
    assert max(b - a for a, b in itertools.pairwise(counts)) < 40, "not all at once"
    await hub.stop()


async def test_who_has_gone_is_pinged_no_more() -> None:
    hub = await started()
    one, other = await connected(hub, Pinging(), 2)
    one.transport.drop_connection()
    assert len(core_of(hub).pings) == 1
    for _ in range(TICKS):
        core_of(hub).pings.tick()
    await settle(hub)
    assert (pings(one), pings(other)) == (0, 1)
    await hub.stop()


async def test_a_second_clients_slots_are_its_dialects() -> None:
    hub = await started()
    await connected(hub, Pinging())
    await connected(hub, Pinging())
    assert len(core_of(hub).pings) == 2
    await hub.stop()


async def test_dialects_without_pings_cost_nothing() -> None:
    hub = await started()
    await connected(hub, ArrayDialect())
    connect(hub)
    assert len(core_of(hub).pings) == 0
    assert not core_of(hub).pings._will_tick
    await hub.stop()
