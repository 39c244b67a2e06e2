"""Fan-out: the step from what was published in one turn of the event loop to many sockets.

No await, no task, no encoding per receiver. What must not live here: the registry's tables, and
what a full outbox does. The registry feeds it; it writes to sessions.

How order is kept. All that a turn publishes stands in one list, in the order of publication. At
the turn's end the members of exactly one room that was published to share that room's joined
bytes; a member of several gets them merged by their places in the list, cached by the set of
rooms. A session with messages of its own (a direct send, an exclusion, a room joined or left in
mid-turn) gets a merge of its own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, cast

from ..model import EVERYBODY
from ..room_rules import SlowPolicy
from ..stats import Stats
from ..wire.frame import Batch, Frame
from ..wire.lane import write_shared
from ..wire.publication import Kind, Publication
from .lags import note_lags
from .outbox import Entry
from .patches import frames_for
from .room import Membership
from .session import ClientSession
from .variant import Variant, frames_of

MAX_SHARED_WRITE_BYTES = 256 * 1024
"""Joined bytes over this size go through `Transport.write`, which feeds a socket in pieces."""

MANY_WRITES = 256
"""A fan-out of several messages in so many writes delays the next one."""
BATCHING_SHARE = 0.25
"""How long that delay is, as a share of the fan-out before it."""
LAG_SAMPLE = 16
"""Of so many turns that deliver, the lag of one is taken: two readings of the clock cost half as much as an echo."""
MAX_BATCHING_DELAY_S = 0.025
"""The longest delay: a process that was suspended in a fan-out does not sleep on."""

_Interval = tuple[Membership, int, int]
_Row = tuple[Membership | ClientSession, Frame, tuple[ClientSession, ...], Publication | None]
"""To whom, what, who get nothing of it, and the publication that it came with."""
_Pending = list[_Row]

_EntryKind = tuple[SlowPolicy, str, bool, bool, bool]
"""What an `Entry` has beside its batch."""
_OWED: _EntryKind = ("disconnect", EVERYBODY, False, True, False)

Schedule = Callable[[Callable[[], None], float], None]
"""Calls a function in the event loop's next turn, or after so many seconds."""


