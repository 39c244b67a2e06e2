"""SDKs and rooms.js whose sockets take nothing for a while: what was dropped meanwhile comes again, all of it once."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from centrifuge_app import make_app, make_hub
from end_to_end.playing import CENTRIFUGE, ROOMS, Events, Player, Script, of
from end_to_end.python_sdk import enter, sdk
from hubbub import Hub
from hubbub.connection import Subscription, connect
from serving import Served, serve, until
from tcp_proxy import Proxy

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

ROOM = "slow:1"
"""A room whose rule has `drop_oldest`."""
FILL_BYTES = 12 * 1024
MOST = 4000
"""So many messages no kernel keeps between two sockets."""


@pytest.fixture(params=["native", "portable"])
async def passage(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Hub, Proxy]]:
    """Give a hub whose outboxes are small, and the way to it."""
    hub = make_hub(outbox_max_entries=16)
    async with serve(make_app(hub), native=request.param == "native") as server:
        proxy = Proxy("127.0.0.1", server.port)
        await proxy.start()
        try:
            yield hub, proxy
        finally:
            await proxy.stop()


async def overwhelm(hub: Hub, proxy: Proxy) -> int:
    """Publish while nothing passes, until something is dropped, and once more; return how many there were."""
    await until(lambda: hub.rooms == {ROOM: 1})
    proxy.hold()
    chance, count = random.Random(7), 0
    while not hub.stats()["dropped"]:
        count += 1
        assert count < MOST, "the socket takes all that there is"
        fill = base64.b64encode(
            chance.randbytes(FILL_BYTES)
        ).decode()  # nothing that deflates to nothing
        await hub.publish(ROOM, {"n": count, "fill": fill})
        await asyncio.sleep(0)
    proxy.release()
    await hub.publish(ROOM, {"n": count + 1, "is_last": True})
    return count + 1


@pytest.mark.parametrize("script", [CENTRIFUGE, ROOMS], ids=["npm", "rooms.js"])
async def test_in_javascript(passage: tuple[Hub, Proxy], player: Player, script: Script) -> None:
    hub, proxy = passage

    async def play() -> Events:
        return await player(script, Served(None, proxy.port), "slow")

    async with asyncio.TaskGroup() as group:
        playing = group.create_task(play())
        count = await overwhelm(hub, proxy)
    events = playing.result()
    assert [number for _, number in of(events, "publication")] == [*range(1, count + 1)]
    codes = [event[1:] for event in of(events, "subscribing")]
    assert codes == ([[0], [2500]] if script is CENTRIFUGE else [[], []])
    assert [event[1:] for event in of(events, "subscribed")] == [[False, False], [True, True]]
    assert of(events, "gap", "disconnected", "close") == []
    assert hub.stats()["slow_disconnects"] == 0


async def test_in_python(passage: tuple[Hub, Proxy]) -> None:
    hub, proxy = passage
    async with sdk(Served(None, proxy.port), "sam") as (client, connection):
        _, noting = await enter(client, ROOM)
        count = await overwhelm(hub, proxy)
        await until(lambda: bool(noting.got) and noting.got[-1][1] == count)
        assert [data["n"] for data, _ in noting.got] == [*range(1, count + 1)]
        assert noting.codes == [("subscribing", 0), ("subscribing", 2500)]
        assert noting.recovered == [(False, False), (True, True)]
        assert connection.codes == [("connecting", 0)]


async def test_in_the_client_of_the_package(passage: tuple[Hub, Proxy]) -> None:
    hub, proxy = passage
    url = Served(None, proxy.port).ws("/connection/websocket")
    got: list[int] = []

    async def read(room: Subscription[Any]) -> None:
        async for message in room:
            got.append(message.data["n"])
            if "is_last" in message.data:
                break

    async with (
        connect(url, dialect="centrifuge", token="sam", proxy=None) as connection,
        connection.subscribe(ROOM) as room,
    ):
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(read(room))
            count = await overwhelm(hub, proxy)
        assert got == [*range(1, count + 1)]
        assert hub.stats()["recoveries"] == 1
        assert hub.stats()["total_clients"] == 1
