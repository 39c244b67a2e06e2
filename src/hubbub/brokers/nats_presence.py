"""Who is in which room, in a stream of JetStream: each change writes the whole room, if nobody else has meanwhile.

What must not live here: what a change is (`presence`), how a stream is spoken to (`nats_stream`), who asks.

A message is a room as `presence.PresenceStore` writes it down, packed by zlib where it is long. What is told of
the change is in its headers, and the headers are what the stream hands on: so the change, its number and the
telling are one step. How many are there is in a header too, so who counts unpacks no room. Headers are short
(`TOLD_BYTES`): a call whose telling is longer is several changes, one after another. All fits into one message, so a
room has as many people as the server's `max_payload` lets it, some ten thousands.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

import msgspec

from ..errors import BrokerError
from ..model import ClientInfo, PresenceStats
from ..wire.presence import Told, told_frame
from ..wire.publication import Kind, Publication
from .broker import MOST_MEMBERS_A_CALL, CallFailed, CallRefused, Entered, PresenceTerms, Snapshot
from .nats_names import NatsNames
from .nats_stream import Refused, Stored, Stream
from .presence import Change, PresenceStore, Rows

FORGOTTEN_S = 24 * 3600.0
"""How much longer than its leases a room is kept of which nobody says anything."""
TOLD_BYTES = 60_000
"""How long what is told of a change may be: all headers of a message have 64 KiB."""
PACKED_BYTES = 4096
"""From how many bytes on a room is packed."""
PAUSE_S = 0.01
"""How long to wait, at most, when another process was quicker: twice as long each time, up to a bound."""
TOLD = "Hubbub-Told"
"""The header that tells of a change: a kind, its number, a pause, and infos in JSON."""
COUNTED = "Hubbub-Counted"
"""The header that says how many clients and people are in the room. Older versions write none."""

_KINDS = {"j": Kind.JOIN, "l": Kind.LEAVE}
_PAUSES = {"-": None, "0": False, "1": True}
_decode = msgspec.msgpack.Decoder(Rows).decode
_encode = msgspec.msgpack.Encoder().encode
_encode_infos = msgspec.json.Encoder().encode
_decode_infos = msgspec.json.Decoder(list[ClientInfo]).decode


Act = Callable[[PresenceStore, float, slice], Change]
"""Changes a store at a time, for a part of those that a call is about."""


class _Step(NamedTuple):
    """A change, for which part of a call it was made, and whether it was one at all."""

    change: Change
    part: slice
    is_written: bool


class NatsPresence:
    """Asks the stream. `now` returns the time by which leases end, in seconds: the same for all processes.

    All raise `BrokerUnavailable`. Event loop only.
    """

    def __init__(self, stream: Stream, names: NatsNames, now: Callable[[], float]) -> None:
        self._stream, self._names, self._now = stream, names, now
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def enter(
        self, room: str, members: Mapping[str, ClientInfo], terms: PresenceTerms
    ) -> Entered:
        """See `PresenceBroker.enter`."""
        for info in members.values():
            size = len(_encode_infos([info]))
            if size > TOLD_BYTES:
                text = f"a member's name and info have {size} bytes, and may have {TOLD_BYTES}"
                raise CallRefused(text)
        rows = list(members.items())
        changes = await self._change(
            room,
            terms,
            lambda store, now, part: store.enter(room, dict(rows[part]), terms, now),
            len(rows),
        )
        return Entered(_infos(changes), all(change.is_quiet for change in changes))

    async def leave(
        self, room: str, names: Sequence[str], terms: PresenceTerms
    ) -> Sequence[ClientInfo]:
        """See `PresenceBroker.leave`."""
        changes = await self._change(
            room,
            terms,
            lambda store, now, part: store.leave(room, names[part], terms, now),
            len(names),
        )
        return _infos(changes)

    async def expire(self, room: str, terms: PresenceTerms) -> Sequence[ClientInfo]:
        """See `PresenceBroker.expire`."""
        changes = await self._change(
            room,
            terms,
            lambda store, now, part: store.expire(room, terms, now, part.stop - part.start),
            None,
        )
        return _infos(changes)

    async def snapshot(self, room: str, most: int | None = None) -> Snapshot:
        """See `PresenceBroker.presence`."""
        stored = await self._last(room)
        counted = _counted(stored)
        if most is not None and counted is not None and counted.clients > most:
            return Snapshot((), 0, is_too_long=True)
        return _store_of(room, stored).snapshot(room, most)

    async def stats(self, room: str) -> PresenceStats:
        """See `PresenceBroker.presence_stats`."""
        stored = await self._last(room)
        counted = _counted(stored)
        return _store_of(room, stored).stats(room) if counted is None else counted

    async def _change(
        self, room: str, terms: PresenceTerms, act: Act, count: int | None
    ) -> Sequence[Change]:
        """Change the room for `count` members, in as many steps as it takes (None: until nothing changes any
        more); return what each has changed. Raises `CallFailed` where a step fails behind others."""
        turn = self._turns.setdefault(room, asyncio.Lock())
        changes: list[Change] = []
        start, most = 0, MOST_MEMBERS_A_CALL
        async with turn:  # this process's own changes never meet
            while count is None or start < count:
                if count is not None:
                    most = min(most, count - start)
                try:
                    step = await self._step(room, terms, act, slice(start, start + most))
                except CallFailed as error:
                    error.infos = _infos(changes)
                    raise
                except BrokerError as error:
                    if not changes:
                        raise
                    failed = CallFailed(str(error))
                    failed.infos = _infos(changes)
                    raise failed from error
                changes.append(step.change)
                if count is None and not step.is_written:
                    break
                start, most = step.part.stop, step.part.stop - step.part.start
        return changes

    async def _step(self, room: str, terms: PresenceTerms, act: Act, part: slice) -> _Step:
        """Read the room, change it, and write it, until nobody was quicker."""
        pause_s = PAUSE_S
        while True:
            try:
                return await self._try(room, terms, act, part)
            except Refused:
                await asyncio.sleep(pause_s * random.random())
                pause_s = min(2 * pause_s, 0.2)

    async def _try(self, room: str, terms: PresenceTerms, act: Act, part: slice) -> _Step:
        stored = await self._last(room)
        before, sequence = _rows_of(stored), 0 if stored is None else stored.sequence
        now = self._now()
        # Numbers are times in microseconds, so they grow even where the stream was lost.
        start = max(before.at, int(now * 1_000_000))
        while True:
            store = PresenceStore()
            store.load(room, before._replace(at=start))
            change = act(store, now, part)
            told = "" if change.told is None else _written(change.told)
            most = part.stop - part.start
            if len(told.encode()) <= TOLD_BYTES or most == 1:
                break
            part = slice(part.start, part.start + most // 2)
        after = store.dump(room)
        if after.at == start:
            after = after._replace(at=before.at)
        if after == before._replace(members=[*before.members], away=[*before.away]):
            return _Step(change, part, is_written=False)
        kept_s = FORGOTTEN_S + max(terms.lease_s, terms.grace_s)
        counts = store.stats(room)
        headers = {
            "Nats-TTL": f"{round(kept_s)}s",
            COUNTED: f"{counts.clients} {counts.users}",
        }
        if told:
            headers[TOLD] = told
        subject = self._names.presence(room)
        await self._stream.add(subject, _packed(after), after=sequence, headers=headers)
        return _Step(change, part, is_written=True)

    async def _last(self, room: str) -> Stored | None:
        """Return the room's message; None where there is none."""
        return await self._stream.last(self._names.presence(room))


