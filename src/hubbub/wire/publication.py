"""Publication: a message on its way to a room.

What must not live here: order and spread (a broker gives them), delivery.
"""

from __future__ import annotations

from ..model import Position
from .frame import Frame


class Publication:
    """A message on its way to a room: what a broker orders, keeps and spreads.

    `room` is the room's name (`EVERYBODY` for a broadcast), `frame` the encoded message, `exclude`
    the id of a client that does not get it, `position` what the broker gave it.
    """

    __slots__ = ("exclude", "frame", "position", "room")

    def __init__(
        self,
        room: str,
        frame: Frame,
        exclude: str | None = None,
        position: Position | None = None,
    ) -> None:
        self.room: str = room
        self.frame: Frame = frame
        self.exclude: str | None = exclude
        self.position: Position | None = position

    def __repr__(self) -> str:
        return f"Publication(room={self.room!r}, {len(self.frame.payload)} bytes)"
