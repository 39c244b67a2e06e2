"""Positions: how far a room that remembers has come in this process, and how far a client has.

What must not live here: what is done about what is missing (`recovery`), what is kept (a broker).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..model import Position

if TYPE_CHECKING:
    from ..wire.publication import Publication

_NAME_MARK = "~"
_MOST_NAMES = 4
_MOST_NAME_CHARACTERS = 64


class Progress:
    """How far a room has come here. `held_back` is what came while something was missing (None:
    nothing is missing), `newest` the position of the last that came meanwhile; `is_read_too_early` says that
    something may have been lost after the history was asked for, `lacks_changes` that joins or leaves may have been
    lost of which the members are told."""

    __slots__ = ("held_back", "is_read_too_early", "lacks_changes", "newest", "position")

    def __init__(self, position: Position) -> None:
        self.position: Position = position
        self.newest: Position | None = None
        self.held_back: list[Publication] | None = None
        self.is_read_too_early: bool = False
        self.lacks_changes: bool = False

    def is_next(self, position: Position) -> bool:
        """Tell whether a publication of that position comes next."""
        here = self.position
        return position.offset == here.offset + 1 and position.epoch == here.epoch

    def is_old(self, position: Position) -> bool:
        """Tell whether a publication of that position was here before."""
        return position.epoch == self.position.epoch and position.offset <= self.position.offset


def is_after(publication: Publication, position: Position) -> bool:
    """Tell whether a publication came after a position of the same epoch."""
    own = publication.position
    return own is not None and own.epoch == position.epoch and own.offset > position.offset


def end_of(position: Position, came: Sequence[Publication]) -> Position | None:
    """Return where a room stands that stood at `position` before these; None if one is missing."""
    progress = Progress(position)
    for publication in came:
        own = publication.position
        assert own is not None
        if progress.is_next(own):
            progress.position = own
        elif not progress.is_old(own):
            return None
    return progress.position


def with_names(position: Position, names: Sequence[str]) -> Position:
    """Return a position for one client: its epoch says under which names the client was connected.

    The client brings it along when it comes back. What it was excluded from under one of its last
    names is not served to it then.
    """
    return Position(position.offset, _NAME_MARK.join([position.epoch, *names[-_MOST_NAMES:]]))


def split_names(position: Position) -> tuple[Position, list[str]]:
    """Return a client's position as the broker knows it, and the names that the client had."""
    epoch, *names = position.epoch.split(_NAME_MARK)
    known = [name for name in names[-_MOST_NAMES:] if len(name) <= _MOST_NAME_CHARACTERS]
    return Position(position.offset, epoch), known
