"""ClientSession: a batch's way into the transport or the outbox, and who says that it is dead."""

from __future__ import annotations

from typing import Any, cast

import pytest

from hubbub import Client, Close, Frame, Hub
from hubbub.hub.client import session_of
from hubbub.hub.outbox import Entry
from hubbub.room_rules import SlowPolicy
from hubbub.testing import connect, settle
from hubbub.wire.frame import Batch

pytestmark = pytest.mark.anyio


def entry(*texts: str, policy: SlowPolicy = "disconnect", room: str = "") -> Entry:
    return Entry(Batch([Frame(text.encode(), True) for text in texts]), policy, room)


async def started(**settings: Any) -> Hub:
    hub = Hub(**settings)
    await hub.start()
    return hub


async def test_offer_writes_while_writable_and_queues_otherwise() -> None:
    hub = await started()
    peer = connect(hub, fast=False)
    client = peer.client
    session_of(client).enqueue([entry("1"), entry("2", "3")])
    assert peer.received == ["1", "2", "3"]
    assert session_of(client).outbox is None
    peer.transport.block()
    session_of(client).enqueue([entry("4"), entry("5")])
    assert session_of(client).outbox is not None
    assert len(session_of(client).outbox or ()) == 2
    assert hub.stats()["slow"] == 1
    peer.transport.unblock(writes=1)
    assert peer.received[3:] == ["4"]
    session_of(client).enqueue([entry("6")])
    peer.transport.unblock()
    assert peer.received[3:] == ["4", "5", "6"]
    assert session_of(client).outbox is None
    stats = hub.stats()
    assert (stats["messages_out"], stats["dropped"]) == (6, 0)
    assert stats["bytes_out"] == sum(map(len, peer.transport.writes))
    await hub.stop()


async def test_nothing_overtakes_what_waits() -> None:
    hub = await started()
    peer = connect(hub, fast=False)
    peer.transport.block()
    session_of(peer.client).enqueue([entry("1")])
    peer.transport.writable = True
    session_of(peer.client).enqueue([entry("2")])
    assert peer.received == []
    peer.transport.unblock()
    assert peer.received == ["1", "2"]
    await hub.stop()


async def test_drops_are_counted_and_announced_once_it_is_writable() -> None:
    hub = await started(outbox_max_entries=1)
    missed: list[tuple[Client, int]] = []
    hub.on_drop(lambda client, count: missed.append((client, count)))
    peer = connect(hub)
    peer.transport.block()
    session_of(peer.client).enqueue([entry(str(n), policy="drop_oldest") for n in range(5)])
    assert peer.client.dropped == 4
    await settle(hub)
    assert missed == []
    peer.transport.unblock()
    await settle(hub)
    assert missed == [(peer.client, 4)]
    assert peer.received == ["4"]
    peer.transport.block()
    peer.transport.unblock()
    await settle(hub)
    assert len(missed) == 1, "announced once"
    assert hub.stats()["dropped"] == 4
    await hub.stop()


async def test_who_has_gone_hears_of_no_drops() -> None:
    hub = await started(outbox_max_entries=1)
    calls: list[str] = []
    hub.on_drop(lambda client, count: calls.append("drop"))
    hub.on_disconnect(lambda client: calls.append("gone"))
    peer = connect(hub)
    peer.transport.block()
    session_of(peer.client).enqueue([entry(str(n), policy="drop_oldest") for n in range(3)])
    peer.transport.unblock()
    peer.transport.drop_connection()
    await settle(hub)
    assert calls == ["gone"]
    await hub.stop()


async def test_an_overflow_ends_the_offer_and_then_the_client() -> None:
    hub = await started(outbox_max_entries=2)
    peer = connect(hub)
    client = peer.client
    peer.transport.block()
    session_of(client).enqueue([entry("1"), entry("2"), entry("3", "4")])
    assert client.is_connected, "not in the middle of a fan-out"
    await settle(hub)
    assert cast(Close, session_of(client).close).code == 3008
    session_of(client).enqueue([entry("5")])
    peer.transport.unblock()
    assert peer.received == []
    assert peer.closed == Close(3008, "slow consumer", by_server=True)
    stats = hub.stats()
    assert (stats["dropped"], stats["slow_disconnects"]) == (4, 1)
    assert client.dropped == 4
    await hub.stop()


async def test_after_an_overflow_nothing_more_is_delivered() -> None:
    """A client that missed messages under the policy `disconnect` must not see later ones."""
    hub = await started(outbox_max_entries=1)
    peer = connect(hub)
    peer.transport.block()
    session_of(peer.client).enqueue([entry("1"), entry("2"), entry("3")])
    peer.transport.unblock()
    await settle(hub)
    assert peer.received == []
    assert peer.closed is not None
    assert peer.closed.code == 3008
    assert peer.client.dropped == hub.stats()["dropped"] == 3
    await hub.stop()


async def test_the_first_end_counts_and_nothing_is_written_after_it() -> None:
    hub = await started()
    peer = connect(hub)
    session = session_of(peer.client)
    session.closed(Close(1001, "away"))
    session.closed(Close(1000))
    session.connection_lost()
    assert session.close == Close(1001, "away")
    assert not session.writes_directly
    session.write_resumed()
    assert not session.writes_directly
    session.enqueue([entry("late")])
    assert peer.received == []
    assert (len(hub), hub.stats()["clients"]) == (0, 0)
    await hub.stop()


async def test_a_socket_that_is_gone_without_an_end_was_cut_off() -> None:
    hub = await started()
    session = session_of(connect(hub).client)
    session.connection_lost()
    assert session.close == Close(1006)
    await hub.stop()


async def test_a_transport_that_failed_closes_its_client_and_tells_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = await started()
    peer = connect(hub, client_id="ann")
    session_of(peer.client).failed(LookupError("no more"))
    assert peer.closed == Close(1011, "internal error", by_server=True)
    assert "client ann cannot be read any more; closed" in caplog.text
    assert "LookupError: no more" in caplog.text
    await hub.stop()


async def test_a_connection_has_a_name_of_its_own_that_is_never_used_again() -> None:
    hub, other = await started(), await started()
    peers = [connect(hub, user="ann", client_id="same") for _ in range(3)]
    peers.append(connect(other, client_id="same"))
    names = {session_of(peer.client).connection_id for peer in peers}
    assert len(names) == 4
    await hub.stop()
    await hub.start()
    assert session_of(connect(hub, client_id="same").client).connection_id not in names
    await hub.stop()
    await other.stop()


async def test_a_server_that_stops_closes_the_clients_of_its_hub() -> None:
    hub = await started()
    first, second = connect(hub), connect(hub)
    first.transport.stop_server()
    await hub.stop()
    assert {peer.closed for peer in (first, second)} == {Close(1012, "service restart", True)}
