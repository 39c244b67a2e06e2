"""Outbox: what one client has not taken yet, bounded in entries and bytes; and what happens when it is full.

What must not live here: sockets and the decision when to write. `session` fills it, and empties it
into the transport when that is writable.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, assert_never

from ..room_rules import SlowPolicy
from ..wire.frame import Batch


class Entry(NamedTuple):
    """What one turn of the event loop had for the client, under one policy.

    `room` matters to the policy `latest`, which says what a newer message replaces, and where
    `remembers` says that the room keeps what was published: then all in the batch are of that room.
    What `is_owed` (an answer, or what was missed) is never dropped, and others are for it.
    `tells_of_members`: there is a join or a leave of the room in it, and nothing of another room.
    """

    batch: Batch
    policy: SlowPolicy
    room: str
    remembers: bool = False
    is_owed: bool = False
    tells_of_members: bool = False


class Overflow(Exception):
    """The outbox is full and the policy is `disconnect`. `lost` counts the messages in it."""

    def __init__(self, lost: int) -> None:
        self.lost = lost
        super().__init__(f"{lost} messages wait")


class Outbox:
    """A bounded queue of entries. Not thread-safe: it belongs to the event loop.

    `max_entries` and `max_bytes` bound what waits here. An entry alone larger than `max_bytes`
    never fits and is treated as the policy says.
    """

    __slots__ = ("_entries", "gaps", "max_bytes", "max_entries", "nbytes")

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.max_entries: int = max_entries
        self.max_bytes: int = max_bytes
        self.nbytes: int = 0
        self.gaps: set[str] | None = None
        """The rooms of which something was dropped that their members have to know of: anything where the room
        remembers, else a join or a leave (None: there are none)."""
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def messages(self) -> int:
        """How many messages wait."""
        return sum(len(entry.batch) for entry in self._entries)

    def push(self, entry: Entry) -> int:
        """Queue `entry` as its policy says; return how many messages were dropped for it.

        Raises `Overflow` when it does not fit and the policy is `disconnect`.
        """
        if entry.policy == "latest":
            return self._push_latest(entry)
        size = len(entry.batch.wire)
        if self._fits(size):
            self._append(entry, size)
            return 0
        match entry.policy:
            case "disconnect":
                dropped = self._make_place(size) if entry.is_owed else None
                if dropped is None:
                    raise Overflow(self.messages + len(entry.batch))
                self._append(entry, size)
                return dropped
            case "drop_newest":
                return self._dropped(entry)
            case "drop_oldest":
                return self._push_over_oldest(entry, size)
            case _:
                assert_never(entry.policy)

    def pop(self) -> Batch | None:
        """Take the oldest entry, or None when nothing waits."""
        if not self._entries:
            return None
        batch = self._entries.popleft().batch
        self.nbytes -= len(batch.wire)
        return batch

    def clear(self) -> int:
        """Drop everything; return how many messages that were."""
        lost = self.messages
        self._entries.clear()
        self.nbytes = 0
        return lost

    def _fits(self, size: int) -> bool:
        return len(self._entries) < self.max_entries and self.nbytes + size <= self.max_bytes

    def _append(self, entry: Entry, size: int) -> None:
        self._entries.append(entry)
        self.nbytes += size

    def _push_over_oldest(self, entry: Entry, size: int) -> int:
        """Make room by dropping from the front, but never what was queued under `disconnect`.

        What cannot fit even then is dropped itself, and costs the others nothing.
        """
        dropped = self._make_place(size)
        if dropped is None:
            return self._dropped(entry)
        self._append(entry, size)
        return dropped

    def _make_place(self, size: int) -> int | None:
        """Drop what may be dropped, the oldest first, until so many bytes fit; return how many messages
        that were. None, and nothing is dropped, where they cannot fit."""
        pinned = [old for old in self._entries if old.policy == "disconnect"]
        pinned_bytes = sum(len(old.batch.wire) for old in pinned)
        if len(pinned) >= self.max_entries or pinned_bytes + size > self.max_bytes:
            return None
        dropped = 0
        while not self._fits(size):
            victim = next(old for old in self._entries if old.policy != "disconnect")
            self._remove(victim)
            dropped += self._dropped(victim)
        return dropped

    def _push_latest(self, entry: Entry) -> int:
        """Keep only the last message of the room; it takes the place at the end of the queue."""
        frames = entry.batch.frames
        dropped = len(frames) - 1
        older = [old for old in self._entries if old.policy == "latest" and old.room == entry.room]
        for old in older:
            self._remove(old)
            dropped += len(old.batch)
        newest = entry if len(frames) == 1 else entry._replace(batch=entry.batch.last())
        return dropped + self._push_over_oldest(newest, len(newest.batch.wire))

    def drop_room(self, room: str) -> int:
        """Drop all that waits of a room that remembers; return how many messages that were."""
        dropped = 0
        for entry in [old for old in self._entries if old.remembers and old.room == room]:
            self._remove(entry)
            dropped += len(entry.batch)
        return dropped

    def _dropped(self, entry: Entry) -> int:
        """Note that an entry is lost; return how many messages it has."""
        if entry.remembers or entry.tells_of_members:
            if self.gaps is None:
                self.gaps = set()
            self.gaps.add(entry.room)
        return len(entry.batch)

    def _remove(self, entry: Entry) -> None:
        # By identity: two rooms may hold equal entries that share one batch.
        for index, old in enumerate(self._entries):
            if old is entry:
                del self._entries[index]
                break
        self.nbytes -= len(entry.batch.wire)
