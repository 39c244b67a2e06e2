"""Hubs over a broker: a room is followed whatever happens to the server and to the way there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from hubbub import BrokerUnavailable, Hub, RoomRules
from hubbub.cli import hubs_broker
from hubbub.cli.hubs import Message, Note, Start
from hubbub.cli.hubs_broker import BrokerHubs
from hubbub.testing import connect
from tcp_proxy import Proxy
from valkey_server import fresh_prefix, hurry, server_url

pytestmark = pytest.mark.anyio

Items = AsyncGenerator[Message | Note, None]
RULES = [RoomRules("chat:*", history=10, presence=True)]


@asynccontextmanager
async def followed(
    monkeypatch: pytest.MonkeyPatch, room: str, start: Start | None = None
) -> AsyncIterator[tuple[Hub, Items, Proxy]]:
    """Run a hub, and follow a room of it by a way that can be cut."""
    hurry(monkeypatch)
    monkeypatch.setattr(hubs_broker, "LOOK_S", 0.05)
    prefix = f"?prefix={fresh_prefix()}"
    hub = Hub(broker=server_url() + prefix, room_rules=RULES)
    await hub.start()
    proxy = Proxy("127.0.0.1", int(server_url().rpartition(":")[2]))
    await proxy.start()
    items = BrokerHubs(f"valkey://127.0.0.1:{proxy.port}{prefix}", "").follow(
        room, start or Start()
    )
    try:
        yield hub, items, proxy
    finally:
        await items.aclose()
        await proxy.stop()
        await hub.stop()


async def shown(items: Items, count: int) -> list[str | bytes]:
    """Take so many items: the data of messages, and the kinds of notes."""
    async with asyncio.timeout(20):
        found = [await anext(items) for _ in range(count)]
    return [each.kind if isinstance(each, Note) else each.data for each in found]


async def begun(hub: Hub, items: Items, room: str) -> None:
    """Wait until what is published to a room comes."""
    first = asyncio.ensure_future(anext(items))
    while not first.done():
        await hub.publish(room, "begin")
        await asyncio.sleep(0.01)
    await first


async def test_a_room_that_remembers_loses_nothing_while_the_way_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with followed(monkeypatch, "chat:1", Start(newest=2)) as (hub, items, proxy):
        for number in range(3):
            await hub.publish("chat:1", str(number))
        assert await shown(items, 2) == ["1", "2"]
        await hub.publish("chat:1", b"\x00")
        assert await shown(items, 1) == [b"\x00"]
        proxy.cut()
        assert await shown(items, 1) == ["away"]
        for number in range(4, 9):
            await hub.publish("chat:1", str(number))
        proxy.mend()
        found = await shown(items, 6)
        assert [each for each in found if each != "back"] == ["4", "5", "6", "7", "8"]
        await hub.publish("chat:1", "last")
        assert await shown(items, 1) == ["last"]


async def test_what_a_room_did_not_keep_so_long_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    async with followed(monkeypatch, "chat:1", Start(newest=1)) as (hub, items, proxy):
        await hub.publish("chat:1", "first")
        assert await shown(items, 1) == ["first"]
        proxy.cut()
        assert await shown(items, 1) == ["away"]
        for number in range(12):
            await hub.publish("chat:1", str(number))
        proxy.mend()
        found = await shown(items, 12)
        assert [each for each in found if each != "back"] == ["gap", *map(str, range(2, 12))]


async def test_a_room_without_a_history_says_that_something_may_be_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with followed(monkeypatch, "news") as (hub, items, proxy):
        await begun(hub, items, "news")
        proxy.cut()
        while "away" not in await shown(items, 1):
            pass
        await hub.publish("news", "lost")
        proxy.mend()
        assert sorted(map(str, await shown(items, 2))) == ["back", "gap"]
        await hub.publish("news", "last")
        assert await shown(items, 1) == ["last"]


async def test_who_comes_and_goes_is_no_message_and_nobody_learns_of_a_follower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with followed(monkeypatch, "chat:1") as (hub, items, _):
        await begun(hub, items, "chat:1")
        connect(hub, user="ann").client.join("chat:1")
        while (await hub.presence_stats("chat:1")).clients < 1:
            await asyncio.sleep(0.01)
        assert len(await hub.nodes(wait_s=0.2)) == 1
        assert hub.rooms == {"chat:1": 1}
        await hub.publish("chat:1", "end")
        while (await shown(items, 1)) == ["begin"]:
            pass


async def test_more_than_can_wait_is_left_out_and_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hubs_broker, "MOST_WAITING", 3)
    async with followed(monkeypatch, "chat:1", Start(newest=1)) as (hub, items, _):
        await hub.publish("chat:1", "first")
        assert await shown(items, 1) == ["first"]
        for number in range(8):  # while nobody takes
            await hub.publish("chat:1", str(number))
        assert await shown(items, 8) == list(map(str, range(8)))


async def test_a_broker_that_was_never_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async with followed(monkeypatch, "chat:1") as (_, items, proxy):
        proxy.cut()
        with pytest.raises(BrokerUnavailable):
            await anext(items)
