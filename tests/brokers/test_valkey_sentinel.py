"""Sentinel: the primary is found, and its successor followed, with real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brokers.test_valkey import KEEP, Node, broker_on, is_away, is_up, message
from hubbub import BrokerUnavailable, Hub, PositionLost, RoomRules
from hubbub.brokers import valkey_link
from hubbub.brokers.valkey import ValkeyBroker
from hubbub.brokers.valkey_address import read_address
from hubbub.brokers.valkey_sentinel import Sentinels
from hubbub.testing import MemoryClient, connect
from started_hub import until
from valkey_sentinels import NAME, Watched
from valkey_server import hurry

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    hurry(monkeypatch)
    made = Watched(tmp_path)
    yield made
    made.stop()


async def test_a_primary_is_killed_and_what_follows_it_is_followed(watched: Watched) -> None:
    """Nothing comes twice; what was acknowledged and is lost was told; all stay connected."""
    rules = [RoomRules("log", history=1000)]
    hubs = [Hub(broker=ValkeyBroker(watched.url), room_rules=rules) for _ in range(2)]
    for hub in hubs:
        await hub.start()
    peers: list[MemoryClient] = [connect(hub) for hub in hubs for _ in range(2)]
    for peer in peers:
        await peer.client.subscribe("log")
    taken: list[str] = []
    done = asyncio.Event()

    async def publish(name: str, hub: Hub) -> None:
        number = 0
        while not done.is_set():
            number += 1
            try:
                await hub.publish("log", f"{name}{number}")
            except BrokerUnavailable:
                await asyncio.sleep(0.02)
            else:
                taken.append(f"{name}{number}")
            await asyncio.sleep(0.002)

    publishing = [
        asyncio.create_task(publish(name, hub)) for name, hub in zip("ab", hubs, strict=True)
    ]
    await until(lambda: len(taken) > 50)
    watched.primary.kill()
    count = len(taken)
    await until(lambda: len(taken) > count + 50)
    done.set()
    await asyncio.gather(*publishing)
    last = [await hub.publish("log", "last") for hub in hubs]
    assert last[0].position is not None
    await until(lambda: all(list(peer.received).count("last") == 2 for peer in peers))
    assert watched.primary_port() == watched.replica.port
    for peer in peers:
        received: list[Any] = list(peer.received)
        told = [place for place, text in enumerate(received) if str(text).startswith("{")]
        texts = [text for text in received if not str(text).startswith("{")]
        assert len(set(texts)) == len(texts) - 1, "nothing twice, but for the last"
        missing = set(taken) - set(texts)
        assert told, "a new epoch is told"
        after = [text for text in taken[count + 10 :] if text in missing]
        assert not after, "what the successor has taken is not lost"
    assert [peer.closed for peer in peers] == [None] * 4
    for hub in hubs:
        await hub.stop()


async def test_positions_of_the_old_primary_hold_no_more(watched: Watched) -> None:
    """The successor may lack the newest of them, and would give them twice."""
    async with broker_on(watched.url, "red") as (broker, node):
        top = (await broker.publish_kept(message("1"), KEEP)).position
        watched.primary.kill()
        await until(is_away(broker))
        waiting = broker.publish_kept(message("2"), KEEP)
        await until(is_up(broker))
        await asyncio.gather(waiting, return_exceptions=True)
        with pytest.raises(PositionLost) as lost:
            await broker.history("red", since=top)
        assert lost.value.is_other_epoch
        assert node.gaps >= 1


async def test_a_primary_that_is_relieved_by_hand_is_left(watched: Watched) -> None:
    async with broker_on(watched.url, "red") as (broker, node):
        assert (await broker.publish(message("1"))).delivered_to == 1
        await asyncio.to_thread(watched.relieve)
        await until(lambda: watched.primary_port() == watched.replica.port)
        await until(lambda: _place(broker) == watched.replica.port and is_up(broker)())
        assert (await broker.publish(message("2"))).delivered_to == 1
        assert [text for _, text in node.delivered] == ["1", "2"]


async def test_a_primary_that_only_we_can_reach_is_left_too(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(valkey_link, "PLACE_LOOKS", 1)
    async with broker_on(watched.url, "red") as (broker, node):
        link = broker._running.layout.links[0]  # type: ignore[union-attr]
        ports = iter([watched.replica.port])

        async def find() -> tuple[str, int]:
            return "127.0.0.1", next(ports, watched.primary.port)

        monkeypatch.setattr(link.connections._locator, "find", find)
        await until(lambda: node.gaps == 1)
        assert (await broker.publish(message("1"))).delivered_to == 1


def _place(broker: ValkeyBroker) -> int:
    assert broker._running is not None
    return broker._running.layout.links[0].connections.place[1]


async def test_sentinels_with_a_password_and_such_as_know_nothing(tmp_path: Path) -> None:
    watched = Watched(tmp_path, password="word-of-sentinels")
    try:
        found = await Sentinels(read_address(watched.url)).find()
        assert found == ("127.0.0.1", watched.primary.port)
        async with broker_on(watched.url, "red") as (broker, _):
            assert (await broker.publish(message("1"))).delivered_to == 1
            assert "word-of" not in repr(broker)
        other = watched.url.replace(NAME, "other")
        with pytest.raises(BrokerUnavailable, match="knows no primary of that name"):
            await ValkeyBroker(other).start(Node())
        wrong = watched.url.replace("word-of-sentinels", "wrong-word")
        with pytest.raises(BrokerUnavailable, match="refuses the user's name") as caught:
            await ValkeyBroker(wrong).start(Node())
        assert "wrong-word" not in str(caught.value)
    finally:
        watched.stop()
