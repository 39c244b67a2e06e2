"""What is published, and who gets it: broadcasts, rooms, users, tickers; on every transport."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import json
import threading
from typing import Any

import msgspec
import pydantic
import pytest
from websockets.exceptions import ConnectionClosed

from hubbub import Client, Hub, HubNotRunning
from serving import PATIENCE_S, take, until, venue

pytestmark = pytest.mark.anyio


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Note(msgspec.Struct):
    text: str
    at: datetime.datetime


class Model(pydantic.BaseModel):
    name: str
    tags: set[str] = set()


async def test_s02_broadcast_takes_whatever_an_application_has(way: str) -> None:
    hub = Hub()
    moment = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.UTC)
    async with venue(hub, way) as here:
        one, two = await here.crowd(2)
        for data in ("text", b"\x00\xff", bytearray(b"ba"), memoryview(b"mv")):
            hub.broadcast(data)
        for value in ({"a": [1, None]}, [1, 2], 7, Point(1, 2), Note("n", moment), Model(name="m")):
            hub.broadcast(value)
        for socket in (one, two):
            got = await take(socket, 10)
            assert got[:4] == ["text", b"\x00\xff", b"ba", b"mv"]
            assert [json.loads(text) for text in got[4:]] == [
                {"a": [1, None]},
                [1, 2],
                7,
                {"x": 1, "y": 2},
                {"text": "n", "at": "2026-11-23T12:00:00Z"},
                {"name": "m", "tags": []},
            ]
    with pytest.raises(TypeError, match="object"):
        hub.broadcast(object())


async def test_s02_broadcast_may_be_called_from_any_thread(way: str) -> None:
    hub = Hub()
    async with venue(hub, way) as here:
        sockets = await here.crowd(3)

        def talk(name: str) -> None:
            for number in range(200):
                hub.broadcast(f"{name} {number}")

        threads = [threading.Thread(target=talk, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        await asyncio.to_thread(talk, "d")
        for socket in sockets:
            got = await take(socket, 800)
            for name in "abcd":
                mine = [text for text in got if str(text).startswith(name)]
                assert mine == [f"{name} {number}" for number in range(200)]
        for thread in threads:
            thread.join(PATIENCE_S)


async def test_s02_broadcast_without_clients_is_no_error_and_without_a_running_hub_is_one(
    way: str,
) -> None:
    hub = Hub()
    with pytest.raises(HubNotRunning, match="runs in no event loop of this process"):
        hub.broadcast("nobody")
    async with venue(hub, way):
        hub.broadcast("nobody")
    with pytest.raises(HubNotRunning, match="has stopped"):
        hub.broadcast("nobody")


async def test_s06_without_a_handler_messages_go_to_everybody(way: str) -> None:
    hub = Hub()
    async with venue(hub, way) as here:
        one, two = await here.crowd(2)
        await one.send("text")
        await one.send(b"\x00binary")
        assert await take(one, 2) == ["text", b"\x00binary"]
        assert await take(two, 2) == ["text", b"\x00binary"]


async def test_s10_tickers_run_and_never_overlap(way: str) -> None:
    hub = Hub()
    running = 0
    ticks: list[str] = []

    @hub.every(0.01)
    async def slow() -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.03)
        running -= 1
        ticks.append("slow")

    @hub.every(0.01)
    def broken() -> None:
        ticks.append("broken")
        raise RuntimeError("on purpose")

    @hub.every(0.01, while_connected=True)
    def wanted() -> None:
        ticks.append("wanted")
        hub.broadcast("tick")

    async with venue(hub, way) as here:
        await until(lambda: ticks.count("slow") > 2 and ticks.count("broken") > 2)
        assert "wanted" not in ticks
        socket = await here.join()
        assert await take(socket, 2) == ["tick", "tick"]
    count = len(ticks)
    await asyncio.sleep(0.05)
    assert len(ticks) == count


async def test_s21_rooms_deliver_to_their_members_but_not_to_who_is_excluded(way: str) -> None:
    hub = Hub()

    @hub.on("join")
    def join(client: Client, message: dict[str, Any]) -> None:
        client.join(message["room"])
        hub.room(message["room"]).broadcast("somebody joined", exclude=client)
        client.send("welcome")

    async with venue(hub, way) as here:
        one, two, three = await here.crowd(3)
        await one.send('{"type":"join","room":"red"}')
        assert await take(one, 1) == ["welcome"]
        await two.send('{"type":"join","room":"red"}')
        assert await take(two, 1) == ["welcome"]
        assert await take(one, 1) == ["somebody joined"]
        assert len(hub.room("red")) == 2
        assert hub.rooms == {"red": 2}
        hub.room("red").broadcast("to red")
        hub.room("blue").broadcast("to nobody")
        receipt = await hub.publish("red", "to red again")
        assert receipt.delivered_to == 2
        hub.broadcast("to all")
        assert await take(one, 3) == await take(two, 3) == ["to red", "to red again", "to all"]
        assert await take(three, 1) == ["to all"]
        await one.close()
        await until(lambda: len(hub.room("red")) == 1)
        await two.close()
        await until(lambda: hub.rooms == {})


async def test_s21_to_user_reaches_all_of_a_users_clients(way: str) -> None:
    hub = Hub()
    hub.authenticate(lambda handshake: handshake.query["user"])
    async with venue(hub, way) as here:
        phone = await here.join("/ws?user=ann")
        laptop = await here.join("/ws?user=ann")
        bob = await here.join("/ws?user=bob")
        hub.to_user("ann").send("for ann")
        hub.to_user("nobody").send("for nobody")
        hub.broadcast("for all")
        assert await take(phone, 2) == await take(laptop, 2) == ["for ann", "for all"]
        assert await take(bob, 1) == ["for all"]
        assert hub.disconnect("ann", reason="out") == 2
        for socket in (phone, laptop):
            with pytest.raises(ConnectionClosed):
                await take(socket, 1)
            assert (socket.close_code, socket.close_reason) == (3503, "out")
        assert len(hub) == 1
