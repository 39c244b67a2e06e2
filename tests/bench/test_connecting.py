"""Connecting the clients of a load, to servers that let them in and to those that do not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from hubbub.bench.accounting import DeliveryTracker, Recipients, prefix_of
from hubbub.bench.client import LoadSocket
from hubbub.bench.connecting import Connector, url_for
from hubbub.bench.ipc import Plan
from stress.ports import free_port

pytestmark = pytest.mark.anyio


class Crowd:
    """Keeps the sockets that were opened."""

    def __init__(self) -> None:
        self.tracker = DeliveryTracker(prefix_of(0, 0), 32, Recipients("all", 1), lambda: 0)
        self.sockets: list[LoadSocket] = []

    def opened(self, socket: LoadSocket) -> None:
        self.sockets.append(socket)

    def ended(self, socket: LoadSocket, code: int) -> None:
        raise AssertionError(f"closed with {code}")

    async def leave(self) -> None:
        for socket in self.sockets:
            socket.abort()
        await asyncio.sleep(0)


async def connect_all(plan: Plan, index: int = 0) -> tuple[Connector, list[int]]:
    crowd = Crowd()
    connector = Connector(plan, index, crowd)
    await connector.run()
    clients = sorted(socket.receiver.client for socket in crowd.sockets)
    await crowd.leave()
    return connector, clients


async def hold(socket: ServerConnection) -> None:
    await socket.wait_closed()


def server(look: Callable[[ServerConnection, Request], Any] | None = None) -> Any:
    return serve(hold, "127.0.0.1", 0, process_request=look)


def plan_for(running: Any, clients: int, **more: Any) -> Plan:
    port = running.sockets[0].getsockname()[1]
    path = more.pop("path", "/ws")
    return Plan(url=f"ws://localhost:{port}{path}", clients=clients, **more)


async def test_each_process_connects_its_share_and_every_client_finds_its_room() -> None:
    paths: set[str] = set()

    def look(socket: ServerConnection, request: Request) -> None:
        paths.add(request.path)

    async with server(look) as running:
        plan = plan_for(running, 7, processes=2, rooms=3, path="/ws?room={room}&id={client}")
        first, clients = await connect_all(plan)
        assert clients == [0, 2, 4, 6]
        _, others = await connect_all(plan, 1)
        assert others == [1, 3, 5]
    assert paths == {f"/ws?room={client % 3}&id={client}" for client in range(7)}
    assert not first.refused
    assert not first.failed


async def test_no_more_than_so_many_connect_at_once() -> None:
    now, most = 0, 0

    async def look(socket: ServerConnection, request: Request) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1

    async with server(look) as running:
        _, clients = await connect_all(plan_for(running, 30, connecting_at_once=4))
    assert len(clients) == 30
    assert 1 <= most <= 4


async def test_some_are_refused() -> None:
    count = 0

    def look(socket: ServerConnection, request: Request) -> Response | None:
        nonlocal count
        count += 1
        return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "full\n") if count > 5 else None

    async with server(look) as running:
        connector, clients = await connect_all(plan_for(running, 12, connecting_at_once=1))
    assert len(clients) == 5
    assert connector.refused == {503: 7}


async def test_when_nobody_is_let_in_not_all_try() -> None:
    def look(socket: ServerConnection, request: Request) -> Response:
        return socket.respond(HTTPStatus.UNAUTHORIZED, "who?\n")

    async with server(look) as running:
        connector, clients = await connect_all(plan_for(running, 500, connecting_at_once=4))
    assert clients == []
    assert set(connector.refused) == {401}
    assert 4 <= connector.refused[401] <= 8


async def test_a_server_that_does_not_answer() -> None:
    is_over = asyncio.Event()

    async def look(socket: ServerConnection, request: Request) -> None:
        await is_over.wait()

    running = await serve(hold, "127.0.0.1", 0, process_request=look)
    plan = plan_for(running, 2, handshake_timeout_s=0.05)
    connector, clients = await connect_all(plan)
    assert clients == []
    assert connector.failed == {"no answer to the handshake in time": 2}
    is_over.set()
    running.close()
    await running.wait_closed()


async def test_the_server_s_own_words_are_made_harmless() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Fine\r\nConnection: Upgrade\r\nUpgrade: \x9b2Jnonsense\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as running:
        connector, _ = await connect_all(plan_for(running, 1))
    ((why, count),) = connector.failed.items()
    assert count == 1
    assert "nonsense" in why
    assert why.isprintable()


async def test_nobody_there() -> None:
    plan = Plan(url=f"ws://127.0.0.1:{free_port()}/ws", clients=2)
    connector, clients = await connect_all(plan)
    assert clients == []
    ((why, count),) = connector.failed.items()
    assert count == 2
    assert "refused" in why.lower()


def test_the_address_of_a_client() -> None:
    plan = Plan(url="ws://h/{room}?{client}", rooms=4)
    assert url_for(plan, 6) == "ws://h/2?6"
