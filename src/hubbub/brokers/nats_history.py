"""What rooms remember, in a stream of JetStream: one subject a room, one message a run of publications.

What must not live here: what waits to be published (`nats_outgoing`), how a stream is spoken to (`nats_stream`).

A message begins with a line: `h`, the offset of its last publication, how many it has, the room's epoch, how
many bytes the room has had in that epoch, and of what is kept how many entries, milliseconds and bytes. Behind
it is a run, as `envelope.pack` writes one. It is taken only if the room's last message is the one that its
publisher knows, so offsets have no holes, and one that was sent twice is taken once. The stream hands on what
it has taken, in its order.

What is kept of a room is reckoned by who reads it, from the room's last message. What is kept no more is purged by
publishers now and then; the last message stays for `POSITION_TTL_S`, and with it the room's position.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Sequence
from itertools import dropwhile
from typing import Any, NamedTuple

from ..errors import BrokerUnavailable, PositionLost
from ..model import Position
from .broker import KEY_TTL_S, History, Keep
from .envelope import Envelope, pack, publication_of, unpack, unseal
from .nats_names import NatsNames
from .nats_stream import NoAnswer, Refused, Stored, Stream

POSITION_TTL_S = 7 * 24 * 3600.0
"""How long a room's position is kept after anybody has published there."""
MOST_ROOMS = 10_000
"""Of how many rooms it is known where they stand; of others it is asked."""
MOST_RUNS = 1024
"""Of how many messages of a room it is known where they are."""
LEAST_TRIMMED = 16
"""How many publications more than it should have a room may have, at least, before they are purged."""
PAUSE_S = 0.01
"""How long to wait, at most, when another process was quicker: twice as long each time, up to a bound."""

_NOTHING = Keep(0, 0.0, 0)


class Record(NamedTuple):
    """A message of a room. `total` are the bytes of the room's publications up to its end."""

    sequence: int
    top: int
    length: int
    epoch: str
    total: int
    keep: Keep
    run: bytes

    @property
    def first(self) -> int:
        """The offset of its first publication."""
        return self.top - self.length + 1

    @property
    def position(self) -> Position:
        """Where the room stands after it."""
        return Position(self.top, self.epoch)


def read_record(stored: Stored) -> Record:
    """Read a message. Raises `ValueError` for what is none."""
    line, separator, run = stored.data.partition(b"\n")
    words = line[1:].split(b" ")
    if line[:1] != b"h" or not separator or len(words) != 7:
        raise ValueError("a message that is no run of a room")
    top, count, epoch, total, entries, ttl_ms, max_bytes = words
    keep = Keep(int(entries), int(ttl_ms) / 1000, int(max_bytes))
    return Record(stored.sequence, int(top), int(count), epoch.decode(), int(total), keep, run)


def _beginning() -> Record:
    """Return what the first message of a room follows: a new epoch without publications."""
    return Record(0, 0, 0, secrets.token_hex(6), 0, _NOTHING, b"")


def written(record: Record) -> bytes:
    """Write a message as bytes."""
    keep = record.keep
    words = (record.top, record.length, record.epoch, record.total)
    bounds = (keep.entries, round(keep.ttl_s * 1000), keep.max_bytes)
    return b"h%b\n%b" % (" ".join(map(str, (*words, *bounds))).encode(), record.run)


class Run:
    """Publications of one room that are stored together; with a `key` there is one.

    `unsure` is after which message it may have been stored by a try that has had no answer.
    """

    __slots__ = ("envelopes", "keep", "key", "room", "unsure")

    def __init__(
        self, room: str, envelopes: Sequence[bytes], keep: Keep | None, key: str | None
    ) -> None:
        self.room: str = room
        self.envelopes: list[bytes] = list(envelopes)
        self.keep: Keep | None = keep
        self.key: str | None = key
        self.unsure: Record | None = None


class Place(NamedTuple):
    """Where a run is stored: the position of its first publication (None: it has none, or that is not known)."""

    first: Position | None
    is_repeated: bool = False


class _Entry(NamedTuple):
    offset: int
    before: int
    """The bytes of the room before it."""
    stored_at: float
    """When it was stored, by the server's clock."""
    envelope: Envelope


class _Room:
    """Where a room stands, and its newest messages without gaps, by number, first offset and bytes at their end."""

    __slots__ = ("last", "runs")

    def __init__(self, last: Record) -> None:
        self.last: Record = last._replace(run=b"")
        self.runs: deque[tuple[int, int, int]] = deque(maxlen=MOST_RUNS)
        self.add(last)

    def add(self, record: Record) -> None:
        """Take note of the room's next message, or of a later one."""
        known = self.last
        if record.epoch != known.epoch or record.first != known.top + 1:
            self.runs.clear()
        if not self.runs or record.sequence > self.runs[-1][0]:
            self.runs.append((record.sequence, record.first, record.total))
        self.last = record._replace(run=b"")


