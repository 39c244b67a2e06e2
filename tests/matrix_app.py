"""The application that the smoke matrix serves under every ASGI server.

A module of its own, because servers import what they serve by name.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from hubbub import Client, Close, Handshake, Hub, Refused
from hubbub.hub.client import session_of

hub = Hub(shutdown_timeout_s=1)
closes: list[int] = []
"""Close codes of the clients that went, in order."""


@hub.authenticate
async def who(handshake: Handshake) -> str:
    if handshake.token != "open-sesame":
        raise Refused(401, message="Unauthorized")
    return handshake.query.get("user", "nobody")


@hub.on_message
def echo(client: Client, message: str | bytes) -> None:
    client.send(message)


@hub.on("count")
def count(client: Client, message: dict[str, Any]) -> None:
    """Broadcast the numbers up to `to`, each as a message of its own."""
    for number in range(message["to"]):
        hub.broadcast({"number": number})


@hub.on("join")
def join(client: Client, message: dict[str, Any]) -> None:
    client.join(message["room"])
    client.send({"rooms": sorted(client.rooms)})


@hub.on("room")
def room(client: Client, message: dict[str, Any]) -> None:
    hub.room(message["room"]).broadcast({"text": message["text"]}, exclude=client)
    hub.broadcast("the room was told")


@hub.on("wait")
async def wait(client: Client, message: dict[str, Any]) -> None:
    """Wait without end, as a handler that hangs does."""
    client.send("waiting")
    await asyncio.Event().wait()


@hub.on("close")
def close(client: Client, message: dict[str, Any]) -> None:
    client.send("before the close")
    client.close(message["code"], message["reason"])


@hub.on_disconnect
def gone(client: Client, close: Close) -> None:
    closes.append(close.code)


async def stats(request: Request) -> JSONResponse:
    hub: Hub = request.state.hub
    transports = [type(session_of(client).transport).__name__ for client in hub]
    ours = {"pid": os.getpid(), "closes": closes, "transports": transports}
    return JSONResponse({**hub.stats(), **ours})


async def own(websocket: WebSocket) -> None:
    """A socket of the application's own, which no hub takes."""
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(f"own: {text}")


app = hub.mount(Starlette(routes=[Route("/stats", stats), WebSocketRoute("/own", own)]), "/ws")
