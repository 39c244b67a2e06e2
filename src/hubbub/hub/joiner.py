"""Joiner: one who is about to join a room that remembers. What it has missed is read, and what comes
for the room meanwhile is written down for it.

What must not live here: who is in a room (`registry`), what is told to members that fall behind
(`recovery`), what is kept (a broker).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..brokers.broker import History
from ..errors import PositionLost
from ..model import Position
from .positions import end_of, is_after

if TYPE_CHECKING:
    from ..wire.publication import Publication
    from .recovery import Recovery
    from .rules import Rule

MOST_NOTED = 1000
"""How many publications are written down while a history is read; with more it is read once more."""


class Recovered(NamedTuple):
    """What who joins is given: `publications`, all that it has missed if `is_whole`; and where the room stands then.

    `since` is where it came from (None: it wants nothing of what was before).
    """

    position: Position
    is_whole: bool
    publications: Sequence[Publication]
    since: Position | None


class Joiner:
    """Who is about to join a room. `since` is the last position that it has seen (None: it wants nothing
    but what comes; one without an offset and an epoch: all that is kept). Event loop only; made and ended by
    `Recovery`."""

    __slots__ = (
        "_came",
        "_history",
        "_is_full",
        "_is_kept",
        "_newest",
        "_recovery",
        "_result",
        "_takes_part",
        "position",
        "room",
        "rule",
        "since",
    )

    def __init__(self, recovery: Recovery, room: str, rule: Rule, since: Position | None) -> None:
        self._recovery = recovery
        self.room: str = room
        self.rule: Rule = rule
        self.since: Position | None = since
        self._takes_part: bool = rule.is_stream or since == Position(0, "")
        """Whether it is given all that is kept where that is not all that it has missed, and told so."""
        self._came: list[Publication] = []
        self._is_full = False
        self._is_kept = False
        self._history: History | None = None
        self._newest: History | None = None
        self._result: Recovered | None = None
        self.position: Position = Position(0, "")
        """Where the room stood when it was read last."""

    @property
    def is_read(self) -> bool:
        """Whether the history was read, and nothing is known to be missing after it."""
        return self._history is not None

    def note(self, publication: Publication) -> None:
        """Write down what has come for the room."""
        self._result = None
        if len(self._came) < MOST_NOTED:
            self._came.append(publication)
        else:
            self._is_full = True

    def note_gap(self) -> None:
        """Something may have been lost on its way here: what was read is not enough."""
        self._is_full, self._result = True, None

    async def read(self) -> None:
        """Read what it has missed. Raises what the broker does."""
        room, since, recovery = self.room, self.since, self._recovery
        if since is not None and not since.epoch:  # it does not know which history it has seen
            epoch = (await recovery.read(room, None, limit=0)).position.epoch
            self.since = since = Position(since.offset, epoch)
        self._came.clear()  # what came before the history is read is in it
        self._is_full = False
        history, self._is_kept = await self._read_since(since)
        if self.rule.rules.cache:
            self._newest = await recovery.read_newest(room)
        self._history, self._result = history, None
        self.position = history.position

    async def _read_since(self, since: Position | None) -> tuple[History, bool]:
        """Read a history since a position, or since where the room stands here if that is earlier.

        Returns whether all that was published since `since` is in it. Where it is not, and who joins takes a
        part, all that is kept is read.
        """
        room, takes_part, recovery = self.room, self._takes_part, self._recovery
        here = recovery.position_of(room)
        starts = [(since, True), (None if takes_part else here, False)]
        if since is not None and here is not None and here.epoch == since.epoch and here < since:
            # So that the members here lack nothing either; that may be kept no more, and what it has missed is.
            starts.insert(0, (here, True))
        for start, is_kept in starts:
            if start is None:
                continue
            try:
                history = await recovery.read(room, start)
            except PositionLost:
                continue
            # Who has seen more than there is has seen another history, or one whose end was lost.
            is_beyond = is_kept and since is not None and since > history.position
            if not is_beyond:
                return history, is_kept
        return await recovery.read(room, None, limit=None if takes_part else 0), False

    def finish(self) -> Recovered | None:
        """Deliver to the members here what they lack, and return what the joiner is given.

        It enters the room before anything is awaited. None: something is missing after what was read, so
        that it has to be read once more. May be called again after it has returned something.
        """
        if self._result is not None:
            return self._result
        history, last = self._history, self._newest or self._history
        assert history is not None
        assert last is not None
        is_there = self._recovery.bring_up(self.room, history, last, self._came)
        end = end_of(last.position, self._came)
        if self._is_full or not is_there or end is None:
            self._history = None
            return None
        after = [each for each in self._came if is_after(each, last.position)]
        since, newest = self.since, self._newest
        if newest is not None:
            found = [*newest.publications, *after][-1:]
            is_whole = since is not None and bool(found or since == end)
            if since is not None and found and found[0].position == since:
                found = []
        else:
            is_whole = since is not None and self._is_kept
            found = [*history.publications, *after] if is_whole or self._takes_part else []
            if since is not None and is_whole:
                found = [each for each in found if is_after(each, since)]
        self._result = Recovered(end, is_whole, found, since)
        return self._result
