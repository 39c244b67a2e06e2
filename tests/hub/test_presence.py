"""Presence: who is in a room, and who is told of it; on the memory broker and across two hubs."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from array_dialect import ArrayDialect, events_of
from exchange import CLUSTERS, Exchange, carried, cluster
from hubbub import (
    BrokerUnavailable,
    Client,
    ClientInfo,
    CommandError,
    Frame,
    Hub,
    HubNotRunning,
    MemoryBroker,
    PresenceStats,
    Publication,
    RoomRules,
    SettingsError,
)
from hubbub.brokers import reconnecting
from hubbub.brokers.broker import MOST_MEMBERS_A_CALL, CallFailed, CallRefused, Snapshot
from hubbub.hub import commands as commands_module
from hubbub.hub import presence as presence_module
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.hub.presence import RETRY_S, _brought_up
from hubbub.hub.presence_roll import RENEW_S
from hubbub.hub.rules import LEASE_S
from hubbub.room_rules import SlowPolicy
from hubbub.testing import FakeClock, MemoryClient, advance_time, connect, set_clock, settle
from hubbub.wire.presence import Told, told_frame
from hubbub.wire.publication import Kind
from presence_rooms import RULES, Said, member, pass_time, told, users, with_presence
from started_hub import started, until
from valkey_exchange import ValkeyExchange

pytestmark = pytest.mark.anyio


async def go(hub: Hub, *peers: MemoryClient) -> None:
    for peer in peers:
        peer.close()
    await settle(hub)


# One process


async def test_members_are_told_who_comes_and_goes_and_who_asks_is_told_who_is_there() -> None:
    hub = await with_presence()
    said = Said(hub)
    hub.presence_info(lambda client, room: {"room": room, "name": client.meta.get("name")})
    ann = connect(hub, user="ann", client_id="a", meta={"name": "Ann"})
    ann.client.join("now")
    await settle(hub)
    bob = await member(hub, "now", "bob", client_id="b")
    found = await hub.presence("now")
    assert found == {
        "a": ClientInfo("a", "ann", {"room": "now", "name": "Ann"}),
        "b": ClientInfo("b", "bob", {"room": "now", "name": None}),
    }
    bob.client.leave("now")
    await settle(hub)
    assert told(ann) == [("joined", ["ann"]), ("joined", ["bob"]), ("left", ["bob"])]
    assert told(bob) == [("joined", ["bob"])], "its own leave is told to nobody who has left"
    assert ann.json()[0]["joined"][0]["info"] == {"room": "now", "name": "Ann"}
    assert said.rows == [
        ("join", "now", "ann"),
        ("join", "now", "bob"),
        ("leave", "now", "bob"),
    ]
    await hub.stop()


async def test_a_reload_is_neither_a_leave_nor_a_join() -> None:
    hub = await with_presence()
    said = Said(hub)
    ann, bob = await member(hub, "red", "ann"), await member(hub, "red", "bob")
    for _ in range(5):
        bob.close()
        await pass_time(hub, 9.0)
        assert await users(hub, "red") == ["ann", "bob"]
        bob = await member(hub, "red", "bob")
        assert await hub.presence_stats("red") == PresenceStats(clients=2, users=2)
        await pass_time(hub, 9.0)
    assert told(ann) == [("joined", ["ann"]), ("joined", ["bob"])]
    await go(hub, bob)
    await pass_time(hub, 12.0)
    assert told(ann)[2:] == [("left", ["bob"])]
    assert said.rows[2:] == [("leave", "red", "bob")]
    assert await users(hub, "red") == ["ann"]
    await hub.stop()


async def test_an_anonymous_client_comes_back_by_its_id() -> None:
    hub = await with_presence()
    ann = await member(hub, "red", "ann")
    tab = await member(hub, "red", client_id="tab")
    tab.close()
    await pass_time(hub, 5.0)
    tab = await member(hub, "red", client_id="tab")
    other = await member(hub, "red")
    await pass_time(hub, 20.0)
    assert told(ann)[1:] == [("joined", [None]), ("joined", [None])]
    assert await hub.presence_stats("red") == PresenceStats(3, 3)
    await go(hub, other)
    await pass_time(hub, 12.0)
    assert told(ann)[3:] == [("left", [None])]
    await hub.stop()


async def test_an_anonymous_client_cannot_pass_for_a_user_by_its_id() -> None:
    hub = await with_presence(client_id_from_query=True)
    said = Said(hub)
    bob = await member(hub, "now", "bob")
    ghost = await member(hub, "now", query={"id": "@ann"})
    assert ghost.client.id == "@ann"
    ann = await member(hub, "now", "ann")
    assert await hub.presence_stats("now") == PresenceStats(clients=3, users=3)
    await go(hub, ann)
    rows = [("joined", ["bob"]), ("joined", [None]), ("joined", ["ann"]), ("left", ["ann"])]
    assert told(bob) == rows
    assert said.rows[1:] == [
        ("join", "now", None),
        ("join", "now", "ann"),
        ("leave", "now", "ann"),
    ]
    assert await users(hub, "now") == [None, "bob"]
    await hub.stop()


async def test_who_takes_the_id_of_one_that_is_away_is_listed_instead() -> None:
    hub = await with_presence()
    await go(hub, await member(hub, "red", "ann", client_id="x"))
    await member(hub, "red", "bob", client_id="x")
    assert await users(hub, "red") == ["bob"]
    assert await hub.presence_stats("red") == PresenceStats(clients=2, users=2)
    await hub.stop()


async def test_of_several_devices_the_first_joins_and_the_last_leaves() -> None:
    hub = await with_presence()
    bob = await member(hub, "now", "bob")
    devices = [await member(hub, "now", "ann") for _ in range(3)]
    assert await hub.presence_stats("now") == PresenceStats(clients=4, users=2)
    assert set(await hub.presence("now")) == {peer.client.id for peer in [bob, *devices]}
    for number, device in enumerate(devices):
        assert told(bob)[1:] == [("joined", ["ann"])], number
        device.close()
        await settle(hub)
    assert told(bob)[2:] == [("left", ["ann"])]
    await hub.stop()


async def test_who_comes_and_goes_in_one_turn_was_never_there() -> None:
    hub = await with_presence()
    said = Said(hub)
    bob = await member(hub, "now", "bob")
    ann = connect(hub, user="ann")
    ann.client.join("now")
    ann.client.leave("now")
    await settle(hub)
    bob.client.leave("now")
    bob.client.join("now")
    await settle(hub)
    assert told(bob) == [("joined", ["bob"])]
    assert said.rows == [("join", "now", "bob")]
    assert await users(hub, "now") == ["bob"]
    await hub.stop()


async def test_what_one_turn_has_is_told_in_one_message() -> None:
    hub = await with_presence()
    ann = await member(hub, "now", "ann")
    peers = [connect(hub, user=f"u{number}") for number in range(20)]
    for peer in peers:
        peer.client.join("now")
    await settle(hub)
    for peer in peers:
        peer.close()
    await settle(hub)
    kinds = [(kind, len(names)) for kind, names in told(ann)]
    assert kinds == [("joined", 1), ("joined", 20), ("left", 20)]
    await hub.stop()


async def test_joins_keep_their_place_among_messages() -> None:
    hub = await with_presence()
    ann = await member(hub, "kept", "ann")
    hub.room("kept").broadcast({"n": 1})
    await member(hub, "kept", "bob")
    hub.room("kept").broadcast({"n": 2})
    await settle(hub)
    assert [row.get("n", "told") for row in ann.json()] == ["told", 1, "told", 2]
    await hub.stop()


@pytest.mark.parametrize("also", [False, True], ids=["one room", "two rooms"])
async def test_a_join_does_not_take_the_place_of_the_latest_message(also: bool) -> None:
    hub = await with_presence()
    slow = await member(hub, "price", "slow", fast=False)
    slow.client.join("other")
    await settle(hub)
    slow.transport.block()
    for number in range(3):
        hub.room("price").broadcast({"price": number})
        if also:
            hub.room("other").broadcast({"n": number})
        connect(hub, user=f"u{number}").client.join("price")
        for _ in range(3):  # until the join is told in the same turn as the next price, or alone
            await asyncio.sleep(0)
    await settle(hub)
    slow.transport.unblock()
    await settle(hub)
    assert [row["price"] for row in slow.json() if "price" in row] == [2]
    assert told(slow) == [("joined", [name]) for name in ("slow", "u0", "u1", "u2")]
    await hub.stop()


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "latest"])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("also", [True, False])
async def test_a_slow_client_is_told_of_a_gap_where_a_leave_was_dropped(
    policy: SlowPolicy, plain: bool, also: bool
) -> None:
    """`also`: another room is published to in the same turns, so that both are merged."""
    rule = RoomRules("red", presence=True, join_leave=True, leave_grace_s=0, slow_policy=policy)
    hub = await started(room_rules=[rule], outbox_max_entries=3, slow_policy="drop_oldest")
    ann = connect(hub, user="ann") if plain else connect(hub, user="ann", dialect="centrifuge")
    if plain:
        await ann.client.subscribe("red")
    else:
        ann.send('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"red"}}')
        await settle(hub)
    ann.client.join("blue")
    bob = await member(hub, "red", "bob")
    ann.transport.block()
    if policy == "drop_newest":
        await fill(hub, also=also)
    bob.close()
    await settle(hub)
    if policy == "latest":
        for number in range(5):
            hub.room("blue").broadcast({"n": number})
            await settle(hub)
    elif policy == "drop_oldest":
        await fill(hub, also=also)
    assert told_of_gap(ann) == 0
    ann.transport.unblock()
    await settle(hub)
    assert told_of_gap(ann) == 1
    assert "left" not in dict(told(ann)) if plain else '"leave"' not in str(ann.received)
    await hub.stop()


async def test_a_slow_client_that_has_every_join_and_leave_is_told_of_no_gap() -> None:
    rule = RoomRules("red", presence=True, join_leave=True, slow_policy="drop_oldest")
    hub = await started(room_rules=[rule], outbox_max_entries=3)
    ann = await member(hub, "red", "ann")
    ann.transport.block()
    await fill(hub, also=False)
    ann.transport.unblock()
    await settle(hub)
    assert told_of_gap(ann) == 0
    assert hub.stats()["dropped"] > 0
    await hub.stop()


async def fill(hub: Hub, *, also: bool) -> None:
    for number in range(5):
        hub.room("red").broadcast({"n": number})
        if also:
            hub.room("blue").broadcast({"n": number})
        await settle(hub)


def told_of_gap(peer: MemoryClient) -> int:
    return sum('"gap"' in str(text) or "insufficient" in str(text) for text in peer.received)


async def test_history_and_positions_do_not_count_what_is_told() -> None:
    hub = await with_presence()
    start = await hub.cursor("kept")
    ann = connect(hub, user="ann")
    await ann.client.subscribe("kept")
    await settle(hub)
    await hub.publish("kept", {"n": 1})
    assert (await hub.cursor("kept")).offset == 1
    assert [each.data for each in (await hub.history("kept")).publications] == [b'{"n":1}']
    bob = connect(hub, user="bob")
    assert (await bob.client.subscribe("kept", since=start)).recovered
    await settle(hub)
    assert [row.get("n", "told") for row in bob.json()] == [1, "told"]
    assert hub.stats()["broker_gaps"] == 0
    await hub.stop()


async def test_a_rule_may_keep_presence_and_tell_nobody() -> None:
    hub = await with_presence()
    said = Said(hub)
    ann = await member(hub, "quiet", "ann")
    (await member(hub, "quiet", "bob")).close()
    await settle(hub)
    assert ann.received == []
    assert said.rows[1:] == [("join", "quiet", "bob"), ("leave", "quiet", "bob")]
    assert await users(hub, "quiet") == ["ann"]
    await hub.stop()


async def test_rooms_without_such_a_rule_cost_nothing_and_say_so() -> None:
    hub = await with_presence()
    ann = await member(hub, "blue", "ann")
    presence = core_of(hub).presence
    assert len(presence) == 0
    assert not session_of(ann.client).has_connection_id
    with pytest.raises(CommandError, match="presence=True") as caught:
        await hub.presence("blue")
    assert caught.value.code == "not_available"
    with pytest.raises(CommandError):
        await hub.presence_stats("blue")
    with pytest.raises(CommandError, match="room"):
        await hub.presence("")
    await hub.stop()
    with pytest.raises(HubNotRunning):
        await hub.presence("red")


async def test_nothing_is_left_of_a_room_that_nobody_is_in() -> None:
    hub = await with_presence()
    presence = core_of(hub).presence
    for room in ("red", "now"):
        (await member(hub, room, "ann")).close()
    await settle(hub)
    assert len(presence) == 1, "the other waits for its member"
    await pass_time(hub, 12.0)
    assert len(presence) == 0
    assert await hub.presence("red") == {}
    broker = core_of(hub).broker
    assert isinstance(broker, MemoryBroker)
    assert broker.members.rooms == 0
    await hub.stop()


async def test_a_client_that_joins_and_asks_at_once_finds_itself() -> None:
    hub = await with_presence()
    ann = connect(hub, user="ann")
    await ann.client.subscribe("now")
    assert await users(hub, "now") == ["ann"]
    ann.close()
    assert await hub.presence_stats("now") == PresenceStats(0, 0)
    await hub.stop()


@pytest.mark.parametrize(
    "value", [object(), "x" * 5000, {1, object()}, float], ids=["object", "long", "set", "type"]
)
async def test_what_cannot_be_said_of_a_member_is_left_out_and_logged(
    value: object, caplog: pytest.LogCaptureFixture
) -> None:
    hub = await with_presence()
    hub.presence_info(lambda client, room: value)
    ann = await member(hub, "now", "ann", client_id="a")
    assert await hub.presence("now") == {"a": ClientInfo("a", "ann")}
    assert told(ann) == [("joined", ["ann"])]
    assert "presence_info failed for client a" in caplog.text
    await hub.stop()


async def test_a_presence_info_that_gives_up_keeps_nobody_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = await with_presence()
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    hub.presence_info(lambda client, room: future.result())
    await member(hub, "now", "ann", client_id="a")
    await member(hub, "now", "bob", client_id="b")
    assert await users(hub, "now") == ["ann", "bob"]
    assert "presence_info failed for client a" in caplog.text
    await hub.stop()


# How much is told


async def test_ten_thousand_members_are_told_of_in_linear_time() -> None:
    """However they come: one after another, or all at once; and however they go."""
    count, limit = 10_000, 50
    rule = RoomRules("big", presence=True, join_leave=True, join_leave_max_members=limit)
    hub = Hub(room_rules=[rule], max_clients=None, max_clients_per_address=None)
    set_clock(hub, FakeClock())
    await hub.start()
    presence, stats = core_of(hub).presence, core_of(hub).stats
    peers = []
    for number in range(count):
        peer = connect(hub, user=f"u{number}")
        peer.client.join("big")
        peers.append(peer)
        if number < 200 or number % 500 == 0:  # some alone, and then in crowds
            await settle(hub)
    await settle(hub)
    assert await hub.presence_stats("big") == PresenceStats(count, count)
    assert len(await hub.presence("big")) == count
    # Up to the limit each join is told to all; then each is told once that no more is told.
    assert stats.messages_out == limit * (limit + 1) // 2 + count
    assert stats.bytes_out <= limit * limit * 200 + count * 100
    await go(hub, *peers[limit // 2 :])
    await pass_time(hub, 12.0)
    assert stats.messages_out <= limit * (limit + 1) // 2 + count + limit
    assert await hub.presence_stats("big") == PresenceStats(limit // 2, limit // 2)
    assert told(peers[0])[-1] == ("told again", [])
    assert len(presence) == 1
    await hub.stop()


async def test_a_crowd_that_comes_at_once_is_not_told_of_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One call names fewer than have come: the first is more than may be told of all the same."""
    assert RULES[0].join_leave_max_members < MOST_MEMBERS_A_CALL
    monkeypatch.setattr(presence_module, "MOST_MEMBERS_A_CALL", 10)
    hub = await with_presence()
    said = Said(hub)
    peers = [connect(hub) for _ in range(45)]
    for peer in peers:
        peer.client.join("small")
    await settle(hub)
    assert {tuple(kind for kind, _ in told(peer)) for peer in peers} == {("paused",)}
    assert len(said.rows) == 45
    await go(hub, *peers)
    assert len(said.rows) == 90
    await hub.stop()


