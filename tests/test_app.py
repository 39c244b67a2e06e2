"""The ready application, under a real uvicorn with the native transport."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from hubbub import MemoryBroker
from hubbub.app import SENTENCE, app, hub
from hubbub.brokers.broker import Condition


@contextmanager
def served() -> Iterator[int]:
    """Serve the application in a thread, and give the port."""
    config = uvicorn.Config(
        app,
        port=0,
        ws="hubbub.transports.uvicorn_protocol:UvicornWebSocketProtocol",
        log_config=None,
        lifespan="on",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def port() -> Iterator[int]:
    with served() as port:
        yield port


def ask(port: int, path: str, method: str = "GET") -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers.get("Content-Type", ""), response.read()
    finally:
        connection.close()


def test_the_front_page_is_one_sentence(port: int) -> None:
    assert ask(port, "/") == (200, "text/plain; charset=utf-8", f"{SENTENCE}\n".encode())


def test_health(port: int) -> None:
    assert ask(port, "/healthz")[::2] == (200, b"ok\n")


def test_health_says_how_the_broker_is(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryBroker, "condition", Condition("away", 3), raising=False)
    assert ask(port, "/healthz")[::2] == (200, b"ok, and the broker is away\n")


def test_s20_stats_are_json(port: int) -> None:
    with connect(f"ws://127.0.0.1:{port}/ws", proxy=None):
        status, kind, body = ask(port, "/stats")
    stats = json.loads(body)
    assert (status, kind) == (200, "application/json")
    assert stats["clients"] == 1
    assert {"clients", "broadcast", "register"} <= stats.keys()


def test_s06_every_message_goes_to_everybody(port: int) -> None:
    url = f"ws://127.0.0.1:{port}/ws"
    with connect(url, proxy=None) as first, connect(url, proxy=None) as second:
        first.send("hello")
        second.send(b"\x01\x02")
        for client in (first, second):
            assert {client.recv(5), client.recv(5)} == {"hello", b"\x01\x02"}


def test_the_javascript_client_is_served(port: int) -> None:
    status, kind, body = ask(port, "/ws/hubbub.js")
    assert (status, kind.split(";")[0]) == (200, "text/javascript")
    assert b"export" in body


def test_what_is_not_there(port: int) -> None:
    assert ask(port, "/nothing")[0] == 404
    assert ask(port, "/ws")[0] == 426
    assert ask(port, "/stats", "POST")[::2] == (405, b"")
    assert ask(port, "/", "HEAD")[::2] == (200, b"")
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://127.0.0.1:{port}/other", proxy=None).__enter__()


def test_the_hub_runs_only_while_the_server_does() -> None:
    with served() as port:
        assert ask(port, "/healthz")[0] == 200
    assert hub.client_count == 0
    with served() as port, connect(f"ws://127.0.0.1:{port}/ws", proxy=None) as client:
        client.send("again")
        assert client.recv(5) == "again"


def test_other_scopes_are_refused() -> None:
    async def nothing(*_: object) -> dict[str, object]:
        return {}

    async def serve() -> None:
        await app({"type": "strange", "path": "/"}, nothing, nothing)

    with pytest.raises(RuntimeError, match="'strange'"):
        asyncio.run(serve())
