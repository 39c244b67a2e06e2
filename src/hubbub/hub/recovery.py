"""Recovery: in rooms that remember, everybody gets everything once and in order, whatever is lost on
its way here.

What must not live here: what is kept (a broker), who is in a room (`registry`), bytes (`fanout`).

A room that remembers gives each publication a position. This process notes how far it has come
(`Progress`, which lives as long as the room has members here). A publication that is not the next one
shows that some were lost on the way: then what comes is held back, what is missing is read from the
history, and all is delivered in order. Where it is not kept any more, the members are told that there
is a gap.

Who joins with a position is given what was published since, and then what all others get. While its
history is read, what comes for the room is written down for it (`_Joiner`); reading, delivering to the
others what they lack, and entering the room are then one step.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from ..brokers.broker import History, HistoryBroker
from ..dialects.dialect import Gap, ServerUnsubscribed
from ..errors import CommandError, PositionLost
from ..limits import printable
from ..model import Position
from ..wire.piece import shown
from .disconnects import SLOW_CONSUMER

if TYPE_CHECKING:
    from ..wire.publication import Publication
    from .core import Core
    from .room import Membership
    from .rules import Rule
    from .session import ClientSession

MOST_HELD_BACK = 1000
"""How many publications of one room are held back; with more the history is read once more."""
MOST_READS = 5
"""How often the history is read for one who joins, while publications are lost all the time."""
RETRY_S = 0.5
"""How long after a failure the history is read again."""
INSUFFICIENT_STATE = 3010
"""The close code for a client that has missed something of a room that the server put it into: it comes
back, and is put into the room from where it was."""
MOST_GAPS = 5
"""How many times within `GAPS_WITHIN_S` a slow client may fall behind and recover."""
GAPS_WITHIN_S = 60.0


class Progress:
    """How far a room has come here. `held_back` is what came while something was missing (None:
    nothing is missing)."""

    __slots__ = ("held_back", "position")

    def __init__(self, position: Position) -> None:
        self.position: Position = position
        self.held_back: list[Publication] | None = None

    def is_next(self, position: Position) -> bool:
        """Tell whether a publication of that position comes next."""
        here = self.position
        return position.offset == here.offset + 1 and position.epoch == here.epoch

    def is_old(self, position: Position) -> bool:
        """Tell whether a publication of that position was here before."""
        return position.epoch == self.position.epoch and position.offset <= self.position.offset


class Recovered(NamedTuple):
    """What who joins is given: `publications`, if `is_whole`; and where the room stands then."""

    position: Position
    is_whole: bool
    publications: Sequence[Publication]


class _Joiner:
    """Who is about to join a room: what has come for the room meanwhile."""

    __slots__ = ("publications",)

    def __init__(self) -> None:
        self.publications: list[Publication] = []


class Recovery:
    """Sees that members of rooms that remember miss nothing. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._joining: dict[str, list[_Joiner]] = {}

    @property
    def joining_rooms(self) -> int:
        """How many rooms have somebody for whom the history is read."""
        return len(self._joining)

    def reset(self) -> None:
        """Forget who was joining in an event loop that is gone."""
        self._joining.clear()

    # What comes from the broker

    def admit(self, publication: Publication, members: Membership | None) -> bool:
        """Tell whether a publication with a position is to be delivered to the members now."""
        position = publication.position
        assert position is not None
        if self._joining:
            for joiner in self._joining.get(publication.room, ()):
                joiner.publications.append(publication)
        if members is None:
            return True
        progress = members.progress
        if progress is None:
            members.progress = Progress(position)
            return True
        held_back = progress.held_back
        if held_back is not None:
            if len(held_back) < MOST_HELD_BACK:
                held_back.append(publication)
            return False
        if progress.is_next(position):
            progress.position = position
            return True
        if not progress.is_old(position):
            self._catch_up(members, progress, [publication])
        return False

    def note_gap(self, rooms: Iterable[str] | None) -> None:
        """See what was missed in these rooms, or in all."""
        registry = self._core.registry
        for members in registry.memberships() if rooms is None else map(registry.room_of, rooms):
            progress = None if members is None else members.progress
            if members is not None and progress is not None and progress.held_back is None:
                self._catch_up(members, progress, [])

    def _catch_up(
        self, members: Membership, progress: Progress, publications: list[Publication]
    ) -> None:
        progress.held_back = publications
        name = f"catch up {members.name[:50]}"
        self._core.lifecycle.spawn(self._catch_up_now(members, progress), name)

    async def _catch_up_now(self, members: Membership, progress: Progress) -> None:
        """Deliver what is missing, until nothing is."""
        while self._is_there(members, progress) and progress.held_back is not None:
            try:
                history = await self._read(members.name, progress.position)
            except PositionLost:
                history = None
            except Exception as error:
                self._log(members.name, error)
                await asyncio.sleep(RETRY_S)
                continue
            if not self._is_there(members, progress):
                return
            if history is None:
                await self._begin_anew(members, progress)
            else:
                self._deliver(members, progress, history.publications)
            self._take_held_back(members, progress)

    def _is_there(self, members: Membership, progress: Progress) -> bool:
        """Tell whether the room still has members here."""
        return self._core.registry.room_of(members.name) is members and members.progress is progress

    async def _begin_anew(self, members: Membership, progress: Progress) -> None:
        """Go on from where the room stands, and tell the members that they have missed something."""
        try:
            position = (await self._broker.history(members.name, limit=0)).position
        except Exception as error:
            self._log(members.name, error)
            await asyncio.sleep(RETRY_S)
            return
        if not self._is_there(members, progress):
            return
        progress.position = position
        for session in list(members.sessions):
            self.tell_gap(session, members.name)

    def _take_held_back(self, members: Membership, progress: Progress) -> None:
        """Deliver what was held back, as far as nothing is missing."""
        held_back = progress.held_back or []
        is_full = len(held_back) >= MOST_HELD_BACK
        self._deliver(members, progress, held_back)
        last = held_back[-1].position if held_back else None
        is_done = last is None or progress.is_old(last)
        progress.held_back = None if is_done and not is_full else []

    def _deliver(
        self, members: Membership, progress: Progress, publications: Iterable[Publication]
    ) -> None:
        """Deliver those that are next, one after another; what was here before is passed over."""
        core = self._core
        for publication in publications:
            position = publication.position
            if position is not None and progress.is_next(position):
                progress.position = position
                name = publication.exclude
                excluded = None if name is None else core.registry.session_named(name)
                if members.is_stream:
                    publication = shown(publication)
                core.fanout.publish(members, publication, excluded)

    # Who joins

    async def read_for(self, room: str, rule: Rule, since: Position | None) -> Recovered:
        """Return what one who joins has missed. It enters the room before anything else is awaited.

        `since` is the last position that it has seen (None: it wants nothing but what comes). This
        process has all of the room's publications from here on.
        """
        if since is not None and not since.epoch:  # it does not know which history it has seen
            since = Position(since.offset, (await self._read(room, None, limit=0)).position.epoch)
        joiner = _Joiner()
        joiners = self._joining.setdefault(room, [])
        joiners.append(joiner)
        try:
            for _ in range(MOST_READS):
                joiner.publications.clear()  # what came before the history is read is in it
                history, is_kept = await self._read_since(room, rule, since)
                newest = None
                if rule.rules.cache:
                    newest = await self._broker.history(room, limit=1, reverse=True)
                if self._bring_up(room, history, newest or history, joiner.publications):
                    return self._recovered(
                        rule, since, is_kept, history, newest, joiner.publications
                    )
        finally:
            joiners.remove(joiner)
            if not joiners and self._joining.get(room) is joiners:
                del self._joining[room]
        raise CommandError("unavailable", "try again later", temporary=True)

    async def _read_since(
        self, room: str, rule: Rule, since: Position | None
    ) -> tuple[History, bool]:
        """Read a history since a position, or since where the room stands here if that is earlier.

        Returns whether all that was published since `since` is in it. Of a stream all is read for who has
        seen nothing of it, or has lost its place.
        """
        members = self._core.registry.room_of(room)
        progress = None if members is None else members.progress
        here = None if progress is None else progress.position
        first = since
        if since is not None and here is not None and here.epoch == since.epoch:
            first = min(since, here)
        for start, is_kept in ((first, True), (None if rule.is_stream else here, False)):
            if start is None or (start is first and since is None):
                continue
            try:
                return await self._read(room, start), is_kept
            except PositionLost:
                continue
        return await self._read(room, None, limit=None if rule.is_stream else 0), False

    def _bring_up(
        self, room: str, history: History, last: History, came: Sequence[Publication]
    ) -> bool:
        """Deliver to the members here what they lack of a history, and of what came meanwhile.

        Returns whether this process has now all that was published until `last`.
        """
        end = _end_of(last.position, came)
        members = self._core.registry.room_of(room)
        if members is None or members.progress is None:
            return end is not None and last.position == history.position
        progress = members.progress
        self._deliver(members, progress, history.publications)
        self._deliver(members, progress, came)
        if progress.position.epoch != history.position.epoch or (
            progress.position.offset < history.position.offset
        ):  # what the members lack is not kept any more
            progress.position = history.position
            for session in list(members.sessions):
                self.tell_gap(session, room)
            self._deliver(members, progress, came)
        return progress.position == end

    def _recovered(
        self,
        rule: Rule,
        since: Position | None,
        is_kept: bool,
        history: History,
        newest: History | None,
        came: Sequence[Publication],
    ) -> Recovered:
        """Choose what who joins is given, and count it."""
        stats = self._core.stats
        end = _end_of((newest or history).position, came)
        assert end is not None
        after = [each for each in came if _is_after(each, (newest or history).position)]
        if newest is not None:
            found = [*newest.publications, *after][-1:]
            is_whole = since is not None and bool(found or since == end)
            if since is not None and found and found[0].position == since:
                found = []
        else:
            is_whole = since is not None and is_kept
            found = [*history.publications, *after] if is_whole or rule.is_stream else []
            if since is not None and is_whole:
                found = [each for each in found if _is_after(each, since)]
        if since is not None and is_whole:
            stats.recoveries += 1
        elif since is not None:
            stats.recoveries_refused += 1
        return Recovered(end, is_whole, found)

    async def page(
        self,
        room: str,
        *,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
        client: ClientSession | None = None,
    ) -> History:
        """Return a part of a room's history; for a client without what it was excluded from."""
        names: list[str] = []
        if since is not None:
            since, names = split_names(since)
        page = await self._broker.history(room, since=since, limit=limit, reverse=reverse)
        if client is None:
            return page
        if client.has_connection_id:
            names.append(client.connection_id)
        found = [each for each in page.publications if each.exclude not in names]
        return History(found, page.position)

    def require_history(self, room: str) -> None:
        """Raise `CommandError` for a room that keeps no history."""
        rule = self._core.rules.of(room)
        if rule is None or not rule.remembers:
            text = "this room keeps no history; RoomRules give it one, as in history=100"
            raise CommandError("not_available", text)

    # Gaps

    def tell_gap(self, session: ClientSession, room: str) -> None:
        """Tell a member that it has missed something of a room: who can come back for it leaves."""
        core = self._core
        if session.close is not None or room not in session.memberships:
            return
        if session.variant.dialect.is_plain:
            if core.rules.is_stream(room):
                self._begin_text_anew(session, room)
            else:
                core.publishing.tell(session, Gap(room))
        elif _is_given(session, room):  # it cannot come back to the room; it can to the hub
            core.registry.disconnect(session, INSUFFICIENT_STATE, "insufficient state")
        else:
            core.registry.leave(session, room)
            core.publishing.tell(session, ServerUnsubscribed(room, is_gap=True))

    def note_dropped(self, session: ClientSession) -> None:
        """A slow client's outbox has dropped publications of some rooms, and is empty again.

        Until here nothing more of these rooms has reached the client. Each such client is told so; one to
        which that happens again and again is closed, and comes back when it can take more.
        """
        self._core.fanout.flush()  # what this turn had for it of these rooms is dropped too
        rooms = session.behind
        if not rooms or session.close is not None or session.outbox is not None:
            return  # what is not empty yet says so later
        now = self._core.clock()
        count, since = session.gaps or (0, now)
        if now - since > GAPS_WITHIN_S:
            count, since = 0, now
        session.gaps = (count + 1, since)
        if count >= MOST_GAPS:
            self._core.registry.end(session, SLOW_CONSUMER, "it falls behind again and again")
            return
        for room in list(rooms):
            if session.variant.dialect.is_plain:
                if self._core.rules.is_stream(room):  # it was taken out of that
                    self._begin_text_anew(session, room)
                else:
                    self.tell_gap(session, room)
            else:
                self._core.publishing.tell(session, ServerUnsubscribed(room, is_gap=True))
        session.told_of_gaps()

    def _begin_text_anew(self, session: ClientSession, room: str) -> None:
        """Bring a plain client back into a stream, from the text so far."""
        if session.close is None:
            self._core.registry.leave(session, room)
            name = f"begin anew in {room[:50]}"
            self._core.lifecycle.spawn(self._begin_text_anew_now(session, room), name)

    async def _begin_text_anew_now(self, session: ClientSession, room: str) -> None:
        try:
            await self._core.registry.subscribe(session, room, by_server=True)
        except CommandError as error:
            if error.code not in ("left", "joining"):
                self._core.publishing.tell(session, Gap(room))

    def take_out(self, session: ClientSession, rooms: Iterable[str]) -> None:
        """Take a slow client out of rooms of which it has missed something; `note_dropped` tells it."""
        for room in rooms:
            if session.behind is None or room not in session.behind:
                continue  # it has come in anew
            if _is_given(session, room):
                why = "it has missed something of a room that the server put it into"
                self._core.registry.end(session, SLOW_CONSUMER, why)
                return
            self._core.registry.leave(session, room)

    async def _read(self, room: str, since: Position | None, limit: int | None = None) -> History:
        return await self._broker.history(room, since=since, limit=limit)

    @property
    def _broker(self) -> HistoryBroker:
        return cast(HistoryBroker, self._core.broker)

    def _log(self, room: str, error: Exception) -> None:
        text = "the history of %s could not be read: %s; asked again"
        why = printable(str(error) or type(error).__name__)
        self._core.log.log(logging.WARNING, "history", text, printable(room, 50), why)


def _is_given(session: ClientSession, room: str) -> bool:
    return session.opening is not None and room in session.opening.given


def _is_after(publication: Publication, position: Position) -> bool:
    """Tell whether a publication came after a position of the same epoch."""
    own = publication.position
    return own is not None and own.epoch == position.epoch and own.offset > position.offset


def _end_of(position: Position, came: Sequence[Publication]) -> Position | None:
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


_NAME_MARK = "~"
_MOST_NAMES = 4


def with_names(position: Position, names: Sequence[str]) -> Position:
    """Return a position for one client: its epoch says under which names the client was connected.

    The client brings it along when it comes back. What it was excluded from under one of its last
    names is not served to it then.
    """
    return Position(position.offset, _NAME_MARK.join([position.epoch, *names[-_MOST_NAMES:]]))


def split_names(position: Position) -> tuple[Position, list[str]]:
    """Return a client's position as the broker knows it, and the names that the client had."""
    epoch, *names = position.epoch.split(_NAME_MARK)
    return Position(position.offset, epoch), names[-_MOST_NAMES:]