async def test_who_shows_a_list_is_told_when_to_ask_anew() -> None:
    hub = await with_presence()
    ann = await member(hub, "small", "ann")
    others = [await member(hub, "small", f"u{number}") for number in range(6)]
    for peer in others:
        peer.close()
        await settle(hub)
    kinds = [kind for kind, _ in told(ann)]
    assert kinds == [*["joined"] * 4, "paused", "told again", "left", "left"]
    assert await users(hub, "small") == ["ann"]
    await hub.stop()


async def test_who_joins_a_room_that_is_told_of_no_more_is_told_so_alone() -> None:
    hub = await with_presence()
    others = [await member(hub, "small", f"u{number}") for number in range(5)]
    before = [told(peer) for peer in others]
    late, second = await member(hub, "small", "late"), await member(hub, "small", "u0")
    assert told(late) == told(second) == [("paused", [])]
    assert [told(peer) for peer in others] == before
    await pass_time(hub, RENEW_S + 1)
    assert told(late) == [("paused", [])], "a renewal tells nobody anew"
    late.client.leave("small")
    await settle(hub)
    late.client.join("small")
    await settle(hub)
    assert told(late) == [("paused", [])] * 2
    for peer in (*others, second):
        peer.close()
    await settle(hub)
    assert told(late)[2:3] == [("told again", [])]
    small = await member(hub, "small", "small")
    assert [kind for kind, _ in told(small)] == ["joined"]
    await hub.stop()


