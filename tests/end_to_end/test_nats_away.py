"""Hubs on real NATS servers that are killed, frozen, emptied, full, without quorum: what members, publishers and stats are told.

What is the same on Valkey is in `test_broker_away.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker_hubs import GAP, RULES, hubs_on, member, rows, state, texts
from cli.ways import run
from hubbub import AsyncPublisher, BrokerUnavailable, CommandError, Hub
from hubbub.brokers import unanswered
from hubbub.brokers.nats import NatsBroker
from hubbub.hub.core import core_of
from hubbub.testing import connect
from nats_server import NatsCluster, NatsServer, hurry, own_server, server_with
from started_hub import until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

server = own_server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


async def test_a_server_that_is_killed_under_publishers_loses_and_doubles_nothing(
    server: NatsServer,
) -> None:
    """Clients stay, publishers wait, rooms that remember are whole, members of others are told."""
    async with hubs_on(server.url, 3) as hubs:
        peers = [await member(hub, "log") for hub in hubs for _ in range(3)]
        news = await member(hubs[0], "news")

        async def publish(number: int) -> None:
            for turn in range(40):
                await hubs[number % 3].publish("log", f"{number}.{turn}")

        publishers = [asyncio.create_task(publish(number)) for number in range(12)]
        await until(lambda: len(texts(peers[0])) > 60)
        server.kill()
        for hub in hubs:
            await until(state(hub, "away"))
        assert not any(task.done() for task in publishers)
        await asyncio.to_thread(server.restart)
        await asyncio.gather(*publishers)
        await until(lambda: all(len(texts(peer)) >= 480 for peer in peers))
        expected = {f"{number}.{turn}" for number in range(12) for turn in range(40)}
        assert sorted(map(str, texts(peers[0]))) == sorted(expected)
        assert all(texts(peer) == texts(peers[0]) for peer in peers)
        await until(lambda: GAP in rows(news))
        assert [peer.closed for peer in (*peers, news)] == [None] * 10
        assert [hub.stats()["broker_gaps"] for hub in hubs] == [1, 1, 1]
        await hubs[1].publish("news", "after")
        await until(lambda: texts(news) == ["after"])


async def test_a_stream_that_is_gone_begins_new_epochs_and_everybody_is_told(
    server: NatsServer,
) -> None:
    async with hubs_on(server.url) as hubs:
        peers = [
            await member(hub, "log", "news", "who", user=f"u{n}") for n, hub in enumerate(hubs)
        ]
        first = (await hubs[0].publish("log", "1")).position
        await until(lambda: all(texts(peer) == ["1"] for peer in peers))
        broker = core_of(hubs[0]).broker
        assert isinstance(broker, NatsBroker)
        connection = broker._require().feed.connection
        await connection.ask("$JS.API.STREAM.DELETE.hubbub_hubbub_rooms", b"")
        gaps = [{"type": "gap", "room": room} for room in ("log", "news", "")]
        await until(lambda: all(gap in rows(peer) for peer in peers for gap in gaps))
        second = (await hubs[1].publish("log", "2")).position
        assert first is not None
        assert second is not None
        assert (second.offset, second.epoch != first.epoch) == (1, True)
        await until(lambda: all(texts(peer) == ["1", "2"] for peer in peers))
        assert [peer.closed for peer in peers] == [None, None]


async def in_turn(pending: list[Any]) -> None:
    """Publish one after another, until one is refused."""
    for number, each in enumerate(pending):
        try:
            await each
        except BaseException:
            for rest in pending[number + 1 :]:
                rest.close()
            raise


async def test_a_stream_that_is_full_is_told_to_who_publishes(server: NatsServer) -> None:
    async with hubs_on(f"{server.url}?max_bytes=20000", 1) as (hub,):
        peer = await member(hub, "log", "news")
        pending = [hub.publish("log", "x" * 1000) for _ in range(100)]
        with pytest.raises(BrokerUnavailable, match="maximum bytes exceeded"):
            await in_turn(pending)
        await hub.publish("news", "1")
        await until(lambda: texts(peer)[-1:] == ["1"])
        assert 10 <= len(texts(peer)) <= 30
        assert hub.stats()["broker_gaps"] == 0


@pytest.fixture
def three(tmp_path: Path) -> Iterator[NatsCluster]:
    made = NatsCluster(tmp_path)
    yield made
    made.stop()


async def test_without_a_quorum_only_what_is_kept_is_refused(
    three: NatsCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unanswered, "WAIT_S", 60.0)
    urls = ",".join(server.url.removeprefix("nats://") for server in three.servers)
    first, hub = (Hub(broker=u, room_rules=RULES) for u in (f"nats://{urls}?replicas=3", three.url))
    await first.start()
    await hub.start()
    peer = await member(hub, "log", "news")
    await hub.publish("log", "1")
    await until(lambda: texts(peer) == ["1"])
    await first.stop()
    three.others[0].kill()
    assert (await hub.publish("log", "a leader is there, or comes")).position is not None
    await until(lambda: len(texts(peer)) == 2)
    three.others[1].kill()
    monkeypatch.setattr(unanswered, "WAIT_S", 1.0)
    with pytest.raises(BrokerUnavailable, match=r"quorum|does not answer"):
        await hub.publish("log", "refused")
    await hub.publish("news", "2")
    await until(lambda: texts(peer)[2:] == ["2"])
    assert hub.stats()["broker_state"] == "up"
    monkeypatch.setattr(unanswered, "WAIT_S", 60.0)
    await asyncio.to_thread(three.others[0].restart)
    assert (await hub.publish("log", "3")).position is not None
    await until(lambda: texts(peer)[-1:] == ["3"])
    assert peer.closed is None
    await hub.stop()


async def test_rules_that_need_jetstream_are_refused_at_the_start_where_there_is_none() -> None:
    async with server_with() as server:
        for rules, what in ((RULES[0], "keeps a history"), (RULES[1], "presence=True")):
            with pytest.raises(ValueError, match=f"{what}.*no JetStream: start it with -js"):
                await Hub(broker=server.url, room_rules=[rules]).start()
        hub = Hub(broker=server.url, room_rules=RULES)
        for _ in range(2):
            with pytest.raises(ValueError, match="start it with -js"):
                await hub.start()
            assert not hub.is_running
        hubs = [Hub(broker=server.url) for _ in range(2)]
        for hub in hubs:
            await hub.start()
        peer = await member(hubs[0], "news")
        await hubs[1].publish("news", "1")
        await until(lambda: texts(peer) == ["1"])
        with pytest.raises(BrokerUnavailable, match="no JetStream: start it with -js"):
            await hubs[1].publish("news", "2", key="two")
        for hub in hubs:
            await hub.stop()


async def test_a_publisher_needs_no_jetstream_where_the_hubs_have_none() -> None:
    async with server_with("") as server:
        hub = Hub(broker=server.url)
        await hub.start()
        ann, bob = connect(hub, user="ann"), connect(hub, client_id="tab")
        await ann.client.subscribe("news")
        async with AsyncPublisher(server.url) as publisher:
            assert (await publisher.publish("news", "1")).position is None
            await publisher.to_user("ann", "2")
            while not (nodes := await publisher.nodes()):
                pass  # a hub that has much to do may answer too late
            assert [node.id for node in nodes] == [core_of(hub).node_id]
            while not (rooms := await publisher.rooms()):
                pass
            assert rooms == {"news": 1}
            with pytest.raises(BrokerUnavailable, match="no JetStream: start it with -js"):
                await publisher.publish("news", "3", key="three")
            with pytest.raises(CommandError):
                await publisher.presence("news")
            await until(lambda: ann.received == ["1", "2"])
            await publisher.disconnect("ann")
            await until(lambda: ann.closed is not None)
        done = await run("rooms", "--broker", server.url)
        assert (done.exit_code, done.output) == (0, "")
        assert (await run("kick", "tab", "--broker", server.url)).exit_code == 0
        await until(lambda: bob.closed is not None)
        await hub.stop()
