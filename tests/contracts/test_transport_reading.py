"""What every transport owes while a handler runs: pings are answered, no end is missed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from hubbub import Client, Close, Hub
from hubbub.hub.client import session_of
from rawsocket import TEXT, frame, raw_connect
from serving import PATIENCE_S, WAYS, take, until, venue

pytestmark = pytest.mark.anyio


async def test_fault_01_pings_are_answered_while_a_handler_runs(way: str) -> None:
    hub, gate = Hub(), asyncio.Event()

    @hub.on_message
    async def slow(client: Client, text: str) -> None:
        client.send(f"begun {text}")
        await gate.wait()
        client.send(f"done {text}")

    async with venue(hub, way) as here:
        socket = await here.join()
        await socket.send("1")
        assert await take(socket, 1) == ["begun 1"]
        for text in "23":
            await socket.send(text)
            for _ in range(2):
                await asyncio.wait_for(await socket.ping(), PATIENCE_S)
        gate.set()
        assert await take(socket, 5) == ["done 1", "begun 2", "done 2", "begun 3", "done 3"]


async def test_fault_01_a_client_with_keepalive_outlives_a_long_handler(way: str) -> None:
    hub = Hub()

    @hub.on_message
    async def long(client: Client, text: str) -> None:
        for number in range(25):
            await asyncio.sleep(0.05)
            client.send(f"{number}")

    async with venue(hub, way) as here:
        socket = await here.join(ping_interval=0.2, ping_timeout=0.5)
        await socket.send("go")
        assert await take(socket, 25) == [f"{number}" for number in range(25)]


async def test_fault_01_messages_wait_in_a_bounded_queue_and_none_is_lost(way: str) -> None:
    hub = Hub(inbox_max_messages=8, inbox_max_bytes=512, max_message_bytes=None)
    heard: list[str] = []
    most = 0

    @hub.on_message
    async def slow(client: Client, text: str) -> None:
        nonlocal most
        await asyncio.sleep(0)
        most = max(most, len(session_of(client).inbox or ()))
        heard.append(text)

    async with venue(hub, way) as here:
        socket = await here.join()
        sent = [f"{number}" * (1 + number % 50) for number in range(2000)]
        for text in sent:
            await socket.send(text)
        await socket.close()
        assert socket.close_code == 1000
        await until(lambda: len(heard) == 2000)
        assert heard == sent
        assert 2 <= most <= 8
        assert hub.stats()["unhandled"] == 0


@pytest.mark.parametrize("where", ["message", "connect", "validate"])
async def test_fault_02_a_client_that_leaves_while_its_handler_runs_is_noticed(
    way: str, where: str
) -> None:
    hub, log = Hub(handler_grace_s=0.1), list[Any]()
    begun = asyncio.Event()

    async def endless(client: Client, _: str = "") -> None:
        log.append("begun")
        begun.set()
        try:
            while True:
                client.send("more")
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)  # once cancelled, it may finish what it must
            log.append("ended")
            raise

    if where == "connect":
        hub.on_connect(endless)
    elif where == "message":
        hub.on_message(endless)
    else:
        hub.on_message(lambda client, message: log.append(message))
        hub.validate(endless)

    @hub.on_disconnect
    def left(client: Client, close: Close) -> None:
        log.append(close)

    async with venue(hub, way) as here:
        socket = await here.join()
        await socket.send("go")
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        await socket.close(4007, "bye")
        assert (socket.close_code, socket.close_reason) == (4007, "bye")
        await until(lambda: len(hub) == 0)
        await until(lambda: len(log) >= 3)
        assert log == ["begun", "ended", Close(4007, "bye")]
        stats = hub.stats()
        assert (stats["handlers_cancelled"], stats["handler_errors"]) == (1, 0)
        assert stats["handlers"] == 0


async def test_fault_02_what_came_before_the_close_is_handled(way: str) -> None:
    hub, log = Hub(), list[Any]()

    @hub.on_message
    async def save(client: Client, text: str) -> None:
        await asyncio.sleep(0.02)
        log.append(text)

    hub.on_disconnect(lambda client, close: log.append(close.code))
    async with venue(hub, way) as here:
        socket = await here.join()
        for text in "12345":
            await socket.send(text)
        await socket.close()
        await until(lambda: len(log) == 6)
        assert log == [*"12345", 1000]
        stats = hub.stats()
        assert (stats["handlers_cancelled"], stats["unhandled"]) == (0, 0)


@pytest.mark.parametrize("is_quick", [True, False])
async def test_fault_03_what_a_client_left_behind_has_ended_when_the_hub_has_stopped(
    way: str, is_quick: bool
) -> None:
    hub = Hub(handler_grace_s=None, shutdown_timeout_s=2.0)
    log = list[Any]()

    @hub.on_message
    async def save(client: Client, text: str) -> None:
        await asyncio.sleep(0.05 if is_quick else 3600)
        hub.broadcast(text)
        log.append(text)

    @hub.on_disconnect
    async def left(client: Client, close: Close) -> None:
        await asyncio.sleep(0.01)
        log.append(close.code)

    async with venue(hub, way) as here:
        socket = await here.join()
        for text in "1234":
            await socket.send(text)
        await socket.close()
        await until(lambda: len(hub) == 0)
        assert hub.stats()["handlers"] == 1
    assert log == ([*"1234", 1000] if is_quick else [1000])
    stats = hub.stats()
    assert (stats["handlers"], stats["handler_errors"]) == (0, 0)
    assert stats["unhandled"] == (0 if is_quick else 3)


async def test_fault_02_who_is_sent_away_while_its_handler_runs_has_its_code(way: str) -> None:
    hub, log = Hub(handler_grace_s=0.05), list[Any]()

    @hub.on_message
    async def endless(client: Client, text: str) -> None:
        log.append(text)
        await asyncio.Event().wait()

    hub.on_disconnect(lambda client, close: log.append(close.code))
    async with venue(hub, way) as here:
        socket = await here.join()
        for text in "123":
            await socket.send(text)
        await until(lambda: hub.stats()["messages_in"] == 3)
        [client] = hub
        hub.disconnect(client, 4000, "away")
        with pytest.raises(ConnectionClosed):
            await take(socket, 1)
        assert socket.close_code == 4000
        await until(lambda: len(log) == 2)
        assert log == ["1", 4000]
        assert hub.stats()["unhandled"] == 2


@pytest.mark.parametrize("way", [way for way in WAYS if WAYS[way][0]], indirect=True)
async def test_fault_02_a_silent_peer_is_dead_though_its_handler_sends(way: str) -> None:
    """ASGI has no pings: on the portable transport the server's own decide, see deployment.md."""
    hub = Hub(pong_timeout_s=0.5, ping_interval_s=0.1, handler_grace_s=0.05)
    closes: list[Close] = []
    hub.on_disconnect(lambda client, close: closes.append(close))

    @hub.on_message
    async def endless(client: Client, text: str) -> None:
        while True:
            client.send("more")
            await asyncio.sleep(0.02)

    async with venue(hub, way) as here, raw_connect(here.served) as socket:
        await socket.send(frame(TEXT, b"go"))
        await until(lambda: len(hub) == 1)
        await until(lambda: len(hub) == 0)
        await until(lambda: bool(closes))
        assert closes == [Close(3012, "no pong", by_server=True)]


@pytest.mark.parametrize("way", [way for way in WAYS if not WAYS[way][0]], indirect=True)
async def test_fault_02_the_servers_pings_find_a_silent_peer_though_its_handler_sends(
    way: str,
) -> None:
    hub = Hub(handler_grace_s=0.05)
    log: list[str] = []
    hub.on_disconnect(lambda client: log.append("left"))

    @hub.on_message
    async def endless(client: Client, text: str) -> None:
        try:
            while True:
                client.send("more")
                await asyncio.sleep(0.02)
        finally:
            log.append("ended")

    config = {"ws_ping_interval": 0.2, "ws_ping_timeout": 0.2}
    async with venue(hub, way, **config) as here, raw_connect(here.served) as socket:
        await socket.send(frame(TEXT, b"go"))
        await until(lambda: hub.stats()["handlers"] == 1)
        await until(lambda: len(hub) == 0)
        await until(lambda: len(log) == 2)
        assert log == ["ended", "left"]  # the code is what the server says, here uvicorn
        stats = hub.stats()
        assert (stats["handlers"], stats["handlers_cancelled"]) == (0, 1)
