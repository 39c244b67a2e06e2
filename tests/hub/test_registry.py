"""Registry: who comes and goes, who is where, and what a client was owed at its end."""

from __future__ import annotations

import logging

import pytest

from hubbub import (
    Close,
    Handshake,
    Hub,
    Identity,
    Refused,
)
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.room_rules import SlowPolicy
from hubbub.testing import (
    FakeClock,
    MemoryTransport,
    advance_time,
    connect,
    set_clock,
    settle,
)
from started_hub import code_of, started

pytestmark = pytest.mark.anyio


def test_before_it_runs_nobody_is_there() -> None:
    hub = Hub()
    assert (len(hub), bool(hub), list(hub), hub.is_running) == (0, True, [], False)
    assert hub.stats()["clients"] == 0
    assert (hub.rooms, hub.clients_of("ann"), hub.client("tab")) == ({}, [], None)
    with pytest.raises(TypeError, match="no JSON form"):
        hub.broadcast(object())


async def test_ids_are_generated_and_unique() -> None:
    hub = await started()
    ids = {connect(hub).client.id for _ in range(500)}
    assert len(ids) == len(hub) == 500
    await hub.stop()


async def test_the_same_user_replaces_its_older_connection() -> None:
    hub = Hub()
    log: list[str] = []
    hub.on_connect(lambda client: log.append("joined"))
    hub.on_disconnect(lambda client: log.append("left"))
    await hub.start()
    old = connect(hub, user="ann", client_id="tab")
    old.client.join("red")
    new = connect(hub, user="ann", client_id="tab")
    assert old.closed == Close(3511, "replaced", by_server=True)
    assert hub.stats()["replaced"] == 1
    assert log == ["joined", "left", "joined"]
    assert hub.stats()["replaced"] == 1
    assert hub.client("tab") is new.client
    assert len(hub) == 1
    assert hub.rooms == {}
    hub.broadcast("x")
    await settle(hub)
    assert (old.received, new.received) == ([], ["x"])
    old.transport.drop_connection()
    assert hub.client("tab") is new.client, "the old one's end does not strike out the new one"
    await hub.stop()


async def test_nobody_else_gets_an_id_in_use() -> None:
    hub = await started()
    connect(hub, user="ann", client_id="tab")
    connect(hub, client_id="anonymous")
    for user, wish in (("bob", "tab"), (None, "tab"), (None, "anonymous"), ("ann", "anonymous")):
        with pytest.raises(Refused) as error:
            connect(hub, user=user, client_id=wish)
        assert (error.value.status, error.value.code) == (409, "id_in_use")
    assert len(hub) == 2
    await hub.stop()


async def test_an_id_that_is_being_taken_is_in_use() -> None:
    """Two handshakes for one id at once: the second must not throw the first one out."""
    hub = await started()
    place = core_of(hub).admission.reserve(None, 0.0)
    place.hold_id(Handshake("/", {}), Identity(client_id="tab"))
    with pytest.raises(Refused) as error:
        connect(hub, user="bob", client_id="tab")
    assert error.value.code == "id_in_use"
    place.__exit__(None, None, None)
    connect(hub, user="bob", client_id="tab")
    await hub.stop()


async def test_an_id_from_the_query_counts_only_when_it_may() -> None:
    hub = await started(client_id_from_query=True)
    assert connect(hub, query={"id": "tab-1"}).client.id == "tab-1"
    with pytest.raises(Refused) as error:
        connect(hub, query={"id": "not an id"})
    assert error.value.status == 400
    await hub.stop()
    hub = await started()
    assert connect(hub, query={"id": "tab-1"}).client.id != "tab-1"
    await hub.stop()


async def test_places_are_limited_and_those_held_back_count() -> None:
    hub = await started(max_clients=2)
    first = connect(hub)
    place = core_of(hub).admission.reserve(None, 0.0)
    place.hold_id(Handshake("/", {}), Identity())
    for attempt in (
        lambda: connect(hub),
        lambda: core_of(hub).admission.hold_id(Handshake("/", {}), Identity()),
        core_of(hub).admission.check_capacity,
    ):
        with pytest.raises(Refused) as error:
            attempt()
        assert (error.value.status, error.value.code) == (503, "too_many_clients")
        assert error.value.headers == {"Retry-After": "5"}
    place.__exit__(None, None, None)
    connect(hub)
    first.close()
    connect(hub)
    assert len(hub) == 2
    await hub.stop()


async def test_s03_counting_finding_and_going_through_clients() -> None:
    hub = await started()
    ann, bob = connect(hub, user="ann"), connect(hub)
    assert len(hub) == hub.client_count == 2
    assert list(hub) == [ann.client, bob.client]
    for client in hub:
        client.close()
    assert len(hub) == 0
    assert hub.client(ann.client.id) is None
    await hub.stop()


