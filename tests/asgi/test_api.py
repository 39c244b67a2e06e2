"""The HTTP API: paths, keys, bodies, statuses; what comes before any method, and what a stranger costs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import litestar
import pytest
import quart
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from asgi.handshakes import listen
from calling import KEY, Answered, api_of, call, error, request, result
from hubbub import ApiKey, Hub, HubNotRunning, MemoryBroker, RoomRules, SettingsError
from hubbub.asgi import api as api_module
from hubbub.asgi.api_methods import METHODS
from hubbub.brokers.broker import Node
from hubbub.hub.core import core_of
from hubbub.testing import connect
from serving import PATIENCE_S, Served, serve, take, until

pytestmark = pytest.mark.anyio

RIGHT = {"X-API-Key": KEY}
INFO = b"{}"


def web() -> httpx2.AsyncClient:
    # There is no TLS here, and loading certificates takes longer than most of these tests.
    return httpx2.AsyncClient(trust_env=False, verify=False, timeout=PATIENCE_S)


async def post(
    server: Served, path: str, body: bytes = INFO, headers: Mapping[str, str] | None = None
) -> httpx2.Response:
    async with web() as client:
        return await client.post(server.http(path), content=body, headers=headers)


def as_body(fields: Any) -> bytes:
    return json.dumps(fields).encode()


# Who calls


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"X-API-Key": KEY}, b""),
        ({"x-api-key": KEY}, b""),
        ({"Authorization": f"apikey {KEY}"}, b""),
        ({"authorization": f"ApiKey  {KEY}"}, b""),
        ({}, b"api_key=" + KEY.encode()),
        ({"Authorization": "Bearer of-something-else"}, b"api_key=" + KEY.encode()),
    ],
)
async def test_a_key_is_in_a_header_or_in_the_query(
    headers: Mapping[str, str], query: bytes
) -> None:
    hub = Hub()
    answer = await request(api_of(hub), "/api/info", INFO, headers=headers, query_string=query)
    assert answer.status == 200
    await hub.stop()


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, b""),
        ({"X-API-Key": ""}, b""),
        ({"X-API-Key": "wrong"}, b""),
        ({"X-API-Key": KEY[:-1]}, b""),
        ({"X-API-Key": f"{KEY}, {KEY}"}, b""),
        ({"Authorization": KEY}, b""),
        ({"Authorization": f"Bearer {KEY}"}, b""),
        ({"X-API-Key": "wrong", "Authorization": f"apikey {KEY}"}, b""),
        ({"Cookie": f"api_key={KEY}"}, b""),
        ({}, b"key=" + KEY.encode()),
    ],
)
@pytest.mark.parametrize("path", ["/api/info", "/api/nothing", "/api", "/api/openapi.json"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
async def test_who_has_no_key_is_told_that_and_nothing_is_read(
    headers: Mapping[str, str], query: bytes, path: str, method: str
) -> None:
    hub = Hub()
    body = INFO, INFO
    answer = await request(
        api_of(hub), path, *body, method=method, headers=headers, query_string=query
    )
    assert (answer.status, answer.unread) == (401, 2)
    assert answer.headers["www-authenticate"] == "apikey"
    error = answer.body["error"]
    assert error["code"] == 101
    assert error["message"].endswith("; it comes in the header X-API-Key")
    assert error["message"].startswith(("There is no API key", "This API key is not known"))
    assert hub.stats()["refused_api"] == {"unauthorized": 1}
    assert not hub.is_running


async def test_no_key_is_in_any_log_line_error_or_figure(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    wrong = "a-key-that-nobody-has-given"
    async with serve(hub.mount(api_of(hub), "/ws"), log_level="debug") as server:
        listen(caplog)
        for given in (KEY, wrong):
            assert (
                await post(server, "/api/nothing", headers={"X-API-Key": given})
            ).status_code > 400
            await post(server, "/api/info", headers={"Authorization": f"apikey {given}"})
            await post(server, f"/api/publish?api_key={given}", b"{")
            await post(server, f"/api/publish?api_key={given}", b'{"channel": 5}')
    assert "POST /api/publish?api_key=***" in caplog.text
    assert "a call of the API from 127.0.0.1 was refused: 401 unauthorized" in caplog.text
    shown = caplog.text + json.dumps(hub.stats()) + repr(vars(api_of(hub)))
    assert KEY not in shown
    assert wrong not in shown


async def test_pages_of_other_origins_may_read_nothing() -> None:
    hub = Hub(origins="*")
    headers = {**RIGHT, "Origin": "https://example.com"}
    for method, status in (("POST", 200), ("OPTIONS", 405)):
        answer = await request(api_of(hub), "/api/info", INFO, method=method, headers=headers)
        assert answer.status == status
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["cache-control"] == "no-store"
    await hub.stop()


# Paths


@pytest.mark.parametrize(
    ("path", "scope", "is_there"),
    [
        ("/api/info", {}, True),
        ("/api/info/", {}, True),
        ("/shop/api/info", {"root_path": "/shop"}, True),
        ("/shop/api/info", {"root_path": "/shop/api"}, True),
        ("/info", {"root_path": "/api"}, True),
        ("/apix/info", {}, False),
        ("/info", {}, False),
        ("/shopping/info", {"root_path": "/shop"}, False),
        ("/other/api/info", {}, False),
    ],
)
async def test_the_api_is_at_its_path_and_nowhere_else(
    path: str, scope: dict[str, str], is_there: bool
) -> None:
    hub = Hub()
    answer = await request(api_of(hub), path, INFO, headers=RIGHT, **scope)
    assert answer.status == (200 if is_there else 404)
    await hub.stop()


@pytest.mark.parametrize("path", ["/", "/api/", "/deep/in/here"])
async def test_the_path_is_any(path: str) -> None:
    hub = Hub()
    app = hub.api(path, keys=[KEY])
    for tail in ("/info", "/openapi.json"):
        method = "GET" if "json" in tail else "POST"
        where = path.rstrip("/") + tail
        assert (await request(app, where, INFO, method=method, headers=RIGHT)).status == 200
    await hub.stop()


async def test_what_is_no_method_is_404_and_other_http_methods_405() -> None:
    hub = Hub()
    app = api_of(hub)
    answer = await request(app, "/api/rpc", INFO, headers=RIGHT)
    assert (answer.status, answer.body["error"]["code"], answer.unread) == (404, 104, 1)
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        answer = await request(app, "/api/info", INFO, method=method, headers=RIGHT)
        assert (answer.status, answer.headers["allow"], answer.unread) == (405, "POST", 1)
    answer = await request(app, "/api/openapi.json", INFO, headers=RIGHT)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_the_path_of_the_api_itself_takes_a_method_in_the_body() -> None:
    hub = Hub()
    app = api_of(hub, keys=[KEY, ApiKey("another-key-0123456789", methods=["publish"])])

    async def one(body: bytes, key: str = KEY) -> Answered:
        return await request(app, "/api", body, headers={"X-API-Key": key})

    found = await one(b'{"method": "publish", "params": {"channel": "a", "data": 1}}')
    assert found.body == {"result": {}}
    assert len((await one(b'{"method": "info"}')).body["result"]["nodes"]) == 1
    batch = b'{"method": "batch", "params": {"commands": [{"info": {}}]}}'
    assert list((await one(batch)).body) == ["replies"]
    assert (await one(b'{"method": "nothing"}')).body["error"]["code"] == 104
    assert (await one(b'{"params": {}}')).body["error"]["code"] == 107
    refused = await one(b'{"method": "info"}', "another-key-0123456789")
    assert refused.body["error"]["code"] == 103
    await hub.stop()


async def test_all_else_is_the_applications() -> None:
    hub, seen = Hub(), []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["type"], scope.get("path")))

    app = api_of(hub, app=inner)
    for scope in ({"type": "http", "path": "/apis"}, {"type": "websocket", "path": "/api/info"}):
        await app({"headers": [], **scope}, None, None)
    await app({"type": "lifespan"}, None, None)
    assert seen == [("http", "/apis"), ("websocket", "/api/info"), ("lifespan", None)]


@pytest.mark.parametrize(
    ("path", "root", "is_api"),
    [
        ("/shop/api/page", "/shop/api", False),
        ("/shop/api/info", "/shop/api", False),
        ("/shop/api/api/info", "/shop/api", True),
        ("/shop/page", "/shop", False),
        ("/shop/api/info", "/shop/", True),
        ("/shopapi/info", "/shop", False),
    ],
)
async def test_behind_a_root_path_all_else_is_the_applications(
    path: str, root: str, is_api: bool
) -> None:
    hub, seen = Hub(), []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])

    app = hub.mount(api_of(hub, app=inner), "/ws")
    answer = await request(app, path, INFO, headers=RIGHT, root_path=root)
    assert (answer.status == 200, seen) == (is_api, [] if is_api else [path])
    await hub.stop()


async def test_without_an_application_it_is_one_with_the_hubs_lifespan() -> None:
    hub = Hub()
    async with serve(api_of(hub)) as server:
        assert hub.is_running
        assert (await post(server, "/api/info", headers=RIGHT)).status_code == 200
        assert (await post(server, "/else", headers=RIGHT)).status_code == 404
        with pytest.raises(Exception, match="403"):
            await server.connect("/api/info")
    assert not hub.is_running


async def test_what_the_api_cannot_be_made_of_is_an_error(tmp_path: Path) -> None:
    hub = Hub()
    wrong: Any
    for wrong in ("api", 5):
        with pytest.raises(ValueError, match="begins with a slash"):
            hub.api(wrong, keys=[KEY])
    with pytest.raises(ValueError, match="'brodcast'; there are publish, broadcast"):
        hub.api(keys=[ApiKey(KEY, methods=["brodcast"])])
    for wrong in (0, "1", True):
        with pytest.raises(ValueError, match="max_body_bytes"):
            hub.api(keys=[KEY], max_body_bytes=wrong)
    wrong = "app"
    with pytest.raises(TypeError, match="an ASGI application"):
        hub.api(keys=[KEY], app=wrong)
    with pytest.raises(SettingsError, match=r"hub\.api needs keys"):
        hub.api()
    path = tmp_path / "keys"
    path.write_text(f"{KEY}\n", encoding="utf-8")
    configured = Hub(api_keys_file=str(path))
    assert len((await result(configured.api(), "info"))["nodes"]) == 1
    await configured.stop()


# Bodies


async def test_a_body_comes_in_parts() -> None:
    hub = Hub()
    parts = b'{"channel":', b' "a", "dat', b'a": 1}', b""
    answer = await request(api_of(hub), "/api/publish", *parts, headers=RIGHT)
    assert answer.body == {"result": {}}
    await hub.stop()


async def test_a_body_that_says_it_is_too_long_is_not_read() -> None:
    hub = Hub()
    for length in ("101", "9" * 30, "1" + "0" * 4000):
        answer = await request(
            api_of(hub, max_body_bytes=100),
            "/api/publish",
            *(b"x", b"x"),
            headers={**RIGHT, "Content-Length": length},
        )
        assert (answer.status, answer.unread) == (413, 2)
        assert answer.body["error"]["code"] == 107
        assert "100 bytes (max_body_bytes)" in answer.body["error"]["message"]


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "5"}, {"Content-Length": "-1"}])
async def test_a_body_that_becomes_too_long_is_read_no_further(headers: dict[str, str]) -> None:
    hub = Hub()
    parts = [b" " * 60] * 10
    answer = await request(
        api_of(hub, max_body_bytes=100), "/api/publish", *parts, headers={**RIGHT, **headers}
    )
    assert (answer.status, answer.unread) == (413, 8)
    assert hub.stats()["refused_api"] == {"content_too_large": 1}


async def test_a_real_server_refuses_a_long_body_and_serves_on() -> None:
    hub = Hub()
    async with serve(hub.mount(api_of(hub, max_body_bytes=1000), "/ws")) as server, web() as client:
        for _ in range(3):
            long = await client.post(
                server.http("/api/publish"), content=b" " * 2_000_000, headers=RIGHT
            )
            assert long.status_code == 413
            good = await client.post(server.http("/api/info"), content=INFO, headers=RIGHT)
            assert good.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{} {}",
        b"nonsense",
        b'{"channel": "a", "data": "\xff"}',
        b'{"channel": "a", "data": 01}',
        b'{"channel": "a", "data": "\\ud800"}',
        b'{"channel": "a", "data": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        "{}".encode("utf-16"),
    ],
)
async def test_what_is_no_json_is_400(body: bytes) -> None:
    hub = Hub()
    answer = await request(api_of(hub), "/api/publish", body, headers=RIGHT)
    assert (answer.status, answer.body["error"]["code"]) == (400, 107)
    assert hub.stats()["refused_api"] == {"bad_request": 1}


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
_FIELDS = st.sampled_from(
    sorted({name for method in METHODS.values() for name in method.request.__struct_fields__})
)
_NAMES = st.sampled_from(["a", "chat:1", "@", "", "\ud800", "ann", "here:*", "AAE=", -1, 0, 5])


@settings(max_examples=150)
@given(
    st.sampled_from(["", *METHODS]),
    st.binary(max_size=30) | st.dictionaries(_FIELDS, _NAMES | _VALUES).map(as_body),
)
def test_no_body_whatever_does_more_than_be_refused(method: str, body: bytes) -> None:
    """An internal error would be logged, and answered with 100."""

    async def scenario() -> None:
        hub = Hub(room_rules=[RoomRules("chat:*", history=3), RoomRules("here:*", presence=True)])
        await hub.start()
        client = connect(hub, user="ann")
        answer = await request(api_of(hub), f"/api/{method}", body, headers=RIGHT)
        assert answer.status in (200, 400)
        if "error" in answer.body:
            assert answer.body["error"]["code"] in (103, 104, 106, 107, 108, 110, 112)
            assert answer.body["error"]["message"]
        client.close()
        await hub.stop()

    asyncio.run(scenario())


async def test_who_goes_away_before_the_end_is_not_answered() -> None:
    hub = Hub()
    sent: list[Any] = []
    events: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    async def send(event: Any) -> None:
        sent.append(event)

    headers = [(b"x-api-key", KEY.encode())]
    scope = {"type": "http", "path": "/api/info", "method": "POST", "headers": headers}
    await api_of(hub)(scope, receive, send)
    assert (sent, events) == ([], [])


async def test_a_body_that_does_not_come_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "BODY_TIMEOUT_S", 0.01)
    hub = Hub()
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        event: dict[str, Any] = await asyncio.get_running_loop().create_future()
        return event

    async def send(event: Any) -> None:
        sent.append(event)

    headers = [(b"x-api-key", KEY.encode())]
    scope = {"type": "http", "path": "/api/info", "method": "POST", "headers": headers}
    await api_of(hub)(scope, receive, send)
    assert sent[0]["status"] == 408


async def test_a_head_that_is_too_large_is_431() -> None:
    answer = await request(api_of(Hub()), "/api/info", INFO, headers={**RIGHT, "X": "x" * 70_000})
    assert (answer.status, answer.unread) == (431, 1)


# What keys may do


async def test_a_method_that_a_key_may_not_call_is_refused_before_the_body() -> None:
    hub = Hub()
    app = api_of(hub, keys=[ApiKey(KEY, methods=["publish"])])
    answer = await request(app, "/api/info", INFO, INFO, headers=RIGHT)
    assert (answer.status, answer.unread) == (200, 2)
    assert answer.body["error"]["code"] == 103
    assert await result(app, "publish", channel="a", data=1) == {}
    await hub.stop()


async def test_a_key_that_calls_too_often_is_refused_before_the_body(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "hubbub")
    hub = Hub()
    clock = [0.0]
    core_of(hub).clock = lambda: clock[0]
    app = api_of(hub, keys=[ApiKey(KEY, name="cron", per_second=0.5), "another-key-0123456789"])
    assert len((await result(app, "info"))["nodes"]) == 1
    answer = await request(app, "/api/info", INFO, headers=RIGHT)
    assert (answer.status, answer.unread) == (429, 1)
    assert answer.headers["retry-after"] == "1"
    assert answer.body["error"]["code"] == 111
    assert len((await result(app, "info", key="another-key-0123456789"))["nodes"]) == 1
    clock[0] += 2
    assert len((await result(app, "info"))["nodes"]) == 1
    assert hub.stats()["refused_api"] == {"too_many_requests": 1}
    line = "a call of the API from cron at an unknown address was refused: 429 too_many_requests"
    assert line in caplog.text
    await hub.stop()


async def test_each_command_and_each_room_counts() -> None:
    hub = Hub()
    core_of(hub).clock = lambda: 0.0
    app = api_of(hub, keys=[ApiKey(KEY, per_second=2.5)])
    commands = [{"publish": {"channel": "a", "data": n}} for n in range(3)]
    assert [list(reply) for reply in (await call(app, "batch", commands=commands))["replies"]] == [
        ["publish"]
    ] * 3
    await hub.stop()
    hub = Hub()
    core_of(hub).clock = lambda: 0.0
    app = api_of(hub, keys=[ApiKey(KEY, per_second=2)])
    found = (await result(app, "broadcast", channels=list("abcdef"), data=1))["responses"]
    assert [reply.get("error", {}).get("code") for reply in found] == [None] * 4 + [111] * 2
    await hub.stop()


# Errors as statuses


@pytest.mark.parametrize(
    ("method", "fields", "status", "code"),
    [
        ("publish", {"channel": "@ann", "data": 1}, 400, 107),
        ("presence", {"channel": "a"}, 400, 108),
        ("disconnect", {"user": "ann"}, 403, 103),
        ("history", {"channel": "old:1", "since": {"offset": 5, "epoch": "x"}}, 416, 112),
    ],
)
async def test_errors_are_statuses_for_who_asks_for_that(
    method: str, fields: dict[str, Any], status: int, code: int
) -> None:
    hub = Hub(room_rules=[RoomRules("old:*", history=5)])
    app = api_of(hub, keys=[ApiKey(KEY, rooms=["*"])])
    found = await error(app, method, **fields)
    assert found[0] == code
    body = json.dumps(fields).encode()
    headers = {**RIGHT, "X-Centrifugo-Error-Mode": "transport"}
    answer = await request(app, f"/api/{method}", body, headers=headers)
    assert (answer.status, answer.body) == (status, {"code": found[0], "message": found[1]})
    answer = await request(app, "/api/channels", b"{", headers=headers)
    assert (answer.status, answer.body["code"]) == (400, 107)
    answer = await request(app, "/api/channels", INFO, headers=headers)
    assert (answer.status, answer.body) == (200, {"result": {"channels": {}}})
    await hub.stop()


# The hub


async def test_a_hub_that_cannot_run_here_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()

    async def fail(server: object) -> None:
        raise HubNotRunning("it runs elsewhere")

    monkeypatch.setattr(core_of(hub).lifecycle, "start", fail)
    answer = await request(api_of(hub), "/api/info", INFO, headers=RIGHT)
    assert (answer.status, answer.body["error"]["code"]) == (503, 100)


class BrokenBroker(MemoryBroker):
    """A broker that cannot be reached, in a way that is its own."""

    async def start(self, node: Node) -> None:
        raise ConnectionError("no broker at 127.0.0.1")


async def test_a_hub_whose_start_fails_says_nothing_of_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub(broker=BrokenBroker())
    answer = await request(api_of(hub), "/api/info", INFO, headers=RIGHT)
    assert answer.body == {"error": {"code": 100, "message": "Internal Server Error"}}
    assert answer.status == 500
    assert "no broker at 127.0.0.1" in caplog.text


async def test_calls_and_errors_are_counted() -> None:
    hub = Hub()
    app = api_of(hub)
    await result(app, "info")
    await error(app, "publish", channel="a")
    await call(app, "batch", commands=[{"info": {}}, {"presence": {"channel": "a"}}, {}])
    stats = hub.stats()
    assert (stats["api_calls"], stats["api_errors"]) == (6, 3)
    await hub.stop()


async def test_a_method_that_fails_says_nothing_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()

    def fail(*_: object, **__: object) -> None:
        raise LookupError("a secret of the application")

    app = api_of(hub)
    await hub.start()
    monkeypatch.setattr(core_of(hub).publishing, "publish_in_turn", fail)
    with caplog.at_level(logging.ERROR, "hubbub"):
        assert await error(app, "publish", channel="a", data=1) == (100, "internal server error")
    assert "the method publish of the API failed" in caplog.text
    await hub.stop()


# Frameworks


async def hear(hub: Hub, server: Served) -> None:
    """Prove that a socket hears what the API publishes, and that the application's page is there."""
    async with server.connect() as socket:
        await until(lambda: len(hub) == 1)
        next(iter(hub)).join("news")
        body = b'{"channel": "news", "data": {"text": "hello"}}'
        answer = await post(server, "/api/publish", body, RIGHT)
        assert (answer.status_code, answer.json()) == (200, {"result": {}})
        assert await take(socket, 1) == ['{"text": "hello"}']
    in_the_body = b'{"method": "info"}'
    answer = await post(server, "/api/", in_the_body, RIGHT)
    assert len(answer.json()["result"]["nodes"]) == 1
    async with web() as client:
        assert (await client.get(server.http("/page"))).text == "a page"
        found = await client.get(server.http("/api/openapi.json"), headers=RIGHT)
        assert found.json()["servers"] == [{"url": "/api"}]
        assert (await client.get(server.http("/api/openapi.json"))).status_code == 401


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse("a page")


