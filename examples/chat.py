"""The whole chat, with FastAPI.

Needs: pip install ./hubbub fastapi   (./hubbub is the checkout)
Run:   uvicorn chat:app --ws hubbub:Protocol   (in this folder)
Talk:  hubbub connect "ws://localhost:8000/ws?username=ann"
"""

from fastapi import FastAPI

from hubbub import Client, Handshake, Hub

hub = Hub()
app = FastAPI()
app.include_router(hub.router("/ws"))


# Names and texts are what people write: each is a field of its own, so that nobody's name ("bob left
# the chat") or text can look like what the server says.


@hub.on_connect
async def joined(client: Client, handshake: Handshake) -> None:
    client.meta["name"] = handshake.query.get("username") or client.id
    hub.broadcast({"type": "joined", "name": client.meta["name"]})


@hub.on_message
async def said(client: Client, text: str) -> None:
    hub.broadcast({"type": "said", "name": client.meta["name"], "text": text})


@hub.on_disconnect
async def left(client: Client) -> None:
    hub.broadcast({"type": "left", "name": client.meta["name"]})
