"""Endpoint: lifespans, event loops, Starlette's TestClient, and calls that end early."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from asgi.handshakes import call, chat, clients, nobody_came
from hubbub import (
    BrokerUnavailable,
    Client,
    Handshake,
    Hub,
    MemoryBroker,
    MissingExtra,
)
from hubbub.brokers.broker import Node
from serving import serve, until

pytestmark = pytest.mark.anyio

# Lifespans, loops and threads


class BrokenBroker(MemoryBroker):
    """A broker that cannot be reached."""

    async def start(self, node: Node) -> None:
        raise ConnectionError("no broker at 127.0.0.1")


async def test_a_hub_that_cannot_start_says_so_to_the_server() -> None:
    hub = Hub(broker=BrokenBroker())
    said: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(event: Any) -> None:
        said.append(event)

    await hub({"type": "lifespan"}, receive, send)
    assert said == [{"type": "lifespan.startup.failed", "message": "no broker at 127.0.0.1"}]
    assert not hub.is_running


async def test_a_framework_is_given_a_broker_that_is_away_without_how_it_came_to_that() -> None:
    class Away(MemoryBroker):
        async def start(self, node: Node) -> None:
            raise BrokerUnavailable("no server") from ConnectionError("refused")

    said: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(event: Any) -> None:
        said.append(event)

    app = Starlette(lifespan=Hub(broker=Away()).lifespan)
    with pytest.raises(BrokerUnavailable):
        await app({"type": "lifespan", "state": {}}, receive, send)
    [failed] = said
    assert failed["message"].rstrip().endswith("no server")
    assert "refused" not in failed["message"]
    assert "lifecycle.py" not in failed["message"]


async def test_a_hub_serves_a_second_server_after_the_first(native: bool) -> None:
    hub = Hub()
    for _ in range(2):
        async with serve(hub, native=native) as server:
            await chat(server, "/ws")
        assert len(hub) == 0


async def test_without_a_lifespan_the_first_handshake_starts_the_hub(native: bool) -> None:
    hub = Hub()
    app = Starlette(routes=[WebSocketRoute("/ws", hub)])
    async with serve(app, native=native) as server:
        assert not hub.is_running
        await chat(server, "/ws")
        assert hub.is_running
    await hub.stop()


async def test_a_cancelled_asgi_call_leaves_nothing_behind() -> None:
    """Frameworks cancel by anyio's scopes: every further await in such a call raises again."""
    hub = Hub()
    gone: list[Client] = []
    hub.on_disconnect(gone.append)
    events = asyncio.Queue[Any]()
    events.put_nowait({"type": "websocket.connect"})

    async def send(event: Any) -> None:
        await asyncio.sleep(0)

    scope = {"type": "websocket", "path": "/ws", "headers": []}
    async with anyio.create_task_group() as calls:
        calls.start_soon(hub, scope, events.get, send)
        await until(lambda: len(hub) == 1)
        calls.cancel_scope.cancel()
    assert len(hub) == 0
    assert len(gone) == 1
    async with asyncio.timeout(hub.settings.shutdown_timeout_s / 5):
        await hub.stop()


async def test_a_socket_that_is_gone_already_gets_nothing() -> None:
    hub = Hub()
    assert await call(hub, "websocket.disconnect") == []
    assert hub.stats()["register"] == 0


async def test_a_native_socket_that_broke_while_it_was_accepted_is_nobody() -> None:
    class Broken:
        def stop_deadline(self, shutdown_timeout_s: float) -> None: ...

        def claim(self, *, deflate: bool) -> None: ...

        def detach(self, report: Callable[[BaseException], None]) -> None: ...

    hub = Hub()
    sent = await call(hub, "websocket.connect", extensions={"hubbub": {"socket": Broken()}})
    assert [event["type"] for event in sent] == ["websocket.accept"]
    assert nobody_came(hub)
    await hub.stop()


async def test_other_scopes_are_an_error() -> None:
    async def nothing(*arguments: Any) -> Any:
        raise AssertionError("nobody calls this")

    with pytest.raises(RuntimeError, match="'telnet'"):
        await Hub()({"type": "telnet"}, nothing, nothing)


