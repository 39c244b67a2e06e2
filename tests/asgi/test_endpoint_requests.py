"""Endpoint: requests that are no handshakes, their heads, and what the log says of them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from asgi.handshakes import closed, get, listen, nobody_came, refusal
from hubbub import (
    Client,
    Handshake,
    HttpProtocol,
    Hub,
)
from hubbub.asgi import endpoint as endpoint_module
from hubbub.asgi import handshake as handshake_module
from hubbub.asgi.handshake import read_handshake
from serving import PATIENCE_S, Served, serve

pytestmark = pytest.mark.anyio

# Plain requests


async def test_s16_a_plain_get_where_a_socket_would_be_accepted_is_a_426(native: bool) -> None:
    hub = Hub()
    async with serve(hub, native=native) as server:
        answer = await get(server)
        assert answer.status_code == 426
        assert answer.headers["Upgrade"] == "websocket"
        assert answer.headers["Connection"] == "Upgrade"
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json() == {
            "error": "This is a WebSocket: connect with ws:// or wss://",
            "code": "upgrade_required",
        }
        head = await get(server, method="HEAD")
        assert (head.status_code, head.content) == (426, b"")
        assert head.headers["Content-Length"] == answer.headers["Content-Length"]
        assert nobody_came(hub), "a plain request registers nobody and is no refused handshake"


async def test_other_methods_are_not_allowed(native: bool) -> None:
    async with serve(Hub(), native=native) as server:
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            answer = await get(server, method=method)
            assert answer.status_code == 405
            assert answer.headers["Allow"] == "GET, HEAD"
            assert answer.json()["code"] == "method_not_allowed"


async def test_the_javascript_client_is_served_to_everybody() -> None:
    hub = Hub()
    hub.authenticate(lambda handshake: None)
    kinds = {
        "hubbub.js": "text/javascript; charset=utf-8",
        "hubbub.d.ts": "text/plain; charset=utf-8",
        "rooms.js": "text/javascript; charset=utf-8",
        "rooms.d.ts": "text/plain; charset=utf-8",
    }
    async with serve(hub) as server:
        for name, kind in kinds.items():
            answer = await get(server, f"/ws/{name}")
            assert answer.status_code == 200
            assert answer.headers["Content-Type"] == kind
            assert "export" in answer.text
            head = await get(server, f"/ws/{name}", method="HEAD")
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["Content-Length"] == str(len(answer.content))


async def test_pages_of_allowed_foreign_origins_may_read_the_answers() -> None:
    hub = Hub(origins=("same-origin", "https://good.example"))
    async with serve(hub) as server:
        for path in ("/ws", "/ws/hubbub.js"):
            await check_cors(server, path)
        evil = {"Origin": "https://evil.example"}
        assert not cors_of(await get(server, "/ws/hubbub.js", **evil))


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_fault_11_a_page_that_may_not_connect_can_read_that(native: bool, http: str) -> None:
    """Without the CORS headers it learns nothing, and tries for ever."""
    hub = Hub(origins=("https://good.example",))
    hub.authenticate(lambda handshake: None)
    async with serve(hub, native=native, http=http) as server:
        evil = await get(server, Origin="https://evil.example")
        assert (evil.status_code, evil.json()["code"]) == (403, "origin_refused")
        assert evil.headers["Access-Control-Allow-Origin"] == "https://evil.example"
        assert evil.headers["Access-Control-Allow-Credentials"] == "true"
        good = await get(server, Origin="https://good.example")
        assert (good.status_code, good.json()["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_fault_11_a_get_is_answered_as_the_handshake_of_its_page(
    native: bool, http: str
) -> None:
    """A browser sends no Origin with a GET of the same origin, and hubbub.js a Referer."""
    page = "https://page.example:8443"
    async with serve(Hub(), native=native, http=http) as server:
        refused = await refusal(server, Origin=page)
        answer = await get(server, Referer=f"{page}/")
        assert (answer.status_code, answer.json()) == (refused.status, refused.body)
        assert refused.body["origin"] == page
        assert (await get(server, Referer=f"{page}/room/1?a=b")).json() == refused.body
        # What is a navigation, and what names this very host.
        assert (
            await get(server, Referer=page, **{"Sec-Fetch-Mode": "navigate"})
        ).status_code == 426
        assert (await get(server, Referer=server.http("/a"))).status_code == 426
        own = f"http://127.0.0.1:{server.port}"
        assert (await get(server, Referer=f"{page}/", Origin=own)).status_code == 426
        for nonsense in ("http://[", "http://", "https://a:b:c/", "about:client", "//x"):
            assert (await get(server, Referer=nonsense)).status_code in (403, 426), nonsense
    async with serve(Hub(origins=(page,)), native=native, http=http) as server:
        assert (await get(server, Referer=f"{page}/")).status_code == 426


async def check_cors(server: Served, path: str) -> None:
    good = await get(server, path, Origin="https://good.example")
    assert good.headers["Access-Control-Allow-Origin"] == "https://good.example"
    assert good.headers["Access-Control-Allow-Credentials"] == "true"
    assert good.headers["Vary"] == "Origin"
    assert not cors_of(await get(server, path))
    assert not cors_of(await get(server, path, Origin=f"http://127.0.0.1:{server.port}"))


def cors_of(answer: httpx2.Response) -> list[str]:
    return [name for name in answer.headers if name.startswith("access-control")]


async def test_s16_no_token_is_in_any_log_line(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the hub's, nor in uvicorn's access lines: accepted, refused, asked by GET."""
    listen(caplog)
    hub = Hub()

    @hub.authenticate
    def who(handshake: Handshake) -> str | None:
        return "ann" if handshake.token == "s3cr3t-good" else None

    @hub.on_message
    def boom(client: Client, message: str) -> None:
        raise LookupError("a handler that fails")

    async with serve(hub, native=native, log_config=None, log_level="info") as server:
        async with server.connect("/ws?token=s3cr3t-good&room=7") as client:
            await client.send("x")
            await closed(client)
        bearer = {"Authorization": "Bearer s3cr3t-good"}
        async with server.connect(additional_headers=bearer) as client:
            await client.send("x" * 600)
            await closed(client)
        await refusal(server, "/ws?token=s3cr3t-bad&room=7")
        await get(server, "/ws?token=s3cr3t-good")
        await get(server, "/ws?token=s3cr3t-good", method="POST")
    ours = [record for record in caplog.records if record.name.startswith(("hubbub", "uvicorn"))]
    lines = [logging.Formatter("%(message)s").format(record) for record in ours]
    assert [line for line in lines if "room=7" in line and "[accepted]" in line]
    assert [line for line in lines if "401 unauthorized" in line]
    assert [line for line in lines if "a handler that fails" in line]
    assert not [line for line in lines if "s3cr3t" in line]


