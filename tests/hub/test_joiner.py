"""Joiner: what one who joins is given, while histories lag behind and publications come all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from exchange import Exchange, carried, cluster
from hubbub import CommandError, Hub, Position, RoomRules
from hubbub.brokers.broker import History
from hubbub.hub import joiner as joiner_module
from hubbub.hub import recovery as recovery_module
from hubbub.hub.core import core_of
from hubbub.testing import connect, settle
from started_hub import until

pytestmark = pytest.mark.anyio

RULES = [RoomRules("red", history=100)]


def lagging(hub: Hub, reads: int, shown: int) -> None:
    """Have the first so many reads of a hub show a history only up to an offset."""
    broker: Any = core_of(hub).broker
    read = broker.history
    left = reads

    async def history(room: str, **options: Any) -> Any:
        nonlocal left
        page = await read(room, **options)
        if left:
            left -= 1
            found = [each for each in page.publications if each.position.offset <= shown]
            page = History(found, Position(shown, page.position.epoch))
        return page

    broker.history = history


async def publish(hub: Hub, texts: Sequence[str]) -> None:
    for text in texts:
        await hub.publish("red", text)


@pytest.mark.parametrize("reads", [1, 5])
async def test_a_history_that_lags_behind_is_read_until_it_has_what_came(
    monkeypatch: pytest.MonkeyPatch, reads: int
) -> None:
    monkeypatch.setattr(recovery_module, "RETRY_S", 0.001)
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (here, there):
        member = connect(there)
        await member.client.subscribe("red")
        await publish(here, "1")
        await carried(exchange)
        with exchange.losing(1):
            for text in "23":
                here.room("red").broadcast(text)
        lagging(there, reads, 1)
        await publish(here, "4")  # and nothing more is published
        await until(lambda: len(member.received) == 4)
        assert member.received == list("1234")


async def test_a_history_that_never_has_what_came_ends_in_a_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery_module, "RETRY_S", 0.001)
    monkeypatch.setattr(recovery_module, "MOST_VAIN_READS", 3)
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (here, there):
        member = connect(there)
        await member.client.subscribe("red")
        await publish(here, "1")
        await carried(exchange)
        lagging(there, 10**9, 1)
        with exchange.losing(1):
            here.room("red").broadcast("2")
        await publish(here, "3")
        await until(lambda: len(member.received) == 2)
        await publish(here, "4")
        await carried(exchange)
        await settle(there)
        assert member.received == ["1", '{"type":"gap","room":"red"}', "4"]


async def test_who_joins_while_more_comes_than_is_written_down_reads_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(joiner_module, "MOST_NOTED", 2)
    exchange = Exchange(late_turns=10)
    async with cluster(exchange, room_rules=RULES) as (here, there):
        start = await there.cursor("red")
        peer = connect(there)
        joining = asyncio.create_task(peer.client.subscribe("red", since=start))
        for number in range(40):
            here.room("red").broadcast(str(number))
            for _ in range(1 if number < 10 else 40):
                await asyncio.sleep(0)
        answer = await joining
        await carried(exchange)
        await settle(there)
        assert answer.recovered
        assert peer.received == [str(number) for number in range(40)]


async def test_who_joins_a_room_that_loses_all_the_time_may_try_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(joiner_module, "MOST_NOTED", 0)
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (here, there):
        member = connect(there)
        await member.client.subscribe("red")

        async def publish_on() -> None:
            while True:
                here.room("red").broadcast("x")
                await asyncio.sleep(0)

        publishing = asyncio.create_task(publish_on())
        with pytest.raises(CommandError, match="unavailable"):
            await connect(there).client.subscribe("red", since=await there.cursor("red"))
        publishing.cancel()
        assert core_of(there).recovery.joining_rooms == 0