async def test_who_has_heard_that_a_room_is_told_of_again_is_not_told_otherwise() -> None:
    """The broker's answer may come after what it told later."""
    broker = Gated()
    hub = await with_presence(broker=broker)
    others = [await member(hub, "small", f"u{number}") for number in range(6)]
    late = connect(hub, user="late")
    names = [session_of(peer.client).connection_id for peer in others]
    roll = core_of(hub).presence._rolls["small"]

    async def answer_late(*rest: Any) -> Any:
        entered = await MemoryBroker.enter(broker, *rest)
        await MemoryBroker.leave(broker, "small", names, roll.terms)
        return entered

    broker.enter = answer_late  # type: ignore[method-assign]
    late.client.join("small")
    await settle(hub)
    assert told(late) == [("told again", [])]
    await hub.stop()


# Dialects


async def array_member(hub: Hub, room: str, dialect: ArrayDialect) -> MemoryClient:
    peer = connect(hub, dialect=dialect)
    peer.send(json.dumps([["connect", 1], ["subscribe", 2, room]]))
    await settle(hub)
    return peer


async def test_each_dialect_has_its_own_words_made_once() -> None:
    hub = await with_presence()
    dialect = ArrayDialect()
    peers = [await array_member(hub, "small", dialect) for _ in range(3)]
    plain = await member(hub, "small", "ann")
    bob = await member(hub, "small", "bob")
    bob.close()
    plain.close()
    await settle(hub)
    rows = events_of(peers[0].received)[1:]
    assert rows[0] == ["ok", 2], "the answer comes before what is told"
    own = ["joined", "small", [None, None]]
    assert rows[1:] == [
        *[own] * 3,
        ["joined", "small", ["ann", None]],
        ["paused", "small", True],
        ["paused", "small", False],
    ]
    assert dialect.encoded["Joined"] == 4
    assert told(plain) == [("joined", ["ann"]), ("paused", [])]
    await hub.stop()