class Fanout:
    """Gathers what one turn publishes, and delivers it at the turn's end.

    Where messages pile up while a long fan-out runs, the next one waits for a part of the time that
    it took, and takes all that was published meanwhile: a hub that is pressed joins more and writes
    less often, and leaves its core some room, for a delay that is small beside the one that the
    fan-out itself makes.

    Event loop only.
    """

    def __init__(
        self,
        stats: Stats,
        policy: SlowPolicy,
        schedule: Schedule,
    ) -> None:
        self._stats = stats
        self._unsampled = 0
        self._since = 0.0
        """When the first of what is gathered was published, by `perf_counter`; 0 in turns without a sample."""
        self._policy = policy
        self._schedule = schedule
        self._delayed_until = 0.0
        self._writes = 0
        self._pending: _Pending = []
        self._personal: dict[ClientSession, list[_Interval]] = {}
        self._joined_at: dict[tuple[ClientSession, Membership], int] = {}
        self._direct_count = 0

    def __len__(self) -> int:
        """How many publications wait for the end of this turn."""
        return len(self._pending)

    def publish(
        self,
        members: Membership,
        publication: Publication,
        excluded: tuple[ClientSession, ...] = (),
    ) -> None:
        """Send a publication to all that are members now, except those `excluded`."""
        pending = self._pending
        if not pending:
            self._schedule_flush()
        pending.append((members, publication.frame, excluded, publication))
        members.pending += 1
        patches = members.patches
        if patches is not None and publication.position is not None:
            patches.note(publication)
            for session in patches.fresh:
                self._personal.setdefault(session, [])
        for session in excluded:
            self._personal.setdefault(session, [])

    def send(
        self, session: ClientSession, frame: Frame, publication: Publication | None = None
    ) -> None:
        """Send `frame` to one session, in its place among what is published.

        `publication` is `ENCODED` for a frame that is in the client's dialect already, else None.
        """
        pending = self._pending
        if not pending:
            self._schedule_flush()
        pending.append((session, frame, (), publication))
        self._direct_count += 1

    def joined(self, session: ClientSession, members: Membership) -> None:
        """Note that `session` does not get what was published to `members` before this moment."""
        if members.pending:
            self._personal.setdefault(session, [])
            self._joined_at[session, members] = len(self._pending)

    def left(self, session: ClientSession, members: Membership) -> None:
        """Note that `session` still gets what was published to `members` before this moment."""
        patches = members.patches
        if patches is not None and members.pending and session in patches.sessions:
            self.flush()  # in the form that it has as long as it is a member
        if members.pending:
            start = self._joined_at.pop((session, members), 0)
            intervals = self._personal.setdefault(session, [])
            intervals.append((members, start, len(self._pending)))

    def pending_for(self, session: ClientSession) -> int:
        """Count what this turn has gathered for `session`, who must still be in its rooms."""
        pending = self._pending
        if not pending:
            return 0
        if not self._direct_count and session not in self._personal:
            # As when many go in one turn, and something is published for each that goes.
            return sum(members.pending for members in session.memberships.values())
        by_room, directs = _indices_by_target(pending)
        left = self._personal.get(session, [])
        chosen = self._indices_for(session, left, pending, by_room, self._joined_at)
        return len(chosen) + len(directs.get(session, ()))

    def _schedule_flush(self) -> None:
        """Have what is gathered from here on delivered: at the turn's end, or after the batching delay."""
        delay_s = 0.0
        if self._unsampled:
            self._unsampled -= 1
        else:
            self._unsampled = LAG_SAMPLE - 1
            self._since = perf_counter()
        if self._delayed_until:
            delay_s = max(0.0, self._delayed_until - perf_counter())
            self._delayed_until = 0.0
        self._schedule(self.flush, delay_s)

    def flush(self) -> None:
        """Deliver what the turn has gathered. Harmless when there is nothing."""
        pending = self._pending
        if not pending:
            return
        self._pending = []
        if len(pending) == 1:  # the last fan-out was over before it came: nothing piles up
            self._deliver_all(pending)
            if self._since:
                self._note_lag(pending)
            return
        self._writes = 0
        began = perf_counter()
        self._deliver_all(pending)
        if self._writes >= MANY_WRITES:
            ended = perf_counter()
            self._delayed_until = ended + min(
                (ended - began) * BATCHING_SHARE, MAX_BATCHING_DELAY_S
            )
        if self._since:
            self._note_lag(pending)

    def _note_lag(self, pending: _Pending) -> None:
        """Note how long what a turn has delivered was on its way, as of its first publication."""
        note_lags(self._stats, perf_counter() - self._since, pending)
        self._since = 0.0

    def _deliver_all(self, pending: _Pending) -> None:
        direct_count, self._direct_count = self._direct_count, 0
        if direct_count == len(pending):
            self._deliver_sends(pending)
            return
        if len(pending) == 1 and not self._personal:  # as in every hub that is not busy
            members = cast(Membership, pending[0][0])
            members.pending = 0
            self._deliver_room(members, pending)
            return
        personal, self._personal = self._personal, {}
        joined_at, self._joined_at = self._joined_at, {}
        by_room, directs = _indices_by_target(pending)
        for members in by_room:
            members.pending = 0
        for session in directs:
            personal.setdefault(session, [])
        if len(by_room) == 1 and not personal:
            self._deliver_room(next(iter(by_room)), pending)
            return
        self._deliver_rooms(by_room, pending, personal)
        for session, intervals in personal.items():
            chosen = self._indices_for(session, intervals, pending, by_room, joined_at)
            self._deliver_personal(session, chosen + directs.get(session, []), pending, by_room)

    def _deliver_sends(self, pending: _Pending) -> None:
        """Deliver a turn of direct sends alone, as in every echo: nobody to share with."""
        if len(pending) > 1 and len({row[0] for row in pending}) < len(pending):
            for receiver, indices in _indices_by_target(pending)[1].items():
                self._deliver_personal(receiver, indices, pending, {})
            return
        count = size = 0
        for row in pending:
            session = cast(ClientSession, row[0])
            if session.writes_directly and session.variant.is_plain:
                wire = row[1].wire
                if len(wire) <= MAX_SHARED_WRITE_BYTES:
                    session.write_wire(wire)  # type: ignore[misc]
                    count += 1
                    size += len(wire)
                    continue
            if session.close is None:
                self._deliver_merge([session], [0], [row], session.variant)
        self._stats.messages_out += count
        self._stats.bytes_out += size

    def _deliver_room(self, members: Membership, pending: _Pending) -> None:
        sessions = list(members.sessions)
        if not sessions:
            return
        if members.parts is None and members.variant.is_plain:
            batch = Batch([row[1] for row in pending])
            self._deliver_batch(members, sessions, batch, pending, members.variant)
            return
        for variant, sessions in members.by_variant():
            frames = frames_of(variant, pending)
            if frames:
                self._deliver_batch(members, sessions, variant.batch(frames), pending, variant)

    def _deliver_batch(
        self,
        members: Membership,
        sessions: list[ClientSession],
        batch: Batch,
        pending: _Pending,
        variant: Variant,
    ) -> None:
        slow = self._write(sessions, batch)
        if not slow:
            return
        entries: Iterable[Entry]
        if members.policy == "latest" and members.has_presence:  # some may be no messages
            entries = self._entries(list(range(len(pending))), pending, variant)
        else:
            tells = members.has_presence and any(_tells_of_members(row[3]) for row in pending)
            kind = (members.policy, members.name, members.remembers, False, tells)
            entries = [Entry(batch, *kind)]
        _enqueue(slow, entries)

    def _deliver_rooms(
        self,
        by_room: dict[Membership, list[int]],
        pending: _Pending,
        personal: dict[ClientSession, list[_Interval]],
    ) -> None:
        """Deliver to everybody who gets the same as all others in the same set of rooms."""
        if _are_disjoint(by_room):
            for members, indices in by_room.items():
                if members.parts is None and not personal:
                    sessions = list(members.sessions)
                    if sessions:
                        self._deliver_merge(sessions, indices, pending, members.variant)
                    continue
                for variant, part in members.by_variant():
                    chosen = [session for session in part if session not in personal]
                    self._deliver_merge(chosen, indices, pending, variant)
            return
        rooms_of: dict[ClientSession, tuple[Membership, ...]] = {}
        for members in by_room:
            if members.patches is not None:  # their forms differ from room to room
                for session in members.patches.sessions:
                    personal.setdefault(session, [])
        for members in by_room:
            for session in members.sessions:
                rooms_of[session] = (*rooms_of.get(session, ()), members)
        groups: dict[tuple[Variant, tuple[Membership, ...]], list[ClientSession]] = {}
        for session, rooms in rooms_of.items():
            if session not in personal:
                groups.setdefault((session.variant, rooms), []).append(session)
        for (variant, rooms), sessions in groups.items():
            self._deliver_merge(sessions, _merge(by_room, rooms), pending, variant)

    def _deliver_merge(
        self,
        sessions: list[ClientSession],
        indices: list[int],
        pending: _Pending,
        variant: Variant,
    ) -> None:
        if variant.is_plain:  # the common form, for which nothing has to be made
            batch = Batch([pending[index][1] for index in indices])
        else:
            frames = frames_of(variant, [pending[index] for index in indices])
            if not frames:
                return
            batch = variant.batch(frames)
        slow = self._write(sessions, batch)
        if slow:
            _enqueue(slow, self._entries(indices, pending, variant))

    def _indices_for(
        self,
        session: ClientSession,
        left: list[_Interval],
        pending: _Pending,
        by_room: dict[Membership, list[int]],
        joined_at: dict[tuple[ClientSession, Membership], int],
    ) -> list[int]:
        """Return the places of what one session gets from its rooms, those it left included."""
        intervals = list(left)
        for members in session.memberships.values():
            if members in by_room:
                intervals.append((members, joined_at.get((session, members), 0), len(pending)))
        chosen: list[int] = []
        for members, start, stop in intervals:
            places = by_room.get(members, [])
            first, end = bisect_left(places, start), bisect_left(places, stop)
            chosen += [place for place in places[first:end] if session not in pending[place][2]]
        return chosen

    def _deliver_personal(
        self,
        session: ClientSession,
        chosen: list[int],
        pending: _Pending,
        by_room: dict[Membership, list[int]],
    ) -> None:
        """Deliver to one session what is its own: the merge of its rooms and its direct sends."""
        if session.close is not None:
            return
        chosen.sort()
        if any(members.patches is not None for members in by_room):
            made = frames_for(session, chosen, pending, by_room)
            frames = [frame for frame in made.values() if frame is not None]
            if frames and self._write([session], session.variant.batch(frames)):
                _enqueue([session], self._entries(chosen, pending, session.variant, made.get))
        elif chosen:
            self._deliver_merge([session], chosen, pending, session.variant)

    def _entries(
        self,
        indices: list[int],
        pending: _Pending,
        variant: Variant,
        made: Callable[[int], Frame | None] | None = None,
    ) -> Iterable[Entry]:
        """Split a merge into entries by policy, for a session whose outbox decides about each.

        `made` returns what a row is, by its place (None: it is as in the variant).
        """
        runs: list[tuple[_EntryKind, list[Frame]]] = []
        for index in indices:
            target, raw, _, publication = pending[index]
            frame = variant.frame_of(raw, publication) if made is None else made(index)
            if frame is None:
                continue
            kind: _EntryKind = (self._policy, EVERYBODY, False, False, False)
            if isinstance(target, Membership):
                policy = _policy_for(target, publication)
                tells = _tells_of_members(publication)
                kind = (policy, target.name, target.remembers, False, tells)
            elif publication is not None and target.is_connected:
                kind = _OWED  # an answer, or what was missed: never dropped
            if runs and _may_join(runs[-1][0], kind):
                runs[-1][1].append(frame)
            else:
                runs.append((kind, [frame]))
        return [Entry(variant.batch(frames), *kind) for kind, frames in runs]

    def _write(self, sessions: list[ClientSession], batch: Batch) -> list[ClientSession]:
        """Write the shared bytes to who can take them; return the others."""
        wire = batch.wire
        self._writes += len(sessions)
        slow = sessions if len(wire) > MAX_SHARED_WRITE_BYTES else write_shared(sessions, wire)
        written = len(sessions) - len(slow)
        self._stats.messages_out += written * len(batch.frames)
        self._stats.bytes_out += written * len(wire)
        return slow


