"""The game's world: a few arenas, and where each player stands in them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import count

ARENAS = ("meadow", "harbour", "attic")
GOLDEN_ANGLE = 137.508
"""Hues that are so many degrees apart stay distinct, however many there are."""


@dataclass(slots=True)
class Player:
    """A dot: its colour as a hue in degrees, its place from 0 to 1 in both directions."""

    id: str
    name: str
    hue: int
    x: float
    y: float


class World:
    """Who is in which arena. A player is in one at most."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()
        self._arenas: dict[str, dict[str, Player]] = {name: {} for name in ARENAS}
        self._arena_of: dict[str, str] = {}
        self._arrivals = count()

    def enter(self, player_id: str, name: str, arena: str) -> Player:
        """Put a player into an arena, out of the one before. Raises `KeyError` for an unknown one."""
        players = self._arenas[arena]
        gone = self.leave(player_id)
        hue = gone.hue if gone else round(next(self._arrivals) * GOLDEN_ANGLE) % 360
        x, y = self._rng.uniform(0.15, 0.85), self._rng.uniform(0.15, 0.85)
        player = Player(player_id, name, hue, round(x, 3), round(y, 3))
        players[player_id] = player
        self._arena_of[player_id] = arena
        return player

    def leave(self, player_id: str) -> Player | None:
        """Take a player out of the world; return it, or None for one who is in no arena."""
        arena = self._arena_of.pop(player_id, None)
        return None if arena is None else self._arenas[arena].pop(player_id)

    def move(self, player_id: str, x: float, y: float) -> Player | None:
        """Move a player, at most to the edge. None for one who is in no arena."""
        arena = self._arena_of.get(player_id)
        if arena is None:
            return None
        player = self._arenas[arena][player_id]
        player.x, player.y = _within(x), _within(y)
        return player

    def arena_of(self, player_id: str) -> str | None:
        """Return the name of the arena that a player is in."""
        return self._arena_of.get(player_id)

    def players(self, arena: str) -> list[Player]:
        """Return who is in an arena."""
        return list(self._arenas[arena].values())


def _within(place: float) -> float:
    return round(min(1.0, max(0.0, place)), 4)
