"""Hubbub with everything on: a message handler, limits, stats, heartbeat, an outbox for each client.

Run:  uvicorn hubbub_server:app --ws hubbub:Protocol --loop uvloop
"""

from hubbub import Client, Handshake, Hub

hub = Hub(max_message_bytes=64 * 1024, max_clients=100_000, messages_per_second=1_000_000)
app = hub


@hub.on_connect
def came(client: Client, handshake: Handshake) -> None:
    room = handshake.query.get("room")
    if room is not None:
        client.meta["room"] = room
        client.join(room)
    elif "mode" in handshake.query:
        client.meta["room"] = ""
    if "churn" in handshake.query:
        client.meta["churn"] = f"room {client.id}"


@hub.on_message
def said(client: Client, text: str) -> None:
    room = client.meta.get("room")
    if room is None:
        hub.broadcast(text)
    elif room:
        hub.room(room).broadcast(text)
    else:
        if "churn" in client.meta:
            come_or_go(client, client.meta["churn"])
        client.send(text)


def come_or_go(client: Client, room: str) -> None:
    """Join the room, or leave it when the client is in it: one of them for each message."""
    if room in client.rooms:
        client.leave(room)
    else:
        client.join(room)
