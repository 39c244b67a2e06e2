"""Recovery: in rooms that remember, everybody gets everything once and in order, whatever is lost on
its way here.

What must not live here: what is kept (a broker), who is in a room (`registry`), bytes (`fanout`).

A room that remembers gives each publication a position. This process notes how far it has come
(`Progress`, which lives as long as the room has members here). A publication that is not the next one
shows that some were lost on the way: then what comes is held back, what is missing is read from the
history, and all is delivered in order. Where it is not kept any more, the members are told that there
is a gap.

Who joins with a position is given what was published since, and then what all others get. While its
history is read, what comes for the room is written down for it (`joiner`); then delivering to the
others what they lack, and entering the room, are one step.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from ..brokers.broker import History, HistoryBroker
from ..errors import CommandError, PositionLost
from ..limits import printable
from ..model import USER_PREFIX, Position
from ..wire.piece import shown
from .joiner import Joiner, Recovered
from .positions import Progress, end_of, split_names
from .tasks import is_being_cancelled

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
MOST_VAIN_READS = 20
"""How often a history is read that does not have what has come here already, before it is given up."""
LEAST_READ_ON = 100
"""How many publications at least are read at once for a page that lacks what its client was excluded from."""
RETRY_S = 0.5
"""How long after a failure the history is read again."""


class Recovery:
    """Sees that members of rooms that remember miss nothing. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._joining: dict[str, list[Joiner]] = {}
        self._placing: dict[str, asyncio.Task[None]] = {}
        """The rooms whose first members entered at once, and of which it is being read where they stand."""

    @property
    def joining_rooms(self) -> int:
        """How many rooms have somebody for whom the history is read."""
        return len(self._joining)

    def reset(self) -> None:
        """Forget who was joining in an event loop that is gone."""
        self._joining.clear()
        self._placing.clear()

    # What comes from the broker

    def admit(self, publication: Publication, members: Membership | None) -> bool:
        """Tell whether a publication with a position is to be delivered to the members now."""
        position = publication.position
        assert position is not None
        if self._joining:
            for joiner in self._joining.get(publication.room, ()):
                joiner.note(publication)
        if members is None:
            return True
        progress = members.progress
        if progress is None:
            members.progress = Progress(position)
            return True
        held_back = progress.held_back
        if held_back is not None:
            progress.newest = position
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
        """See what was missed in these rooms, or in all; where nothing is kept, tell the members."""
        registry = self._core.registry
        rooms = None if rooms is None else list(rooms)
        for room in self._joining if rooms is None else rooms:
            for joiner in self._joining.get(room, ()):
                joiner.note_gap()
        found = registry.memberships() if rooms is None else map(registry.room_of, rooms)
        for members in list(found):
            if members is not None and members.remembers:
                self._note_gap_of(members)
            elif members is not None and not members.name.startswith(USER_PREFIX):
                self._core.gaps.tell_all(members)

    def _note_gap_of(self, members: Membership) -> None:
        progress = members.progress
        if progress is None:  # it is not known from where on they are members
            for session in list(members.sessions):
                self._core.gaps.tell(session, members.name)
            return
        progress.lacks_changes = self._core.rules.tells_of_members(members.name)
        if progress.held_back is None:
            self._catch_up(members, progress, [])
        else:
            progress.is_read_too_early = True

    def _catch_up(
        self, members: Membership, progress: Progress, publications: list[Publication]
    ) -> None:
        progress.held_back = publications
        progress.newest = publications[-1].position if publications else None
        name = f"catch up {members.name[:50]}"
        self._core.lifecycle.spawn(self._catch_up_now(members, progress), name)

    async def _catch_up_now(self, members: Membership, progress: Progress) -> None:
        """Deliver what is missing, until nothing is."""
        vain_reads = 0
        while self._is_there(members, progress) and progress.held_back is not None:
            before, progress.is_read_too_early = progress.position, False
            try:
                history = await self.read(members.name, before)
                if not self._is_there(members, progress):
                    return
                self._deliver(members, progress, history.publications)
            except PositionLost:
                if not await self._begin_anew(members, progress):
                    continue
            except (Exception, asyncio.CancelledError) as error:
                if is_being_cancelled():
                    raise
                self._log(members.name, error)
                await asyncio.sleep(RETRY_S)
                continue
            self._take_held_back(members, progress)
            if progress.held_back is None and progress.is_read_too_early:
                progress.held_back = []
            elif progress.held_back is None or progress.position != before:
                vain_reads = 0
            elif vain_reads < MOST_VAIN_READS:  # what has come here is not in the history yet
                vain_reads += 1
                await asyncio.sleep(RETRY_S)
            elif self._is_there(members, progress) and progress.newest is not None:
                self._skip_to(members, progress, progress.newest)
                self._take_held_back(members, progress)
        if progress.lacks_changes and self._is_there(members, progress):
            progress.lacks_changes = False
            self._core.gaps.tell_of_changes(members)

    def _is_there(self, members: Membership, progress: Progress) -> bool:
        """Tell whether the room still has members here."""
        return self._core.registry.room_of(members.name) is members and members.progress is progress

    async def _begin_anew(self, members: Membership, progress: Progress) -> bool:
        """Go on from where the room stands, and tell the members that they have missed something.

        Returns False if that is not known now.
        """
        try:
            position = (await self.read(members.name, None, limit=0)).position
        except (Exception, asyncio.CancelledError) as error:
            if is_being_cancelled():
                raise
            self._log(members.name, error)
            await asyncio.sleep(RETRY_S)
            return False
        if self._is_there(members, progress):
            self._skip_to(members, progress, position)
        return True

    def _skip_to(self, members: Membership, progress: Progress, position: Position) -> None:
        """Go on after a position: what was before it cannot be had, which the members are told."""
        progress.position, progress.lacks_changes = position, False
        for session in list(members.sessions):
            self._core.gaps.tell(session, members.name)

    def _take_held_back(self, members: Membership, progress: Progress) -> None:
        """Deliver what was held back, as far as nothing is missing."""
        held_back = progress.held_back or []
        self._deliver(members, progress, held_back)
        newest = progress.newest
        if newest is None or progress.is_old(newest):
            progress.held_back = progress.newest = None
        else:
            rest = [] if len(held_back) >= MOST_HELD_BACK else held_back
            progress.held_back = [each for each in rest if not _is_here(progress, each)]

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
                excluded = () if name is None else core.registry.sessions_named(name)
                if members.is_stream:
                    publication = shown(publication)
                core.fanout.publish(members, publication, excluded)

    # Who joins

    def entered(self, members: Membership) -> None:
        """Somebody has entered a room at once: find out from where on this process has all of it.

        So who joins later knows what the members here have had, and what not.
        """
        room = members.name
        if members.remembers and members.progress is None and self.placing(room) is None:
            task = self._core.lifecycle.spawn(self._place(room), f"enter {room[:50]}")
            if not task.done():
                self._placing[room] = task
                task.add_done_callback(lambda done: self._placed(room, done))

    def _placed(self, room: str, task: asyncio.Task[None]) -> None:
        if self._placing.get(room) is task:  # else another has begun since it ended
            del self._placing[room]

    def placing(self, room: str) -> asyncio.Task[None] | None:
        """Return what finds that out for a room now; None: it is known, or the room keeps nothing."""
        task = self._placing.get(room)
        return None if task is None or task.done() else task

    async def _place(self, room: str) -> None:
        """Find that out for who is in a room: all may leave meanwhile, and others come."""
        core = self._core
        while (members := core.registry.room_of(room)) is not None and members.progress is None:
            try:
                arriving = core.interest.ready(room)
                if arriving is not None:
                    await asyncio.shield(arriving)
                position = (await self.read(room, None, limit=0)).position
            except (Exception, asyncio.CancelledError) as error:
                if is_being_cancelled():
                    raise
                self._log(room, error)
                await asyncio.sleep(RETRY_S)
            else:
                if core.registry.room_of(room) is members and members.progress is None:
                    members.progress = Progress(position)

    def begin(self, room: str, rule: Rule, since: Position | None) -> Joiner:
        """Begin to write down for one who joins what comes for a room; `end` ends that.

        This process has all of the room's publications from here on.
        """
        joiner = Joiner(self, room, rule, since)
        self._joining.setdefault(room, []).append(joiner)
        return joiner

    def end(self, joiner: Joiner) -> None:
        """Write nothing more down for a joiner."""
        joiners = self._joining.get(joiner.room, [])
        if joiner in joiners:
            joiners.remove(joiner)
            if not joiners:
                del self._joining[joiner.room]

    async def read_for(self, joiners: Sequence[Joiner]) -> None:
        """Read what each has missed: `Joiner.finish` returns it from then on.

        Raises `CommandError` where something is lost all the time, and what the broker raises.
        """
        for joiner in joiners:
            placing = self.placing(joiner.room)
            if placing is not None:
                await asyncio.shield(placing)
        for _ in range(MOST_READS):
            unread = [joiner for joiner in joiners if not joiner.is_read]
            if len(unread) == 1:
                await unread[0].read()
            else:
                await _all_of([joiner.read() for joiner in unread])
            if None not in [joiner.finish() for joiner in joiners]:
                return
        raise CommandError("unavailable", "try again later", temporary=True)

    def count(self, recovered: Recovered) -> None:
        """Count one who has come back: whether it was given all that it has missed."""
        stats = self._core.stats
        if recovered.since is not None and recovered.is_whole:
            stats.recoveries += 1
        elif recovered.since is not None:
            stats.recoveries_refused += 1

    def position_of(self, room: str) -> Position | None:
        """Return how far a room has come here; None where nobody here is in it, or it keeps nothing."""
        members = self._core.registry.room_of(room)
        return None if members is None or members.progress is None else members.progress.position

    def bring_up(
        self, room: str, history: History, last: History, came: Sequence[Publication]
    ) -> bool:
        """Deliver to the members here what they lack of a history, and of what came meanwhile.

        Returns whether this process has now all that was published until `last`.
        """
        end = end_of(last.position, came)
        members = self._core.registry.room_of(room)
        if members is None:
            return end is not None and last.position == history.position
        if members.progress is None:  # they have entered just now: see `entered`
            return False
        progress = members.progress
        self._deliver(members, progress, history.publications)
        self._deliver(members, progress, came)
        here, there = progress.position, history.position
        if here.epoch != there.epoch or here.offset < there.offset:
            # What the members lack is not kept any more.
            self._skip_to(members, progress, history.position)
            self._deliver(members, progress, came)
        return progress.position == end

    async def read(self, room: str, since: Position | None, limit: int | None = None) -> History:
        """Read a history; see `HistoryBroker.history`."""
        return await self._broker.history(room, since=since, limit=limit)

    async def read_newest(self, room: str) -> History:
        """Read the newest publication of a room."""
        return await self._broker.history(room, limit=1, reverse=True)

    async def page(
        self,
        room: str,
        *,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> History:
        """Return a part of a room's history; see `HistoryBroker.history`."""
        if since is not None:
            since, _ = split_names(since)
        return await self._broker.history(room, since=since, limit=limit, reverse=reverse)

    async def remove(self, room: str) -> None:
        """Forget what a room has kept; its members learn of the new epoch by the next publication.

        Raises `CommandError` for a room that keeps nothing.
        """
        self.require_history(room)
        await self._broker.remove_history(room)

    async def page_for(
        self,
        session: ClientSession,
        room: str,
        *,
        since: Position | None,
        limit: int,
        reverse: bool,
    ) -> History:
        """Return a part of a room's history to a client, without what it was excluded from.

        A page is no recovery: of what is not kept any more it begins with the oldest that is. It has fewer than
        `limit` only where the history ends. Raises `PositionLost` for a position of another epoch; where a new one
        begins while it is read, who came without a position is given a page of that.
        """
        names: list[str] = []
        if since is not None:
            since, names = split_names(since)
            if not since.epoch:
                since = Position(
                    since.offset, (await self.read(room, None, limit=0)).position.epoch
                )
        names.extend(session.former_names)
        if session.has_connection_id:
            names.append(session.connection_id)
        found: list[Publication] = []
        start, count = since, limit
        while True:
            try:
                page = await self._page_from(room, since, count, reverse=reverse)
            except PositionLost:
                if start is not None:
                    raise
                found, since, count = [], None, limit
                continue
            read = page.publications
            found += [each for each in read if each.exclude not in names]
            if len(found) >= limit or len(read) < count:
                return History(found[:limit], page.position)
            since, count = read[-1].position, max(2 * count, LEAST_READ_ON)

    async def _page_from(
        self, room: str, since: Position | None, limit: int, *, reverse: bool
    ) -> History:
        """Return a part of a room's history, or of what is kept of that."""
        try:
            return await self._broker.history(room, since=since, limit=limit, reverse=reverse)
        except PositionLost:
            here = (await self.read(room, None, limit=0)).position
            if since is None or since.epoch != here.epoch:
                raise
            if since.offset > here.offset:
                return History([], here)
            return await self._broker.history(room, limit=limit, reverse=reverse)

    def require_history(self, room: str) -> None:
        """Raise `CommandError` for a room that keeps no history."""
        rule = self._core.rules.of(room)
        if rule is None or not rule.remembers:
            text = "this room keeps no history; RoomRules give it one, as in history=100"
            raise CommandError("not_available", text)

    @property
    def _broker(self) -> HistoryBroker:
        return cast(HistoryBroker, self._core.broker)

    def _log(self, room: str, error: BaseException) -> None:
        text = "the history of %s could not be read: %s; asked again"
        why = printable(str(error) or type(error).__name__)
        self._core.log.log(logging.WARNING, "history", text, printable(room, 50), why)


def _is_here(progress: Progress, publication: Publication) -> bool:
    position = publication.position
    return position is not None and progress.is_old(position)


async def _all_of(reads: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all at once, to the end of each; raise what the first of them raised."""
    for done in await asyncio.gather(*reads, return_exceptions=True):
        if done is not None:
            raise done
