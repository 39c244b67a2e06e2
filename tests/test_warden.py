"""Warden: each way to be slow, dead or in the wrong has its counter, its line and its code."""

from __future__ import annotations

import logging

import pytest

from hubbub import Close, Hub
from hubbub.testing import MemoryClient, connect, settle

pytestmark = pytest.mark.anyio


async def one(hub: Hub) -> MemoryClient:
    await hub.start()
    return connect(hub)


@pytest.fixture(autouse=True)
def _hear(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hubbub")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was said after the line of the start."""
    first, *rest = caplog.messages
    assert first.startswith("the hub has started")
    return rest


async def test_the_dead(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    peer = await one(hub)
    hub.warden.found_dead(peer.client)
    assert peer.closed == Close(3012, "no pong", by_server=True)
    assert hub.stats()["dead"] == 1
    assert said(caplog) == [f"client {peer.client.id} showed no sign of life; closed"]
    await hub.stop()


async def test_the_stuck_and_what_waited_for_them(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    peer = await one(hub)
    peer.transport.block()
    for _ in range(3):
        peer.client.send("waits")
        await settle(hub)
    hub.warden.found_stuck(peer.client, 10.0)
    hub.warden.found_stuck(peer.client, 10.0)
    stats = hub.stats()
    assert (stats["slow_disconnects"], stats["dropped"], peer.client.dropped) == (1, 3, 3)
    assert peer.client.close_info == Close(3008, "slow consumer", by_server=True)
    line = f"client {peer.client.id} is too slow: took nothing for 10 seconds; closed"
    assert said(caplog) == [line]
    await hub.stop()


async def test_a_full_outbox_is_closed_after_the_fan_out(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub(outbox_max_entries=1)
    peer = await one(hub)
    peer.transport.block()
    for _ in range(2):
        peer.client.send("waits")
        await settle(hub)
    assert peer.client.close_info == Close(3008, "slow consumer", by_server=True)
    assert hub.stats()["dropped"] == peer.client.dropped == 2
    assert "its outbox is full" in caplog.text
    await hub.stop()


async def test_drops_are_counted_and_told_when_the_client_has_caught_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub(outbox_max_entries=1, slow_policy="drop_newest")
    missed: list[int] = []
    hub.on_drop(lambda client, count: missed.append(count))
    peer = await one(hub)
    peer.transport.block()
    for _ in range(4):
        peer.client.send("waits")
        await settle(hub)
    assert hub.stats()["dropped"] == 3
    assert missed == []
    peer.transport.unblock()
    await settle(hub)
    assert missed == [3]
    assert "is slow; its outbox drops messages" in caplog.text
    await hub.stop()


async def test_who_breaks_the_protocol_is_taken_out_without_its_words_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub()
    peer = await one(hub)
    hub.warden.broke_protocol(peer.client, 1002, "bad\nline\x1b[31m" + "x" * 300)
    assert len(hub) == 0
    assert hub.stats()["protocol_errors"] == 1
    (line,) = said(caplog)
    assert "closed with 1002: bad" in line
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < 300
    await hub.stop()


async def test_a_blocked_loop_is_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    await hub.start()
    hub.warden.found_lag(1.5)
    assert hub.stats()["loop_stalls"] == 1
    assert "blocked for about 1.5 seconds" in caplog.text
    await hub.stop()
