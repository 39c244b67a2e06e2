"""Rooms that never had a publication: their positions stay while somebody is there, and no longer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker_node import KEEP, message, valkey_on
from hubbub import BrokerUnavailable
from hubbub.brokers import valkey_unused
from hubbub.brokers.valkey_unused import UnusedRooms
from started_hub import until
from valkey_server import client_of, fresh_prefix, server_url

pytestmark = pytest.mark.anyio


async def test_each_is_asked_for_until_it_is_used_or_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(valkey_unused, "ASK_S", 0.001)
    asked: list[str] = []

    async def ask(room: str) -> None:
        asked.append(room)
        if room == "used":
            rooms.note(room, is_kept=False)
        if room == "away":
            raise BrokerUnavailable("away")

    rooms = UnusedRooms(ask)
    for room in ("used", "left", "away", "here"):
        rooms.note(room, is_kept=True)
    rooms.leave(["left"])
    rooms.start()
    await until(lambda: asked.count("here") > 2 and asked.count("away") > 2)
    await rooms.stop()
    assert (asked.count("used"), asked.count("left")) == (1, 0)


async def test_some_are_asked_for_at_once_and_each_once() -> None:
    asked: list[str] = []
    most = on_way = 0

    async def ask(room: str) -> None:
        nonlocal most, on_way
        on_way += 1
        most = max(most, on_way)
        asked.append(room)
        await asyncio.sleep(0)
        on_way -= 1

    rooms = UnusedRooms(ask)
    names = [f"r{number}" for number in range(100)]
    for name in names:
        rooms.note(name, is_kept=True)
    await rooms.ask_all()
    assert sorted(asked) == sorted(names)
    assert most == valkey_unused.AT_ONCE


async def test_the_position_of_a_room_with_members_stays() -> None:
    prefix = fresh_prefix()
    async with valkey_on(server_url(), "red", prefix=prefix) as (broker, _):
        client: Any = client_of(broker)
        assert broker._running is not None
        unused = broker._running.unused
        red, blue = broker._names.key("red", "h"), broker._names.key("blue", "h")
        cursor = (await broker.history("red")).position
        await broker.history("blue")
        for key in (red, blue):
            await client.pexpire(key, 60_000)
        await unused.ask_all()
        assert await client.pttl(red) > 60_000
        assert await client.pttl(blue) <= 60_000, "nobody is there"
        await broker.publish_kept(message("1", "red"), KEEP)
        assert [each.data for each in (await broker.history("red", since=cursor)).publications] == [
            b"1"
        ]
        await client.pexpire(red, 60_000)
        await unused.ask_all()
        assert await client.pttl(red) <= 60_000, "it is asked for no more"
