"""FastAPI: the router, `HubDep`, dependencies and several hubs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, get_type_hints

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, WebSocket, WebSocketException
from fastapi.requests import HTTPConnection
from fastapi.testclient import TestClient
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request

from asgi.fastapi_apps import check_token, denial, end_of, listen_to_uvicorn
from hubbub import (
    Client,
    Handshake,
    Hub,
    HubDep,
    HubNotRunning,
)
from serving import PATIENCE_S, Served, serve, take, until

pytestmark = pytest.mark.anyio


async def ask(server: Served, path: str, *, method: str = "GET", **headers: str) -> httpx2.Response:
    # There is no TLS here, and loading certificates takes longer than most of these tests.
    async with httpx2.AsyncClient(trust_env=False, verify=False, timeout=PATIENCE_S) as web:
        return await web.request(method, server.http(path), headers=headers)


# The router


async def test_s07_the_router_is_the_route_the_lifespan_and_the_files(native: bool) -> None:
    hub = Hub()
    app = FastAPI()
    app.include_router(hub.router("/ws"))
    async with serve(app, native=native) as server:
        assert hub.is_running, "the router brings the lifespan"
        async with server.connect() as one, server.connect() as other:
            await one.send("hello")
            assert await take(one, 1) == await take(other, 1) == ["hello"]
        answer = await ask(server, "/ws")
        assert answer.status_code == 426
        assert answer.json()["code"] == "upgrade_required"
        assert (await ask(server, "/ws", method="HEAD")).status_code == 426
        assert (await ask(server, "/ws", method="POST")).status_code == 405
        script = await ask(server, "/ws/hubbub.js")
        assert script.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert (await ask(server, "/ws/hubbub.d.ts")).status_code == 200
        assert (await ask(server, "/ws/other.js")).status_code == 404
    assert not hub.is_running
    assert app.openapi()["paths"] == {}


async def test_s07_the_router_goes_under_a_prefix_and_into_a_mounted_application(
    native: bool,
) -> None:
    hub, inner_hub = Hub(), Hub()
    app, inner = FastAPI(), FastAPI()
    api = APIRouter(prefix="/v1")
    api.include_router(hub.router("/rooms/{room}/ws"))
    app.include_router(api, prefix="/api")
    inner.include_router(inner_hub.router("/ws"))
    app.mount("/inner", inner)

    @hub.on_connect
    def greet(client: Client, handshake: Handshake) -> None:
        client.send(handshake.scope["path_params"]["room"])

    async with serve(app, native=native) as server:
        async with server.connect("/api/v1/rooms/red/ws") as socket:
            assert await take(socket, 1) == ["red"]
        assert (await ask(server, "/api/v1/rooms/red/ws")).status_code == 426
        assert (await ask(server, "/api/v1/rooms/red/ws/hubbub.js")).status_code == 200
        async with server.connect("/inner/ws") as socket:
            await socket.send("hello")
            assert await take(socket, 1) == ["hello"]
        assert (await ask(server, "/inner/ws")).status_code == 426
    await inner_hub.stop()


async def test_fault_32_a_handler_finds_the_parameters_of_the_path(native: bool) -> None:
    hub = Hub()
    app = FastAPI()
    app.include_router(hub.router("/rooms/{room}/{number:int}/ws"), prefix="/api/{tenant}")

    @hub.authenticate
    def who(handshake: Handshake) -> str:
        return str(handshake.path_params["tenant"])

    @hub.on_connect
    def greet(client: Client, handshake: Handshake) -> None:
        client.send({"user": client.user, **handshake.path_params})

    path = "/api/acme/rooms/red%20one/7/ws"
    async with serve(app, native=native) as server, server.connect(path) as socket:
        (text,) = await take(socket, 1)
        expected = {"user": "acme", "tenant": "acme", "room": "red one", "number": 7}
        assert json.loads(text) == expected
        assert (await ask(server, f"{path}/hubbub.js")).status_code == 200
        assert (await ask(server, path)).status_code == 426


async def test_two_hubs_live_in_one_application(native: bool) -> None:
    chat, game = Hub(), Hub(max_message_bytes=4)
    app = FastAPI()
    app.include_router(chat.router("/chat"))
    app.include_router(game.router("/game"))
    async with (
        serve(app, native=native) as server,
        server.connect("/chat") as talker,
        server.connect("/game") as player,
    ):
        await talker.send("a long message")
        await player.send("up")
        assert await take(talker, 1) == ["a long message"]
        assert await take(player, 1) == ["up"]
        await player.send("a long message")
        assert await end_of(player) == 1009
        assert (len(chat), len(game)) == (1, 0)


async def test_the_applications_own_lifespan_runs_too() -> None:
    hub = Hub()
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        steps.append("up")
        yield {"greeting": "hello"}
        steps.append(f"down, {len(hub)} here")

    app = FastAPI(lifespan=lifespan)
    app.include_router(hub.router("/ws"))

    @app.get("/")
    def index(request: Request, hub: HubDep) -> str:
        return f"{request.state.greeting} {len(hub)}"

    async with serve(app) as server, server.connect():
        await until(lambda: len(hub) == 1)
        assert (await ask(server, "/")).json() == "hello 1"
    assert steps == ["up", "down, 0 here"]


# HubDep


def application_with_routes(hub: Hub) -> FastAPI:
    app = FastAPI()
    app.include_router(hub.router("/ws"))

    @app.get("/sync/{text}")
    def sync(text: str, hub: HubDep) -> int:
        hub.broadcast(f"sync {text}")
        return len(hub)

    @app.get("/async/{text}")
    async def asynchronous(text: str, hub: HubDep) -> dict[str, Any]:
        hub.broadcast({"text": text})
        receipt = await hub.publish("red", "to nobody")
        return {"clients": hub.client_count, "red": receipt.delivered_to}

    @app.get("/state")
    async def state(request: Request) -> bool:
        return request.state.hub is hub

    @app.websocket("/count")
    async def count(websocket: WebSocket, hub: HubDep) -> None:
        await websocket.accept()
        await websocket.send_json(len(hub))
        await websocket.close()

    return app


async def test_s01_routes_get_the_hub_and_broadcast(native: bool) -> None:
    hub = Hub()
    app = application_with_routes(hub)
    async with serve(app, native=native) as server, server.connect() as socket:
        await until(lambda: len(hub) == 1)
        assert (await ask(server, "/sync/hello")).json() == 1
        assert (await ask(server, "/async/world")).json() == {"clients": 1, "red": 0}
        assert await take(socket, 2) == ["sync hello", '{"text":"world"}']
        assert (await ask(server, "/state")).json() is True
        async with server.connect("/count") as counter:
            assert await take(counter, 1) == ["1"]


async def test_s01_a_request_without_a_hub_says_what_is_missing() -> None:
    app = FastAPI()

    @app.get("/")
    def index(hub: HubDep) -> int:
        return len(hub)

    with TestClient(app) as web, pytest.raises(HubNotRunning, match=r"include hub\.router"):
        web.get("/")


async def check_room(websocket: WebSocket, room: str = "red") -> None:
    if room == "hidden":
        raise HTTPException(404, "no such room")
    if room == "closed":
        raise WebSocketException(1008, "closed")


def check_number(connection: HTTPConnection, number: int = 0) -> None:
    assert connection.url.path == "/api/ws"


def guarded(hub: Hub) -> FastAPI:
    app = FastAPI(dependencies=[Depends(check_number)])
    router = hub.router("/ws", dependencies=[Depends(check_token)])
    app.include_router(router, prefix="/api", dependencies=[Depends(check_room)])
    return app


@pytest.mark.parametrize("where", ["handshake", "plain request"])
async def test_s16_dependencies_refuse_before_the_upgrade(native: bool, where: str) -> None:
    """Wherever a dependency is declared, it refuses the socket, and a plain GET alike."""
    hub = Hub(origins=("https://page.example",))
    async with serve(guarded(hub), native=native) as server:

        async def status_and_body(query: str) -> tuple[int, bytes]:
            path = f"/api/ws?{query}"
            if where == "handshake":
                response = await denial(server, path)
                return response.status_code, bytes(response.body)
            answer = await ask(server, path, Origin="https://page.example")
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["Access-Control-Allow-Origin"] == "https://page.example"
            return answer.status_code, answer.content

        unauthorized = (401, b'{"detail":{"why":"a token is missing"}}')
        assert await status_and_body("") == unauthorized
        assert await status_and_body("token=bad") == unauthorized
        assert await status_and_body("token=good&room=hidden") == (
            404,
            b'{"detail":"no such room"}',
        )
        assert (await status_and_body("token=good&room=closed"))[0] == 403
        assert (await status_and_body("token=good&number=many"))[0] == 403
        assert len(hub) == 0
        assert hub.stats()["total_clients"] == 0
        assert (await ask(server, "/api/ws?token=good")).status_code == 426
        assert (await ask(server, "/api/ws", method="POST")).status_code == 405
        async with server.connect("/api/ws?token=good") as socket:
            await socket.send("hello")
            assert await take(socket, 1) == ["hello"]


async def test_s16_the_authenticate_handler_refuses_through_fastapi(native: bool) -> None:
    hub = Hub()
    hub.authenticate(lambda handshake: handshake.token)
    app = FastAPI()
    app.include_router(hub.router("/ws"))
    async with serve(app, native=native) as server:
        response = await denial(server)
        assert response.status_code == 401
        assert bytes(response.body) == b'{"error": "Unauthorized", "code": "unauthorized"}'
        answer = await ask(server, "/ws")
        assert (answer.status_code, answer.content) == (401, bytes(response.body))
        assert hub.stats()["refused"] == {"unauthorized": 1}


async def test_s16_no_token_is_in_an_access_line(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    listen_to_uvicorn(caplog)
    hub = Hub()
    async with serve(guarded(hub), native=native, log_config=None, log_level="info") as server:
        async with server.connect("/api/ws?token=good&number=7"):
            pass
        for query in ("token=good&number=8", "token=wrong&number=9"):
            await ask(server, f"/api/ws?{query}")
        if native:  # A denial that FastAPI makes passes by the hub, not by its protocol class.
            await denial(server, "/api/ws?token=wrong&number=6")
    lines = [message for message in caplog.messages if "/api/ws?" in message]
    assert len(lines) == 3 + native
    assert not [line for line in lines if "good" in line or "wrong" in line]


async def test_a_yield_dependency_is_closed_while_the_native_socket_lives(native: bool) -> None:
    hub = Hub()
    sessions: list[str] = []

    async def database() -> AsyncIterator[str]:
        sessions.append("open")
        yield "a session"
        sessions.append("closed")

    app = FastAPI()
    app.include_router(hub.router("/ws", dependencies=[Depends(database)]))
    async with serve(app, native=native) as server:
        async with server.connect() as socket:
            await socket.send("hello")
            assert await take(socket, 1) == ["hello"]
            if native:
                await until(lambda: sessions == ["open", "closed"])
                await until(lambda: not server_tasks(server))
            else:
                assert sessions == ["open"]
            assert len(hub) == 1
            await socket.send("still here")
            assert await take(socket, 1) == ["still here"]
        await until(lambda: sessions == ["open", "closed"])


def server_tasks(server: Served) -> set[Any]:
    """Return the ASGI calls that the server has under way."""
    assert server.server is not None
    return server.server.server_state.tasks


async def test_sessions_reach_the_authenticate_handler(native: bool) -> None:
    hub = Hub()

    @hub.authenticate
    def who(handshake: Handshake) -> str | None:
        user: str | None = handshake.scope["session"].get("user")
        return user

    app = FastAPI()
    app.add_middleware(SessionMiddleware, secret_key="not so secret")
    app.include_router(hub.router("/ws"))

    @app.post("/login/{user}")
    def login(user: str, request: Request) -> None:
        request.session["user"] = user

    async with serve(app, native=native) as server:
        assert (await denial(server)).status_code == 401
        answer = await ask(server, "/login/ann", method="POST")
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
        async with server.connect(additional_headers={"Cookie": cookie}):
            await until(lambda: len(hub.clients_of("ann")) == 1)
        assert (await ask(server, "/ws", Cookie=cookie)).status_code == 426


# The test client


def test_fastapis_test_client_talks_to_the_hub() -> None:
    hub = Hub()
    with TestClient(application_with_routes(hub)) as web:
        with web.websocket_connect("/ws") as one, web.websocket_connect("/ws") as other:
            assert web.get("/sync/hello").json() == 2
            assert web.get("/async/world").json() == {"clients": 2, "red": 0}
            for socket in (one, other):
                assert socket.receive_text() == "sync hello"
                assert socket.receive_json() == {"text": "world"}
        assert web.get("/ws").status_code == 426


def test_a_router_does_not_hide_a_broken_dependency() -> None:
    def broken() -> None:
        raise LookupError("no database")

    def client_of(hub: Hub) -> TestClient:
        app = FastAPI()
        app.include_router(hub.router("/ws", dependencies=[Depends(broken)]))
        return TestClient(app)

    attempts: list[Callable[[TestClient], Any]] = [
        lambda web: web.get("/ws"),
        lambda web: web.websocket_connect("/ws").__enter__(),
    ]
    for attempt in attempts:
        with client_of(Hub()) as web, pytest.raises(LookupError, match="no database"):
            attempt(web)


# Several hubs

FIRST, SECOND = Hub(), Hub()


SecondDep = Annotated[Hub, Depends(lambda: SECOND)]


def include_routers(app: FastAPI, first: Hub, second: Hub) -> Any:
    app.include_router(first.router("/first"))
    app.include_router(second.router("/second"))
    return app


def nest_routers(app: FastAPI, first: Hub, second: Hub) -> Any:
    outer = APIRouter(prefix="/deep")
    outer.include_router(second.router("/second"))
    app.include_router(first.router("/first"))
    app.include_router(outer)
    return app


def mount_twice(app: FastAPI, first: Hub, second: Hub) -> Any:
    return first.mount(second.mount(app, "/second"), "/first")


def mount_and_include(app: FastAPI, first: Hub, second: Hub) -> Any:
    app.include_router(second.router("/second"))
    return first.mount(app, "/first")


@pytest.mark.parametrize(
    "join",
    [include_routers, nest_routers, mount_twice, mount_and_include],
    ids=lambda f: f.__name__,
)
def test_fault_17_hub_dep_does_not_choose_between_two_hubs(
    join: Callable[[FastAPI, Hub, Hub], Any],
) -> None:
    app = FastAPI()

    @app.get("/any")
    def take_any(hub: HubDep) -> int:
        raise AssertionError("the hub was chosen")

    @app.get("/second-hub")
    def take_second(hub: SecondDep) -> bool:
        return hub is SECOND

    with TestClient(join(app, FIRST, SECOND)) as web:
        with pytest.raises(RuntimeError, match="has 2 hubs, and HubDep cannot know") as caught:
            web.get("/any")
        assert "Depends(lambda: chat)" in str(caught.value)
        assert web.get("/second-hub").json() is True
        assert FIRST.is_running
        assert SECOND.is_running


def test_one_hub_at_two_places_is_one_hub() -> None:
    hub = Hub()
    app = FastAPI()
    include_routers(app, hub, hub)

    @app.get("/it")
    def take(it: HubDep) -> bool:
        return it is hub

    with TestClient(app) as web:
        assert web.get("/it").json() is True


def test_what_an_application_calls_its_hub_may_be_something_else() -> None:
    hub = Hub()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        yield {"hub": "of a wheel"}

    app = FastAPI(lifespan=lifespan)

    @app.get("/it")
    def take(it: HubDep) -> bool:
        return it is hub

    with TestClient(app) as web, pytest.raises(HubNotRunning, match="is of the type str"):
        web.get("/it")
    app.include_router(hub.router())
    with TestClient(app) as web:
        assert web.get("/it").json() is True


def test_fault_33_the_dependency_is_the_hub_at_run_time_too() -> None:
    def route(hub: HubDep) -> None: ...

    hints = get_type_hints(route, {"HubDep": HubDep})
    assert hints["hub"] is Hub
