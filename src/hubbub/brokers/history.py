"""The history of rooms, kept in the memory of one process: what was published, and where each room
stands.

What must not live here: an event loop, delivery, who may read it. The memory broker has a store.

A room is *full* while something of it is kept. Then it stays *bare* for a while: it has a position, so
that clients that have seen everything are told so, and no publications. One that was asked for and never
had a publication is *unused*: it has a position for a short while, at the cost of no room that is used.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice

import msgspec

from ..errors import PositionLost
from ..model import ClientInfo, Position
from ..wire.frame import Frame
from ..wire.publication import Publication
from .broker import KEY_TTL_S, UNUSED_TTL_S, History, Keep

ENTRY_BYTES = 200
"""What an entry costs beside its message, at most."""
PUBLISHER_BYTES = 40
"""What it costs beside that to know who published an entry, at most, apart from what is said of them."""
ROOM_BYTES = 1200
"""What a room costs that keeps anything: its names, its place in the tables, its queue."""
BARE_TTL_S = 24 * 3600.0
"""How long a room's position is kept after its last publication."""
MOST_BARE = 10_000
"""How many rooms have a position and no publications any more, and how many have not had one yet; of more the
oldest is forgotten, unless it has members."""
RENEW_S = UNUSED_TTL_S / 4
"""How often it is looked which of them have members, so that their positions stay for a while when the last has gone."""
MOST_LOOKED_AT = 8
"""How many of them are looked at for one that may be forgotten."""
MOST_KEYS = 100_000
"""How many keys of publications are known; of more the oldest is forgotten."""
MOST_MADE = 1024
"""How many publications are held ready for the next who asks for the same."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ClientInfo).decode


class Entry(msgspec.Struct, eq=False, gc=False):
    """What is kept of one publication. `nbytes` is how many bytes its message has, with what it says of who
    published it; `kept_at` is the time of the store's clock."""

    payload: bytes
    is_text: bool
    exclude: str | None
    time_ms: int | None
    publisher: bytes | None
    kept_at: float
    nbytes: int

    @classmethod
    def of(cls, publication: Publication, kept_at: float) -> Entry:
        """Return what is kept of a publication."""
        frame, publisher = publication.frame, None
        payload = frame.payload
        size = len(payload)
        if publication.publisher is not None:
            publisher = _encode(publication.publisher)
            size += len(publisher) + PUBLISHER_BYTES
        exclude, time_ms = publication.exclude, publication.time_ms
        return cls(payload, frame.is_text, exclude, time_ms, publisher, kept_at, size)


class RoomHistory:
    """One room: the last `entries`, of which the newest has the offset `top`."""

    __slots__ = ("entries", "epoch", "last_at", "nbytes", "top", "ttl_s")

    def __init__(self, epoch: str, now: float) -> None:
        self.epoch: str = epoch
        self.top: int = 0
        self.entries: deque[Entry] = deque()
        self.nbytes: int = 0
        self.ttl_s: float = 0.0
        self.last_at: float = now

    @property
    def position(self) -> Position:
        """Where the room stands."""
        return Position(self.top, self.epoch)

    @property
    def before_first(self) -> int:
        """The offset after which everything is kept."""
        return self.top - len(self.entries)

    @property
    def cost(self) -> int:
        """What its entries and the room cost, in bytes."""
        return self.nbytes + ENTRY_BYTES * len(self.entries) + ROOM_BYTES

    def pop(self) -> int:
        """Lose the oldest entry; return how many bytes that was."""
        size = self.entries.popleft().nbytes
        self.nbytes -= size
        return size


