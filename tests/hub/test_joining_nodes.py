"""Coming back into rooms of one node while another publishes to them: over all that joins nodes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from assigned_rooms import RULES, assert_recovered, assigning, come, lines, take
from broker_hubs import state
from exchange import CLUSTERS, carried, cluster
from hubbub import Hub
from hubbub.brokers import reconnecting
from hubbub.hub.core import core_of
from hubbub.testing import settle
from started_hub import until

pytestmark = pytest.mark.anyio

NUMBERS = list(range(1, 301))
AGAIN = {"code": 100, "message": "try again later", "temporary": True}


async def publish_to(
    rooms: Sequence[str], hub: Hub, draw: random.Random, most_turns: int = 3
) -> None:
    """Publish all numbers to each room, some at once, and so that others have their turns in between."""
    for number in NUMBERS:
        *others, last = draw.sample(rooms, len(rooms))
        for room in others:
            hub.room(room).broadcast(str(number))
        if draw.randrange(4):
            hub.room(last).broadcast(str(number))
        else:  # and no faster than the broker takes it
            await hub.publish(last, str(number))
        await turns(draw.randrange(most_turns + 1))


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", CLUSTERS)
async def test_nothing_is_lost_or_repeated_while_rooms_are_read(kind: str) -> None:
    """One who is away and comes again into three rooms, while much is published to all of them."""
    exchange, draw = CLUSTERS[kind](), random.Random(5)
    rooms = ["log:1", "log:2", "log:3"]
    async with cluster(exchange, room_rules=RULES) as (here, there):
        assigning(there, *rooms)

        positions = {room: await here.cursor(room) for room in rooms}
        got: dict[str, list[int]] = {room: [] for room in rooms}
        publishing = asyncio.create_task(publish_to(rooms, here, draw))
        while not publishing.done():
            peer = await come(there, positions)
            await turns(draw.randrange(30))
            peer.close()
            assert_recovered(peer, rooms)
            take(peer, got, positions)
        await publishing
        await carried(exchange)
        peer = await come(there, positions)
        await carried(exchange)
        await settle(there)
        take(peer, got, positions)
        assert got == dict.fromkeys(rooms, NUMBERS)
        assert core_of(there).recovery.joining_rooms == 0


@pytest.mark.parametrize("kind", ["valkey", "nats"])
async def test_nor_while_both_nodes_lose_their_way_to_the_server_again_and_again(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnecting, "LONGEST_DELAY_S", 0.05)
    exchange, draw = CLUSTERS[kind](), random.Random(5)
    rooms = ["log:1", "log:2", "log:3"]
    async with cluster(exchange, room_rules=RULES) as hubs:
        here, there = hubs
        assigning(there, *rooms)

        async def cut_and_mend() -> None:
            while True:
                number = draw.randrange(2)
                await turns(draw.randrange(300))
                exchange.brokers[number].cut()
                await until(state(hubs[number], "away"))
                exchange.brokers[number].mend()
                await until(state(hubs[number], "up"))

        positions = {room: await here.cursor(room) for room in rooms}
        got: dict[str, list[int]] = {room: [] for room in rooms}
        publishing = asyncio.create_task(publish_to(rooms, here, draw, most_turns=20))
        cutting = asyncio.create_task(cut_and_mend())
        while not publishing.done():
            peer = await come(there, positions)
            await turns(draw.randrange(300))
            peer.close()
            if "connect" in (answer := lines(peer)[0]):
                assert_recovered(peer, rooms)
                take(peer, got, positions)
            else:
                assert answer["error"] == AGAIN
                await until(state(there, "up"))
        await publishing
        cutting.cancel()
        await asyncio.gather(cutting, return_exceptions=True)
        for broker in exchange.brokers:
            broker.mend()
        await carried(exchange)
        peer = await come(there, positions)
        await carried(exchange)
        await settle(there)
        take(peer, got, positions)
        assert got == dict.fromkeys(rooms, NUMBERS)
