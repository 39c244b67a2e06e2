"""`hub.mount`: the hub beside Django, Litestar, Quart, Starlette and plain ASGI applications."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import litestar
import pytest
import quart
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import clear_url_caches, set_urlconf
from django.urls import path as django_path
from django.utils.functional import empty
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from websockets.exceptions import InvalidStatus

from hubbub import BrokerUnavailable, Hub, MemoryBroker
from hubbub.brokers.broker import Node
from serving import PATIENCE_S, Served, serve, take, until

pytestmark = pytest.mark.anyio

Event = dict[str, Any]
Receive = Callable[[], Any]
Send = Callable[[Event], Any]


@pytest.fixture(params=[True, False], ids=["native", "portable"])
def native(request: pytest.FixtureRequest) -> bool:
    """Run a test on both transports."""
    return bool(request.param)


async def get(server: Served, path: str) -> httpx2.Response:
    # There is no TLS here, and loading certificates takes longer than most of these tests.
    async with httpx2.AsyncClient(trust_env=False, verify=False, timeout=PATIENCE_S) as web:
        return await web.get(server.http(path))


async def prove(hub: Hub, server: Served, page: str = "/page", socket: str = "/ws") -> None:
    """Prove that the page of an application sees the hub and reaches its clients."""
    async with server.connect(socket) as one, server.connect(socket) as other:
        await until(lambda: len(hub) == 2)
        assert (await get(server, page)).json() == {"clients": 2}
        for client in (one, other):
            assert await take(client, 1) == ['{"page":"seen"}']
        await one.send("hello")
        assert await take(other, 1) == ["hello"]
    assert (await get(server, socket)).status_code == 426
    for file in ("hubbub.js", "rooms.js"):
        assert (await get(server, f"{socket}/{file}")).status_code == 200
    assert (await get(server, f"{socket}/else")).status_code == 404


# Plain ASGI


class Plain:
    """An ASGI application with one page; its lifespan is what the test wants it to be."""

    def __init__(self, hub: Hub, lifespan: Callable[[Receive, Send], Any] | None = None) -> None:
        self.hub = hub
        self.lifespan = lifespan
        self.paths: list[str] = []

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            if self.lifespan is None:
                raise ValueError("only HTTP here")
            await self.lifespan(receive, send)
            return
        self.paths.append(scope["path"])
        assert scope["state"]["hub"] is self.hub
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        is_page = scope["path"].removeprefix(scope.get("root_path", "")) == "/page"
        if is_page:
            self.hub.broadcast({"page": "seen"})
        status = 200 if is_page else 404
        await send({"type": "http.response.start", "status": status, "headers": []})
        body = b'{"clients": %d}' % len(self.hub)
        await send({"type": "http.response.body", "body": body})


async def test_s07_an_application_without_a_lifespan(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "hubbub")
    hub = Hub()
    plain = Plain(hub)
    async with serve(hub.mount(plain, "/ws"), native=native) as server:
        assert hub.is_running
        await prove(hub, server)
        with pytest.raises(InvalidStatus) as caught:
            await server.connect("/elsewhere")
        assert caught.value.response.status_code == 403
    assert not hub.is_running
    assert plain.paths == ["/page", "/ws/else", "/elsewhere"]
    assert "the mounted application has no lifespan: only HTTP here" in caplog.messages


@pytest.mark.parametrize("ending", ["returns", "waits for ever"])
async def test_an_application_with_a_lifespan(ending: str) -> None:
    hub = Hub()
    steps: list[str] = []

    async def lifespan(receive: Receive, send: Send) -> None:
        steps.append((await receive())["type"])
        steps.append(f"the hub runs: {hub.is_running}")
        await send({"type": "lifespan.startup.complete"})
        steps.append((await receive())["type"])
        steps.append(f"the hub runs: {hub.is_running}, {len(hub)} here")
        await send({"type": "lifespan.shutdown.complete"})
        if ending == "waits for ever":
            await receive()

    app = hub.mount(Plain(hub, lifespan), "/ws")
    async with serve(app) as server, server.connect():
        await until(lambda: len(hub) == 1)
    assert steps == [
        "lifespan.startup",
        "the hub runs: True",
        "lifespan.shutdown",
        "the hub runs: False, 0 here",
    ]


async def play(app: Any, *, state: bool = True) -> list[Event]:
    """Play a server's lifespan to `app`, up and down; return what it said."""
    said: list[Event] = []
    events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Event:
        return next(events)

    async def send(event: Event) -> None:
        said.append(event)

    scope: Event = {"type": "lifespan"}
    if state:
        scope["state"] = {}
    await asyncio.wait_for(app(scope, receive, send), PATIENCE_S)
    return said