async def test_starlette_mounts_it(native: bool) -> None:
    hub = Hub()
    routes = [Route("/page", page), Mount("/api", hub.api("/api", keys=[KEY])), *hub.routes()]
    async with serve(Starlette(routes=routes, lifespan=hub.lifespan), native=native) as server:
        await hear(hub, server)


async def test_fastapi_mounts_it(native: bool) -> None:
    from fastapi import FastAPI

    hub, app = Hub(), FastAPI()
    app.include_router(hub.router("/ws"))
    app.mount("/api", hub.api("/api", keys=[KEY]))
    app.router.routes.insert(0, Route("/page", page))
    async with serve(app, native=native) as server:
        await hear(hub, server)


async def test_the_hub_is_mounted_around_it(native: bool) -> None:
    hub = Hub()
    app = hub.mount(
        hub.api("/api", keys=[KEY], app=Starlette(routes=[Route("/page", page)])), "/ws"
    )
    async with serve(app, native=native) as server:
        await hear(hub, server)


@pytest.mark.parametrize("framework", ["litestar", "quart"])
async def test_the_hub_is_mounted_around_it_and_a_framework(framework: str) -> None:
    hub = Hub()
    inner: Any
    if framework == "litestar":

        @litestar.get("/page", media_type="text/plain", sync_to_thread=False)
        def show() -> str:
            return "a page"

        inner = litestar.Litestar([show], openapi_config=None)
    else:
        inner = quart.Quart(__name__)

        @inner.get("/page")  # type: ignore[untyped-decorator]
        async def show_too() -> str:
            return "a page"

    async with serve(hub.mount(hub.api("/api", keys=[KEY], app=inner), "/ws")) as server:
        await hear(hub, server)


async def test_several_callers_at_once_are_all_answered() -> None:
    hub = Hub()
    async with serve(hub.mount(api_of(hub), "/ws")) as server, web() as client:
        peer = connect(hub)
        peer.client.join("a")
        bodies = [json.dumps({"channel": "a", "data": n}).encode() for n in range(50)]
        url = server.http("/api/publish")
        answers = await asyncio.gather(
            *(client.post(url, content=body, headers=RIGHT) for body in bodies)
        )
        assert {answer.status_code for answer in answers} == {200}
        await until(lambda: len(peer.received) == 50)
        assert sorted(map(int, peer.received)) == list(range(50))