async def test_disconnect_closes_a_client_or_all_of_a_user() -> None:
    hub = await started()
    phone, laptop, other = connect(hub, user="ann"), connect(hub, user="ann"), connect(hub)
    assert hub.disconnect("ann", reason="banned") == 2
    for peer in (phone, laptop):
        assert peer.closed == Close(3503, "banned", by_server=True)
    assert hub.disconnect("ann") == 0
    assert hub.disconnect(other.client, 4001) == 1
    assert code_of(other) == 4001
    with pytest.raises(ValueError, match="1006"):
        hub.disconnect(other.client, 1006)
    await hub.stop()


async def test_who_broke_the_protocol_is_counted_and_logged_on_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = await started(shutdown_timeout_s=0.1)
    caplog.set_level(logging.INFO, "hubbub")
    peer = connect(hub, client_id="ann")
    core_of(hub).registry.violated(session_of(peer.client), 1002, "reserved\nbits")
    core_of(hub).registry.violated(session_of(peer.client), 1002, "again")
    assert not peer.client.is_connected
    assert hub.stats()["protocol_errors"] == 2
    assert caplog.records[0].getMessage() == "client ann closed with 1002: reserved\ufffdbits"
    await hub.stop()


@pytest.mark.parametrize(
    ("policy", "received"),
    [
        ("drop_oldest", ["6", "7"]),
        ("drop_newest", ["0", "1"]),
        ("latest", ["7"]),
    ],
)
async def test_slow_clients_miss_messages_as_the_policy_says_and_others_none(
    policy: SlowPolicy, received: list[str]
) -> None:
    hub = Hub(outbox_max_entries=2, slow_policy=policy)
    missed: list[int] = []
    hub.on_drop(lambda client, count: missed.append(count))
    await hub.start()
    slow, quick = connect(hub), connect(hub)
    slow.transport.block()
    for number in range(8):
        hub.broadcast(str(number))
        await settle(hub)
    assert hub.stats()["slow"] == 1
    slow.transport.unblock()
    await settle(hub)
    assert slow.received == received
    assert quick.received == [str(number) for number in range(8)]
    assert missed == [8 - len(received)]
    stats = hub.stats()
    assert stats["dropped"] == slow.client.dropped == missed[0]
    assert stats["messages_out"] == 8 + len(received)
    assert stats["slow_disconnects"] == 0
    await hub.stop()


async def test_a_full_outbox_closes_with_3008_after_the_running_fan_out() -> None:
    hub = Hub(outbox_max_entries=2)
    left: list[Close] = []
    hub.on_disconnect(lambda client, close: left.append(close))
    await hub.start()
    slow, quick = connect(hub), connect(hub)
    slow.transport.block()
    for number in range(2):
        hub.broadcast(str(number))
        await settle(hub)
    hub.broadcast("too much")
    core_of(hub).fanout.flush()
    assert slow.client.is_connected
    assert quick.received == ["0", "1", "too much"]
    await settle(hub)
    assert left == [Close(3008, "slow consumer", by_server=True)]
    stats = hub.stats()
    assert (stats["slow_disconnects"], stats["dropped"], stats["clients"]) == (1, 3, 1)
    await hub.stop()


async def test_bytes_bound_an_outbox_too() -> None:
    hub = await started(outbox_max_bytes=1000)
    slow = connect(hub)
    slow.transport.block()
    for _ in range(9):
        hub.broadcast(b"x" * 98)
        await settle(hub)
    assert slow.client.is_connected
    hub.broadcast(b"x" * 101)
    await settle(hub)
    assert not slow.client.is_connected
    await hub.stop()


async def test_rooms_may_have_policies_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub(slow_policies={"cursor:*": "latest"}, outbox_max_entries=2)
    await hub.start()
    slow = connect(hub, client_id="ann")
    for room in ("cursor:1", "cursor:2"):
        slow.client.join(room)
    slow.transport.block()
    for number in range(10):
        for room in ("cursor:1", "cursor:2"):
            hub.room(room).broadcast(f"{room} {number}")
        await settle(hub)
    slow.transport.unblock()
    assert slow.received == ["cursor:1 9", "cursor:2 9"]
    assert hub.stats()["dropped"] == 18
    assert "client ann is slow" in caplog.text
    await hub.stop()


async def test_a_socket_that_takes_nothing_is_cut_after_the_write_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub(write_timeout_s=10)
    set_clock(hub, FakeClock())
    await hub.start()
    stuck = connect(hub, client_id="ann")
    stuck.transport.block()
    hub.broadcast("x")
    await settle(hub)
    advance_time(hub, 9.0)
    assert stuck.client.is_connected
    advance_time(hub, 2.0)
    assert code_of(stuck) == 3008
    assert "client ann is too slow: took nothing for 10 seconds" in caplog.text
    await hub.stop()