class HistoryStore:
    """The histories of all rooms, bounded by number, bytes and age. Not thread-safe.

    All times are of one clock that never goes back, in seconds; whoever calls says what it shows.
    `max_bytes` bounds all rooms together, `ENTRY_BYTES` for each entry included. `has_members` tells of a
    room whether somebody is in it: then its position is not forgotten.
    """

    def __init__(
        self, max_bytes: int, has_members: Callable[[str], bool] = lambda room: False
    ) -> None:
        self.max_bytes = max_bytes
        self._has_members = has_members
        self.entries: int = 0
        """How many publications are kept."""
        self._payload_bytes = 0
        self._full_rooms = 0
        # By how long their entries are kept, and then by their last publication: the first of each is
        # the one that ends first.
        self._full: dict[float, OrderedDict[str, RoomHistory]] = {}
        self._rooms: dict[str, RoomHistory] = {}
        self._bare: OrderedDict[str, RoomHistory] = OrderedDict()
        self._unused: OrderedDict[str, RoomHistory] = OrderedDict()
        self._keys: OrderedDict[tuple[str, str], tuple[float, Position | None]] = OrderedDict()
        self._renew_at = 0.0
        self._made: dict[Entry, Publication] = {}
        self._epoch = secrets.token_hex(4)
        self._last_epoch = 0

    @property
    def rooms(self) -> int:
        """How many rooms have a position."""
        return len(self._rooms)

    @property
    def nbytes(self) -> int:
        """What all entries and their rooms cost, in bytes."""
        return self._payload_bytes + ENTRY_BYTES * self.entries + ROOM_BYTES * self._full_rooms

    @property
    def is_in_use(self) -> bool:
        """Whether anything here may become too old."""
        return bool(self._rooms or self._keys)

    def add(self, publication: Publication, keep: Keep, now: float) -> Position:
        """Give a publication its position, which it has from then on, and keep it."""
        room = publication.room
        history = self._rooms.get(room) or self._new(room, now)
        entry = Entry.of(publication, now)
        history.top += 1
        position = publication.position = Position(history.top, history.epoch)
        entries = history.entries
        grown = entry.nbytes
        # As in most rooms: the oldest makes place for the newest.
        if entries and len(entries) == keep.entries:
            grown -= entries.popleft().nbytes
            is_larger = grown > 0
        else:
            self.entries += 1
            is_larger = True
        entries.append(entry)
        history.nbytes += grown
        self._payload_bytes += grown
        self._file(room, history, keep.ttl_s, now)
        if entries[0].kept_at + keep.ttl_s <= now:
            self._lose_aged(history, now)
        if is_larger:
            self._lose_what_is_too_much(history, keep)
        if not entries:
            self._empty(room, history)
        return position

    def _lose_what_is_too_much(self, history: RoomHistory, keep: Keep) -> None:
        """See that a room that has grown keeps what it may, and all rooms together too."""
        while len(history.entries) > keep.entries or history.nbytes > keep.max_bytes:
            self._lose_oldest(history)
        # What is too much for all rooms together, by itself, is not kept, and costs no other room anything.
        while history.entries and history.cost > self.max_bytes:
            self._lose_oldest(history)
        while self.nbytes > self.max_bytes and self._full:
            self._lose_of_the_most_silent()

    def seen(self, room: str, key: str, now: float) -> tuple[Position | None] | None:
        """Return the position that a publication of this key got, in a tuple; None for a new key."""
        known = self._keys.get((room, key))
        return None if known is None or known[0] <= now else (known[1],)

    def note_key(self, room: str, key: str, position: Position | None, now: float) -> None:
        """Know a key again for `KEY_TTL_S`."""
        self._keys.pop((room, key), None)
        self._keys[room, key] = (now + KEY_TTL_S, position)
        if len(self._keys) > MOST_KEYS:
            self._keys.popitem(last=False)

    def read(
        self,
        room: str,
        now: float,
        *,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> History:
        """Return a part of what is kept; see `HistoryBroker.history`."""
        history = self._rooms.get(room) or self._new(room, now)
        self._lose_aged(history, now)
        if not history.entries:
            self._empty(room, history)
        if not history.top:
            history.last_at = now
        first, stop = history.before_first, history.top
        if since is not None:
            if since.epoch != history.epoch or since.offset > history.top:
                raise PositionLost(room, is_other_epoch=True)
            if reverse:
                stop = max(first, since.offset - 1)
            elif since.offset < first:
                raise PositionLost(room, is_other_epoch=False)
            else:
                first = since.offset
        count = stop - first if limit is None else min(limit, stop - first)
        if reverse:
            first = stop - count
        found = self._publications(room, history, first, count)
        return History(found[::-1] if reverse else found, history.position)

    def _publications(
        self, room: str, history: RoomHistory, first: int, count: int
    ) -> list[Publication]:
        """Return `count` publications, the first of them the one after the offset `first`."""
        start = first - history.before_first
        if count == len(history.entries) - start:  # the newest: quicker from the other end
            entries = list(islice(reversed(history.entries), count))[::-1]
        else:
            entries = list(islice(history.entries, start, start + count))
        made = self._made
        if len(made) > MOST_MADE:
            made.clear()
        for offset, entry in enumerate(entries, first + 1):
            if entry not in made:
                made[entry] = Publication(
                    room,
                    Frame(entry.payload, entry.is_text),
                    entry.exclude,
                    Position(offset, history.epoch),
                    time_ms=entry.time_ms,
                    publisher=None if entry.publisher is None else _decode(entry.publisher),
                )
        return [made[entry] for entry in entries]

    def remove(self, room: str, now: float) -> None:
        """Forget what a room has kept; it begins a new epoch."""
        history = self._rooms.get(room)
        if history is not None:
            self._forget(room, history)
            self._new(room, now)

    def sweep(self, now: float, most: int = 1000) -> None:
        """Lose what is too old, of so many rooms at most."""
        for ttl_s, rooms in list(self._full.items()):
            for _ in range(most):
                room, history = next(iter(rooms.items()))
                if history.last_at + ttl_s > now:
                    break
                self._lose_aged(history, now)
                self._empty(room, history)  # the last is gone, so all are
                if not rooms:
                    break
        if self._renew_at <= now:
            self._renew_at = now + RENEW_S
            self._renew(now)
        for rooms, ttl_s in ((self._bare, BARE_TTL_S), (self._unused, UNUSED_TTL_S)):
            for _ in range(most):
                if not rooms:
                    break
                oldest = next(iter(rooms.values()))
                if oldest.last_at + ttl_s > now and len(rooms) <= MOST_BARE:
                    break
                self._forget_first(rooms, now)
        for _ in range(most):
            if not self._keys or next(iter(self._keys.values()))[0] > now:
                break
            self._keys.popitem(last=False)

    def let_go(self) -> None:
        """Hold no publications ready any more. To be called when nobody has asked for a while."""
        self._made.clear()

    def _new(self, room: str, now: float) -> RoomHistory:
        self._last_epoch += 1
        history = RoomHistory(f"{self._epoch}{self._last_epoch:x}", now)
        self._rooms[room] = self._unused[room] = history
        for rooms in (self._unused, self._bare):
            self._make_place(rooms, now)
        return history

    def _make_place(self, rooms: OrderedDict[str, RoomHistory], now: float) -> None:
        """Forget the first of bare or unused rooms if they are too many."""
        for _ in range(MOST_LOOKED_AT):
            if len(rooms) <= MOST_BARE or self._forget_first(rooms, now):
                break

    def _forget_first(self, rooms: OrderedDict[str, RoomHistory], now: float) -> bool:
        """Forget the position of the first; one with members goes behind all others instead: False."""
        room, history = next(iter(rooms.items()))
        if self._has_members(room):
            history.last_at = now
            rooms.move_to_end(room)
            return False
        self._forget(room, history)
        return True

    def _renew(self, now: float) -> None:
        """Put the bare and unused rooms with members behind all others."""
        for rooms in (self._bare, self._unused):
            for room in list(filter(self._has_members, rooms)):
                rooms[room].last_at = now
                rooms.move_to_end(room)

    def _file(self, room: str, history: RoomHistory, ttl_s: float, now: float) -> None:
        """Put a room behind all others that are as long-lived: it has had a publication."""
        history.last_at = now
        rooms = self._full.get(ttl_s)
        if rooms is not None and room in rooms:
            rooms.move_to_end(room)
            return
        self._take_out(room, history)
        history.ttl_s = ttl_s
        self._full.setdefault(ttl_s, OrderedDict())[room] = history
        self._full_rooms += 1

    def _take_out(self, room: str, history: RoomHistory) -> None:
        self._bare.pop(room, None)
        self._unused.pop(room, None)
        rooms = self._full.get(history.ttl_s)
        if rooms is not None and rooms.pop(room, None) is not None:
            self._full_rooms -= 1
            if not rooms:
                del self._full[history.ttl_s]

    def _empty(self, room: str, history: RoomHistory) -> None:
        """Keep no more of a room than where it stands."""
        self._take_out(room, history)
        (self._bare if history.top else self._unused)[room] = history

    def _forget(self, room: str, history: RoomHistory) -> None:
        while history.entries:
            self._lose_oldest(history)
        self._take_out(room, history)
        del self._rooms[room]

    def _lose_oldest(self, history: RoomHistory) -> None:
        self._payload_bytes -= history.pop()
        self.entries -= 1

    def _lose_aged(self, history: RoomHistory, now: float) -> None:
        entries = history.entries
        while entries and entries[0].kept_at + history.ttl_s <= now:
            self._lose_oldest(history)

    def _lose_of_the_most_silent(self) -> None:
        """Lose the oldest entry of the room that was silent longest."""
        firsts = [next(iter(rooms.items())) for rooms in self._full.values()]
        room, history = min(firsts, key=lambda each: each[1].last_at)
        if history.entries:
            self._lose_oldest(history)
        if not history.entries:
            self._empty(room, history)