def told_publication(room: str, text: str) -> Publication:
    """Return what members are told by the header `TOLD`. Raises `ValueError` for what is none."""
    kind, at, pause, infos = text.split(" ", 3)
    told = Told(_KINDS[kind], tuple(_decode_infos(infos)), int(at), _PAUSES[pause])
    return Publication(room, told_frame(room, told), kind=told.kind)


def _infos(changes: Sequence[Change]) -> list[ClientInfo]:
    return [info for change in changes for info in change.infos]


def _written(told: Told) -> str:
    kind = "j" if told.kind is Kind.JOIN else "l"
    pause = {None: "-", False: "0", True: "1"}[told.is_paused]
    return f"{kind} {told.at} {pause} {_encode_infos(told.infos).decode()}"


def _counted(stored: Stored | None) -> PresenceStats | None:
    """Return what a room's message says of how many are there, without reading who; None where it says nothing."""
    text = None if stored is None else stored.headers.get(COUNTED)
    if text is None:
        return None
    clients, people = map(int, text.split())
    return PresenceStats(clients, people)


def _rows_of(stored: Stored | None) -> Rows:
    return Rows() if stored is None else _unpacked(stored.data)


def _store_of(room: str, stored: Stored | None) -> PresenceStore:
    store = PresenceStore()
    store.load(room, _rows_of(stored))
    return store


def _packed(rows: Rows) -> bytes:
    data = _encode(rows)
    return b"z" + zlib.compress(data, 1) if len(data) > PACKED_BYTES else b"-" + data


def _unpacked(data: bytes) -> Rows:
    return _decode(zlib.decompress(data[1:]) if data[:1] == b"z" else data[1:])
