"""A connection manager in bare ASGI: one room, no framework, the server frames for each client.

Run:  uvicorn asgi_server:app --ws websockets-sansio --loop uvloop --http httptools
"""

from __future__ import annotations

from typing import Any

sends: dict[int, Any] = {}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    sends[id(send)] = send
    try:
        while (event := await receive())["type"] == "websocket.receive":
            message = {"type": "websocket.send", "text": event["text"]}
            for other in list(sends.values()):
                await other(message)
    finally:
        del sends[id(send)]
