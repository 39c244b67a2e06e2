"""The roll of a room: its members in this process, and what the broker has still to hear of them.

What must not live here: what the broker is asked, and who is told what (`presence`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..brokers.broker import PresenceTerms
from ..model import ClientInfo
from .rules import LEASE_S

if TYPE_CHECKING:
    from .session import ClientSession

RENEW_S = LEASE_S / 3
"""How often a process says of its members that they are there, and looks whose lease is over."""


class Roll:
    """One room: its members in this process, by the names of their connections.

    Each is in one of three. Of `entering` the broker has still to hear; of who had left, and is back before the
    broker has heard of that, or was told of otherwise, it is noted what the broker knows. `members` were told to the broker, or are just
    being told. `leaving` have gone, and the broker has still to hear that. `refused` are the members that the broker
    has refused, each alone: they are told again apart from the others. `unaware` are those who would not know that
    nothing is told in a room that is too large: they came after it was said, if it was.
    """

    __slots__ = (
        "entering",
        "expire_at",
        "grace_until",
        "is_busy",
        "leaving",
        "members",
        "refused",
        "renew_at",
        "room",
        "terms",
        "told",
        "unaware",
    )

    def __init__(self, room: str, terms: PresenceTerms, now: float) -> None:
        self.room: str = room
        self.terms: PresenceTerms = terms
        self.entering: dict[str, tuple[ClientSession, ClientInfo | None]] = {}
        self.members: dict[str, ClientInfo] = {}
        self.leaving: dict[str, ClientInfo] = {}
        self.refused: dict[str, None] = {}
        self.unaware: dict[str, ClientSession] = {}
        self.renew_at: float = now + RENEW_S
        self.expire_at: float = now + RENEW_S
        self.grace_until: float = -math.inf
        """When those who have left have had their time to come back; until then, and until it was seen who has
        not, the roll is kept."""
        self.is_busy: bool = False
        """Whether the broker is being asked something about this room."""
        self.told: asyncio.Future[None] | None = None
        """Done when the next batch of changes has been told: what those wait for who ask meanwhile."""

    def add(self, name: str, session: ClientSession) -> None:
        """Note who has come, or of whom something else is to be said now."""
        if name in self.entering:
            return  # what is said of it is asked for later
        self.refused.pop(name, None)  # what is said of it now may be taken
        info = self.members.pop(name, None)
        if info is None:
            self.unaware[name] = session
            info = self.leaving.pop(name, None)
        self.entering[name] = session, info

    def remove(self, name: str) -> bool:
        """Note who has gone; return whether the broker may know it."""
        self.refused.pop(name, None)
        self.unaware.pop(name, None)
        if name in self.entering:
            _, info = self.entering.pop(name)
        else:
            info = self.members.pop(name, None)
        if info is not None:
            self.leaving[name] = info
        return info is not None

    def put_back(self, part: Mapping[str, ClientInfo]) -> None:
        """Note anew that those have gone of whom the broker could not be told."""
        again = dict(part)
        for name in part.keys() & self.entering.keys():  # it has come back meanwhile
            session, _ = self.entering[name]
            self.entering[name] = session, again.pop(name)
        self.leaving = again | self.leaving

    def is_due(self, now: float) -> bool:
        """Tell whether the broker has to hear something of this room."""
        return bool(self.entering or self.leaving) or now >= min(self.renew_at, self.expire_at)

    @property
    def is_over(self) -> bool:
        """Whether this process has nothing to do with the room any more."""
        is_empty = not (self.members or self.entering or self.leaving)
        return is_empty and self.grace_until == -math.inf

    async def until_told(self) -> None:
        """Wait until a batch of changes that begins after this call has been told, or could not be."""
        if self.told is None:
            self.told = asyncio.get_running_loop().create_future()
        await asyncio.wait([self.told])

    def let_go(self) -> None:
        """Let those go on who wait for a batch."""
        told, self.told = self.told, None
        finish(told)


def finish(future: asyncio.Future[None] | None) -> None:
    """Let those go on who wait, if anybody does."""
    if future is not None and not future.done():
        future.set_result(None)
