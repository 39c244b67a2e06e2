"""Presence: who is in a room, in all processes, and who is told of joins and leaves.

What must not live here: who is in a room of this process (`room`), what others see of a client (`client_infos`), what
a broker keeps, bytes.

Who joins or leaves a room with such a rule here is noted in its `Roll`. What one turn of the event loop
has, and what comes while the broker is asked, goes to the broker in one batch for each room. The broker knows
all processes: it decides whether a person has come or gone by that, and tells the members in the same step.
The memberships of this process are leases, renewed every `RENEW_S`: those of a process that was killed end.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, cast

from ..brokers.broker import (
    MOST_MEMBERS_A_CALL,
    CallFailed,
    CallRefused,
    PresenceBroker,
    PresenceTerms,
    Snapshot,
)
from ..dialects.dialect import PresencePaused
from ..errors import BrokerError, CommandError
from ..limits import printable
from ..model import ClientInfo, PresenceStats
from ..wire.presence import read_told
from ..wire.publication import Kind
from . import presence_roll
from .presence_calls import PresenceCalls
from .presence_roll import Roll, finish
from .signature import Function
from .tasks import is_being_cancelled

if TYPE_CHECKING:
    from ..wire.publication import Publication
    from .core import Core
    from .session import ClientSession

LOOK_S = 1.0
"""How often it is looked whose time of grace is over, where there is somebody."""
RETRY_S = 1.0
"""How long after a failure the broker is asked again."""
MOST_LEAVING = 10_000
"""How many who have gone from a room are told to the broker later, if it is away."""
STOP_S = 1.0
"""How long the broker may take at the end to hear who has gone."""
MOST_REFUSALS = 64
"""How often the broker may refuse a part of those that one batch tells it of, until the rest waits."""


class Presence:
    """Tells the broker who is where, and what it knows to who asks. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._timer: asyncio.TimerHandle | None = None
        self.reset()

    def reset(self) -> None:
        """Forget what a dead event loop left behind."""
        self._rolls: dict[str, Roll] = {}
        self._changed: dict[Roll, None] = {}
        self._readers: dict[str, list[list[Publication]]] = {}
        self._calls = PresenceCalls(self._core)
        self._is_over = False
        self._rest()

    def __len__(self) -> int:
        """How many rooms this process has something to do with."""
        return len(self._rolls)

    @property
    def member_count(self) -> int:
        """How many members of this process are in those rooms, one for each client and room."""
        return sum(len(roll.members) + len(roll.entering) for roll in self._rolls.values())

    # Who comes and goes here

    def entered(self, session: ClientSession, room: str) -> None:
        """Note that a client has come into a room of this process."""
        roll = self._rolls.get(room)
        if roll is None:
            terms = self._require(room)
            roll = self._rolls[room] = Roll(room, terms, self._core.now())
            self._look_later()
        roll.add(session.connection_id, session)
        self._tell_later(roll)

    def left(self, session: ClientSession, room: str) -> None:
        """Note that a client has gone from a room of this process."""
        roll = self._rolls.get(room)
        if roll is not None and roll.remove(session.connection_id):
            self._tell_later(roll)

    def _tell_later(self, roll: Roll) -> None:
        if not self._changed and not self._is_over:
            self._core.lifecycle.schedule(self._tell_all)
        self._changed[roll] = None

    def _tell_all(self) -> None:
        changed, self._changed = self._changed, {}
        for roll in changed:
            self._begin(roll)

    # What the broker is asked

    def check(self) -> None:
        """See whose lease is due to be renewed, and who may have not come back."""
        now = self._core.now()
        for roll in list(self._rolls.values()):
            if now >= min(roll.renew_at, roll.expire_at):
                self._begin(roll)

    def _look_later(self) -> None:
        if self._timer is None and not self._is_over:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        self.check()
        if self._rolls:
            self._look_later()

    def _rest(self) -> None:
        """Look no more, until somebody comes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self, roll: Roll) -> None:
        """Do what is to be done about a room, unless that goes on already."""
        if not roll.is_busy and not self._is_over:
            roll.is_busy = True
            self._core.lifecycle.spawn(self._work(roll), f"presence {roll.room[:50]}")

    async def _work(self, roll: Roll) -> None:
        """Tell the broker what is due of a room, until nothing is: all kinds of it in each pass, so that
        changes without an end do not keep the others back."""
        core = self._core
        try:
            while True:
                await self._tell(roll)
                if self._is_over or not roll.is_due(core.now()):
                    break
                # A broker may answer at once, and the others have a turn too.
                await asyncio.sleep(0)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                raise
            self._failed(roll, error)
        finally:
            roll.is_busy = False
            roll.let_go()
        if roll.is_over and self._rolls.get(roll.room) is roll:
            del self._rolls[roll.room]

    async def _tell(self, roll: Roll) -> None:
        """Renew leases, tell one batch of changes, see what is over: each if it is due."""
        core = self._core
        if core.now() >= roll.renew_at:
            await self._renew(roll)
        if roll.entering or roll.leaving:
            told, roll.told = roll.told, None
            try:
                await self._tell_changes(roll)
            finally:
                finish(told)
        if core.now() >= roll.expire_at:
            await self._expire(roll)

    def _failed(self, roll: Roll, error: BaseException) -> None:
        """Have the broker asked again later. What was not told is told then; who was entered in vain is
        entered when the leases are renewed."""
        roll.renew_at = roll.expire_at = self._core.now() + RETRY_S
        while len(roll.leaving) > MOST_LEAVING:
            roll.leaving.popitem()  # its lease ends
        self._log_untold(roll, error)

    def _log_untold(self, roll: Roll, error: BaseException) -> None:
        text = "the broker was not told who is in %s: %s; told again"
        why = printable(str(error) or type(error).__name__)
        known = None if isinstance(error, BrokerError | asyncio.CancelledError) else error
        room = printable(roll.room, 50)
        self._core.log.log(logging.WARNING, "presence", text, room, why, error=known)

    async def _tell_changes(self, roll: Roll) -> None:
        """Tell who has come, and then who has gone: who does both has not gone.

        One batch is as many as there are now; who changes meanwhile waits for the next.
        """
        for most in _parts(len(roll.entering)):
            await self._enter(roll, list(self._take_entering(roll, most)))
        for most in _parts(len(roll.leaving)):
            await self._leave(roll, most)

    def _take_entering(self, roll: Roll, most: int) -> dict[str, ClientInfo]:
        """Make members of the first who enter.

        `presence_info` may close a client, or take it out of the room: of who is not there any more nothing
        is told.
        """
        taken: list[str] = []
        for name, (session, _) in list(islice(roll.entering.items(), most)):
            if name not in roll.entering:
                continue
            info = self._core.infos.of(session, roll.room)
            if roll.entering.pop(name, None) is not None:
                roll.members[name] = info
                taken.append(name)
        return {name: roll.members[name] for name in taken if name in roll.members}

    async def _enter(self, roll: Roll, names: Sequence[str]) -> None:
        """Say of members that they are there. Who has gone meanwhile is not named; if it comes back it enters.

        Where the broker does not take what it is told, each half is told apart: so a member of which nobody can be
        told keeps no other back. What fails for another reason fails for all of them, and is raised.
        """
        waiting, refusals = [names], 0
        while waiting:
            part = waiting.pop()
            here = {name: roll.members[name] for name in part if name in roll.members}
            if not here:
                continue
            try:
                entered = await self._broker.enter(roll.room, here, roll.terms)
            except Exception as error:
                self._call_for_part(roll.room, self._core.handlers.join, error)
                refusals += 1
                if not _is_refusal(error) or refusals > MOST_REFUSALS:
                    raise
                if len(here) == 1:
                    self._refused(roll, next(iter(here)), error)
                else:
                    left = list(here)
                    half = len(left) // 2
                    waiting += [left[half:], left[:half]]
                continue
            for name in here:
                roll.refused.pop(name, None)
                session = roll.unaware.pop(name, None)
                if session is not None and entered.is_quiet:
                    self._core.publishing.tell(session, PresencePaused(roll.room, True))
            self._calls.add(roll.room, self._core.handlers.join, entered.infos)

    def _refused(self, roll: Roll, name: str, error: Exception) -> None:
        """Note whom the broker refuses; of those that it has refused it is told again last."""
        roll.refused.pop(name, None)
        if name in roll.members:
            roll.refused[name] = None
        self._log_untold(roll, error)

    async def _leave(self, roll: Roll, most: int) -> None:
        part = dict(islice(roll.leaving.items(), most))
        if not part:
            return  # they have come back
        for name in part:
            del roll.leaving[name]
        try:
            left = await self._broker.leave(roll.room, list(part), roll.terms)
        except (Exception, asyncio.CancelledError) as error:
            self._call_for_part(roll.room, self._core.handlers.leave, error)
            roll.put_back(part)
            raise
        self._calls.add(roll.room, self._core.handlers.leave, left)
        roll.grace_until = self._core.now() + roll.terms.grace_s
        roll.expire_at = min(roll.expire_at, roll.grace_until)

    async def _renew(self, roll: Roll) -> None:
        """Say of all members here that they are there; one that the broker has forgotten joins anew."""
        roll.renew_at = self._core.now() + presence_roll.RENEW_S
        refused = list(roll.refused)
        others = [name for name in roll.members if name not in roll.refused]
        names = iter(others)
        for most in _parts(len(others)):
            await self._enter(roll, list(islice(names, most)))
        try:
            await self._enter(roll, refused[:MOST_MEMBERS_A_CALL])
        except Exception as error:
            if not _is_refusal(error):
                raise  # else the rest of them is told with the next renewal

    async def _expire(self, roll: Roll) -> None:
        """Have those struck out who have not come back, and those whose process has gone."""
        now = self._core.now()
        roll.expire_at = now + (LOOK_S if now < roll.grace_until else presence_roll.RENEW_S)
        await self._strike_out(roll.room, roll.terms)
        if now >= roll.grace_until:
            roll.grace_until = -math.inf

    async def _strike_out(self, room: str, terms: PresenceTerms) -> None:
        handlers = self._core.handlers.leave
        try:
            left = await self._broker.expire(room, terms)
        except Exception as error:
            self._call_for_part(room, handlers, error)
            raise
        self._calls.add(room, handlers, left)

    def _call_for_part(self, room: str, handlers: Sequence[Function], error: BaseException) -> None:
        """Call the handlers for those whom a call concerned before it failed."""
        if isinstance(error, CallFailed):
            self._calls.add(room, handlers, error.infos)

    async def stop(self) -> None:
        """Tell the broker who has gone, if it listens; from now on nothing is told any more."""
        if self._is_over:
            return
        self._is_over = True
        self._rest()
        for roll in self._rolls.values():
            roll.let_go()
        try:
            async with asyncio.timeout(STOP_S):
                for roll in list(self._rolls.values()):
                    for start in range(0, len(roll.leaving), MOST_MEMBERS_A_CALL):
                        names = list(islice(roll.leaving, start, start + MOST_MEMBERS_A_CALL))
                        await self._broker.leave(roll.room, names, roll.terms)
        except (BrokerError, TimeoutError):
            pass  # their leases end
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                raise
            text = "the broker was not told who has gone"
            self._core.log.log(logging.ERROR, "presence", text, error=error)
        self._rolls.clear()

    # Who asks

    async def present(self, room: str, most: int | None = None) -> dict[str, ClientInfo]:
        """Return who is in a room, by the ids of clients: with all that its members here were told of.

        What is told while the broker is asked, and is newer than its answer, is added: who sends the result
        at once sends it to members who will hear of every change that comes after it. Raises `CommandError`
        ("too_many_members") where there are more than `most` clients.
        """
        terms = self._require(room)
        await self._bring_up(room, terms)
        told: list[Publication] = []
        readers = self._readers.setdefault(room, [])
        readers.append(told)
        try:
            snapshot = await self._broker.presence(room, most)
        finally:
            readers[:] = [each for each in readers if each is not told]
            if not readers:
                self._readers.pop(room, None)
        if snapshot.is_too_long:
            text = f"there are more than {most} clients in this room; ask how many"
            raise CommandError("too_many_members", text)
        return _brought_up(snapshot, told)

    async def stats(self, room: str) -> PresenceStats:
        """Return how many are in a room."""
        await self._bring_up(room, self._require(room))
        return await self._broker.presence_stats(room)

    def note_told(self, publication: Publication) -> None:
        """Note what the members of a room are told, for those who read who is there, and for those who come."""
        for told in self._readers.get(publication.room, ()):
            told.append(publication)
        roll = self._rolls.get(publication.room)
        if roll is not None and roll.unaware and _is_pause(publication):
            roll.unaware.clear()

    async def _bring_up(self, room: str, terms: PresenceTerms) -> None:
        """Have the broker know what is known here; for a room without members here, see what is over."""
        self._core.lifecycle.require_loop()
        roll = self._rolls.get(room)
        if roll is None:
            await self._strike_out(room, terms)
            return
        if roll.entering or roll.leaving:
            self._begin(roll)
        if roll.is_busy:
            await roll.until_told()

    def _require(self, room: str) -> PresenceTerms:
        """Return how presence is kept in a room. Raises `CommandError` where it is not."""
        terms = self._core.rules.terms_of(room)
        if terms is None:
            text = "nobody notes who is in this room; RoomRules say so, as in presence=True"
            raise CommandError("not_available", text)
        return terms

    @property
    def _broker(self) -> PresenceBroker:
        return cast(PresenceBroker, self._core.broker)


def _parts(count: int) -> Iterator[int]:
    """Part `count` members into as many as one call may have."""
    for start in range(0, count, MOST_MEMBERS_A_CALL):
        yield min(MOST_MEMBERS_A_CALL, count - start)


def _is_refusal(error: Exception) -> bool:
    """Tell whether an error is about those that the broker was told of: others it may take."""
    return isinstance(error, CallRefused) or not isinstance(error, BrokerError)


def _is_pause(publication: Publication) -> bool:
    """Tell whether a publication says that joins and leaves are told no more, or again."""
    return read_told(publication.frame, publication.kind).is_paused is not None


def _brought_up(snapshot: Snapshot, publications: Sequence[Publication]) -> dict[str, ClientInfo]:
    """Return who is in a room by a snapshot, and by what was told that is newer."""
    found = {info.client: info for info in snapshot.infos}
    for publication in publications:
        told = read_told(publication.frame, publication.kind)
        if told.at is None or told.at <= snapshot.at:
            continue
        if told.kind is Kind.JOIN:
            found |= {info.client: info for info in told.infos}
        else:
            gone = {info.key for info in told.infos}
            found = {client: info for client, info in found.items() if info.key not in gone}
    return found