async def test_a_client_asks_by_commands_who_is_there_and_how_many() -> None:
    hub = await with_presence()
    hub.authorize(lambda client, action, room: room != "now" or action == "join")
    await member(hub, "red", "ann", client_id="a")
    await member(hub, "red", "ann", client_id="b")
    peer = await array_member(hub, "now", ArrayDialect())
    for number, room in enumerate(["red", "now", "blue"]):
        peer.send(json.dumps(["presence", 10 + number, room]))
        peer.send(json.dumps(["presence_stats", 20 + number, room]))
    await settle(hub)
    rows = [row for row in events_of(peer.received) if row[1] != "now"][2:]
    assert rows[:2] == [["present", 10, {"a": "ann", "b": "ann"}], ["counted", 20, 2, 1]]
    assert [row[:3] for row in rows[2:]] == [
        ["error", 11, "forbidden"],
        ["error", 21, "forbidden"],
        ["error", 12, "not_available"],
        ["error", 22, "not_available"],
    ]
    await hub.stop()


async def test_a_list_that_is_too_long_is_not_given_in_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands_module, "MOST_LISTED", 2)
    hub = await with_presence()
    for _ in range(3):
        await member(hub, "red")
    peer = await array_member(hub, "now", ArrayDialect())
    peer.send('["presence", 3, "red"]')
    await settle(hub)
    assert events_of(peer.received)[-1][:3] == ["error", 3, "too_many_members"]
    await hub.stop()


async def test_a_list_is_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = await with_presence()
    peer = await array_member(hub, "now", ArrayDialect())
    broker = core_of(hub).broker
    assert isinstance(broker, MemoryBroker)
    read = broker.presence
    asked: list[tuple[str, int | None]] = []

    async def presence(room: str, most: int | None = None) -> Snapshot:
        asked.append((room, most))
        return await read(room, most)

    async def counted(room: str) -> PresenceStats:
        raise AssertionError("on some brokers that reads the list a second time")

    monkeypatch.setattr(broker, "presence", presence)
    monkeypatch.setattr(broker, "presence_stats", counted)
    peer.send('["presence", 3, "now"]')
    await settle(hub)
    assert events_of(peer.received)[-1][:2] == ["present", 3]
    assert asked == [("now", commands_module.MOST_LISTED)]
    await hub.stop()


async def test_a_count_lists_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = await with_presence()
    peer = await array_member(hub, "now", ArrayDialect())

    async def listed(room: str, most: int | None = None) -> Snapshot:
        raise AssertionError("of a large room that is a long answer, for two numbers")

    monkeypatch.setattr(core_of(hub).broker, "presence", listed)
    assert await hub.presence_stats("now") == PresenceStats(1, 1)
    peer.send('["presence_stats", 3, "now"]')
    await settle(hub)
    assert events_of(peer.received)[-1] == ["counted", 3, 1, 1]
    await hub.stop()


@pytest.mark.parametrize(
    ("count", "info", "first"), [(320, None, 3), (16, "x" * 4000, 4)], ids=["many", "long"]
)
async def test_long_lists_are_given_to_one_client_as_fast_as_it_takes_them(
    count: int, info: str | None, first: int
) -> None:
    """64 commands in one frame would hold up all others, for what only one has asked."""
    hub = await with_presence(outbox_max_bytes=2**24)
    if info is not None:
        hub.presence_info(lambda client, room: info)
    for number in range(count):
        connect(hub, user=f"u{number}", address=None).client.join("now")
    await settle(hub)
    broker = core_of(hub).broker
    assert isinstance(broker, MemoryBroker)
    read, asked = broker.presence, 0

    async def presence(room: str, most: int | None = None) -> Snapshot:
        nonlocal asked
        asked += 1
        return await read(room, most)

    broker.presence = presence  # type: ignore[method-assign]
    peer = connect(hub, dialect="centrifuge", fast=False)
    peer.send('{"id": 1, "connect": {}}')
    await settle(hub)
    peer.transport.block()
    command = {"presence": {"channel": "now"}}
    peer.send("\n".join(json.dumps({"id": 10 + number, **command}) for number in range(20)))
    await settle(hub)
    assert asked == first, "each costs more than 16, where 64 are allowed"
    peer.transport.unblock()
    await until(lambda: asked == 20)
    await settle(hub)
    rows = [json.loads(line) for message in peer.received for line in str(message).split("\n")]
    rows = [row for row in rows if "presence" in row]
    assert [row["id"] for row in rows] == list(range(10, 30))
    assert all(len(row["presence"]["presence"]) == count for row in rows)
    await hub.stop()


