"""python-socketio's asynchronous server as an ASGI application.

With BROKER_URL in the environment, workers are connected by its Redis manager.

Run:  uvicorn python_socketio_server:app --loop uvloop --http httptools
"""

import os
from typing import Any
from urllib.parse import parse_qs

import socketio

url = os.environ.get("BROKER_URL")
sio = socketio.AsyncServer(
    async_mode="asgi",
    transports=["websocket"],
    http_compression=False,
    client_manager=socketio.AsyncRedisManager(url) if url else None,
)
app = socketio.ASGIApp(sio)
room_of: dict[str, str | None] = {}


@sio.event
async def connect(sid: str, environ: dict[str, Any]) -> None:
    query = parse_qs(environ["QUERY_STRING"])
    room = query.get("room", [None])[0]
    if room is not None:
        await sio.enter_room(sid, room)
    room_of[sid] = sid if "mode" in query else room


@sio.event
async def disconnect(sid: str, reason: str) -> None:
    del room_of[sid]


@sio.on("m")
async def message(sid: str, data: str) -> None:
    await sio.emit("m", data, to=room_of[sid])
