"""FastAPI: the hub's router, its dependencies, `HubDep`, and the application's own sockets."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, get_type_hints

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, WebSocket, WebSocketException
from fastapi.requests import HTTPConnection
from fastapi.testclient import TestClient
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import Response as PlainResponse
from starlette.websockets import WebSocketDisconnect
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response

from hubbub import (
    Client,
    Handshake,
    HttpProtocol,
    Hub,
    HubDep,
    HubNotRunning,
    Identity,
    SocketTaken,
)
from serving import PATIENCE_S, Served, serve, take, until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[True, False], ids=["native", "portable"])
def native(request: pytest.FixtureRequest) -> bool:
    """Run a test on both transports."""
    return bool(request.param)


async def ask(server: Served, path: str, *, method: str = "GET", **headers: str) -> httpx2.Response:
    # There is no TLS here, and loading certificates takes longer than most of these tests.
    async with httpx2.AsyncClient(trust_env=False, verify=False, timeout=PATIENCE_S) as web:
        return await web.request(method, server.http(path), headers=headers)


async def denial(server: Served, path: str = "/ws", **headers: str) -> Response:
    """Return how a handshake was refused."""
    with pytest.raises(InvalidStatus) as caught:
        await server.connect(path, additional_headers=headers)
    return caught.value.response


async def end_of(client: ClientConnection) -> int | None:
    """Wait for the end of a connection; return the close code that was received."""
    try:
        while True:
            await asyncio.wait_for(client.recv(), PATIENCE_S)
    except ConnectionClosed as end:
        return None if end.rcvd is None else end.rcvd.code


def listen_to_uvicorn(caplog: pytest.LogCaptureFixture) -> None:
    """Collect the log of uvicorn, whatever an earlier test's server did to its loggers."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
        caplog.set_level(logging.INFO, name)


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


# Dependencies


def check_token(token: Annotated[str, Query()] = "") -> str:
    if token != "good":
        raise HTTPException(401, {"why": "a token is missing"}, headers={"X-Why": "token"})
    return token


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


# A route of one's own


async def test_s07_attach_in_a_fastapi_route(native: bool) -> None:
    hub = Hub()
    hub.authenticate(lambda handshake: None)
    app = FastAPI(lifespan=hub.lifespan)

    @app.websocket("/projects/{project}/ws")
    async def project_socket(websocket: WebSocket, project: int) -> None:
        await hub.attach(websocket, identity=Identity(user="ann", meta={"project": project}))

    async with serve(app, native=native) as server:
        async with server.connect("/projects/7/ws") as socket:
            await until(lambda: len(hub) == 1)
            assert [client.meta for client in hub.clients_of("ann")] == [{"project": 7}]
            hub.to_user("ann").send("welcome")
            assert await take(socket, 1) == ["welcome"]
        assert (await denial(server, "/projects/x/ws")).status_code == 403