async def test_what_another_node_says_and_nobody_can_read_hurts_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = await with_presence()
    peer = await array_member(hub, "now", ArrayDialect())
    core_of(hub).publishing.deliver(Publication("now", Frame(b"?", True), kind=Kind.JOIN))
    hub.room("now").broadcast("after")
    await settle(hub)
    assert events_of(peer.received)[-1] == ["published", "now", "after"]
    assert "the dialect array failed at join" in caplog.text
    await hub.stop()


# Rules and brokers


async def test_a_broker_without_presence_is_an_error_at_the_start() -> None:
    broker = Exchange().broker()
    broker.abilities = frozenset()
    hub = Hub(broker=broker, room_rules=[RoomRules("a", presence=True)])
    with pytest.raises(SettingsError, match="presence=True, and ExchangeBroker has none"):
        await hub.start()


# Two processes


@pytest.fixture(params=list(CLUSTERS))
def exchange(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Exchange | ValkeyExchange:
    monkeypatch.setattr(reconnecting, "LONGEST_DELAY_S", 0.05)
    return CLUSTERS[request.param]()


async def quiet(exchange: Exchange | ValkeyExchange, hubs: Sequence[Hub]) -> None:
    for _ in range(3):
        await carried(exchange)
        for hub in hubs:
            await settle(hub)


async def time_passes(
    exchange: Exchange | ValkeyExchange,
    hubs: Sequence[Hub],
    seconds: int,
    alive: Sequence[Hub] = (),
) -> None:
    """Let time pass for all hubs, or for those that are alive, second by second."""
    for _ in range(seconds):
        for number, hub in enumerate(alive or hubs):
            if number == 0:
                advance_time(hub, 1.0)
            else:
                core_of(hub).presence.check()
        await quiet(exchange, hubs)


async def subscribed(hub: Hub, room: str, user: str | None, **options: Any) -> MemoryClient:
    peer = connect(hub, user=user, **options)
    await peer.client.subscribe(room)
    return peer


async def test_members_on_all_nodes_are_told_and_each_node_knows_all(
    exchange: Exchange | ValkeyExchange,
) -> None:
    async with cluster(exchange, clock=FakeClock(), room_rules=RULES) as (here, there):
        said = [Said(hub) for hub in (here, there)]
        ann = await subscribed(here, "now", "ann")
        bob = await subscribed(there, "now", "bob")
        second = await subscribed(there, "now", "ann")
        await quiet(exchange, [here, there])
        assert await users(here, "now") == await users(there, "now") == ["ann", "ann", "bob"]
        assert await here.presence_stats("now") == PresenceStats(3, 2)
        ann.close()
        await quiet(exchange, [here, there])
        before = told(bob)
        assert {kind for kind, _ in before} == {"joined"}
        second.close()
        await quiet(exchange, [here, there])
        assert told(bob) == [*before, ("left", ["ann"])]
        assert await users(here, "now") == ["bob"], "no member here: asked all the same"
        rows = sorted(said[0].rows + said[1].rows)
        assert rows == [
            ("join", "now", "ann"),
            ("join", "now", "bob"),
            ("leave", "now", "ann"),
        ], "each is called in one process only"


async def test_a_reload_that_ends_on_another_node_is_neither(
    exchange: Exchange | ValkeyExchange,
) -> None:
    async with cluster(exchange, clock=FakeClock(), room_rules=RULES) as (here, there):
        bob = await subscribed(there, "red", "bob")
        ann = await subscribed(here, "red", "ann")
        await quiet(exchange, [here, there])
        before = told(bob)
        ann.close()
        await time_passes(exchange, [here, there], 5)
        ann = await subscribed(there, "red", "ann")
        await time_passes(exchange, [here, there], 30)
        assert told(bob) == before
        assert await users(here, "red") == ["ann", "bob"]
        ann.close()
        await time_passes(exchange, [here, there], 12)
        assert told(bob) == [*before, ("left", ["ann"])]


async def test_members_of_a_node_that_was_killed_go_when_their_leases_end(
    exchange: Exchange | ValkeyExchange,
) -> None:
    async with cluster(exchange, clock=FakeClock(), room_rules=RULES) as (here, there):
        bob = await subscribed(there, "red", "bob")
        await subscribed(here, "red", "ann")
        await subscribed(here, "red", "bob")
        await quiet(exchange, [here, there])
        exchange.brokers[0].cut()
        await time_passes(exchange, [here, there], int(RENEW_S), alive=[there])
        assert await users(there, "red") == ["ann", "bob", "bob"]
        await time_passes(exchange, [here, there], int(LEASE_S + RENEW_S), alive=[there])
        assert told(bob)[-1] == ("left", ["ann"])
        assert await users(there, "red") == ["bob"]
        with pytest.raises(BrokerUnavailable):
            await here.presence("red")
        exchange.brokers[0].mend()  # it was only away: who is there is there again
        await time_passes(exchange, [here, there], int(RENEW_S) + 2)
        assert told(bob)[-1] == ("joined", ["ann"])
        assert await users(there, "red") == ["ann", "bob", "bob"]


async def test_what_happens_while_the_broker_is_away_is_told_when_it_is_back(
    exchange: Exchange | ValkeyExchange, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster(exchange, clock=FakeClock(), room_rules=RULES) as (here, there):
        bob = await subscribed(there, "now", "bob")
        ann = await subscribed(here, "now", "ann")
        stays = await subscribed(here, "now", "stays")
        await quiet(exchange, [here, there])
        exchange.brokers[0].cut()
        late = connect(here, user="late")
        late.client.join("now")
        ann.close()
        both = connect(here, user="both")
        both.client.join("now")
        await quiet(exchange, [here, there])
        both.close()
        await quiet(exchange, [here, there])
        assert "the broker was not told who is in now" in caplog.text
        assert [kind for kind, _ in told(bob)][-1] == "joined"
        exchange.brokers[0].mend()
        await time_passes(exchange, [here, there], int(RETRY_S) + 2)
        assert await users(there, "now") == ["bob", "late", "stays"]
        assert told(bob)[-2:] == [("joined", ["late"]), ("left", ["ann"])]
        assert stays.closed is None


@pytest.mark.parametrize("error", [CallRefused("too much"), ValueError("no text")])
async def test_a_member_that_the_broker_refuses_keeps_no_other_back(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = Exchange()
    async with cluster(exchange, clock=FakeClock(), room_rules=RULES) as (here, there):
        bob = await subscribed(there, "now", "bob")
        peers = [connect(here, user=f"u{number:02}") for number in range(20)]
        bad = session_of(peers[7].client).connection_id

        def meanwhile(verb: str, names: tuple[str, ...]) -> None:
            if verb == "enter" and bad in names:
                raise error

        broker = exchange.brokers[0]
        broker.meanwhile = meanwhile
        for peer in peers:
            peer.client.join("now")
        await quiet(exchange, [here, there])
        others = ["bob", *(f"u{number:02}" for number in range(20) if number != 7)]
        assert await users(there, "now") == others
        assert f"the broker was not told who is in now: {error}" in caplog.text
        broker.presence_calls.clear()
        await time_passes(exchange, [here, there], 5 * int(RENEW_S))
        assert all(kind == "joined" for kind, _ in told(bob)), "no lease has ended"
        sizes = [len(names) for verb, names in broker.presence_calls if verb == "enter"]
        assert sizes == [19, 1] * 5
        broker.meanwhile = lambda verb, names: None
        await time_passes(exchange, [here, there], int(RENEW_S) + 1)
        assert await users(there, "now") == sorted([*others, "u07"])
        broker.presence_calls.clear()
        await time_passes(exchange, [here, there], int(RENEW_S))
        sizes = [len(names) for verb, names in broker.presence_calls if verb == "enter"]
        assert sizes == [20]


async def test_what_is_said_anew_of_a_refused_member_takes_no_renewal_from_another() -> None:
    exchange = Exchange()
    async with cluster(exchange, clock=FakeClock(), room_rules=RULES) as (here, _):
        ann, bad = connect(here, user="ann"), connect(here, user="bad")
        session, broker = session_of(bad.client), exchange.brokers[0]

        def meanwhile(verb: str, names: tuple[str, ...]) -> None:
            if verb == "enter" and session.connection_id in names:
                raise CallRefused("too much")

        broker.meanwhile = meanwhile
        for peer in (ann, bad):
            peer.client.join("now")
        await quiet(exchange, [here])
        broker.presence_calls.clear()
        advance_time(here, RENEW_S)
        core_of(here).infos.note_token(session, "now", "something else")
        core_of(here).presence.entered(session, "now")
        await quiet(exchange, [here])
        name = session_of(ann.client).connection_id
        assert ("enter", (name,)) in broker.presence_calls


async def test_handlers_are_called_for_who_joined_by_a_call_that_was_refused_in_the_end() -> None:
    exchange = Exchange()
    async with cluster(exchange, clock=FakeClock(), room_rules=RULES) as (here, _):
        said = Said(here)
        refused = CallRefused("full")
        refused.infos = [ClientInfo("c", "ann")]

        def meanwhile(verb: str, names: tuple[str, ...]) -> None:
            if verb == "enter" and len(names) > 1:
                raise refused

        exchange.brokers[0].meanwhile = meanwhile
        for user in ("bob", "cat"):
            connect(here, user=user).client.join("now")
        await quiet(exchange, [here])
        assert said.rows == [("join", "now", user) for user in ("ann", "bob", "cat")]


@pytest.mark.parametrize("verb", ["enter", "leave", "expire"])
async def test_handlers_are_called_for_whom_a_call_concerned_before_it_failed(verb: str) -> None:
    exchange = Exchange()
    async with cluster(exchange, clock=FakeClock(), room_rules=RULES) as (here, _):
        said = Said(here)
        failed = CallFailed("gone")
        failed.infos = [ClientInfo("c", "ann")]
        failures = [failed]

        def meanwhile(asked: str, names: tuple[str, ...]) -> None:
            if asked == verb and failures:
                raise failures.pop()

        exchange.brokers[0].meanwhile = meanwhile
        bob = connect(here, user="bob")
        bob.client.join("now")
        await quiet(exchange, [here])
        bob.close()
        await time_passes(exchange, [here], int(RENEW_S) + 2)
        kind = "join" if verb == "enter" else "leave"
        assert said.rows.count((kind, "now", "ann")) == 1
        assert (kind, "now", "bob") in said.rows or verb == "enter"


async def test_a_broker_that_refuses_everybody_is_not_asked_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(presence_module, "MOST_REFUSALS", 10)
    exchange = Exchange()
    async with cluster(exchange, clock=FakeClock(), room_rules=RULES) as (here, there):
        peers = [connect(here, user=f"u{number:02}") for number in range(40)]
        broker = exchange.brokers[0]

        def meanwhile(verb: str, names: tuple[str, ...]) -> None:
            if verb == "enter":
                raise CallRefused("full")

        broker.meanwhile = meanwhile
        for peer in peers:
            peer.client.join("now")
        await quiet(exchange, [here, there])
        assert len(broker.presence_calls) == 11
        peers[0].close()
        for _ in range(3 * int(RENEW_S)):
            broker.presence_calls.clear()
            await time_passes(exchange, [here, there], 1)
            assert len(broker.presence_calls) <= 25
        broker.meanwhile = lambda verb, names: None
        await time_passes(exchange, [here, there], int(RENEW_S) + 1)
        assert len(await users(there, "now")) == 39


async def test_who_leaves_again_while_the_broker_hears_of_its_join_has_left(
    exchange: Exchange | ValkeyExchange,
) -> None:
    async with cluster(exchange, clock=FakeClock(), room_rules=RULES) as (here, there):
        bob = await subscribed(there, "now", "bob")
        await quiet(exchange, [here, there])
        client = (await subscribed(here, "now", "ann")).client
        await asyncio.sleep(0)
        for _ in range(6):
            client.leave("now")
            await asyncio.sleep(0)
            client.join("now")
            await asyncio.sleep(0)
        client.leave("now")
        await quiet(exchange, [here, there])
        assert await users(there, "now") == ["bob"]
        names = [names for _, names in told(bob) if names == ["ann"]]
        assert len(names) % 2 == 0, "as many leaves as joins"


async def test_a_hub_that_stops_says_who_has_gone_and_others_see_whether_they_come_back() -> None:
    exchange = Exchange()
    async with cluster(exchange, clock=FakeClock(), room_rules=RULES) as (here, there):
        bob = await subscribed(there, "red", "bob")
        await subscribed(here, "red", "ann")
        await subscribed(here, "red", "eve")
        await quiet(exchange, [here, there])
        before = told(bob)
        await here.stop()
        await subscribed(there, "red", "ann")
        await time_passes(exchange, [there], int(RENEW_S) + 12)
        assert told(bob) == [*before, ("left", ["eve"])]


async def test_a_broker_that_does_not_listen_does_not_hold_up_the_stop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryBroker):
        async def leave(self, *rest: Any) -> Any:
            raise RuntimeError("broken on purpose")

    hub = Hub(broker=Broken(), room_rules=RULES)
    await hub.start()
    for _ in range(2):
        (await member(hub, "red", "ann")).close()
        await settle(hub)
    monkeypatch.setattr(presence_module, "MOST_LEAVING", 0)
    await hub.stop()
    assert "the broker was not told who has gone" in caplog.text
    await hub.stop()
    await core_of(hub).presence.stop()


async def test_those_who_have_gone_while_the_broker_was_away_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(presence_module, "MOST_LEAVING", 3)
    exchange = Exchange()
    async with cluster(exchange, clock=FakeClock(), room_rules=RULES) as (here, there):
        peers = [await subscribed(here, "now", f"u{number}") for number in range(5)]
        await quiet(exchange, [here, there])
        exchange.brokers[0].cut()
        for peer in peers:
            peer.close()
        await quiet(exchange, [here, there])
        exchange.brokers[0].mend()
        await time_passes(exchange, [here, there], 3)
        assert await users(there, "now") == ["u3", "u4"], "their leases end"
        exchange.clock.advance(LEASE_S)  # type: ignore[attr-defined]
        assert await there.presence("now") == {}


class Gated(MemoryBroker):
    """A broker whose calls wait for a gate, and may fail behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = False

    async def _pass(self) -> None:
        await self.gate.wait()
        if self.fails:
            raise BrokerUnavailable("on purpose")

    async def enter(self, *rest: Any) -> Any:
        """Wait, and do it."""
        await self._pass()
        return await super().enter(*rest)

    async def leave(self, *rest: Any) -> Any:
        """Wait, and do it."""
        await self._pass()
        return await super().leave(*rest)


async def test_who_goes_while_others_are_told_of_was_never_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(presence_module, "MOST_MEMBERS_A_CALL", 1)
    broker = Gated()
    hub = await with_presence(broker=broker)
    said = Said(hub)
    await member(hub, "now", "ann")
    broker.gate.clear()
    peers = [connect(hub, user=user) for user in ("bob", "eve")]
    for peer in peers:
        peer.client.join("now")
    await settle(hub)
    peers[1].close()
    broker.gate.set()
    await settle(hub)
    assert said.rows == [("join", "now", "ann"), ("join", "now", "bob")]
    await hub.stop()


async def test_who_comes_back_before_a_leave_could_be_told_has_not_left() -> None:
    broker = Gated()
    hub = await with_presence(broker=broker)
    said = Said(hub)
    ann, bob = await member(hub, "now", "ann"), await member(hub, "now", "bob")
    broker.gate.clear()
    broker.fails = True
    ann.client.leave("now")
    await settle(hub)
    ann.client.join("now")
    await settle(hub)
    broker.gate.set()
    await settle(hub)
    assert len(said.rows) == 2
    broker.fails = False
    await pass_time(hub, RETRY_S + 1)
    assert said.rows == [("join", "now", "ann"), ("join", "now", "bob")]
    assert await users(hub, "now") == ["ann", "bob"]
    assert [kind for kind, _ in told(bob)] == ["joined"]
    await hub.stop()


# Snapshots


def test_what_is_older_than_a_snapshot_does_not_change_it() -> None:
    ann, bob, eve = (ClientInfo(f"c{user}", user) for user in ("ann", "bob", "eve"))
    second = ClientInfo("c2", "ann")
    rows = [
        Told(Kind.JOIN, (eve,), 5),
        Told(Kind.LEAVE, (ann,), 6),
        Told(Kind.LEAVE, (bob,)),
        Told(Kind.JOIN, (eve,), 7),
        Told(Kind.LEAVE, (second,), 8),
    ]
    told = [Publication("red", told_frame("red", row), kind=row.kind) for row in rows]
    snapshot = Snapshot((ann, second, bob), 6)
    assert list(_brought_up(snapshot, told[:3])) == ["cann", "c2", "cbob"]
    assert list(_brought_up(snapshot, told)) == ["cbob", "ceve"], "a person leaves with all clients"


async def test_a_snapshot_has_what_was_told_while_it_was_read() -> None:
    exchange = Exchange(late_turns=30)
    async with cluster(exchange, clock=FakeClock(), room_rules=RULES) as (here, there):
        await subscribed(here, "now", "ann")
        gone = await subscribed(here, "now", "gone")
        await quiet(exchange, [here, there])
        broker = exchange.brokers[0]
        read = broker.presence
        answered, go_on = asyncio.Event(), asyncio.Event()

        async def slow(room: str, most: int | None = None) -> Snapshot:
            snapshot = await read(room, most)
            answered.set()
            await go_on.wait()
            return snapshot

        broker.presence = slow  # type: ignore[method-assign]
        reading = asyncio.create_task(here.presence("now"))
        await asyncio.wait_for(answered.wait(), 5)
        await subscribed(there, "now", "late")
        gone.close()
        await quiet(exchange, [here, there])
        go_on.set()
        found = await asyncio.wait_for(reading, 5)
        assert sorted(str(info.user) for info in found.values()) == ["ann", "late"]


class Watcher:
    """A member that shows who is there, as a page does: it asks once, and goes on by what it is told."""

    def __init__(self, hub: Hub, number: int) -> None:
        self.hub = hub
        self.user = f"watcher {number}"
        self.peer = connect(hub, user=self.user)

    async def begin(self, room: str) -> None:
        await self.peer.client.subscribe(room)
        found = await self.hub.presence(room)
        self.peer.client.send({"snapshot": [info.key for info in found.values()]})

    def shows(self) -> set[str]:
        keys: set[str] | None = None
        for row in self.peer.json():
            if "snapshot" in row:
                keys = set(row["snapshot"])
            elif keys is not None:
                keys |= {ClientInfo(**info).key for info in row["joined"]}
                keys -= {ClientInfo(**info).key for info in row["left"]}
        assert keys is not None
        return keys


class AskingWatcher(Watcher):
    """The same, by the commands of an SDK."""

    def __init__(self, hub: Hub, number: int) -> None:
        self.hub = hub
        self.user = f"watcher {number}"
        self.peer = connect(hub, dialect="centrifuge")

    async def begin(self, room: str) -> None:
        commands: list[dict[str, Any]] = [
            {"id": 1, "connect": {"token": self.user}},
            {"id": 2, "subscribe": {"channel": room}},
            {"id": 3, "presence": {"channel": room}},
        ]
        self.peer.send("\n".join(map(json.dumps, commands)))
        await until(lambda: any(row.get("id") == 3 for row in self.rows()))

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(x) for each in self.peer.received for x in str(each).split("\n")]

    def shows(self) -> set[str]:
        keys: set[str] | None = None
        for row in self.rows():
            if "presence" in row:
                found = row["presence"]["presence"].values()
                keys = {ClientInfo(info["client"], info["user"]).key for info in found}
            elif keys is not None and "push" in row:
                for kind, change in row["push"].items():
                    if kind == "channel":
                        continue
                    info = change["info"]
                    key = ClientInfo(info["client"], info["user"]).key
                    keys = keys | {key} if kind == "join" else keys - {key}
        assert keys is not None
        return keys


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("room", ["now", "red"])
async def test_whoever_begins_to_watch_in_the_middle_shows_what_is_true(
    exchange: Exchange | ValkeyExchange, room: str, seed: int
) -> None:
    rng = random.Random(seed)
    async with cluster(exchange, clock=FakeClock(), room_rules=RULES) as hubs:
        for each in hubs:
            core_of(each).handlers.authenticate = lambda handshake: handshake.token
        peers: list[MemoryClient] = []
        watchers: list[Watcher] = []
        beginning: list[asyncio.Task[None]] = []
        ahead_s = 0
        for _ in range(120):
            hub = rng.choice(hubs)
            if peers and rng.random() < 0.5:
                peers.pop(rng.randrange(len(peers))).close()
            else:
                peers.append(connect(hub, user=rng.choice(["ann", "bob", "eve", "joe"])))
                peers[-1].client.join(room)
            if rng.random() < 0.1:
                kind = rng.choice([Watcher, AskingWatcher])
                watchers.append(kind(hub, len(watchers)))
                beginning.append(asyncio.create_task(watchers[-1].begin(room)))
            if rng.random() < 0.3:
                step_s = rng.choice([1, 4])
                ahead_s += step_s
                if isinstance(exchange, ValkeyExchange) and ahead_s >= RENEW_S:
                    # A real server takes real time: a clock that runs ahead of it for longer than a
                    # lease is a process that was stopped, whose members go.
                    await quiet(exchange, hubs)
                    ahead_s = step_s
                exchange.clock.advance(step_s)  # type: ignore[attr-defined]
                for each in hubs:
                    core_of(each).presence.check()
            for _ in range(rng.choice([0, 0, 1, 5])):
                await asyncio.sleep(0)
        await asyncio.gather(*beginning)
        await time_passes(exchange, hubs, 12)
        true = {info.key for info in (await exchange.snapshot(room)).infos}
        there = {f"@{peer.client.user}" for peer in peers}
        assert true == there | {f"@{watcher.user}" for watcher in watchers}
        for watcher in watchers:
            assert watcher.shows() == true


def test_functions_that_cannot_work_are_refused_at_registration() -> None:
    hub = Hub()

    def info(client: Client, room: str) -> object: ...
    async def later(client: Client, room: str) -> object: ...
    def came(room: str, info: ClientInfo) -> None: ...

    hub.presence_info(info)
    with pytest.raises(ValueError, match="registered already"):
        hub.presence_info(info)
    with pytest.raises(TypeError, match=r"later \(.*\) is async, and is asked while"):
        Hub().presence_info(later)
    hub.on_join(came)
    hub.on_leave(came)
    for decorator in (hub.on_join, hub.on_leave):
        with pytest.raises(ValueError, match="registered already"):
            decorator(came)
    wrong: Any = info
    with pytest.raises(TypeError, match=r"f\(room: str, info: ClientInfo\)"):
        hub.on_join(wrong)


async def test_the_hubs_own_timer_looks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence_module, "LOOK_S", 0.001)
    hub = await with_presence()
    clock = core_of(hub).clock
    assert isinstance(clock, FakeClock)
    (await member(hub, "red", "ann")).close()
    await settle(hub)
    clock.advance(11)
    await until(lambda: len(core_of(hub).presence) == 0)
    await hub.stop()


async def test_frames_of_long_lists_are_one_budget_as_one_frame_is() -> None:
    hub = await with_presence(outbox_max_bytes=2**24)
    for number in range(320):
        connect(hub, user=f"u{number}", address=None).client.join("now")
    await settle(hub)
    peer = connect(hub, dialect="centrifuge", fast=False)
    peer.send('{"id": 1, "connect": {}}')
    await settle(hub)
    peer.transport.block()
    for number in range(20):
        peer.send(json.dumps({"id": 10 + number, "presence": {"channel": "now"}}))
    for _ in range(5):
        await settle(hub)
    outbox = session_of(peer.client).outbox
    assert outbox is not None
    assert outbox.messages == 3
    peer.transport.unblock()
    await until(lambda: sum(len(str(each).splitlines()) for each in peer.received) == 21)
    await hub.stop()
