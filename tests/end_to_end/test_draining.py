"""A rolling restart of two processes' worth of hub behind one address: who is closed resumes on the other.

The two hubs are nodes of one exchange, so rooms that remember are the same in both. A small proxy stands for
the load balancer: it sends a new connection to a hub that is ready. What must not live here: the drain
itself, by a clock of the test (hub/test_lifecycle_drain); signals (cli/test_worker).
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from centrifuge_app import make_app, make_hub
from exchange import Exchange
from hubbub import Hub, connect
from hubbub.errors import retry_after_of
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.hub.lifecycle import State
from places import SOURCE
from serving import PATIENCE_S, Served, serve, take, take_to_the_end, until
from tcp_proxy import pass_on

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

ROOM = "chat:rolling"
EACH = 6
"""How many clients of each kind there are."""
PAUSE_S = 0.04
"""How long after a message the next one is published: a client that was cut three times in a few seconds stays away for
several, and the room keeps 500."""
SCRIPT = Path(__file__).parent / "js" / "storm.mjs"
PLAIN_SCRIPT = Path(__file__).parent / "js" / "plain.mjs"
DRAINING: dict[str, Any] = {"drain_s": 0.4, "shutdown_timeout_s": 10}


@pytest.fixture(params=[True, False], ids=["native", "portable"])
def native(request: pytest.FixtureRequest) -> bool:
    """Run a test on both transports."""
    return bool(request.param)


class Balancer:
    """One address for several hubs: a new connection goes to one that is ready, in turn."""

    def __init__(self) -> None:
        self.backends: dict[Hub, Served] = {}
        self.port = 0
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Balancer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def choose(self) -> Served | None:
        """Return a server whose readiness is up."""
        ready = [
            server
            for hub, server in self.backends.items()
            if core_of(hub).lifecycle.state is State.RUNNING
        ]
        self._turn += 1
        return ready[self._turn % len(ready)] if ready else None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        server = self.choose()
        try:
            if server is not None:
                there = await asyncio.open_connection("127.0.0.1", server.port)
                await asyncio.gather(pass_on(reader, there[1]), pass_on(there[0], writer))
        except OSError:
            pass
        finally:
            writer.transport.abort()


class Rolling:
    """Two hubs of one exchange, each with a server, behind a balancer."""

    def __init__(self, native: bool, **settings: Any) -> None:
        exchange = Exchange()
        self.hubs = [make_hub(broker=exchange.broker(), **settings) for _ in range(2)]
        self.balancer = Balancer()
        self._native = native
        self._ends: dict[Hub, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def base(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self.balancer.port}"

    async def start(self, hub: Hub) -> None:
        """Start a server for a hub, as a new process would."""
        begun, end = asyncio.Event(), asyncio.Event()
        self._ends[hub] = end
        self._tasks.append(asyncio.create_task(self._run(hub, begun, end)))
        await asyncio.wait_for(begun.wait(), PATIENCE_S)

    async def _run(self, hub: Hub, begun: asyncio.Event, end: asyncio.Event) -> None:
        async with serve(make_app(hub), native=self._native) as server:
            self.balancer.backends[hub] = server
            begun.set()
            await end.wait()
            await hub.drain()
            del self.balancer.backends[hub]

    async def stop(self, hub: Hub) -> None:
        """Drain a hub and stop its server."""
        self._ends[hub].set()
        await until(lambda: core_of(hub).lifecycle.state is State.STOPPED, "the hub's end")


@asynccontextmanager
async def rolling(native: bool, **settings: Any) -> AsyncIterator[Rolling]:
    world = Rolling(native, **settings)
    async with world.balancer:
        for hub in world.hubs:
            await world.start(hub)
        try:
            yield world
        finally:
            for end in world._ends.values():
                end.set()
            await asyncio.gather(*world._tasks)


async def start_node(script: Path, *arguments: str) -> asyncio.subprocess.Process:
    node = shutil.which("node")
    if node is None:
        pytest.fail("node is not on the PATH; these tests need Node.js 18 or newer")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        node, str(script), *arguments, stdin=pipe, stdout=pipe, stderr=pipe
    )
    assert process.stdout is not None
    first = await asyncio.wait_for(process.stdout.readline(), 60)
    assert first == b"ready\n"
    return process


async def publish(world: Rolling, over: asyncio.Event) -> int:
    """Publish by whichever hub runs, until it is over; return how many messages that were."""
    number = 0
    while not over.is_set():
        await next_hub(world).publish(ROOM, number)
        number += 1
        await asyncio.sleep(PAUSE_S)
    return number


def next_hub(world: Rolling) -> Hub:
    """Return a hub that takes publications for all."""
    return next(hub for hub in world.hubs if core_of(hub).lifecycle.state is State.RUNNING)


async def test_a_rolling_restart_loses_nothing_in_rooms_that_remember(native: bool) -> None:
    async with rolling(native, **DRAINING) as world, AsyncExitStack() as stack:
        rooms_js = str(SOURCE / "static" / "rooms.js")
        numbers = (str(EACH), rooms_js, str(EACH))
        process = await start_node(SCRIPT, world.base, ROOM, *numbers)
        ours = []
        for number in range(EACH):
            url, token = f"ws://{world.base}/connection/websocket", f"ours{number}"
            made = connect(url, dialect="centrifuge", token=token, proxy=None)
            connection = await stack.enter_async_context(made)
            room = await stack.enter_async_context(connection.subscribe(ROOM))
            ours.append(asyncio.create_task(take_to_the_end(room)))
        over = asyncio.Event()
        publishing = asyncio.create_task(publish(world, over))
        for hub in world.hubs:
            assert len(hub) > 0, "both have clients, so both restarts are of somebody"
            other = next(each for each in world.hubs if each is not hub)
            await world.stop(hub)
            await all_on(other, 3 * EACH)
            await world.start(hub)
            await balance(world, hub, other)
        over.set()
        count = await publishing
        await world.hubs[0].publish(ROOM, "the end")
        assert process.stdout is not None
        printed = await asyncio.wait_for(process.stdout.readline(), 60)
        await process.communicate()
        got = await asyncio.wait_for(asyncio.gather(*ours), 60)
    everything = list(range(count))
    in_node = json.loads(printed)
    assert [each["kind"] for each in in_node] == ["npm"] * EACH + ["rooms.js"] * EACH
    for each in in_node:
        assert each["got"] == everything
        assert (each["ended"], each["lost"]) == (None, 0)
        assert each["recovered"] >= 1
    assert got == [everything] * EACH
    refused = [core_of(hub).stats.recoveries_refused for hub in world.hubs]
    assert refused == [0, 0]


async def all_on(hub: Hub, count: int) -> None:
    """Wait until a hub has all clients."""
    await until(lambda: len(hub) == count, "all on the other one")


async def balance(world: Rolling, fresh: Hub, full: Hub) -> None:
    """Cut half of the clients of one hub, as a balancer does that evens out: some come to the other."""
    for client in list(full)[::2]:
        session_of(client).transport.abort()
    await until(lambda: len(fresh) > 0 and len(fresh) + len(full) == 3 * EACH, "a balance")


async def test_plain_clients_come_to_the_other_process(native: bool) -> None:
    """`hubbub.js` and the Python client: they miss what was said meanwhile, and are told 1012."""
    async with rolling(native, **DRAINING) as world:
        first, second = world.hubs
        script = str(SOURCE / "static" / "hubbub.js")
        process = await start_node(PLAIN_SCRIPT, script, f"ws://{world.base}/ws", "2")
        async with connect(f"ws://{world.base}/ws", proxy=None) as ours:
            await until(lambda: len(first) + len(second) == 3)
            await world.stop(first)
            await until(lambda: len(second) == 3, "all on the other one")
            second.broadcast("hello again")
            assert await asyncio.wait_for(anext(aiter(ours)), PATIENCE_S) == "hello again"
            out, errors = await asyncio.wait_for(process.communicate(), 60)
        closes = json.loads(out)
        assert all(code == 1012 for code, _ in closes), errors
        await world.start(first)


async def test_each_client_is_told_and_waits_at_least_so_long(native: bool) -> None:
    """With a time to come back that no test would wait for: nobody has tried before."""
    hub = make_hub(come_back_s=900, drain_s=0.1)
    static = SOURCE / "static"
    async with serve(make_app(hub), native=native) as server, AsyncExitStack() as stack:
        url = server.ws("/connection/websocket")
        in_node = {
            1012: await start_node(
                PLAIN_SCRIPT, str(static / "hubbub.js"), server.ws(), "1", "delay"
            ),
            3001: await start_node(PLAIN_SCRIPT, str(static / "rooms.js"), url, "1", "delay"),
        }
        ours = await stack.enter_async_context(connect(server.ws(), proxy=None))
        rooms = await stack.enter_async_context(
            connect(url, dialect="centrifuge", token="ann", proxy=None)
        )
        raw = await stack.enter_async_context(server.connect())
        await until(lambda: len(hub) == 5)
        await hub.drain()
        for connection in (ours, rooms):
            while connection.state != "waiting":
                await asyncio.sleep(0.001)
            assert connection.retry_in_s is not None
            assert 900 < connection.retry_in_s < 905
        assert ours.last_close is not None
        assert rooms.last_close is not None
        assert (ours.last_close.code, rooms.last_close.code) == (1012, 3001)
        with pytest.raises(Exception, match="retry after") as caught:
            await take(raw, 1)
        assert 900 <= retry_after_of(caught.value.rcvd.reason) <= 900.1  # type: ignore[attr-defined]
        with pytest.raises(InvalidStatus) as refused:
            await server.connect()
        answer = refused.value.response
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "900")
        for expected, process in in_node.items():
            out, errors = await asyncio.wait_for(process.communicate(), 60)
            ((code, delay_ms),) = json.loads(out)
            assert code == expected, errors
            assert 900_000 < delay_ms < 905_000
