"""The page at /game: rooms, and messages to a room without the one who caused them."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request

from ... import Client, CommandError, Handshake
from ..models.world import ARENAS, World
from ..views import Views
from .page import Page, named

MOVES_PER_SECOND = 60


class Enter(msgspec.Struct):
    """The message {"type": "enter", "arena": …}."""

    arena: str


class Move(msgspec.Struct):
    """The message {"type": "move", "x": …, "y": …}; places are from 0 to 1."""

    x: float
    y: float


class GamePage(Page):
    """An arena is a room. Moves go to everybody else in it; a slow player misses the oldest."""

    name = "game"
    title = "Game"
    summary = "An arena is a room: join one and move your dot with arrow keys, mouse or finger."

    def __init__(self, views: Views) -> None:
        policies = dict.fromkeys(ARENAS, "drop_oldest")
        super().__init__(views, slow_policies=policies, messages_per_second=MOVES_PER_SECOND)
        self.world: World = World()
        self.hub.on_connect(self.connected)
        self.hub.on("enter")(self.entered)
        self.hub.on("move")(self.moved)
        self.hub.on_drop(self.caught_up)
        self.hub.on_disconnect(self.gone)

    def context(self, request: Request) -> dict[str, Any]:
        return {"arenas": ARENAS}

    def connected(self, client: Client, handshake: Handshake) -> None:
        name = named(client, handshake)
        client.send({"type": "you", "id": client.id, "name": name})

    async def entered(self, client: Client, message: Enter) -> None:
        if message.arena not in ARENAS:
            raise CommandError("unknown_arena", f"the arenas are {', '.join(ARENAS)}")
        self._leave_room(client)
        # Players of other workers answer who has joined: what they say has to come here by then.
        await client.subscribe(message.arena)
        player = self.world.enter(client.id, client.meta["name"], message.arena)
        self._show_arena(client)
        room = self.hub.room(message.arena)
        room.broadcast({"type": "joined", "player": player}, exclude=client)

    def moved(self, client: Client, message: Move) -> None:
        player = self.world.move(client.id, message.x, message.y)
        arena = self.world.arena_of(client.id)
        if player is None or arena is None:
            raise CommandError("no_arena", "enter an arena first")
        move: dict[str, object] = {"type": "moved", "id": player.id, "x": player.x, "y": player.y}
        if self.is_one_of_many:  # who came by another worker has not been told of this player
            move["player"] = player
        self.hub.room(arena).broadcast(move, exclude=client)

    def caught_up(self, client: Client, count: int) -> None:
        """A slow client missed moves: show it how things are now."""
        self._show_arena(client)

    def gone(self, client: Client) -> None:
        self._leave_room(client)
        self.world.leave(client.id)

    def _leave_room(self, client: Client) -> None:
        arena = self.world.arena_of(client.id)
        if arena is not None:
            client.leave(arena)
            self.hub.room(arena).broadcast({"type": "left", "id": client.id}, exclude=client)

    def _show_arena(self, client: Client) -> None:
        arena = self.world.arena_of(client.id)
        if arena is not None:
            players = self.world.players(arena)
            client.send({"type": "arena", "arena": arena, "players": players})