async def test_refusals_are_logged_with_the_address_and_not_in_a_flood(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hubbub")
    hub = Hub()
    hub.authenticate(lambda handshake: None)
    async with serve(hub, native=native) as server:
        for _ in range(50):
            with pytest.raises(InvalidStatus):
                await server.connect()
    lines = [line for line in caplog.messages if "refused" in line]
    assert lines[0] == "a handshake from 127.0.0.1 was refused: 401 unauthorized"
    assert len(lines) < 20
    assert hub.stats()["refused"] == {"unauthorized": 50}


# Heads


@pytest.mark.parametrize("http", ["h11", "httptools", HttpProtocol], ids=str)
async def test_fault_08_a_request_is_read_once_and_a_huge_one_not_at_all(
    native: bool, http: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []

    def reading(scope: Any) -> Handshake:
        reads.append(len(scope["headers"]))
        return read_handshake(scope)

    for module in (endpoint_module, handshake_module):
        monkeypatch.setattr(module, "read_handshake", reading)
    hub = Hub()
    hub.authenticate(lambda handshake: None)
    config: dict[str, Any] = {"http": http, "h11_max_incomplete_event_size": 2**22}
    async with serve(hub, native=native, **config) as server:
        await get(server)
        await get(server, "/ws/hubbub.js")
        with pytest.raises(InvalidStatus):
            await server.connect()
        assert len(reads) == 3
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**20)
        writer.write(b"GET /ws HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 10_000 + b"\r\n")
        assert b" 431 " in await asyncio.wait_for(reader.readline(), PATIENCE_S)
        writer.transport.abort()
        await asyncio.sleep(0)
    assert hub.stats()["refused_gets"] == {"unauthorized": 1, "head_too_large": 1}
