"""Subscriptions: until when a client may stay in a room that a token, or the server, has let it into.

What must not live here: whether a token is good (`access`), who is in a room (`registry`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..dialects.dialect import ServerUnsubscribed
from ..limits import printable
from .deadlines import GRACE_S, DeadlineQueue
from .disconnects import ROOM_EXPIRED

if TYPE_CHECKING:
    from .core import Core
    from .session import ClientSession

LOOK_S = 1.0
"""How often it is looked for those whose time is over."""
MOST_A_LOOK = 500
"""How many may be taken out at one look; the others are at the next."""


class SubscriptionDeadlines:
    """Takes clients out of rooms when their tokens for these have ended. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._queue: DeadlineQueue[tuple[ClientSession, str]] = DeadlineQueue()
        self._rooms: dict[ClientSession, set[str]] = {}
        self._will_look = False

    def __len__(self) -> int:
        """How many subscriptions have an end."""
        return len(self._queue)

    def expire(self, session: ClientSession, room: str, expires_at: float) -> float:
        """Let a client stay in a room until a Unix time in seconds; return how many are left."""
        left_s = expires_at - time.time()
        now = self._core.now()
        self._queue.set((session, room), now + left_s + GRACE_S, now)
        self._rooms.setdefault(session, set()).add(room)
        self._look_later()
        return left_s

    def has_end(self, session: ClientSession, room: str) -> bool:
        """Tell whether a client's stay in a room has an end."""
        return room in self._rooms.get(session, ())

    def forget(self, session: ClientSession, room: str | None = None) -> None:
        """Let it stay in a room, or in all, as long as it likes. What is not known is no error."""
        rooms = self._rooms.get(session)
        if rooms is None:
            return
        for each in (*rooms,) if room is None else (room,):
            self._queue.remove((session, each))
            rooms.discard(each)
        if not rooms:
            del self._rooms[session]

    def end(self, session: ClientSession, room: str) -> None:
        """Take a client out of a room, and tell it why. One that cannot come back to it is closed, and one that is
        out of it for a gap is not brought back."""
        if session.close is not None:
            return
        was_in = room in session.memberships
        if was_in and session.is_given(room):
            self._core.registry.end(session, ROOM_EXPIRED, printable(room, 50))
            return
        self._core.joining.leave(session, room)
        if was_in:
            self._core.publishing.tell(session, ServerUnsubscribed(room, is_expired=True))

    def look(self) -> None:
        """Take out those whose time is over."""
        self._queue.advance(self._core.now(), _nobody_is_asked, self._ended, MOST_A_LOOK)

    def _ended(self, ended: tuple[ClientSession, str]) -> None:
        self.forget(*ended)
        self.end(*ended)

    def _look_later(self) -> None:
        if not self._will_look:
            self._will_look = True
            self._core.lifecycle.schedule(self._look_and_go_on, LOOK_S)

    def _look_and_go_on(self) -> None:
        self._will_look = False
        if len(self._queue) and self._core.subscriptions is self:
            self.look()
            self._look_later()


def _nobody_is_asked(ended: tuple[ClientSession, str], left_s: float) -> None:
    """An SDK asks for a new token by itself."""
