"""Fan-out: the step from what was published in one turn of the event loop to many sockets.

No await, no task, no encoding per receiver. What must not live here: the registry's books, and
what a full outbox does. The registry feeds it; it writes to clients.

How order is kept. All that a turn publishes stands in one list, in the order of publication. At
the turn's end the members of exactly one room that was published to share that room's joined
bytes; a member of several gets them merged by their places in the list, cached by the set of
rooms. A client with messages of its own (a direct send, an exclusion, a room joined or left in
mid-turn) gets a merge of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from time import perf_counter
from typing import Any, Protocol, cast

from .client import Client
from .frame import Batch, Frame
from .model import EVERYBODY
from .outbox import Entry
from .room import Members
from .settings import SlowPolicy
from .stats import Stats

MAX_SHARED_WRITE_BYTES = 256 * 1024
"""Joined bytes over this size go through `Transport.write`, which feeds a socket in pieces."""

MANY_WRITES = 256
"""A fan-out of several messages in so many writes is followed by a rest."""
REST_SHARE = 0.25
"""How long the rest is, as a share of the fan-out before it."""
MAX_REST_S = 0.025
"""The longest rest: a process that was suspended in a fan-out does not sleep on."""

_Interval = tuple[Members, int, int]
_Pending = list[tuple[Members | Client, Frame, Client | None]]


class Schedule(Protocol):
    """Calls a function of the hub's event loop: in its next turn, or after `delay_s` seconds."""

    def __call__(self, function: Callable[[], None], delay_s: float = 0.0) -> None: ...


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
        self._policy = policy
        self._schedule = schedule
        self._rests_until = 0.0
        self._writes = 0
        self._pending: _Pending = []
        self._personal: dict[Client, list[_Interval]] = {}
        self._joined_at: dict[tuple[Client, Members], int] = {}
        self._direct_count = 0

    def __len__(self) -> int:
        """How many publications wait for the end of this turn."""
        return len(self._pending)

    def publish(self, members: Members, frame: Frame, exclude: Client | None = None) -> None:
        """Send `frame` to all that are members now, except `exclude`."""
        pending = self._pending
        if not pending:
            self._arrange()
        pending.append((members, frame, exclude))
        members.waiting += 1
        if exclude is not None:
            self._personal.setdefault(exclude, [])

    def direct(self, client: Client, frame: Frame) -> None:
        """Send `frame` to one client, in its place among what is published."""
        pending = self._pending
        if not pending:
            self._arrange()
        pending.append((client, frame, None))
        self._direct_count += 1

    def joined(self, client: Client, members: Members) -> None:
        """Note that `client` does not get what was published to `members` before this moment."""
        if members.waiting:
            self._personal.setdefault(client, [])
            self._joined_at[client, members] = len(self._pending)

    def left(self, client: Client, members: Members) -> None:
        """Note that `client` still gets what was published to `members` before this moment."""
        if members.waiting:
            start = self._joined_at.pop((client, members), 0)
            intervals = self._personal.setdefault(client, [])
            intervals.append((members, start, len(self._pending)))

    def count_owed(self, client: Client) -> int:
        """Count what this turn has gathered for `client`, who must still be in its rooms."""
        pending = self._pending
        if not pending:
            return 0
        if not self._direct_count and client not in self._personal:
            # As when many go in one turn, and something is published for each that goes.
            return sum(members.waiting for members in client.memberships.values())
        by_room, directs = _places(pending)
        left = self._personal.get(client, [])
        chosen = self._chosen(client, left, pending, by_room, self._joined_at)
        return len(chosen) + len(directs.get(client, ()))

    def _arrange(self) -> None:
        """Have what is gathered from here on delivered: at the turn's end, or after the rest."""
        self._schedule(self.flush, max(0.0, self._rests_until - perf_counter()))

    def flush(self) -> None:
        """Deliver what the turn has gathered. Harmless when there is nothing."""
        count = len(self._pending)
        if not count:
            return
        self._writes = 0
        began = perf_counter()
        self._deliver_all()
        # One message alone says that the last fan-out was over before it came: nothing piles up.
        if count > 1 and self._writes >= MANY_WRITES:
            ended = perf_counter()
            self._rests_until = ended + min((ended - began) * REST_SHARE, MAX_REST_S)

    def _deliver_all(self) -> None:
        pending = self._pending
        self._pending = []
        direct_count, self._direct_count = self._direct_count, 0
        if direct_count == len(pending):
            self._deliver_directs(pending)
            return
        if len(pending) == 1 and not self._personal:
            self._deliver_one(pending)
            return
        personal, self._personal = self._personal, {}
        joined_at, self._joined_at = self._joined_at, {}
        by_room, directs = _places(pending)
        for members in by_room:
            members.waiting = 0
        for client in directs:
            personal.setdefault(client, [])
        if len(by_room) == 1 and not personal:
            self._deliver_room(next(iter(by_room)), pending)
            return
        self._deliver_rooms(by_room, pending, personal)
        for client, intervals in personal.items():
            chosen = self._chosen(client, intervals, pending, by_room, joined_at)
            self._deliver_personal(client, chosen + directs.get(client, []), pending)

    def _deliver_one(self, pending: _Pending) -> None:
        """Deliver what was published alone in its turn, as in every hub that is not busy."""
        members = cast(Members, pending[0][0])
        members.waiting = 0
        self._deliver_room(members, pending)

    def _deliver_directs(self, pending: _Pending) -> None:
        """Deliver a turn of direct sends alone, as in every echo: nobody to share with."""
        lone = {cast(Client, client): frame for client, frame, _ in pending}
        if len(lone) < len(pending):
            for client, indices in _places(pending)[1].items():
                self._deliver_personal(client, indices, pending)
            return
        count = size = 0
        for client, frame in lone.items():
            wire = self._wire_of(client, frame)
            if client.fast and len(wire) <= MAX_SHARED_WRITE_BYTES:
                client.raw_write(wire)  # type: ignore[misc]
                count += 1
                size += len(wire)
            elif client.close_info is None:
                self._deliver_merge([client], [0], [(client, frame, None)])
        self._stats.messages_out += count
        self._stats.bytes_out += size

    def _wire_of(self, client: Client, frame: Frame) -> bytes:
        """Return a lone frame in the form that `client` takes."""
        return frame.wire

    def _deliver_room(self, members: Members, pending: _Pending) -> None:
        batch = Batch([frame for _, frame, _ in pending])
        entries = [Entry(batch, members.policy, members.name)]
        self._deliver(list(members.clients), batch, lambda: entries)

    def _deliver_rooms(
        self,
        by_room: dict[Members, list[int]],
        pending: _Pending,
        personal: dict[Client, list[_Interval]],
    ) -> None:
        """Deliver to everybody who gets the same as all others in the same set of rooms."""
        if _are_disjoint(by_room):
            for members, indices in by_room.items():
                clients = list(members.clients)
                if personal:
                    clients = [client for client in clients if client not in personal]
                self._deliver_merge(clients, indices, pending)
            return
        rooms_of: dict[Client, tuple[Members, ...]] = {}
        for members in by_room:
            for client in members.clients:
                rooms_of[client] = (*rooms_of.get(client, ()), members)
        groups: dict[tuple[Members, ...], list[Client]] = {}
        for client, rooms in rooms_of.items():
            if client not in personal:
                groups.setdefault(rooms, []).append(client)
        for rooms, clients in groups.items():
            self._deliver_merge(clients, _merge(by_room, rooms), pending)

    def _deliver_merge(self, clients: list[Client], indices: list[int], pending: _Pending) -> None:
        batch = Batch([pending[index][1] for index in indices])
        self._deliver(clients, batch, partial(self._entries, indices, pending))

    def _chosen(
        self,
        client: Client,
        left: list[_Interval],
        pending: _Pending,
        by_room: dict[Members, list[int]],
        joined_at: dict[tuple[Client, Members], int],
    ) -> list[int]:
        """Return the places of what one client gets from its rooms, those it left included."""
        intervals = list(left)
        for members in client.memberships.values():
            if members in by_room:
                intervals.append((members, joined_at.get((client, members), 0), len(pending)))
        return [
            index
            for members, start, stop in intervals
            for index in by_room.get(members, ())
            if start <= index < stop and pending[index][2] is not client
        ]

    def _deliver_personal(self, client: Client, chosen: list[int], pending: _Pending) -> None:
        """Deliver to one client what is its own: the merge of its rooms and its direct sends."""
        if chosen and client.close_info is None:
            chosen.sort()
            self._deliver_merge([client], chosen, pending)

    def _entries(
        self,
        indices: list[int],
        pending: _Pending,
    ) -> Iterable[Entry]:
        """Split a merge into entries by policy, for a client whose outbox has to judge them."""
        runs: list[tuple[SlowPolicy, str, list[Frame]]] = []
        for index in indices:
            target, frame, _ = pending[index]
            policy, room = self._policy, EVERYBODY
            if isinstance(target, Members):
                policy, room = target.policy, target.name
            is_same = runs and runs[-1][0] == policy and (policy != "latest" or runs[-1][1] == room)
            if is_same:
                runs[-1][2].append(frame)
            else:
                runs.append((policy, room, [frame]))
        return [Entry(Batch(frames), policy, room) for policy, room, frames in runs]

    def _deliver(
        self, clients: list[Client], batch: Batch, entries: Callable[[], Iterable[Entry]]
    ) -> None:
        """Write the shared bytes to who can take them; `entries` is asked for the others."""
        wire = batch.wire
        self._writes += len(clients)
        slow: list[Client] = []
        if len(wire) <= MAX_SHARED_WRITE_BYTES:
            for client in clients:
                if client.fast:
                    client.raw_write(wire)  # type: ignore[misc]
                else:
                    slow.append(client)
        else:
            slow = clients
        written = len(clients) - len(slow)
        self._stats.messages_out += written * len(batch.frames)
        self._stats.bytes_out += written * len(wire)
        if slow:
            parts = entries()
            for client in slow:
                client.offer(parts)


def _places(pending: _Pending) -> tuple[dict[Members, list[int]], dict[Client, list[int]]]:
    """Return the places of what was published to each room, and of what was sent to each client."""
    by_room: dict[Members, list[int]] = {}
    directs: dict[Client, list[int]] = {}
    for index, (target, _, _) in enumerate(pending):
        by_target: dict[Any, list[int]] = by_room if type(target) is Members else directs
        places = by_target.get(target)
        if places is None:
            by_target[target] = [index]
        else:
            places.append(index)
    return by_room, directs


def _are_disjoint(by_room: dict[Members, list[int]]) -> bool:
    """Tell whether no client is in two of the rooms."""
    if len(by_room) == 1:
        return True
    seen: set[Client] = set()
    count = 0
    for members in by_room:
        seen.update(members.clients)
        count += len(members.clients)
        if len(seen) != count:
            return False
    return True


def _merge(by_room: dict[Members, list[int]], rooms: tuple[Members, ...]) -> list[int]:
    """Return the places of what was published to any of `rooms`, in order."""
    if len(rooms) == 1:
        return by_room[rooms[0]]
    return sorted(index for members in rooms for index in by_room[members])
