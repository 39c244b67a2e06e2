"""The broker on a cluster: rooms on all shards, slots that move, and a primary that is killed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from broker_hubs import Publishers, hubs_on, member, rows, texts
from broker_node import KEEP, Node, is_up, message, running, valkey_on
from hubbub import BrokerUnavailable, ClientInfo, PositionLost, RoomRules
from hubbub.brokers.broker import Control, PresenceTerms, apart
from hubbub.brokers.valkey import ValkeyBroker
from hubbub.brokers.valkey_cluster import Cluster, Found, shards_of
from started_hub import until
from valkey_cluster import TestCluster, cluster_url, shared_cluster
from valkey_server import fresh_prefix, hurry, server_url

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

ROOMS = [f"room {number}" for number in range(40)]
TERMS = PresenceTerms(60.0, 0.0, 100)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def layout_of(broker: ValkeyBroker) -> Cluster:
    assert broker._running is not None
    layout = broker._running.layout
    assert isinstance(layout, Cluster)
    return layout


async def test_rooms_are_on_all_shards_and_all_of_a_room_on_one() -> None:
    prefix = fresh_prefix()
    async with (
        running(ValkeyBroker(cluster_url(), prefix=prefix), *ROOMS) as (one, here),
        running(ValkeyBroker(cluster_url(), prefix=prefix), *ROOMS, name="other") as (two, there),
    ):
        sent = [one.publish_kept(message(room, room, key="k"), KEEP) for room in ROOMS]
        sent += [two.publish(message("plain", room)) for room in ROOMS]
        assert {receipt.delivered_to for receipt in await asyncio.gather(*sent)} == {1}
        await until(lambda: len(here.delivered) == len(there.delivered) == 2 * len(ROOMS))
        assert sorted(here.delivered) == sorted(there.delivered)
        assert len(apart(one, ROOMS)) == 3  # type: ignore[arg-type]
        for room in ROOMS:
            again = await two.publish_kept(message(room, room, key="k"), KEEP)
            assert again.is_repeated
            assert [each.data.decode() for each in (await two.history(room)).publications] == [room]
            await one.enter(room, {"a": ClientInfo("a")}, TERMS)
            assert [info.client for info in (await two.presence(room)).infos] == ["a"]
        await one.note("rules", b"text")
        assert await two.noted("rules") == b"text"
        await one.remove_history(ROOMS[0])
        assert (await two.history(ROOMS[0])).publications == []
        await one.send_control(Control("kick", "node", {"a": 1}))
        await until(lambda: bool(there.heard))
        assert (there.heard, here.heard) == ([Control("kick", "node", {"a": 1})], [])
        two.unsubscribe([ROOMS[1]])
        assert (await two.publish(message("late", ROOMS[1]))).delivered_to == 0


async def test_a_slot_moves_while_publishers_run_and_nothing_is_lost_or_comes_twice() -> None:
    cluster, prefix = shared_cluster(), fresh_prefix()
    rules = [RoomRules("log", history=2000, presence=True)]
    async with hubs_on(f"{cluster.url}?prefix={prefix}", rules=rules) as hubs:
        peers = [await member(hub, "log") for hub in hubs for _ in range(2)]
        publishers = Publishers(hubs, named="xyz", key_every=5)
        channel = f"{prefix}:{{log}}:c".encode()
        for _ in range(2):
            await publishers.take(60)
            move = await asyncio.to_thread(cluster.begin_move, channel)
            await asyncio.to_thread(cluster.move_keys, *move, 3)
            await asyncio.sleep(0.1)  # some of its keys are here and some there
            await asyncio.to_thread(cluster.end_move, *move)
            assert await asyncio.to_thread(cluster.has, channel) == move[2]
        await publishers.take(60)
        await publishers.end()
        assert publishers.refused == [], "a slot that moves for a moment refuses nobody"
        taken = publishers.taken
        await until(lambda: all(len(texts(peer)) >= len(taken) for peer in peers))
        first = texts(peers[0])
        assert sorted(map(str, first)) == sorted(taken), "nothing is lost, and nothing comes twice"
        assert all(texts(peer) == first for peer in peers), "and all see one order"
        assert [peer.closed for peer in peers] == [None] * 4
        assert not any(rows(peer) for peer in peers)


async def test_rooms_that_keep_nothing_are_told_of_a_gap_when_their_slot_has_moved() -> None:
    cluster, prefix = shared_cluster(), fresh_prefix()
    async with valkey_on(cluster.url, "red", "blue", prefix=prefix) as (broker, node):
        channel = f"{prefix}:{{red}}:c".encode()
        move = await asyncio.to_thread(cluster.begin_move, channel)
        await asyncio.to_thread(cluster.end_move, *move)
        await until(lambda: node.gap_rooms == ["red"])
        receipts = await asyncio.gather(
            *(broker.publish(message("1", room)) for room in ("red", "blue"))
        )
        assert [receipt.delivered_to for receipt in receipts] == [1, 1]
        await broker.subscribe(["green"])
        assert node.gap_rooms == ["red"]


async def test_a_primary_is_killed_and_its_replica_takes_over(tmp_path: Path) -> None:
    cluster = await asyncio.to_thread(TestCluster, tmp_path, has_replica=True)
    broker, node = ValkeyBroker(cluster.url), Node()
    try:
        await broker.start(node)
        for part in apart(broker, ROOMS):
            await broker.subscribe(part)
        shard = next(
            each for each in layout_of(broker)._shards if cluster.ids[0] in _texts(each.nodes)
        )
        lost = [room for room in ROOMS if layout_of(broker).link(_channel(broker, room)) is shard]
        rest = [room for room in ROOMS if room not in lost]
        tops = {
            room: (await broker.publish_kept(message("1", room), KEEP)).position for room in ROOMS
        }
        cluster.servers[0].kill()
        for room in rest:
            assert (await broker.publish_kept(message("2", room), KEEP)).delivered_to == 1
        await until(lambda: broker.condition.state == "away")
        await until(is_up(broker))
        assert set(node.gap_rooms) == set(lost)
        assert shard.connections.place[1] == cluster.servers[3].port
        receipt = await broker.publish_kept(message("3", lost[0]), KEEP)
        assert receipt.delivered_to == 1
        with pytest.raises(PositionLost):
            await broker.history(lost[0], since=tops[lost[0]])
        assert len((await broker.history(rest[0], since=tops[rest[0]])).publications) == 1
    finally:
        await broker.stop()
        await asyncio.to_thread(cluster.stop)


def _texts(ids: frozenset[bytes]) -> set[object]:
    return {*ids, *(each.decode() for each in ids)}


def _channel(broker: ValkeyBroker, room: str) -> bytes:
    return broker._names.channel(room)


async def test_a_cluster_that_is_not_there_or_is_none() -> None:
    with pytest.raises(
        BrokerUnavailable, match="no node of the cluster says who has what"
    ) as caught:
        await ValkeyBroker("valkey+cluster://u:secret@127.0.0.1:1").start(Node())
    assert "secret" not in str(caught.value)
    alone = server_url().replace("valkey:", "valkey+cluster:")
    with pytest.raises(BrokerUnavailable, match="cluster support disabled"):
        await ValkeyBroker(alone).start(Node())


def test_what_a_node_says_of_shards() -> None:
    def node(
        name: bytes, *, role: bytes = b"master", health: bytes = b"online", **rest: Any
    ) -> Any:
        row: list[Any] = [b"id", name, b"port", 7000, b"ip", b"10.0.0.1", b"role", role]
        for key, value in rest.items():
            row += [key.replace("_", "-").encode(), value]
        return [*row, b"health", health]

    answer = [
        [
            b"slots",
            [0, 99, 200, 200],
            b"nodes",
            [node(b"a", endpoint=b"one"), node(b"b", role=b"replica")],
        ],
        [b"slots", [], b"nodes", [node(b"c", health=b"fail")]],
        [b"slots", [b"5", b"6"], b"nodes", [node(b"d", endpoint=b"?", tls_port=7443)]],
    ]
    found = shards_of(answer, "asked", is_tls=False)
    ranges = (range(100), range(200, 201))
    assert found[0] == Found(frozenset({b"a", b"b"}), ("one", 7000), ranges)
    assert found[1] == Found(frozenset({b"c"}), None, ())
    assert found[2].primary == ("asked", 7000)
    assert shards_of(answer, "asked", is_tls=True)[2].primary == ("asked", 7443)
