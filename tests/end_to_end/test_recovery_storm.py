"""Connections are cut at random while fifty messages a second are published: nobody misses one, or gets one
twice, and nobody is disconnected for good. `RECOVERY_STORM_S` says for how many seconds (20).

The clients are the npm SDK, rooms.js, the Python SDK and the Python client of the package.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from centrifuge import (  # type: ignore[import-untyped]
    Client,
    PublicationContext,
    SubscribedContext,
    SubscriptionEventHandler,
)

from centrifuge_app import make_app, make_hub
from hubbub import Hub, connect
from hubbub.connection import State
from hubbub.hub.client import session_of
from places import SOURCE
from serving import Served, serve, take_to_the_end, until

SECONDS = float(os.environ.get("RECOVERY_STORM_S", "20"))
RATE = 50
SDK_JS, ROOMS_JS, SDK_PYTHON, OURS = 80, 40, 40, 40
CUTS_A_TICK = 2
TICK_S = 0.1
ROOM = "chat:storm"
SCRIPT = Path(__file__).parent / "js" / "storm.mjs"
ROOMS_SCRIPT = SOURCE / "static" / "rooms.js"

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(SECONDS + 120)]


class Seen(SubscriptionEventHandler):  # type: ignore[misc]
    """What one client of the Python SDK got."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.recovered = self.lost = 0
        self.is_done = False

    async def on_publication(self, ctx: PublicationContext) -> None:
        if ctx.pub.data == "the end":
            self.is_done = True
        else:
            self.got.append(ctx.pub.data)

    async def on_subscribed(self, ctx: SubscribedContext) -> None:
        if ctx.was_recovering:
            self.recovered += ctx.recovered
            self.lost += not ctx.recovered


async def start_node(server: Served) -> asyncio.subprocess.Process:
    node = shutil.which("node")
    if node is None:
        pytest.fail("node is not on the PATH; these tests need Node.js 18 or newer")
    rooms_js = (str(ROOMS_SCRIPT), str(ROOMS_JS))
    arguments = (str(SCRIPT), f"127.0.0.1:{server.port}", ROOM, str(SDK_JS), *rooms_js)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        node, *arguments, stdout=pipe, stderr=pipe, limit=64 * 1024**2
    )
    assert process.stdout is not None
    first = await asyncio.wait_for(process.stdout.readline(), 60)
    assert first == b"ready\n"
    return process


async def start_python(server: Served) -> tuple[list[Client], list[Seen]]:
    clients, seen = [], [Seen() for _ in range(SDK_PYTHON)]
    for number, each in enumerate(seen):
        client = Client(
            server.ws("/connection/websocket"),
            token=f"py{number}",
            min_reconnect_delay=0.02,
            max_reconnect_delay=0.2,
        )
        subscription = client.new_subscription(
            ROOM, events=each, min_resubscribe_delay=0.02, max_resubscribe_delay=0.2
        )
        clients.append(client)
        await client.connect()
        await subscription.subscribe()
        await subscription.ready(timeout=20)
    return clients, seen


@asynccontextmanager
async def reading(
    server: Served, states: list[State]
) -> AsyncIterator[list[asyncio.Task[list[Any]]]]:
    """Have clients of ours in the room, each with a task that reads it; note all their states."""
    url = server.ws("/connection/websocket")
    delays: dict[str, Any] = {"min_delay_s": 0.02, "max_delay_s": 0.2, "proxy": None}
    async with AsyncExitStack() as stack:
        rooms = []
        for number in range(OURS):
            token = f"ours{number}"
            made = connect(url, dialect="centrifuge", token=token, on_state=states.append, **delays)
            connection = await stack.enter_async_context(made)
            rooms.append(await stack.enter_async_context(connection.subscribe(ROOM)))
        yield [asyncio.create_task(take_to_the_end(room)) for room in rooms]


async def publish(hub: Hub) -> int:
    """Publish `RATE` messages for each of so many seconds; return how many that were.

    Each goes when it is due. After a delay those that are due go at once, so none is left out on a busy machine.
    """
    loop = asyncio.get_running_loop()
    began, count = loop.time(), round(RATE * SECONDS)
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / RATE - loop.time()))
        await hub.publish(ROOM, number)
    return count


async def cut(hub: Hub, chance: random.Random) -> None:
    """Cut random clients, until this is cancelled."""
    while True:
        await asyncio.sleep(TICK_S)
        clients = list(hub)
        for client in chance.sample(clients, min(CUTS_A_TICK, len(clients))):
            session_of(client).transport.abort()


async def test_cut_at_random_everybody_has_everything_once_and_in_order() -> None:
    hub = make_hub()
    states: list[State] = []
    async with serve(make_app(hub)) as server, AsyncExitStack() as stack:
        process = await start_node(server)
        clients, seen = await start_python(server)
        ours = await stack.enter_async_context(reading(server, states))
        cutting = asyncio.create_task(cut(hub, random.Random(5)))
        count = await publish(hub)
        cutting.cancel()
        await asyncio.gather(cutting, return_exceptions=True)
        await hub.publish(ROOM, "the end")
        assert process.stdout is not None
        printed = await asyncio.wait_for(process.stdout.readline(), 60)
        await process.wait()
        await until(lambda: all(each.is_done for each in seen), "the Python SDK")
        got_by_ours = await asyncio.wait_for(asyncio.gather(*ours), 60)
        for client in clients:
            await client.disconnect()
        stats = hub.stats()
    in_node = json.loads(printed)
    assert count == round(50 * SECONDS), "fifty a second"
    everything = list(range(count))
    kinds = [each["kind"] for each in in_node]
    assert (kinds.count("npm"), kinds.count("rooms.js")) == (SDK_JS, ROOMS_JS)
    assert got_by_ours == [everything] * OURS
    for each in in_node:
        assert each["got"] == everything
        assert (each["ended"], each["lost"]) == (None, 0)
    for one in seen:
        assert one.got == everything
        assert one.lost == 0
    recovered = sum(each["recovered"] for each in in_node) + sum(one.recovered for one in seen)
    assert recovered > SECONDS * CUTS_A_TICK
    assert states.count("open") > OURS + SECONDS * CUTS_A_TICK / 4
    assert stats["recoveries_refused"] == 0
    assert stats["handler_errors"] == 0
