"""Gaps: who is told that it has missed something of a room, and how it comes back.

What must not live here: how it is known that something was lost (`recovery`, `outbox`), and what is read again then
(`recovery`, `joining`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..dialects.dialect import Gap, ServerSubscribed, ServerUnsubscribed
from ..errors import INSUFFICIENT_STATE
from ..model import EVERYBODY
from .disconnects import SLOW_CONSUMER
from .positions import with_names

if TYPE_CHECKING:
    from .core import Core
    from .room import Membership
    from .session import ClientSession

MOST_GAPS = 5
"""How many times within `GAPS_WITHIN_S` a slow client may fall behind and recover."""
GAPS_WITHIN_S = 60.0


class Gaps:
    """Tells members of rooms what they have missed. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def tell(self, session: ClientSession, room: str) -> None:
        """Tell a member that it has missed something of a room: who can come back for it leaves."""
        core = self._core
        if session.close is not None or room not in session.memberships:
            return
        if session.variant.dialect.is_plain:
            if core.rules.is_stream(room):
                self._begin_text_anew(session, room)
            else:
                core.publishing.tell(session, Gap(room))
        elif not session.is_given(room):
            core.joining.leave(session, room)
            core.publishing.tell(session, ServerUnsubscribed(room, is_gap=True))
        elif core.rules.remembers(room):  # it cannot come back to the room; it can to the hub
            core.registry.disconnect(session, INSUFFICIENT_STATE, "insufficient state")
        else:  # there is nothing to come back for, and what it asks for when it has come in it asks for anew
            core.publishing.tell(session, ServerSubscribed(room))

    def note_dropped(self, session: ClientSession) -> None:
        """A slow client's outbox has dropped something of some rooms, and is empty again: it is told so.

        It was taken out of those that it can come back to with its position. One to which it happens again and
        again in rooms that remember is closed, and comes back when it can take more.
        """
        self._core.fanout.flush()  # what this turn had for it comes before, or is dropped too
        rooms = session.behind
        if rooms is None or session.close is not None or session.outbox is not None:
            return  # what is not empty yet says so later
        if any(map(self._core.rules.remembers, rooms)) and self._is_too_often(session):
            self._core.registry.end(session, SLOW_CONSUMER, "it falls behind again and again")
            return
        for room in list(rooms):
            if not session.leaves_for_gap(room):
                self.tell(session, room)
            elif session.variant.dialect.is_plain:
                self._begin_text_anew(session, room)
            else:
                self._core.publishing.tell(session, ServerUnsubscribed(room, is_gap=True))
        session.told_of_gaps()

    def _is_too_often(self, session: ClientSession) -> bool:
        """Count that a client has fallen behind; return whether that was too often lately."""
        now = self._core.clock()
        count, since = session.gaps or (0, now)
        if now - since > GAPS_WITHIN_S:
            count, since = 0, now
        session.gaps = (count + 1, since)
        return count >= MOST_GAPS

    def _begin_text_anew(self, session: ClientSession, room: str) -> None:
        """Bring a plain client back into a stream, from the text so far."""
        if session.close is None:
            self._core.joining.leave(session, room, comes_back=True)
            self._core.joining.bring_in(session, room, asks=room not in session.unasked)

    def take_out(self, session: ClientSession, rooms: Iterable[str]) -> None:
        """Take a slow client out of rooms of which it has missed something; `note_dropped` tells it."""
        for room in rooms:
            if session.behind is None or room not in session.behind:
                continue  # it has come in anew
            if room not in session.memberships:
                continue  # it has left meanwhile, and misses nothing
            if session.is_given(room):
                why = "it has missed something of a room that the server put it into"
                self._core.registry.end(session, SLOW_CONSUMER, why)
                return
            is_plain = session.variant.dialect.is_plain  # any other asks for the room by itself
            self._core.joining.leave(session, room, comes_back=is_plain)

    def tell_all(self, members: Membership) -> None:
        """Tell the members of a room that keeps nothing that they may have missed something.

        Everybody's room stands for those of users too. Who speaks in commands knows neither; of other rooms that the
        server put it into it is told where it may have missed who is there.
        """
        is_everybody = members.name == EVERYBODY
        tells_of_members = self._core.rules.tells_of_members(members.name)
        for session in list(members.sessions):
            is_plain = session.variant.dialect.is_plain
            may_be_told = tells_of_members or not session.is_given(members.name)
            if is_plain or (may_be_told and not is_everybody):
                self.tell(session, members.name)

    def tell_of_changes(self, members: Membership) -> None:
        """Tell the members of a room that remembers that they may have missed who came and went, and nothing else.

        Who can come back to the room does, with its position. One that the server has put into it is told that once
        more, and where it stands.
        """
        core, room = self._core, members.name
        rule, position = core.rules.of(room), core.recovery.position_of(room)
        if rule is None or not rule.rules.recover:
            position = None
        for session in list(members.sessions):
            if session.variant.dialect.is_plain:
                core.publishing.tell(session, Gap(room))
            elif not session.is_given(room):
                self.tell(session, room)
            else:
                place = None if position is None else with_names(position, session.all_names)
                event = ServerSubscribed(room, place, recovered=place is not None)
                core.publishing.tell(session, event)
