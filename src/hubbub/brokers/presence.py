"""Who is in which room, kept in the memory of one process, and what is told of it.

What must not live here: an event loop, delivery, handlers. The memory broker has a store; see
`PresenceBroker` for what it does, and what is owed.

A member has a lease, which its node renews. A person is *here* with one member or more, or *away*: its last
member has left, and it has a time of grace to come back. Both end by `expire` only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..model import ClientInfo, PresenceStats
from ..wire.presence import Told
from ..wire.publication import Kind
from .broker import PresenceTerms, Snapshot

RESUME_SHARE = 0.75
"""A room that was too large to tell of joins and leaves tells of them again when it has so much of
`PresenceTerms.told_up_to`: one whose size goes up and down at the limit does not tell that each time."""


class Change(NamedTuple):
    """Who has joined or left by a call, and what is to be told of it (None: nothing). `is_quiet` is as in `Entered`."""

    infos: Sequence[ClientInfo]
    told: Told | None
    is_quiet: bool = False


class _Room:
    """One room. What ends first comes first, in `members` by name and in `away` by key."""

    __slots__ = ("away", "here", "is_paused", "members")

    def __init__(self) -> None:
        self.members: OrderedDict[str, tuple[ClientInfo, float]] = OrderedDict()
        self.here: dict[str, int] = {}
        """How many members each person has, by key."""
        self.away: OrderedDict[str, tuple[ClientInfo, float]] = OrderedDict()
        self.is_paused: bool = False

    @property
    def clients(self) -> int:
        """How many clients are in the room: of a person who is away, the last that there was."""
        return len(self.members) + len(self.away)

    @property
    def people(self) -> int:
        """How many people are in the room."""
        return len(self.here) + len(self.away)

    def add(self, name: str, info: ClientInfo, until: float) -> bool:
        """Take in a member, or renew its lease; tell whether a person has joined with it."""
        is_known = self.members.pop(name, None) is not None
        self.members[name] = (info, until)
        if is_known:
            return False
        key = info.key
        count = self.here.get(key, 0)
        self.here[key] = count + 1
        return self.away.pop(key, None) is None and not count

    def remove(self, name: str) -> ClientInfo | None:
        """Let a member go; return it if it was the last of its person. One that is none is no error."""
        info, _ = self.members.pop(name, (None, 0.0))
        if info is None:
            return None
        key = info.key
        count = self.here.pop(key) - 1
        if count:
            self.here[key] = count
            return None
        return info


class Rows(NamedTuple):
    """Who is in one room, written down: each member's name, info and end of lease; each person who is away, by key;
    whether changes are not told; the number of the last change."""

    members: Sequence[tuple[str, ClientInfo, float]] = ()
    away: Sequence[tuple[str, ClientInfo, float]] = ()
    is_paused: bool = False
    at: int = 0


class PresenceStore:
    """Who is in which room. Not thread-safe.

    All times are of one clock that never goes back, in seconds; whoever calls says what it shows. What is
    kept is bounded by who is connected: a room without people has no entry.
    """

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}
        self._at = 0

    @property
    def rooms(self) -> int:
        """How many rooms have people."""
        return len(self._rooms)

    def load(self, name: str, rows: Rows) -> None:
        """Have a room be as it was written down. The next change has a higher number than that of `rows`."""
        room = _Room()
        for member, info, until in sorted(rows.members, key=lambda row: row[2]):
            room.add(member, info, until)
        for key, info, until in sorted(rows.away, key=lambda row: row[2]):
            room.away[key] = (info, until)
        room.is_paused = rows.is_paused
        self._at = max(self._at, rows.at)
        if room.people:
            self._rooms[name] = room
        else:
            self._rooms.pop(name, None)

    def dump(self, name: str) -> Rows:
        """Write down who is in a room."""
        room = self._rooms.get(name, _Room())
        members = [(each, info, until) for each, (info, until) in room.members.items()]
        away = [(key, info, until) for key, (info, until) in room.away.items()]
        return Rows(members, away, room.is_paused, self._at)

    def enter(
        self, name: str, members: Mapping[str, ClientInfo], terms: PresenceTerms, now: float
    ) -> Change:
        """See `PresenceBroker.enter`."""
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = _Room()
        until = now + terms.lease_s
        infos = [info for each, info in members.items() if room.add(each, info, until)]
        was_paused = room.is_paused
        change = self._change(name, room, Kind.JOIN, infos, terms)
        return change._replace(is_quiet=was_paused and room.is_paused)

    def leave(self, name: str, names: Sequence[str], terms: PresenceTerms, now: float) -> Change:
        """See `PresenceBroker.leave`."""
        room = self._rooms.get(name)
        if room is None:
            return Change((), None)
        gone = [info for each in names if (info := room.remove(each)) is not None]
        if terms.grace_s:
            for info in gone:
                room.away[info.key] = (info, now + terms.grace_s)
            gone = []
        return self._change(name, room, Kind.LEAVE, gone, terms)

    def expire(
        self, name: str, terms: PresenceTerms, now: float, most: int | None = None
    ) -> Change:
        """See `PresenceBroker.expire`. `most` is how many are struck out at most (None: all)."""
        room = self._rooms.get(name)
        if room is None:
            return Change((), None)
        gone: list[ClientInfo] = []
        left = len(room.away) + len(room.members) if most is None else most
        while room.away and left:
            key, (info, until) = next(iter(room.away.items()))
            if until > now:
                break
            del room.away[key]
            gone.append(info)
            left -= 1
        while room.members and left:
            member, (_, until) = next(iter(room.members.items()))
            if until > now:
                break
            last = room.remove(member)
            left -= 1
            if last is not None:
                gone.append(last)
        return self._change(name, room, Kind.LEAVE, gone, terms)

    def snapshot(self, name: str, most: int | None = None) -> Snapshot:
        """See `PresenceBroker.presence`."""
        room = self._rooms.get(name)
        if room is None:
            return Snapshot((), self._at)
        if most is not None and room.clients > most:
            return Snapshot((), self._at, is_too_long=True)
        # Who is here comes last: another may have had the same id, and be away.
        rows = [*room.away.values(), *room.members.values()]
        return Snapshot(tuple(info for info, _ in rows), self._at)

    def stats(self, name: str) -> PresenceStats:
        """See `PresenceBroker.presence_stats`."""
        room = self._rooms.get(name)
        if room is None:
            return PresenceStats(0, 0)
        return PresenceStats(room.clients, room.people)

    def _change(
        self, name: str, room: _Room, kind: Kind, infos: Sequence[ClientInfo], terms: PresenceTerms
    ) -> Change:
        """Number a change, and say what is to be told of it. A room without people ends here."""
        if not room.people:
            self._rooms.pop(name, None)
        if not infos:
            return Change((), None)
        self._at += 1
        limit, people = terms.told_up_to, room.people
        if not limit:
            return Change(infos, None)
        if not room.is_paused and people > limit:
            room.is_paused = True
            return Change(infos, Told(kind, (), self._at, True))
        if room.is_paused:
            if people > limit * RESUME_SHARE:
                return Change(infos, None)
            room.is_paused = False
            return Change(infos, Told(kind, (), self._at, False))
        return Change(infos, Told(kind, infos, self._at))
