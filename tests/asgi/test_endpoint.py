"""Endpoint: the hub in a Starlette application, as a route, a mount and an application of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus

from asgi.handshakes import chat, clients, closed, get
from hubbub import (
    Handshake,
    Hub,
    Identity,
)
from hubbub.hub.core import core_of
from hubbub.turns import Turns
from serving import serve, take, until

pytestmark = pytest.mark.anyio


async def test_s01_the_lifespan_puts_the_hub_into_the_requests_state(native: bool) -> None:
    hub = Hub()

    async def greet(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(f"{len(websocket.state.hub)} here")
        await websocket.close()

    app = Starlette(
        routes=[
            Route("/clients", clients),
            WebSocketRoute("/greet", greet),
            WebSocketRoute("/ws", hub),
        ],
        lifespan=hub.lifespan,
    )
    async with serve(app, native=native) as server, server.connect():
        await until(lambda: len(hub) == 1)
        assert (await get(server, "/clients")).json() == {"clients": 1}
        async with server.connect("/greet") as socket:
            assert await take(socket, 1) == ["1 here"]


async def test_s07_starlette_takes_the_hub_as_an_endpoint(native: bool) -> None:
    hub = Hub()
    routes = [WebSocketRoute("/ws", hub), Route("/ws", hub), Route("/ws/hubbub.js", hub)]
    async with serve(Starlette(routes=routes, lifespan=hub.lifespan), native=native) as server:
        await chat(server, "/ws")
        assert (await get(server)).status_code == 426
        assert (await get(server, method="POST")).status_code == 405
        assert "export" in (await get(server, "/ws/hubbub.js")).text


async def test_s07_starlette_mounts_the_hub(native: bool) -> None:
    """Starlette's `Mount` matches what is under its path: the socket's URL ends in a slash."""
    hub = Hub()
    app = Starlette(routes=[Mount("/ws", app=hub)], lifespan=hub.lifespan)
    async with serve(app, native=native) as server:
        await chat(server, "/ws/")
        assert (await get(server, "/ws/")).status_code == 426
        assert "export" in (await get(server, "/ws/hubbub.js")).text


async def test_s07_the_hub_alone_is_an_application(native: bool) -> None:
    async with serve(Hub(), native=native) as server:
        await chat(server, "/")
        await chat(server, "/anything")


async def test_s07_attach_takes_the_socket_of_a_route(native: bool) -> None:
    hub = Hub()
    hub.authenticate(lambda handshake: None)
    returned: list[int] = []

    async def project(websocket: WebSocket) -> None:
        meta = {"project": websocket.path_params["project"]}
        await hub.attach(websocket, identity=Identity(user="ann", meta=meta))
        returned.append(len(hub))

    async def strangers(websocket: WebSocket) -> None:
        await hub.attach(websocket)

    routes = [WebSocketRoute("/projects/{project}", project), WebSocketRoute("/ws", strangers)]
    app = Starlette(routes=routes, lifespan=hub.lifespan)
    async with serve(app, native=native) as server:
        async with server.connect("/projects/apollo") as socket:
            await socket.send("hello")
            assert await take(socket, 1) == ["hello"]
            assert [(c.user, c.meta) for c in hub] == [("ann", {"project": "apollo"})]
            assert returned == ([1] if native else []), "the native transport holds no ASGI call"
        await until(lambda: len(hub) == 0)
        with pytest.raises(InvalidStatus) as caught:
            await server.connect()
        assert caught.value.response.status_code == 401


async def test_attach_does_not_take_an_accepted_socket(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()

    async def mistaken(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(RuntimeError, match="do not call accept"):
            await hub.attach(websocket)
        await websocket.close(4000)

    async with (
        serve(Starlette(routes=[WebSocketRoute("/ws", mistaken)]), native=native) as server,
        server.connect() as socket,
    ):
        end = (await closed(socket)).rcvd
        assert end is not None
        assert end.code == 4000
    assert len(hub) == 0


async def test_deflate_is_left_to_the_applications_own_sockets() -> None:
    hub = Hub()

    async def own(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    routes = [WebSocketRoute("/ws", hub), WebSocketRoute("/own", own)]
    async with serve(Starlette(routes=routes, lifespan=hub.lifespan)) as server:
        async with server.connect("/ws", compression="deflate") as socket:
            assert socket.protocol.extensions == []
            await socket.send("plain " * 50)
            assert await take(socket, 1) == ["plain " * 50]
        async with server.connect("/own", compression="deflate") as socket:
            assert [e.name for e in socket.protocol.extensions] == ["permessage-deflate"]
            await socket.send("squeezed " * 500)
            assert await take(socket, 1) == ["squeezed " * 500]


async def test_who_will_say_later_who_it_is_has_a_place_before_it_is_accepted() -> None:
    from array_dialect import ArrayDialect
    from hubbub.asgi.endpoint import Endpoint

    hub = Hub(max_clients=1)
    await hub.start()
    endpoint = Endpoint(hub, ArrayDialect())
    gate = asyncio.Event()

    async def shake(log: list[str]) -> None:
        async def receive() -> dict[str, Any]:
            if log:
                await asyncio.sleep(30)
            return {"type": "websocket.connect"}

        async def send(event: Any) -> None:
            log.append(event["type"])
            if event["type"] == "websocket.accept":
                await gate.wait()

        scope = {
            "type": "websocket",
            "path": "/ws",
            "headers": [],
            "client": ("127.0.0.1", 1),
            "extensions": {"websocket.http.response": {}},
        }
        await endpoint(scope, receive, send)

    logs: list[list[str]] = [[], []]
    tasks = [asyncio.create_task(shake(log)) for log in logs]
    await asyncio.sleep(0.01)
    gate.set()
    await asyncio.sleep(0.01)
    assert logs == [
        ["websocket.accept"],
        ["websocket.http.response.start", "websocket.http.response.body"],
    ]
    await hub.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Crowded(Turns):
    """Turns that have no place until `free` is set."""

    def __init__(self) -> None:
        super().__init__(1)
        self.free = asyncio.Event()
        self.asking = 0

    def take_now(self, places: int = 1) -> bool:
        return False

    def wait(self, places: int = 1) -> asyncio.Future[None]:
        self.asking += 1
        return asyncio.ensure_future(self._until_free())

    async def _until_free(self) -> None:
        await self.free.wait()


def crowd(hub: Hub) -> Crowded:
    turns = core_of(hub).turns = Crowded()
    return turns


async def test_who_gets_no_turn_in_time_is_refused(native: bool) -> None:
    hub = Hub(handshake_timeout_s=0.1)
    async with serve(hub, native=native) as served:
        await hub.start()
        crowd(hub)
        with pytest.raises(InvalidStatus) as error:
            async with served.connect():
                raise AssertionError("it was let in")
    assert error.value.response.status_code == 503
    assert hub.stats()["refused"] == {"handshake_timeout": 1}


async def test_nobody_is_asked_about_who_went_before_its_turn() -> None:
    hub = Hub()
    asked: list[Handshake] = []

    @hub.authenticate
    def note(handshake: Handshake) -> Identity:
        asked.append(handshake)
        return Identity()

    async with serve(hub) as served:
        await hub.start()
        turns = crowd(hub)
        connecting = [asyncio.create_task(served.connect().__aenter__()) for _ in range(2)]
        await until(lambda: turns.asking == 2)
        connecting[0].cancel()
        await asyncio.wait(connecting[:1])
        assert served.server is not None
        connections = served.server.server_state.connections
        await until(lambda: len(connections) == 1)
        turns.free.set()
        await (await connecting[1]).close()
    assert len(asked) == 1


async def test_who_waits_while_the_hub_stops_is_no_client_of_one_that_is_dead(native: bool) -> None:
    hub = Hub()
    async with serve(hub, native=native) as served:
        await hub.start()
        turns = crowd(hub)
        coming = asyncio.create_task(served.connect().__aenter__())
        await until(lambda: turns.asking == 1)
        await hub.stop()
        turns.free.set()
        async with await coming as socket:  # it has started the hub again, as any handshake does
            await until(lambda: len(hub) == 1)
            hub.broadcast("here")
            assert await take(socket, 1) == ["here"]
