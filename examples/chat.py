"""The whole chat, with FastAPI.

Run:  uvicorn chat:app --ws hubbub:Protocol
Talk: hubbub connect "ws://localhost:8000/ws?username=ann"
"""

from fastapi import FastAPI

from hubbub import Client, Handshake, Hub

hub = Hub()
app = FastAPI()
app.include_router(hub.router("/ws"))


@hub.on_connect
async def joined(client: Client, handshake: Handshake) -> None:
    client.meta["name"] = handshake.query.get("username") or client.id
    hub.broadcast(f"{client.meta['name']} joined the chat")


@hub.on_message
async def said(client: Client, text: str) -> None:
    hub.broadcast(f"{client.meta['name']}: {text}")


@hub.on_disconnect
async def left(client: Client) -> None:
    hub.broadcast(f"{client.meta['name']} left the chat")