async def test_a_client_that_goes_during_its_handshake_is_no_error(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    listen_to_uvicorn(caplog)
    hub = Hub()
    answer = asyncio.Event()

    @hub.authenticate
    async def who(handshake: Handshake) -> str | None:
        await answer.wait()
        return handshake.query.get("user")

    app = FastAPI()
    app.include_router(hub.router("/ws"))
    async with serve(app, native=native, log_config=None, log_level="info") as server:
        for path in ("/ws?user=ann", "/ws"):
            await leave_early(server, path)
        await until(lambda: hub.stats()["register"] == 2)
        assert server.server is not None
        state = server.server.server_state
        await until(lambda: not state.connections)
        answer.set()
        await until(lambda: hub.stats()["register"] == 0 and not state.tasks)
    assert hub.stats()["total_clients"] == 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def leave_early(server: Served, path: str) -> None:
    """Ask for a socket and go before the answer."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()


# Sockets that no hub takes, under the native class


def application_with_own_sockets(gone: list[int]) -> FastAPI:
    app = FastAPI()
    app.include_router(Hub().router("/ws"))

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect as end:
            gone.append(end.code)

    @app.websocket("/close")
    async def close(websocket: WebSocket) -> None:
        await websocket.accept()
        raise WebSocketException(4123, "as agreed")

    @app.websocket("/guarded")
    async def needs_token(
        websocket: WebSocket, token: Annotated[str, Depends(check_token)]
    ) -> None:
        await websocket.accept()
        await websocket.send_json({"token": token})
        await websocket.close()

    return app


async def test_fastapis_own_sockets_work_under_the_native_class() -> None:
    gone: list[int] = []
    async with serve(application_with_own_sockets(gone)) as server:
        async with server.connect("/echo", compression="deflate") as socket:
            for text in ("", "hello", "ü" * 100_000):
                await socket.send(text)
                assert await take(socket, 1) == [text]
            await socket.close(4001)
        await until(lambda: gone == [4001])
        async with server.connect("/close") as socket:
            assert await end_of(socket) == 4123
        response = await denial(server, "/guarded")
        assert response.status_code == 401
        assert response.headers["X-Why"] == "token"
        async with server.connect("/guarded?token=good") as socket:
            assert await take(socket, 1) == ['{"token":"good"}']
        last = await server.connect("/echo")
        await last.send("hello")
        await take(last, 1)
    assert await end_of(last) == 1012
    assert gone == [4001, 1012]


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


# What the framework does to a socket that it no longer owns

HTTP_CLASSES = {"h11": "h11", "httptools": "httptools", "hubbub": HttpProtocol}


async def close_it(websocket: WebSocket) -> None:
    await websocket.close()


async def send_text(websocket: WebSocket) -> None:
    await websocket.send_text("from the route")


async def send_json(websocket: WebSocket) -> None:
    await websocket.send_json({"from": "the route"})


async def receive_text(websocket: WebSocket) -> None:
    await websocket.receive_text()


async def accept_again(websocket: WebSocket) -> None:
    await websocket.accept()


async def deny(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainResponse("no", 403))


async def send_raw(websocket: WebSocket) -> None:
    await websocket.send({"type": "websocket.http.response.start", "status": 403, "headers": []})


USES = [close_it, send_text, send_json, receive_text, accept_again, deny, send_raw]


def using_app(hub: Hub, heard: list[BaseException]) -> FastAPI:
    """Return an application whose route hands its socket over and then uses it nevertheless."""
    app = FastAPI(lifespan=hub.lifespan)

    @app.websocket("/{number}/ws")
    async def use(websocket: WebSocket, number: int) -> None:
        await hub.attach(websocket)
        try:
            await USES[number](websocket)
        except RuntimeError as error:
            heard.append(error)
            raise

    return app


@pytest.mark.parametrize("http", HTTP_CLASSES)
@pytest.mark.parametrize(
    "anyio_backend",
    [("asyncio", {"use_uvloop": use_uvloop}) for use_uvloop in (False, True)],
    ids=["asyncio", "uvloop"],
)
async def test_fault_04_using_a_socket_that_the_hub_has_taken_is_an_error_for_the_user_alone(
    http: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()
    hub.on_message(lambda client, message: client.send(message))
    heard: list[BaseException] = []
    app = using_app(hub, heard)
    async with AsyncExitStack() as stack:
        async with serve(app, http=HTTP_CLASSES[http], log_config=None) as server:
            sockets = [
                await stack.enter_async_context(server.connect(f"/{number}/ws"))
                for number in range(len(USES))
            ]
            await until(lambda: len(heard) == len(USES))
            assert {type(error) for error in heard} == {SocketTaken}
            assert all("use the client" in str(error) for error in heard)
            for socket in sockets:
                await socket.send("still here")
                assert await take(socket, 1) == ["still here"]
            assert len(hub) == len(USES)
            assert server.server is not None
            state = server.server.server_state
            await until(lambda: len(state.connections) == len(USES) and not state.tasks)
        for socket in sockets:
            await socket.wait_closed()
            assert (socket.close_code, socket.close_reason) == (1012, "service restart")
    assert not hub.is_running, "the lifespan was completed"
    failures = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert {record.name for record in failures} == {"hubbub"}
    assert all("the client stays" in record.getMessage() for record in failures)


RAISED = {
    "http": HTTPException(403, "after the takeover"),
    "websocket": WebSocketException(1008, "after the takeover"),
    "other": LookupError("after the takeover"),
}


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("http", HTTP_CLASSES)
async def test_fault_04_what_a_route_or_its_dependency_raises_after_the_takeover_hurts_no_client(
    http: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()
    hub.on_message(lambda client, message: client.send(message))

    async def raising() -> AsyncIterator[None]:
        yield
        raise RAISED[kind]

    app = FastAPI()
    app.include_router(hub.router("/ws", dependencies=[Depends(raising)]))

    @app.websocket("/own")
    async def own(websocket: WebSocket) -> None:
        await hub.attach(websocket)
        raise RAISED[kind]

    async with AsyncExitStack() as stack:
        async with serve(app, http=HTTP_CLASSES[http], log_config=None) as server:
            sockets = [
                await stack.enter_async_context(server.connect(path)) for path in ("/ws", "/own")
            ]
            assert server.server is not None
            state = server.server.server_state
            await until(lambda: len(hub) == 2 and not state.tasks)
            for socket in sockets:
                await socket.send("still here")
                assert await take(socket, 1) == ["still here"]
            assert len(state.connections) == 2
        for socket in sockets:
            await socket.wait_closed()
            assert (socket.close_code, socket.close_reason) == (1012, "service restart")
    assert not hub.is_running, "the lifespan was completed"
    failures = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(failures) == 2
    assert all("the client stays" in record.getMessage() for record in failures)


async def test_fault_04_the_portable_transport_guards_a_socket_too() -> None:
    """While the hub serves it in one task, and after its end, the route's object is no door."""
    hub = Hub()
    hub.on_message(lambda client, message: client.send(message))
    heard: list[str] = []
    app = FastAPI(lifespan=hub.lifespan)

    @app.websocket("/ws")
    async def own(websocket: WebSocket) -> None:
        async def use_meanwhile() -> None:
            await until(lambda: len(hub) == 1)
            for use in USES:
                with pytest.raises(SocketTaken, match="use the client"):
                    await use(websocket)
                heard.append(use.__name__)

        async with asyncio.TaskGroup() as group:
            group.create_task(use_meanwhile())
            await hub.attach(websocket)
        for use in USES:
            with pytest.raises(SocketTaken, match="use the client"):
                await use(websocket)
        heard.append("after the end")

    async with serve(app, native=False) as server:
        async with server.connect("/ws") as socket:
            await until(lambda: len(heard) == len(USES))
            await socket.send("still here")
            assert await take(socket, 1) == ["still here"]
        await until(lambda: "after the end" in heard)


async def test_fault_04_a_socket_is_attached_once(native: bool) -> None:
    hub = Hub()
    outcome: list[str] = []
    app = FastAPI(lifespan=hub.lifespan)

    @app.websocket("/ws")
    async def twice(websocket: WebSocket) -> None:
        await hub.attach(websocket)
        try:
            await hub.attach(websocket)
        except SocketTaken as error:
            outcome.append(error.what)

    async with serve(app, native=native) as server:
        async with server.connect("/ws"):
            await until(lambda: len(hub) == 1)
        await until(lambda: outcome == ["attach"])


async def test_fault_04_a_teardown_that_never_ends_does_not_hold_up_the_shutdown() -> None:
    hub = Hub(shutdown_timeout_s=0.2)

    async def never() -> AsyncIterator[None]:
        yield
        await asyncio.Event().wait()

    app = FastAPI()
    app.include_router(hub.router("/ws", dependencies=[Depends(never)]))
    async with serve(app) as server:
        async with server.connect("/ws"):
            await until(lambda: len(hub) == 1)
        await until(lambda: len(hub) == 0)
        assert server.server is not None
        state = server.server.server_state
        assert len(state.tasks) == 1
    assert not state.tasks
    assert not hub.is_running, "the lifespan was completed"


def test_fault_33_the_dependency_is_the_hub_at_run_time_too() -> None:
    def route(hub: HubDep) -> None: ...

    hints = get_type_hints(route, {"HubDep": HubDep})
    assert hints["hub"] is Hub