class NatsHistory:
    """See the module. `now` returns the time by the server's clock, in seconds. All raise `BrokerUnavailable`.
    Event loop only."""

    def __init__(self, stream: Stream, names: NatsNames, now: Callable[[], float]) -> None:
        self._stream, self._names, self._now = stream, names, now
        self._rooms: OrderedDict[str, _Room] = OrderedDict()
        self._ending: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """The rooms that were published to here: when what they keep has ended, and its last message."""
        self._purges: set[asyncio.Task[None]] = set()
        self.last_sequence: int = 0
        """The highest number of a message that was seen."""

    async def stop(self) -> None:
        """Have nothing purged any more."""
        for task in self._purges:
            task.cancel()
        await asyncio.gather(*self._purges, return_exceptions=True)

    def forget_all(self) -> None:
        """Know of no room where it stands: the stream is another."""
        self._rooms.clear()
        self._ending.clear()
        self.last_sequence = 0

    def note(self, room: str, record: Record) -> None:
        """Learn of a message of a room."""
        self.last_sequence = max(self.last_sequence, record.sequence)
        known = self._rooms.get(room)
        if known is None:
            self._rooms[room] = _Room(record)
            if len(self._rooms) > MOST_ROOMS:
                self._rooms.popitem(last=False)
        elif record.sequence > known.last.sequence:
            known.add(record)
            self._rooms.move_to_end(room)

    # Storing

    async def store(self, run: Run) -> Place:
        """Store a run, or find that it is stored. `NoAnswer`: it may be, and the same may be stored again."""
        if run.keep is None:
            return await self._store_once(run)
        pause_s = PAUSE_S
        while True:
            last = run.unsure or await self._last(run.room)
            try:
                return await self._store_after(run, last)
            except Refused:
                self._rooms.pop(run.room, None)
            except NoAnswer:
                run.unsure = last
                raise
            if run.unsure is not None and (place := await self._find(run)) is not None:
                return place
            await asyncio.sleep(pause_s * random.random())
            pause_s = min(2 * pause_s, 0.2)

    async def _store_after(self, run: Run, last: Record) -> Place:
        keep, sizes = run.keep or _NOTHING, sum(map(len, run.envelopes))
        count = len(run.envelopes)
        record = Record(
            0, last.top + count, count, last.epoch, last.total + sizes, keep, pack(run.envelopes)
        )
        headers = {"Nats-TTL": f"{round(max(POSITION_TTL_S, keep.ttl_s))}s"}
        if run.key is not None:
            headers["Nats-Msg-Id"] = self._names.unique(run.room, run.key)
        subject = self._names.history(run.room)
        sequence, is_known = await self._stream.add(
            subject, written(record), after=last.sequence, headers=headers
        )
        if is_known:
            return await self._place_of_first(run, sequence)
        self.note(run.room, record._replace(sequence=sequence))
        self._end_later(run.room, sequence, keep)
        self._trim(run.room, last.top, record._replace(sequence=sequence))
        return Place(Position(record.first, record.epoch))

    async def _store_once(self, run: Run) -> Place:
        """Store what is not kept for as long as its key is known."""
        assert run.key is not None
        headers = {
            "Nats-TTL": f"{round(KEY_TTL_S)}s",
            "Nats-Msg-Id": self._names.unique(run.room, run.key),
        }
        data = b"r\n" + pack(run.envelopes)
        subject = self._names.keyed(run.room)
        sequence, is_known = await self._stream.add(subject, data, after=None, headers=headers)
        return await self._place_of_first(run, sequence) if is_known else Place(None)

    async def _place_of_first(self, run: Run, sequence: int) -> Place:
        """Return where a publication is that had the key before; it may be this one, sent twice."""
        stored = await self._stream.one(sequence)
        if stored is None:
            return Place(None, is_repeated=True)
        is_same = stored.data.endswith(pack(run.envelopes))
        first = None
        if stored.data[:1] == b"h":  # else the first was not kept
            record = read_record(stored)
            first = Position(record.first, record.epoch)
        return Place(first, is_repeated=not is_same)

    async def _find(self, run: Run) -> Place | None:
        """Look whether a run was stored by a try without an answer. It is the next message then, or nowhere.

        Until that is known `run.unsure` stays, whatever fails here: else the next try would store it behind itself.
        """
        last = run.unsure
        assert last is not None
        stored = await self._stream.next(self._names.history(run.room), last.sequence + 1)
        if stored is not None:
            record = read_record(stored)
            if record.run == pack(run.envelopes):
                return Place(Position(record.first, record.epoch))
            if record.epoch == last.epoch and record.first > last.top + 1:
                raise BrokerUnavailable("others came after it")
        run.unsure = None
        return None

    async def _last(self, room: str) -> Record:
        """Return the room's last message; for a room without one what its first is to follow."""
        known = self._rooms.get(room)
        if known is not None:
            self._rooms.move_to_end(room)
            return known.last
        stored = await self._stream.last(self._names.history(room))
        if stored is None:
            return _beginning()
        record = read_record(stored)
        self.note(room, record)
        return record

    # Forgetting

    def _trim(self, room: str, before: int, record: Record) -> None:
        """Have what is kept no more purged, now and then."""
        keep = record.keep
        step = max(LEAST_TRIMMED, keep.entries // 2)
        known = self._rooms.get(room)
        if before // step == record.top // step or known is None:
            return
        subject = self._names.history(room)
        oldest = record.top - keep.entries + 1
        ends = [
            sequence
            for (sequence, _, total), (_, after, _) in zip(
                known.runs, list(known.runs)[1:], strict=False
            )
            if after <= oldest or record.total - total > keep.max_bytes
        ]
        if ends:
            self._purge(self._stream.forget(subject, before=ends[-1] + 1))
        elif record.top > keep.entries:
            self._purge(self._stream.forget(subject, keep=keep.entries))

    def _end_later(self, room: str, sequence: int, keep: Keep) -> None:
        self._ending[room] = time.monotonic() + keep.ttl_s, sequence
        self._ending.move_to_end(room)
        if len(self._ending) > MOST_ROOMS:
            self._ending.popitem(last=False)

    def sweep(self) -> None:
        """Purge what has ended by age in rooms that were published to here, but for the last message."""
        now = time.monotonic()
        for room, (ends_at, sequence) in list(self._ending.items()):
            if ends_at <= now:
                del self._ending[room]
                self._purge(self._stream.forget(self._names.history(room), before=sequence))

    def _purge(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(_quietly(work), name="nats purge")
        self._purges.add(task)
        task.add_done_callback(self._purges.discard)

    async def remove(self, room: str) -> None:
        """Forget a room's history; it begins a new epoch."""
        await self._stream.forget(self._names.history(room))
        self._rooms.pop(room, None)

    # Reading

    async def read(
        self, room: str, *, since: Position | None, limit: int | None, reverse: bool
    ) -> History:
        """See `HistoryBroker.history`."""
        last = await self._begun(room)
        top, position = last.top, last.position
        if since is not None and (since.epoch != last.epoch or since.offset > top):
            raise PositionLost(room, is_other_epoch=True)
        if limit == 0 and (since is None or reverse):
            return History([], position)
        if since is not None and since.offset == top and not reverse:
            return History([], position)
        entries = await self._kept(room, last, 0 if since is None or reverse else since.offset)
        if since is not None and not reverse:
            if not entries or entries[0].offset > since.offset + 1:
                raise PositionLost(room, is_other_epoch=False)
            entries = [each for each in entries if each.offset > since.offset]
        elif since is not None:
            entries = [each for each in entries if each.offset < since.offset]
        chosen = (entries[::-1] if reverse else entries)[:limit]
        found = [
            publication_of(each.envelope, room, Position(each.offset, last.epoch))
            for each in chosen
        ]
        return History(found, position)

    async def _begun(self, room: str) -> Record:
        """Return the room's last message; a room without one begins."""
        while True:
            stored = await self._stream.last(self._names.history(room))
            if stored is not None:
                record = read_record(stored)
                self.note(room, record)
                return record
            self._rooms.pop(room, None)
            await self._begin(room)

    async def _begin(self, room: str) -> None:
        """Have a room without messages begin; nothing is done where another has been quicker."""
        beginning = _beginning()
        headers = {"Nats-TTL": f"{round(POSITION_TTL_S)}s"}
        subject = self._names.history(room)
        with contextlib.suppress(Refused):
            await self._stream.add(subject, written(beginning), after=0, headers=headers)

    async def _kept(self, room: str, last: Record, since: int) -> list[_Entry]:
        """Return what is kept of a room; what comes after `since`, and perhaps some before it."""
        known, first = self._rooms.get(room), 1
        if known is not None and since:
            for sequence, offset, _ in known.runs:
                if offset <= since + 1:
                    first = sequence
        stored = await self._stream.read(self._names.history(room), first, last.sequence)
        entries: list[_Entry] = []
        for each in stored:
            record = read_record(each)
            if record.epoch == last.epoch:
                entries += _entries_of(record, each.time_s)
        return _without_old(entries, last, self._now())


def _without_old(entries: list[_Entry], last: Record, now: float) -> list[_Entry]:
    """Return what is kept of a room, without a hole: what is lost is lost with all that is older."""
    keep, first = last.keep, last.top + 1
    for entry in reversed(entries):
        if entry.offset != first - 1:
            break
        first = entry.offset

    def is_lost(entry: _Entry) -> bool:
        return (
            entry.offset < max(first, last.top - keep.entries + 1)
            or last.total - entry.before > keep.max_bytes
            or entry.stored_at + keep.ttl_s <= now
        )

    return list(dropwhile(is_lost, entries))


def _entries_of(record: Record, stored_at: float) -> list[_Entry]:
    found, sealed = [], unpack(record.run)
    before = record.total - sum(map(len, sealed))
    for place, each in enumerate(sealed):
        found.append(_Entry(record.first + place, before, stored_at, unseal(each)))
        before += len(each)
    return found


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    """Purge; what fails is tried again when the room has grown."""
    try:
        await work
    except BrokerUnavailable:
        return
