"""Loads on real servers, with worker processes: what is assumed, counted, and said of failures."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_plainly

from hubbub import Client, Handshake, Hub, Refused
from hubbub.bench.ipc import Plan
from hubbub.bench.result import Result
from hubbub.bench.run import Bench, BenchFailed, Snapshot, allow_files
from serving import nothing, serve, until
from stress.ports import free_port

pytestmark = pytest.mark.anyio

SHORT: dict[str, Any] = {"clients": 4, "seconds": 0.4, "warm_s": 0.1}


async def load(url: str, watch: Callable[[Snapshot], None] | None = None, **plan: Any) -> Result:
    """Run a short load to its end."""
    bench = Bench(Plan(url=url, **{**SHORT, **plan}), watch or (lambda snapshot: None))
    await bench.run()
    result = bench.result()
    assert result is not None
    assert not result.interrupted
    return result


async def load_on(hub: Hub, path: str = "/ws", **plan: Any) -> Result:
    """Put a short load on a hub."""
    async with serve(hub.mount(nothing)) as served:
        return await load(served.ws(path), **{"patience_s": 20.0, **plan})


def chat() -> Hub:
    """Return a hub whose messages carry the name of who said them, as JSON."""
    hub = Hub()

    @hub.on_message
    def said(client: Client, text: str) -> None:
        hub.broadcast({"by": client.id, "text": text})

    return hub


async def test_a_broadcast_in_a_closed_loop() -> None:
    seen: list[Snapshot] = []
    result = await load_on(chat(), watch=seen.append)
    assert result.expect == "room"
    assert (result.clients, result.publishers, result.loop) == (4, 1, "closed")
    assert result.sent > 0
    assert result.delivered == 4 * result.sent
    assert (result.lost, result.duplicated, result.reordered, result.stray) == (0, 0, 0, 0)
    assert (result.damaged, result.others, result.disconnected) == (0, 0, {})
    assert result.connects_per_second is not None
    assert result.deliveries_per_second is not None
    latencies = [value for value in result.latency_ms.values() if value is not None]
    assert len(latencies) == 5
    assert latencies == sorted(latencies)
    assert latencies[0] > 0
    stages = [stage for stage, _ in itertools.groupby(seen, lambda snapshot: snapshot.stage)]
    assert stages == [
        *("connecting", "warming up", "waiting for the last"),
        *("measuring", "waiting for the last", "done"),
    ]
    assert all(0 <= snapshot.share <= 1 for snapshot in seen)
    assert seen[-1].counters.delivered == result.delivered


async def test_an_open_loop_over_two_processes() -> None:
    result = await load_on(chat(), rate=100.0, publishers=3, processes=2, clients=5)
    assert (result.loop, result.publishers, result.sent) == ("open", 3, 40)
    assert (result.delivered, result.lost, result.fell_behind) == (200, 0, 0)
    assert len(result.processes) == 2
    assert result.limited_by in ("rate", "generator")  # the test's machine may be busy


async def test_an_echo_makes_everybody_a_publisher() -> None:
    hub = Hub()

    @hub.on_message
    def said(client: Client, text: str) -> None:
        client.send(text)

    result = await load_on(hub, expect="self")
    assert (result.expect, result.publishers) == ("self", 4)
    assert result.delivered == result.sent > 0
    assert (result.lost, result.stray) == (0, 0)


def rooms() -> Hub:
    hub = Hub()

    @hub.on_connect
    def joined(client: Client, handshake: Handshake) -> None:
        client.join(handshake.query["room"])

    @hub.on_message
    def said(client: Client, text: str) -> None:
        (room,) = client.rooms
        hub.room(room).broadcast(text)

    return hub


async def test_rooms() -> None:
    result = await load_on(rooms(), "/ws?room={room}", rooms=2, clients=6, rate=100.0, processes=2)
    assert (result.expect, result.publishers, result.rooms) == ("room", 2, 2)
    assert (result.sent, result.delivered) == (40, 120)
    assert (result.lost, result.stray) == (0, 0)


async def test_a_message_for_the_wrong_room_is_stray() -> None:
    url = "/ws?room={room}"
    result = await load_on(chat(), url, rooms=2, rate=50.0)
    assert (result.sent, result.delivered, result.stray) == (20, 40, 40)
    assert "Perhaps --expect room does not fit this server" in result.because


async def test_a_publisher_that_does_not_get_its_own() -> None:
    hub = Hub()

    @hub.on_message
    def said(client: Client, text: str) -> None:
        hub.broadcast(text, exclude=client)

    result = await load_on(hub, rate=50.0, expect="others")
    assert (result.sent, result.delivered, result.lost, result.unreached) == (20, 60, 0, 0)
    result = await load_on(hub, patience_s=0.3, seconds=1.5)
    assert (result.loop, result.unreached) == ("closed", 1)
    assert result.timeouts > 0
    assert "Perhaps --expect room does not fit this server" in result.because


async def test_latencies_are_from_when_a_message_was_due() -> None:
    """A server that handles one message of a client after the other, and takes its time."""
    hub = Hub()

    @hub.on_message
    async def said(client: Client, text: str) -> None:
        await asyncio.sleep(0.05)
        client.send(text)

    result = await load_on(hub, clients=1, rate=50.0)
    # 50 ms for a message every 20 ms: the n-th has waited for those before it, so the last of 20
    # is 600 ms late and more.
    assert (result.sent, result.delivered) == (20, 20)
    assert (result.latency_ms["max"] or 0) >= 600
    assert (result.latency_ms["p50"] or 0) >= 300
    assert result.limited_by in ("server or network", "generator")


# Servers that do not do what they should.


class Faulty:
    """A server that broadcasts, but treats every so many-th message of a client otherwise."""

    def __init__(self, fault: Callable[[ServerConnection, list[Any]], None], every: int) -> None:
        self.sockets: set[ServerConnection] = set()
        self._fault = fault
        self._every = every

    async def handle(self, socket: ServerConnection) -> None:
        self.sockets.add(socket)
        count = 0
        waiting: list[Any] = []
        async for message in socket:
            count += 1
            for each in set(self.sockets):
                waiting = [message]
                if count % self._every == 0:
                    self._fault(each, waiting)
                for one in waiting:
                    await each.send(one)
        self.sockets.discard(socket)


async def load_on_faulty(
    fault: Callable[[ServerConnection, list[Any]], None], every: int, **plan: Any
) -> Result:
    faulty = Faulty(fault, every)
    async with serve_plainly(faulty.handle, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        return await load(f"ws://127.0.0.1:{port}/", rate=100.0, warm_s=0.0, **plan)


async def test_a_server_that_drops_messages() -> None:
    # 40 messages: the 5th, 10th, ... of all that were sent are dropped.
    result = await load_on_faulty(lambda socket, messages: messages.clear(), 5, patience_s=0.3)
    assert (result.sent, result.lost, result.delivered) == (40, 4 * 8, 4 * 32)
    assert (result.duplicated, result.reordered) == (0, 0)
    assert result.limited_by in ("server or network", "generator")


async def test_a_server_that_sends_twice() -> None:
    result = await load_on_faulty(lambda socket, messages: messages.extend(messages), 5)
    assert (result.sent, result.delivered, result.lost) == (40, 160, 0)
    assert result.duplicated == 4 * 8


async def test_a_server_that_cuts_messages() -> None:
    def cut(socket: ServerConnection, messages: list[Any]) -> None:
        messages[0] = messages[0][:50]

    result = await load_on_faulty(cut, 5)
    assert (result.delivered, result.damaged) == (160, 4 * 8)


async def test_a_server_that_swaps_messages() -> None:
    kept: dict[ServerConnection, Any] = {}

    def swap(socket: ServerConnection, messages: list[Any]) -> None:
        if socket in kept:
            messages.append(kept.pop(socket))
        else:
            kept[socket] = messages.pop()

    result = await load_on_faulty(swap, 5)
    assert (result.lost, result.duplicated, result.delivered) == (0, 0, 160)
    assert result.reordered == 4 * 4


async def test_a_server_that_disconnects() -> None:
    hub = Hub()

    @hub.on_message
    def said(client: Client, text: str) -> None:
        hub.broadcast(text)
        if hub.stats()["messages_in"] == 20:
            list(hub)[-1].close(4001, "enough")

    result = await load_on(hub, rate=100.0, warm_s=0.0)
    assert result.disconnected == {4001: 1}
    assert (result.clients, result.sent, result.lost) == (4, 40, 0)
    assert result.delivered + result.cut_off == 160
    assert 0 < result.cut_off < 40


async def test_some_are_refused() -> None:
    result = await load_on(Hub(max_clients=3), clients=5, rate=50.0)
    assert (result.clients, result.clients_asked, result.refused) == (3, 5, {503: 2})
    assert (result.sent, result.delivered) == (20, 60)


async def test_everybody_is_refused() -> None:
    hub = Hub()

    @hub.authenticate
    def nobody(handshake: Handshake) -> None:
        raise Refused(401)

    with pytest.raises(BenchFailed, match=r"/ws refused all connections, with status 401$"):
        await load_on(hub, "/ws?token=secret")


async def test_nobody_there() -> None:
    with pytest.raises(BenchFailed, match=r"^ws://127\.0\.0\.1:\d+/ws cannot be connected to: "):
        await load(f"ws://127.0.0.1:{free_port()}/ws")


async def test_nobody_gets_anything() -> None:
    hub = Hub()

    @hub.on_message
    def swallow(client: Client, text: str) -> None:
        """Answer nothing."""

    nobody = r"^nobody received what was sent within 0\.3 s; --expect says who should$"
    for rate in (None, 50.0):
        with pytest.raises(BenchFailed, match=nobody):
            await load_on(hub, patience_s=0.3, rate=rate)


async def test_all_that_comes_is_for_others() -> None:
    hub = Hub()

    @hub.on_message
    def received(client: Client, text: str) -> None:
        hub.broadcast(text, exclude=client)

    with pytest.raises(BenchFailed, match=r"clients that --expect self leaves out$"):
        await load_on(hub, patience_s=0.3, rate=50.0, expect="self", publishers=1)


async def test_messages_that_are_too_large_for_the_server() -> None:
    with pytest.raises(BenchFailed, match=r"clients were disconnected: 1 with code 1009$"):
        await load_on(Hub(max_message_bytes=100), patience_s=1.0)


# The end before its time.


async def test_what_there_is_when_it_is_cancelled() -> None:
    hub = chat()
    seen: list[Snapshot] = []
    async with serve(hub.mount(nothing)) as served:
        bench = Bench(Plan(url=served.ws(), clients=3, warm_s=0.0, seconds=60.0), seen.append)
        assert bench.result() is None
        task = asyncio.create_task(bench.run())
        await until(lambda: bool(seen) and seen[-1].stage == "measuring")
        await until(lambda: seen[-1].counters.delivered > 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: len(hub) == 0)
    result = bench.result()
    assert result is not None
    assert (result.interrupted, result.limited_by, result.clients) == (True, None, 3)
    assert result.delivered > 0
    assert result.deliveries_per_second is not None


async def test_a_process_that_dies_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.bench.run._START", "import sys; sys.exit(3)")
    for processes in (1, 3):
        with pytest.raises(BenchFailed, match="a worker process ended"):
            await load("ws://127.0.0.1:1/ws", processes=processes)


# The limit of open files.


def test_files_are_allowed_as_far_as_the_hard_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(256, 4096)]

    def set_limit(which: int, limit: tuple[int, int]) -> None:
        limits.append(limit)

    monkeypatch.setattr("resource.getrlimit", lambda which: limits[-1])
    monkeypatch.setattr("resource.setrlimit", set_limit)
    allow_files(Plan(url="ws://h/", clients=200))
    assert limits == [(256, 4096)]
    allow_files(Plan(url="ws://h/", clients=1000))
    assert limits[-1] == (1032, 4096)
    with pytest.raises(BenchFailed, match=r"need 5032 open files each.*--processes 2"):
        allow_files(Plan(url="ws://h/", clients=5000))
    allow_files(Plan(url="ws://h/", clients=5000, processes=2))
    assert limits[-1] == (2532, 4096)
