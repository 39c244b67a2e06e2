"""The guides to authentication, handlers, slow clients, deployment and testing do what they say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlencode

import anyio
import anyio.lowlevel
import anyio.to_thread
import jwt
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from hubbub import Hub, HubNotRunning
from hubbub.hub.core import core_of
from hubbub.testing import FakeClock, advance_time, set_clock
from matrix_worker import HubWorker
from pages import assert_echoes, assert_only_listens, refusal
from serving import serve


def test_authentication_by_cookie(load: Any) -> None:
    auth = load("docs/guides/authentication.md", "auth_app.py")
    with TestClient(auth.app) as client:
        body = {"error": "Log in first", "code": "unauthorized"}
        assert refusal(client, "/ws") == (401, body)
        client.cookies.set("session", "s3cr3t")
        with client.websocket_connect("/ws") as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "ann (admin): hello"
        assert client.get("/ws").status_code == 426


def test_authentication_by_jwt(load: Any) -> None:
    app = load("docs/guides/authentication.md", "jwt_app.py")
    good = jwt.encode({"sub": "ann", "aud": "chat"}, app.KEY, "HS256")
    bad = jwt.encode({"sub": "ann", "aud": "shop"}, app.KEY, "HS256")
    with TestClient(app.app) as client:
        with client.websocket_connect("/ws", headers={"Authorization": f"Bearer {good}"}) as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "ann: hello"
            assert [found.user for found in app.hub] == ["ann"]
        status, body = refusal(client, f"/ws?token={bad}")
        assert (status, body["code"]) == (401, "bad_token")
        assert "udience" in body["why"]


def until_s(seconds: float) -> float:
    """Return the time in so many seconds, as tokens have it: whole seconds."""
    return int(time.time() + seconds)


def test_authentication_a_token_is_refreshed(load: Any) -> None:
    app = load("docs/guides/authentication.md", "refresh_app.py")
    short, long, foreign = [
        jwt.encode({"sub": sub, "exp": until_s(seconds)}, app.KEY, "HS256")
        for sub, seconds in (("ann", 100), ("ann", 600), ("bob", 600))
    ]
    set_clock(app.hub, FakeClock())
    with TestClient(app.app) as client:
        assert client.portal is not None
        assert refusal(client, "/ws?token=nonsense")[1]["code"] == "bad_token"
        with (
            client.websocket_connect(f"/ws?token={short}") as ann,
            client.websocket_connect(f"/ws?token={short}") as idle,
        ):
            client.portal.call(advance_time, app.hub, 75)
            for socket in (ann, idle):
                assert socket.receive_json()["type"] == "refresh"
            for wrong, code in ((foreign, "forbidden"), ("x", "bad_token"), (None, "bad_token")):
                ann.send_json({"type": "token", "token": wrong})
                assert ann.receive_json()["code"] == code
            ann.send_json({"type": "token", "token": long})
            ann.send_json({"type": "what"})
            assert ann.receive_json()["type"] == "error", "so that the refresh has been read"
            client.portal.call(advance_time, app.hub, 75)
            with pytest.raises(WebSocketDisconnect) as caught:
                idle.receive_json()
            assert caught.value.code == 3005
            assert [found.user for found in app.hub] == ["ann"], "the one that was refreshed"


def test_authentication_a_ticket_is_good_for_one_time(load: Any) -> None:
    app = load("docs/guides/authentication.md", "tickets_app.py")
    with TestClient(app.app) as client:
        assert client.post("/ticket").status_code == 401
        client.cookies.set("session", "s3cr3t")
        url = f"/ws?token={client.post('/ticket').json()['ticket']}"
        assert client.get(url).status_code == 426, "a plain GET does not use it up"
        with client.websocket_connect(url) as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "ann: hello"
            assert [found.user for found in app.hub] == ["ann"]
            assert refusal(client, url)[1]["code"] == "bad_ticket"
        app.tickets["old"] = ("ann", time.monotonic() - 1)
        assert refusal(client, "/ws?token=old")[1]["code"] == "bad_ticket"
        app.forget_old_tickets()
        assert app.tickets == {}
        # Two that came at once: the second finds that it has been spent meanwhile.
        app.tickets["late"] = ("ann", time.monotonic() + 60)
        core_of(app.hub).handlers.connect.insert(0, (lambda: app.tickets.clear(), 0))
        with (
            client.websocket_connect("/ws?token=late") as socket,
            pytest.raises(WebSocketDisconnect) as caught,
        ):
            socket.receive_text()
        assert caught.value.code == 4501


def test_testing_a_cancelled_socket_is_gone_at_once() -> None:
    """TestClient cancels a socket's task through anyio, which cancels every later await in it too.

    Whoever waits before taking the client out of the tables keeps it there, and the end of each test
    waits `shutdown_timeout_s` for it.
    """
    scope: dict[str, Any] = {"type": "websocket", "path": "/", "headers": [], "scheme": "ws"}
    events: list[dict[str, Any]] = [{"type": "websocket.connect"}]

    async def receive() -> dict[str, Any]:
        while not events:
            await anyio.sleep_forever()
        return events.pop()

    async def send(event: MutableMapping[str, Any]) -> None:
        await anyio.lowlevel.checkpoint()

    async def scenario() -> None:
        hub = Hub()
        async with hub.lifespan():
            async with anyio.create_task_group() as group:
                group.start_soon(hub, scope, receive, send)
                while not hub.client_count:
                    await anyio.sleep(0.001)
                group.cancel_scope.cancel()
            assert hub.client_count == 0
            began = time.monotonic()
        assert time.monotonic() - began < hub.settings.shutdown_timeout_s / 2

    anyio.run(scenario)


def test_slow_clients(load: Any) -> None:
    slow = load("docs/guides/slow-clients.md", "slow_app.py")
    with TestClient(slow.app) as client, client.websocket_connect("/ws") as socket:
        assert_echoes(socket)
        assert slow.hub.rooms == {"log": 1}


def test_centrifuge_the_application_and_its_client(load: Any) -> None:
    app = load("docs/guides/centrifuge.md", "sdk_app.py").app
    client = load("docs/guides/centrifuge.md", "sdk_client.py")

    async def scenario() -> None:
        async with serve(app) as server:
            url = server.ws("/connection/websocket")
            assert await client.main(url, "secret of ann") == ("hello", 0.5)

    asyncio.run(scenario())


def test_remembering_a_page_and_what_follows(load: Any) -> None:
    app = load("docs/guides/rooms-that-remember.md", "remembering_app.py")
    with TestClient(app.app) as client:

        def say(text: str) -> Any:
            said = client.post("/say", params={"text": text, "request_id": text})
            assert said.status_code == 200
            return said.json()

        positions = [say(f"message {number}")["position"] for number in range(25)]
        assert say("message 24") == {"position": positions[24], "is_repeated": True}
        page = client.get("/page").json()
        assert page["said"] == [f"message {number}" for number in range(5, 25)]
        assert page["cursor"] == positions[24]
        say("between")
        with client.websocket_connect(f"/ws?{urlencode(page['cursor'])}") as socket:
            assert socket.receive_text() == "between"
            joined = socket.receive_json()
            assert (joined["type"], joined["recovered"]) == ("joined", True)
            assert joined["position"]["offset"] == 26
            say("after")
            assert socket.receive_text() == "after"
            socket.send_text("hello")
            assert socket.receive_json()["type"] == "error", "and nothing came twice"


def test_handlers_a_stream_ends_with_its_client(load: Any) -> None:
    stream = load("docs/guides/handlers.md", "stream_app.py")
    with TestClient(stream.app) as client:
        with client.websocket_connect("/ws") as socket:
            socket.send_text("tick")
            assert [socket.receive_text() for _ in range(3)] == ["tick 0", "tick 1", "tick 2"]
        deadline = time.monotonic() + 10
        while not stream.saved and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(stream.saved) == 1
        assert stream.hub.stats()["handlers_cancelled"] == 1


def test_fault_32_deployment_the_worker_class_of_gunicorn(load: Any) -> None:
    """The one that the smoke matrix serves with is the one that the page shows."""
    shown = load("docs/guides/deployment.md", "hub_worker.py").HubWorker
    assert shown.CONFIG_KWARGS == HubWorker.CONFIG_KWARGS
    assert shown.__bases__ == HubWorker.__bases__


def test_deployment_stats(load: Any) -> None:
    stats = load("docs/guides/deployment.md", "stats_app.py")
    with TestClient(stats.app) as client, client.websocket_connect("/ws") as socket:
        assert_only_listens(socket)
        assert client.get("/internal/stats").json()["clients"] == 1
        assert client.get("/healthz").json() == {"ok": True, "clients": 1}


def test_deployment_notify(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    notify = load("docs/guides/deployment.md", "notify_app.py")
    monkeypatch.setenv("NOTIFY_SECRET", "open sesame")
    url = "/internal/notify?text=hello"
    with TestClient(notify.app) as client, client.websocket_connect("/ws") as socket:
        assert client.post(url).status_code == 401
        assert client.post(url, headers={"Authorization": "Bearer wrong"}).status_code == 401
        right = client.post(url, headers={"Authorization": "Bearer open sesame"})
        assert right.status_code == 200
        assert socket.receive_json() == {"type": "notice", "text": "hello"}
        assert_only_listens(socket)
    with pytest.raises(HubNotRunning):
        notify.hub.broadcast("from a shell")
