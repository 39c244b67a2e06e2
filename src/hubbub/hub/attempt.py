"""Attempt: one time that a client is brought into a room, from when that is noted until it is in, or is not.

What must not live here: how it is brought in (`joining`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import CommandError
from . import room_waits

if TYPE_CHECKING:
    from .session import ClientSession


class Attempt:
    """One time that a client is brought into a room, noted in `ClientSession.joining`. A leave or a close ends it."""

    __slots__ = ("_over", "expires_at", "has_asked", "has_entered", "otherwise")

    def __init__(self) -> None:
        self._over: asyncio.Event = asyncio.Event()
        self.expires_at: float | None = None
        """When the stay of a client that asks for the room itself is to end, as somebody has said meanwhile."""
        self.has_entered: bool = False
        """Whether it has made the client a member; not if that was one by then."""
        self.has_asked: bool = False
        """Whether the client has asked to be brought in, by a command that is answered."""
        self.otherwise: Callable[[], None] | None = None
        """What brings the client back in if this does not."""

    async def over(self) -> None:
        """Wait until this is over."""
        await self._over.wait()

    def is_under_way(self, session: ClientSession, room: str) -> bool:
        """Tell whether the client is still to come in by this."""
        return attempt_of(session, room) is self

    def end(self, session: ClientSession, room: str) -> None:
        """Be over. Twice is no error."""
        self._over.set()
        if session.joining is None or not self.is_under_way(session, room):
            return
        del session.joining[room]
        if self.otherwise is not None and room not in session.memberships:
            self.otherwise()


def attempt_of(session: ClientSession, room: str) -> Attempt | None:
    """Return the attempt that brings a client into a room just now."""
    return None if session.joining is None else session.joining.get(room)


def call_off(session: ClientSession, room: str) -> None:
    """End the attempt that brings a client into a room: it has left."""
    attempt = None if session.joining is None else session.joining.pop(room, None)
    if attempt is not None:
        attempt.end(session, room)


def call_off_all(session: ClientSession) -> None:
    """End the attempts to bring a client into rooms: it has gone."""
    attempts, session.joining = session.joining, None
    for room, attempt in (attempts or {}).items():
        attempt.end(session, room)


async def settled(session: ClientSession, room: str, expires_at: float | None) -> None:
    """Wait until a client is joining a room no more. Raises `CommandError` if that takes too long.

    One that comes in because it asks for that itself then stays until `expires_at` (None: not said).
    """
    try:
        async with asyncio.timeout(room_waits.BROKER_TIMEOUT_S):
            while (attempt := attempt_of(session, room)) is not None:
                if expires_at is not None:
                    attempt.expires_at = expires_at
                await attempt.over()
    except TimeoutError as error:
        raise joining_already() from error


def joining_already() -> CommandError:
    """Return what is raised where a client is joining a room already."""
    return CommandError("joining", "this client is joining the room already", temporary=True)
