"""Hubbub with everything on: a message handler, limits, stats, heartbeat, an outbox for each client.

Run:  uvicorn hubbub_server:app --ws hubbub:Protocol --loop uvloop
"""

from functools import partial

from hubbub import Client, Handshake, Hub

hub = Hub(max_message_bytes=64 * 1024, max_clients=100_000, messages_per_second=1_000_000)
app = hub


@hub.on_connect
def came(client: Client, handshake: Handshake) -> None:
    query = handshake.query
    if "room" in query:
        client.join(query["room"])
        client.meta["say"] = hub.room(query["room"]).broadcast
    elif "churn" in query:
        client.meta["say"] = partial(come_or_go, client, f"room {client.id}")
    elif "mode" in query:
        client.meta["say"] = client.send
    else:
        client.meta["say"] = hub.broadcast


@hub.on_message
def said(client: Client, text: str) -> None:
    client.meta["say"](text)


def come_or_go(client: Client, room: str, text: str) -> None:
    """Join the room, or leave it when the client is in it: one of them for each message."""
    if room in client.rooms:
        client.leave(room)
    else:
        client.join(room)
    client.send(text)
