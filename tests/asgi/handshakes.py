"""What the tests of the endpoint share: handshakes that are refused, and what is said of them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hubbub import (
    Handshake,
    Hub,
)
from hubbub.limits import MAX_HEAD_BYTES, MAX_HEADERS
from serving import PATIENCE_S, Served, take


class Answer(NamedTuple):
    """How a server answered a request."""

    status: int
    headers: httpx2.Headers
    body: Any


async def get(
    server: Served, path: str = "/ws", *, method: str = "GET", **headers: str
) -> httpx2.Response:
    # There is no TLS here, and loading certificates takes longer than most of these tests.
    async with httpx2.AsyncClient(trust_env=False, verify=False, timeout=PATIENCE_S) as web:
        return await web.request(method, server.http(path), headers=headers)


async def refusal(server: Served, path: str = "/ws", **headers: str) -> Answer:
    """Be refused; prove that a plain GET of the same URL gets the same status and body."""
    with pytest.raises(InvalidStatus) as caught:
        await server.connect(path, additional_headers=headers)
    response = caught.value.response
    answer = await get(server, path, **headers)
    assert answer.status_code == response.status_code
    assert answer.content == response.body
    assert answer.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Type"] == "application/json"
    return Answer(
        response.status_code, httpx2.Headers(list(response.headers.raw_items())), answer.json()
    )


async def closed(client: ClientConnection) -> ConnectionClosed:
    """Wait for the end of a connection; return how it ended."""
    try:
        while True:
            await asyncio.wait_for(client.recv(), PATIENCE_S)
    except ConnectionClosed as end:
        return end


def nobody_came(hub: Hub, **refused: int) -> bool:
    """Tell whether nothing was registered, and the refusals were counted by their codes."""
    stats = hub.stats()
    return (
        len(hub) == 0
        and stats["total_clients"] == 0
        and stats["register"] == 0
        and hub.rooms == {}
        and stats["refused"] == refused
    )


def listen(caplog: pytest.LogCaptureFixture) -> None:
    """Hear the hub and uvicorn, whatever an earlier test's server did to the loggers."""
    caplog.set_level(logging.DEBUG, "hubbub")
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
        caplog.set_level(logging.INFO, name)


def fail(handshake: Handshake) -> None:
    raise LookupError("no database")


LIES = {
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Real-IP": "203.0.113.7",
    "Forwarded": "for=203.0.113.7;host=evil.example;proto=https",
}
"""What a client may write into its handshake to seem another."""


# Starlette


async def clients(request: Request) -> JSONResponse:
    return JSONResponse({"clients": len(request.state.hub)})


async def chat(server: Served, path: str) -> None:
    """Prove that two clients at `path` hear each other."""
    async with server.connect(path) as one, server.connect(path) as other:
        await one.send("hello")
        assert await take(other, 1) == ["hello"]
        assert await take(one, 1) == ["hello"]


def big_heads() -> dict[str, list[tuple[bytes, bytes]]]:
    return {
        "many": [(b"a", b"")] * (MAX_HEADERS + 1),
        "long": [(b"cookie", b"x" * MAX_HEAD_BYTES)],
        "the most": [(b"a", b"")] * MAX_HEADERS,
    }


async def call(hub: Hub, first: str, **scope: Any) -> list[Any]:
    """Call the hub for a socket whose first event is `first`; return what it sent."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": first}

    async def send(event: Any) -> None:
        sent.append(event)

    await hub({"type": "websocket", "path": "/ws", "headers": [], **scope}, receive, send)
    return sent