def _policy_for(members: Membership, publication: Publication | None) -> SlowPolicy:
    """Return a room's policy; a join or leave is not the latest message, and must not replace it."""
    is_latest = members.policy == "latest"
    return "drop_oldest" if is_latest and _tells_of_members(publication) else members.policy


def _tells_of_members(publication: Publication | None) -> bool:
    return publication is not None and publication.kind is not Kind.MESSAGE


def _may_join(one: _EntryKind, other: _EntryKind) -> bool:
    """Tell whether messages of two kinds may be dropped or kept together, as one entry."""
    policy, _, remembers, is_owed, tells = one
    if policy == "latest" or remembers or other[2] or tells or other[4]:
        return one == other
    return (policy, is_owed) == (other[0], other[3])


def _enqueue(slow: list[ClientSession], entries: Iterable[Entry]) -> None:
    for session in slow:
        session.enqueue(entries)


def _indices_by_target(
    pending: _Pending,
) -> tuple[dict[Membership, list[int]], dict[ClientSession, list[int]]]:
    """Return the places of what was published to each room, and of what was sent to each session."""
    by_room: dict[Membership, list[int]] = {}
    directs: dict[ClientSession, list[int]] = {}
    for index, row in enumerate(pending):
        target = row[0]
        by_target: dict[Any, list[int]] = by_room if type(target) is Membership else directs
        places = by_target.get(target)
        if places is None:
            by_target[target] = [index]
        else:
            places.append(index)
    return by_room, directs


def _are_disjoint(by_room: dict[Membership, list[int]]) -> bool:
    """Tell whether no session is in two of the rooms."""
    if len(by_room) == 1:
        return True
    seen: set[ClientSession] = set()
    count = 0
    for members in by_room:
        seen.update(members.sessions)
        count += len(members.sessions)
        if len(seen) != count:
            return False
    return True


def _merge(by_room: dict[Membership, list[int]], rooms: tuple[Membership, ...]) -> list[int]:
    """Return the places of what was published to any of `rooms`, in order."""
    if len(rooms) == 1:
        return by_room[rooms[0]]
    return sorted(index for members in rooms for index in by_room[members])
