"""A game: an arena is a room, a move goes to everybody else in it.

Needs: pip install ./hubbub fastapi   (./hubbub is the checkout)
Run:   uvicorn game:app --ws hubbub:Protocol   (in this folder)
Play:  hubbub connect ws://localhost:8000/ws
       {"type": "join", "arena": "red"}
       {"type": "move", "x": 3, "y": 4}
"""

import msgspec
from fastapi import FastAPI

from hubbub import Client, CommandError, Hub

MAX_PLAYERS = 8

# Of a slow player's missed moves the newest are worth most.
hub = Hub(slow_policy="drop_oldest", messages_per_second=60)
app = FastAPI()
app.include_router(hub.router("/ws"))


class Join(msgspec.Struct):
    arena: str


class Move(msgspec.Struct):
    x: int
    y: int


@hub.on("join")
def join(client: Client, message: Join) -> None:
    arena = hub.room(message.arena)
    if client not in arena and len(arena) >= MAX_PLAYERS:
        raise CommandError("full", f"{message.arena} has {MAX_PLAYERS} players", temporary=True)
    leave(client)
    client.join(message.arena)
    client.send({"type": "players", "players": [player.id for player in arena]})
    arena.broadcast({"type": "joined", "player": client.id}, exclude=client)


@hub.on("move")
def move(client: Client, message: Move) -> None:
    for name in client.rooms:
        moved = {"type": "moved", "player": client.id, "x": message.x, "y": message.y}
        hub.room(name).broadcast(moved, exclude=client)


@hub.on_disconnect
def leave(client: Client) -> None:
    for name in client.rooms:
        client.leave(name)
        hub.room(name).broadcast({"type": "left", "player": client.id})