async def fail_to_start(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
    raise LookupError("no database")


async def fail_to_start_and_stay(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed"})
    await receive()


async def fail_to_stop(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "the database hangs"})


async def raise_at_the_end(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise LookupError


async def die_in_between(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    raise LookupError("a background task of the application")


UP = {"type": "lifespan.startup.complete"}
DOWN = {"type": "lifespan.shutdown.complete"}


@pytest.mark.parametrize(
    ("lifespan", "said"),
    [
        (fail_to_start, [{"type": "lifespan.startup.failed", "message": "no database"}]),
        (
            fail_to_start_and_stay,
            [{"type": "lifespan.startup.failed", "message": "the application's startup failed"}],
        ),
        (fail_to_stop, [UP, {"type": "lifespan.shutdown.failed", "message": "the database hangs"}]),
        (raise_at_the_end, [UP, {"type": "lifespan.shutdown.failed", "message": "LookupError"}]),
        (die_in_between, [UP, DOWN]),
        (None, [UP, DOWN]),
    ],
)
async def test_failures_of_the_applications_lifespan_reach_the_server(
    lifespan: Callable[[Receive, Send], Any] | None, said: list[Event]
) -> None:
    hub = Hub()
    unheard: list[Event] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: unheard.append(context))
    for state in (True, False):
        assert await play(hub.mount(Plain(hub, lifespan), "/ws"), state=state) == said
        assert not hub.is_running
    gc.collect()
    assert unheard == [], "a task's exception that nobody retrieved"


class BrokenBroker(MemoryBroker):
    """A broker that cannot be reached."""

    async def start(self, node: Node) -> None:
        raise ConnectionError("no broker at 127.0.0.1")


async def test_a_hub_that_cannot_start_reaches_the_server() -> None:
    hub = Hub(broker=BrokenBroker())
    said = await play(hub.mount(Plain(hub), "/ws"))
    assert said == [{"type": "lifespan.startup.failed", "message": "no broker at 127.0.0.1"}]
    assert not hub.is_running


async def test_paths_are_compared_whole(native: bool) -> None:
    hub = Hub()
    plain = Plain(hub)
    async with serve(hub.mount(plain, "/ws/"), native=native) as server:
        for path in ("/ws", "/ws/"):
            async with server.connect(path):
                pass
        for path in ("/wss", "/ws/deeper", "/", "/a/ws"):
            with pytest.raises(InvalidStatus):
                await server.connect(path)
    assert plain.paths == ["/wss", "/ws/deeper", "/", "/a/ws"]


async def test_a_root_path_is_left_out_of_the_comparison(native: bool) -> None:
    hub = Hub()
    app = hub.mount(Plain(hub), "/ws")
    async with serve(app, native=native, root_path="/behind/a/proxy") as server:
        await prove(hub, server)


async def test_a_mounted_application_may_be_mounted_itself(native: bool) -> None:
    hub = Hub()
    inner = hub.mount(Plain(hub), "/ws")
    app = Starlette(routes=[Mount("/inner", app=inner)], lifespan=hub.lifespan)
    async with serve(app, native=native) as server:
        await prove(hub, server, "/inner/page", "/inner/ws")


async def test_the_hub_may_have_the_root(native: bool) -> None:
    hub = Hub()
    plain = Plain(hub)
    async with serve(hub.mount(plain, "/"), native=native) as server:
        async with server.connect("/") as socket:
            await until(lambda: len(hub) == 1)
            assert (await get(server, "/page")).json() == {"clients": 1}
            assert await take(socket, 1) == ['{"page":"seen"}']
        assert (await get(server, "/hubbub.js")).status_code == 200


def test_a_path_begins_with_a_slash() -> None:
    with pytest.raises(ValueError, match=r"begins with a slash, .* not 'ws'"):
        Hub().mount(Plain(Hub()), "ws")
    for routes in (Hub().router, Hub().routes):
        with pytest.raises(ValueError, match="a path begins with a slash"):
            routes("ws")


# Frameworks


def broadcast_and_count(hub: Hub) -> dict[str, int]:
    hub.broadcast({"page": "seen"})
    return {"clients": len(hub)}


async def test_s07_starlette_within_the_mount_keeps_its_lifespan(native: bool) -> None:
    hub = Hub()
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        steps.append("up")
        yield {"greeting": "hello"}
        steps.append("down")

    async def page(request: Request) -> JSONResponse:
        assert request.state.greeting == "hello"
        return JSONResponse(broadcast_and_count(request.state.hub))

    app = Starlette(routes=[Route("/page", page)], lifespan=lifespan)
    async with serve(hub.mount(app, "/ws"), native=native) as server:
        await prove(hub, server)
    assert steps == ["up", "down"]


async def test_a_starlette_application_that_cannot_start_stops_the_server() -> None:
    hub = Hub()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        raise LookupError("no database")
        yield

    said = await play(hub.mount(Starlette(lifespan=lifespan), "/ws"))
    assert [event["type"] for event in said] == ["lifespan.startup.failed"]
    assert "no database" in said[0]["message"]
    assert not hub.is_running


@pytest.fixture
def django_settings() -> Iterator[None]:
    """Give Django settings for one test, and take them back: they are the whole process's."""
    before = settings._wrapped
    settings._wrapped = empty
    settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="not so secret", ALLOWED_HOSTS=["*"])
    clear_url_caches()
    yield
    settings._wrapped = before
    clear_url_caches()
    set_urlconf(None)


django_hub = Hub()


def django_page(request: HttpRequest) -> JsonResponse:
    """Answer in a thread, as Django's synchronous views do."""
    return JsonResponse(broadcast_and_count(django_hub))


async def django_page_async(request: HttpRequest) -> JsonResponse:
    return JsonResponse(broadcast_and_count(django_hub))


urlpatterns = [django_path("page", django_page), django_path("async", django_page_async)]


@pytest.mark.usefixtures("django_settings")
async def test_s07_django_and_the_socket_in_one_process(native: bool) -> None:
    app = django_hub.mount(get_asgi_application(), "/ws")
    async with serve(app, native=native) as server:
        await prove(django_hub, server)
        await prove(django_hub, server, "/async")


async def test_s07_litestar_within_the_mount(native: bool) -> None:
    hub = Hub()
    steps: list[str] = []

    @litestar.get("/page")
    async def page() -> dict[str, int]:
        return broadcast_and_count(hub)

    app = litestar.Litestar(
        [page],
        on_startup=[lambda: steps.append("up")],
        on_shutdown=[lambda: steps.append("down")],
        logging_config=None,
    )
    async with serve(hub.mount(app, "/ws"), native=native) as server:
        await prove(hub, server)
    assert steps == ["up", "down"]


async def test_s07_litestar_takes_the_hub_as_an_asgi_application(native: bool) -> None:
    hub = Hub()
    socket = litestar.asgi("/ws", is_mount=True, copy_scope=True)(hub)
    app = litestar.Litestar([socket], lifespan=[hub.lifespan], logging_config=None)
    async with serve(app, native=native) as server:
        assert hub.is_running
        async with server.connect() as one, server.connect() as other:
            await one.send("hello")
            assert await take(other, 1) == ["hello"]
        assert (await get(server, "/ws")).status_code == 426
        assert (await get(server, "/ws/hubbub.js")).status_code == 200


async def test_s07_quart_within_the_mount(native: bool) -> None:
    hub = Hub()
    web = quart.Quart(__name__)
    steps: list[str] = []

    @web.get("/page")
    async def page() -> dict[str, int]:
        return broadcast_and_count(hub)

    @web.websocket("/own")
    async def own() -> None:
        await quart.websocket.send(f"own: {await quart.websocket.receive()!s}")

    web.before_serving(lambda: steps.append("up"))
    web.after_serving(lambda: steps.append("down"))
    async with serve(hub.mount(web, "/ws"), native=native) as server:
        await prove(hub, server)
        async with server.connect("/own") as socket:
            await socket.send("hello")
            assert await take(socket, 1) == ["own: hello"]
    assert steps == ["up", "down"]


def test_the_test_client_runs_a_mounted_application() -> None:
    hub = Hub()
    with TestClient(hub.mount(Plain(hub), "/ws")) as web, web.websocket_connect("/ws") as socket:
        assert web.get("/page").json() == {"clients": 1}
        assert socket.receive_json() == {"page": "seen"}
    assert not hub.is_running


# Servers without a lifespan


@pytest.mark.parametrize("lifespan", ["on", "off"])
async def test_fault_13_a_page_may_publish_before_the_first_socket_came(
    native: bool, lifespan: str
) -> None:
    """Without a lifespan the first request of any kind starts the hub."""
    hub = Hub()

    async def publish(request: Request) -> JSONResponse:
        hub.broadcast("to whoever is there")
        return JSONResponse({"clients": len(hub)})

    app = hub.mount(Starlette(routes=[Route("/publish", publish)]))
    async with serve(app, native=native, lifespan=lifespan) as server:
        answer = await get(server, "/publish")
        assert (answer.status_code, answer.json()) == (200, {"clients": 0})
        async with server.connect() as socket:
            await until(lambda: len(hub) == 1)
            await get(server, "/publish")
            assert await take(socket, 1) == ["to whoever is there"]
    await hub.stop()


async def test_fault_13_a_page_without_lifespan_says_why_the_hub_does_not_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Late(MemoryBroker):
        """A broker that is reached at the second try."""

        tries = 0

        async def start(self, node: Node) -> None:
            self.tries += 1
            if self.tries == 1:
                raise BrokerUnavailable("no connection yet")
            await super().start(node)

    hub = Hub(broker=Late())
    app = hub.mount(Starlette(routes=[Route("/", lambda request: JSONResponse(hub.is_running))]))
    async with serve(app, lifespan="off") as server:
        assert (await get(server, "/")).json() is False
        assert (await get(server, "/")).json() is True
    assert "the hub could not start, and is tried again: no connection yet" in caplog.text
    await hub.stop()


async def test_fault_20_a_page_without_lifespan_lends_the_hub_no_context() -> None:
    seen = contextvars.ContextVar("seen", default="nothing")
    hub = Hub()
    log: list[str] = []
    hub.every(0.01)(lambda: log.append(seen.get()))
    mounted = hub.mount(Starlette(routes=[Route("/", lambda request: JSONResponse("ok"))]))

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        seen.set("the request's")
        await mounted(scope, receive, send)

    async with serve(middleware, lifespan="off") as server:
        assert (await get(server, "/")).status_code == 200
        await until(lambda: bool(log))
    await hub.stop()
    assert set(log) == {"nothing"}
