"""Disconnects: each reason has its counter, its line in the log and its code."""

from __future__ import annotations

import logging

import pytest

from hubbub import Close, Hub
from hubbub.errors import CLOSE_CODES
from hubbub.hub import disconnects
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.hub.disconnects import PING_TIMEOUT, SLOW_CONSUMER, Cause
from hubbub.stats import Stats
from hubbub.testing import MemoryClient, connect, settle

pytestmark = pytest.mark.anyio


async def one(hub: Hub) -> MemoryClient:
    await hub.start()
    return connect(hub)


@pytest.fixture(autouse=True)
def _listen_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hubbub")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was said after the line of the start."""
    first, *rest = caplog.messages
    assert first.startswith("the hub has started")
    return rest


async def test_the_dead(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    peer = await one(hub)
    core_of(hub).registry.end(session_of(peer.client), PING_TIMEOUT)
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
    for _ in range(2):
        core_of(hub).registry.end(session_of(peer.client), SLOW_CONSUMER, "took nothing")
    stats = hub.stats()
    assert (stats["slow_disconnects"], stats["dropped"], peer.client.dropped) == (1, 3, 3)
    assert session_of(peer.client).close == Close(3008, "slow consumer", by_server=True)
    line = f"client {peer.client.id} is too slow: took nothing; closed"
    assert said(caplog) == [line]
    await hub.stop()


async def test_a_full_outbox_is_closed_after_the_fan_out(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub(outbox_max_entries=1)
    peer = await one(hub)
    peer.transport.block()
    for _ in range(2):
        peer.client.send("waits")
        await settle(hub)
    assert session_of(peer.client).close == Close(3008, "slow consumer", by_server=True)
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
    hub = Hub(shutdown_timeout_s=0.1)  # its socket stays, as a transport would not let it
    peer = await one(hub)
    core_of(hub).registry.violated(session_of(peer.client), 1002, "bad\nline\x1b[31m" + "x" * 300)
    assert len(hub) == 0
    assert hub.stats()["protocol_errors"] == 1
    (line,) = said(caplog)
    assert "closed with 1002: bad" in line
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < 300
    await hub.stop()


@pytest.mark.parametrize(("code", "level"), [(1002, "INFO"), (1007, "INFO"), (1009, "WARNING")])
async def test_what_a_setting_forbids_is_a_warning_and_what_the_rfc_forbids_is_not(
    code: int, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub(shutdown_timeout_s=0.1)  # its socket stays, as a transport would not let it
    peer = await one(hub)
    core_of(hub).registry.violated(session_of(peer.client), code, "why")
    assert caplog.records[-1].levelname == level
    await hub.stop()


CAUSES = {name: value for name, value in vars(disconnects).items() if isinstance(value, Cause)}


@pytest.mark.parametrize("name", CAUSES)
def test_each_cause_has_a_code_of_the_table_a_counter_that_exists_and_one_detail_at_most(
    name: str,
) -> None:
    cause = CAUSES[name]
    assert cause.code in {row.code for row in CLOSE_CODES}
    assert cause.counter is None or cause.counter in Stats.__slots__
    assert (cause.text is None) == (not cause.kind)
    assert cause.text is None or cause.text.count("%") <= 1