async def test_a_router_without_fastapi_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "hubbub.asgi.fastapi", None)
    with pytest.raises(MissingExtra, match="pip install"):
        Hub().router("/ws")


# Starlette's TestClient


def starlette_app(hub: Hub) -> Starlette:
    return Starlette(
        routes=[WebSocketRoute("/ws", hub), Route("/ws", hub), Route("/clients", clients)],
        lifespan=hub.lifespan,
    )


@pytest.mark.timeout(8)
def test_the_test_client_talks_to_the_hub() -> None:
    """And nothing hangs at its exit, as it would if the hub waited for clients that are gone."""
    hub = Hub()

    @hub.on_message
    async def said(client: Client, message: str) -> None:
        await asyncio.sleep(0)
        hub.broadcast(f"{client.user}: {message}")

    @hub.authenticate
    def who(handshake: Handshake) -> str | None:
        return handshake.query.get("user")

    with TestClient(starlette_app(hub)) as web:
        with (
            web.websocket_connect("/ws?user=ann") as ann,
            web.websocket_connect("/ws?user=bob") as bob,
        ):
            ann.send_text("hello")
            assert [ann.receive_text(), bob.receive_text()] == ["ann: hello", "ann: hello"]
            hub.broadcast({"from": "another thread"})
            assert [s.receive_json() for s in (ann, bob)] == [{"from": "another thread"}] * 2
            assert web.get("/clients").json() == {"clients": 2}
            hub.broadcast(b"\x00\xff")
            assert bob.receive_bytes() == b"\x00\xff"
        assert len(hub) == 0
        with (
            pytest.raises(WebSocketDenialResponse) as caught,
            web.websocket_connect("/ws"),
        ):
            raise AssertionError("a stranger came in")
        assert caught.value.status_code == 401
        assert caught.value.json() == {"error": "Unauthorized", "code": "unauthorized"}
        assert web.get("/ws").status_code == 401
        assert web.get("/ws?user=ann").status_code == 426


def test_the_test_client_sees_the_server_close() -> None:
    hub = Hub()

    @hub.on_message
    def leave(client: Client, message: str) -> None:
        client.close(4321, message)

    with TestClient(starlette_app(hub)) as web, web.websocket_connect("/ws") as socket:
        socket.send_text("see you")
        with pytest.raises(WebSocketDisconnect) as caught:
            socket.receive_text()
        assert (caught.value.code, caught.value.reason) == (4321, "see you")


def test_the_test_client_ends_with_sockets_open() -> None:
    """The application's lifespan ends first, and sends a last message; nothing hangs."""
    hub = Hub()
    web = TestClient(starlette_app(hub))
    with contextlib.ExitStack() as stack:
        stack.enter_context(web)
        socket = stack.enter_context(web.websocket_connect("/ws"))
        hub.broadcast("before the close")
        assert socket.receive_text() == "before the close"
        assert web.portal is not None
        web.portal.call(hub.stop)
        with pytest.raises(WebSocketDisconnect) as caught:
            socket.receive_text()
        assert caught.value.code == 1012
    assert len(hub) == 0
    assert not hub.is_running


def test_without_a_context_a_second_socket_in_another_loop_is_a_503() -> None:
    """Each socket of a bare TestClient runs in a loop of its own; a hub belongs to one."""
    hub = Hub()
    web = TestClient(Starlette(routes=[WebSocketRoute("/ws", hub)]))
    with web.websocket_connect("/ws") as one:
        with (
            pytest.raises(WebSocketDenialResponse) as caught,
            web.websocket_connect("/ws"),
        ):
            raise AssertionError("two loops, one hub")
        assert caught.value.status_code == 503
        assert caught.value.json()["code"] == "not_running"
        assert "TestClient" in caught.value.json()["error"]
        one.send_text("the first lives on")
        assert one.receive_text() == "the first lives on"
    with web.websocket_connect("/ws") as later:
        later.send_text("a loop that ended binds nobody")
        assert later.receive_text() == "a loop that ended binds nobody"
