"""Patches: the members of a room that take a message as the difference to the one before it.

What must not live here: how a difference is made (`wire.fossil`), how it is written (a dialect), who may
have it (a rule, and what a client asks for).

Who has got the message before may be sent a patch; all others get the whole message. A member that has
just come has not, nor has one that was excluded from it. Only rooms that remember have patches: a member
of which a full outbox dropped something leaves such a room.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..wire.frame import Frame
    from ..wire.publication import Publication
    from .room import Membership
    from .session import ClientSession
    from .variant import Row, Variant


class Patches:
    """The members of one room that take patches, each with the form in which it gets its bytes. `fresh` are
    those that have not got the last message; `last` is that (None: there was none)."""

    __slots__ = ("fresh", "last", "sessions")

    def __init__(self) -> None:
        self.sessions: dict[ClientSession, Variant] = {}
        self.fresh: set[ClientSession] = set()
        self.last: Frame | None = None

    def add(self, session: ClientSession, variant: Variant) -> None:
        """Take in a member."""
        self.sessions[session] = variant
        self.fresh.add(session)

    def remove(self, session: ClientSession) -> None:
        """Let a member go; one that is none is no error."""
        self.sessions.pop(session, None)
        self.fresh.discard(session)

    def note(self, publication: Publication) -> None:
        """Note a message that goes to all members now: the one before it is its base."""
        publication.base = self.last
        self.last = publication.frame


def frames_for(
    session: ClientSession,
    indices: Sequence[int],
    rows: Sequence[Row],
    by_room: Mapping[Membership, Sequence[int]],
) -> dict[int, Frame | None]:
    """Return what some rows are for one session, by their places; and note in which rooms it has the last.

    `by_room` has the places of all that goes to each room now, in order.
    """
    variant = session.variant
    made: dict[int, Frame | None] = {}
    taken: dict[Membership, list[int]] = {}
    for members in by_room:
        patches = members.patches
        if patches is not None and session in patches.sessions:
            taken[members] = []
    for index in indices:
        target: Any
        target, frame, _, publication = rows[index]
        if target not in taken or publication is None or publication.position is None:
            made[index] = variant.frame_of(frame, publication)
            continue
        patches = target.patches
        places, got = by_room[target], taken[target]
        here = bisect_left(places, index)
        if got:
            has_base = here > 0 and got[-1] == places[here - 1]
        else:
            has_base = here == 0 and session not in patches.fresh
        got.append(index)
        form = patches.sessions[session]
        made[index] = form.frame_of(frame, publication) if has_base else form.whole_of(publication)
    for members, got in taken.items():
        patches = members.patches
        assert patches is not None
        if got and got[-1] == by_room[members][-1]:
            patches.fresh.discard(session)
        else:
            patches.fresh.add(session)
    return made