async def test_s20_the_stats_and_their_names() -> None:
    hub = Hub()
    hub.on_message(lambda client, message: client.send(message))
    await hub.start()
    ann, bob = connect(hub), connect(hub)
    ann.client.join("red")
    ann.send("four")
    core_of(hub).admission.in_progress += 1
    core_of(hub).stats.refuse("unauthorized")
    before = hub.stats()
    assert (before["clients"], before["broadcast"], before["register"]) == (2, 1, 1)
    core_of(hub).admission.in_progress -= 1
    await settle(hub)
    bob.close()
    bob.client.send("gone")
    stats = hub.stats()
    assert stats.pop("uptime_s") >= 0
    assert stats.pop("loop_lag_s") >= 0
    for name in ("slow_handshakes", "refused_handshakes"):
        assert stats.pop(name) >= 0  # of the whole process
    assert "msgspec" in stats.pop("compiled")
    assert stats.pop("delivery_lag")["count"] == 1
    assert stats.pop("publication_lag") == {"count": 0, "sum_s": 0}, "an echo is none"
    assert set(stats.pop("loop_lag")) == {"count", "sum_s"}  # see `test_liveness`
    assert stats == {
        "state": "running",
        "publications": 0,
        "joins": 1,
        "closes": {},
        "closes_by_peer": {"normal": 1},
        "server": None,
        "transport": None,
        "http": None,
        "loop": "asyncio",
        "broker": "memory",
        "broker_state": "up",
        "broker_waiting": 0,
        "workers": 1,
        "settings": {},
        "clients": 1,
        "broadcast": 0,
        "register": 0,
        "rooms": 1,
        "slow": 0,
        "handlers": 0,
        "total_clients": 2,
        "messages_in": 1,
        "messages_out": 1,
        "bytes_in": 4,
        "bytes_out": 6,
        "dropped": 0,
        "undelivered": 0,
        "slow_disconnects": 0,
        "dead": 0,
        "expired": 0,
        "stale": 0,
        "replaced": 0,
        "invalid": 0,
        "protocol_errors": 0,
        "rate_limited": 0,
        "handler_errors": 0,
        "handlers_cancelled": 0,
        "stuck_handlers": 0,
        "unhandled": 0,
        "loop_stalls": 0,
        "api_calls": 0,
        "api_errors": 0,
        "broker_gaps": 0,
        "recoveries": 0,
        "recoveries_refused": 0,
        "history_rooms": 0,
        "history_entries": 0,
        "history_bytes": 0,
        "sends_to_gone": 1,
        "refused": {"unauthorized": 1},
        "refused_gets": {},
        "refused_api": {},
    }
    await hub.stop()


async def test_who_connects_while_the_hub_shuts_down_is_sent_away() -> None:
    hub = Hub()
    await hub.start()
    core = core_of(hub)
    with core.admission.reserve(None, 0.0) as place:
        chosen = place.hold_id(Handshake("/", {}), Identity())
        core.lifecycle.shut_down()
        session = core.registry.open(MemoryTransport())
        client = core.registry.connect(session, place, Identity(), Handshake("/", {}), chosen)
    assert session_of(client).close == Close(1012, "service restart", by_server=True)
    assert len(hub) == 0
    await hub.stop()


async def test_what_this_turn_owed_a_lost_client_is_counted() -> None:
    hub = await started()
    ann, bob = connect(hub), connect(hub)
    ann.client.join("red")
    ann.client.join("blue")
    hub.room("red").broadcast("1")
    ann.client.leave("red")
    hub.room("red").broadcast("not for ann any more")
    hub.room("blue").broadcast("2")
    hub.broadcast("3", exclude=ann.client)
    hub.broadcast("4")
    ann.client.send("5")
    ann.transport.drop_connection()
    await settle(hub)
    assert (ann.received, bob.received) == ([], ["3", "4"])
    assert (hub.stats()["undelivered"], hub.stats()["messages_out"]) == (4, 2)
    await hub.stop()


async def test_what_waited_in_the_outbox_of_a_lost_client_is_counted() -> None:
    hub = await started()
    slow = connect(hub)
    slow.transport.block()
    for number in range(3):
        hub.broadcast(str(number))
        await settle(hub)
    slow.transport.drop_connection()
    await settle(hub)
    assert (slow.received, hub.stats()["undelivered"]) == ([], 3)
    assert (hub.stats()["dropped"], hub.stats()["messages_out"]) == (0, 0)
    await hub.stop()
