"""The books of a load: marked messages, who should get them, what came, and how late.

What must not live here: sockets, the event loop, processes. `worker` keeps one set of books
for each phase, and `run` adds up what the processes wrote into theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

import msgspec

Expect = Literal["everybody", "room", "echo"]
"""Who should get a message: all clients, those of the talker's room, or the talker alone."""

MIN_SIZE_BYTES = 32
"""The marker's own size; a message cannot be smaller."""
MAX_REMEMBERED = 1_000_000
"""How many missing messages are remembered, to tell one that is late from one that comes twice."""

_PREFIX_BYTES = 8
_MARK_BYTES = 32


class Stamp(NamedTuple):
    """What a marker says: who sent the message, as which of its own, and when it was due."""

    talker: int
    number: int
    due_us: int


def mark_of(run: int, phase: int) -> bytes:
    """Return the beginning of all markers of one phase of one run."""
    return b"~hb%04x%x" % (run & 0xFFFF, phase & 0xF)


def write_message(mark: bytes, stamp: Stamp, size: int) -> bytes:
    """Return a message of `size` bytes: the marker, then full stops.

    All of it is plain ASCII that JSON and HTML leave as it is, so a server may put the message
    anywhere into what it sends on.
    """
    return b"%b%05x%08x%011x" % (mark, *stamp) + b"." * (size - _MARK_BYTES)


def read_stamp(data: bytes, mark: bytes, start: int, stop: int) -> Stamp | None:
    """Return the stamp of the first marker between `start` and `stop`; None when there is none."""
    place = data.find(mark, start, stop)
    if place < 0 or place + _MARK_BYTES > stop:
        return None
    try:
        value = int(data[place + _PREFIX_BYTES : place + _MARK_BYTES], 16)
    except ValueError:
        return None
    return Stamp(value >> 76, value >> 44 & 0xFFFF_FFFF, value & 0xFFF_FFFF_FFFF)


class Histogram(msgspec.Struct):
    """Microseconds in logarithmic buckets: exact below 128, within 1.6 % above, at most 3,776."""

    buckets: dict[int, int] = msgspec.field(default_factory=dict)
    max_us: int = 0

    def add(self, value_us: int) -> None:
        """Count one value; a negative one counts as 0."""
        if value_us < 128:
            index = value_us if value_us > 0 else 0
        else:
            shift = value_us.bit_length() - 7
            index = shift * 64 + (value_us >> shift)
        buckets = self.buckets
        buckets[index] = buckets.get(index, 0) + 1
        if value_us > self.max_us:
            self.max_us = value_us

    def merge(self, other: Histogram) -> None:
        """Add the values of another histogram."""
        for index, count in other.buckets.items():
            self.buckets[index] = self.buckets.get(index, 0) + count
        self.max_us = max(self.max_us, other.max_us)

    def at(self, share: float) -> int | None:
        """Return the microseconds that `share` (0 to 1) of the values do not exceed.

        None when there are no values.
        """
        total = sum(self.buckets.values())
        seen = 0
        for index in sorted(self.buckets):
            seen += self.buckets[index]
            if seen >= share * total:
                return self.max_us if seen == total else _middle(index)
        return None


def _middle(index: int) -> int:
    if index < 128:
        return index
    shift = index // 64 - 1
    return (index - shift * 64 << shift) + ((1 << shift) - 1) // 2


class Tally(msgspec.Struct):
    """What one generator process counted in one phase; `merge` adds up several.

    `delivered` are messages that somebody should have and got for the first time, `lost` those that
    a client which is still connected did not get, `cut_off` those that clients which were
    disconnected did not get. `stray` came to somebody who should not have them, `others` carried no
    marker. `bytes_in` is what the sockets received, frame headers included. `held_back` messages
    were due but not sent, since the server did not read what it had been sent before.
    """

    sent: int = 0
    delivered: int = 0
    bytes_in: int = 0
    lost: int = 0
    cut_off: int = 0
    duplicated: int = 0
    reordered: int = 0
    damaged: int = 0
    stray: int = 0
    others: int = 0
    held_back: int = 0
    waited_in_vain: int = 0
    latency: Histogram = msgspec.field(default_factory=Histogram)
    lateness: Histogram = msgspec.field(default_factory=Histogram)

    def merge(self, other: Tally) -> None:
        """Add another process's numbers."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.latency.merge(other.latency)
        self.lateness.merge(other.lateness)


_COUNTS = tuple(name for name in Tally.__struct_fields__ if name not in ("latency", "lateness"))


class Audience(msgspec.Struct, frozen=True):
    """The rule for who should get whose messages."""

    expect: Expect
    rooms: int
    hears_itself: bool = True

    def hears(self, client: int, talker: int) -> bool:
        """Tell whether `client` should get what `talker` says."""
        if client == talker:
            return self.hears_itself
        if self.expect == "room":
            return client % self.rooms == talker % self.rooms
        return self.expect == "everybody"

    def due_to(self, sent: dict[int, int]) -> Callable[[int], int]:
        """Return a function that says how many of the messages `sent` a client should get."""
        by_room = dict.fromkeys(range(self.rooms), 0)
        for talker, count in sent.items():
            by_room[talker % self.rooms] += count
        total = sum(sent.values())

        def due(client: int) -> int:
            own = sent.get(client, 0)
            if self.expect == "echo":
                return own if self.hears_itself else 0
            all_of_it = by_room[client % self.rooms] if self.expect == "room" else total
            return all_of_it if self.hears_itself else all_of_it - own

        return due


def guess_audience(talker: int, heard: Iterable[int], clients: int, rooms: int) -> Audience:
    """Return the smallest audience that all who heard a probe of `talker` belong to."""
    got = set(heard)
    hears_itself = talker in got
    expect: Expect = "everybody"
    if got <= {talker} or clients == 1:
        expect = "echo"
    elif rooms > 1 and all(client % rooms == talker % rooms for client in got):
        expect = "room"
    return Audience(expect, rooms, hears_itself)


class Ledger:
    """What one client should hear next of each talker, and what it has missed."""

    __slots__ = ("client", "got", "is_open", "missing", "next_numbers", "on_own")

    def __init__(self, client: int) -> None:
        self.client: int = client
        self.is_open: bool = True
        self.on_own: Callable[[int], None] | None = None
        """Called with the number of each new message of the client's own, in a closed loop."""
        self.clear()

    def clear(self) -> None:
        """Begin a phase: nothing is sent, nothing has come."""
        self.got: int = 0
        self.next_numbers: dict[int, int] = {}
        self.missing: set[tuple[int, int]] = set()


class Books:
    """The books of one phase in one process: `book` is called with everything that comes."""

    def __init__(
        self, mark: bytes, size: int, audience: Audience, now_us: Callable[[], int]
    ) -> None:
        self.mark = mark
        self.size = size
        self.audience = audience
        self.tally: Tally = Tally()
        self.chunk: bytes = b""
        self.stamps: tuple[Stamp, ...] = ()
        self.others: int = 0
        self.now_us = now_us
        self._remembered = 0

    def read(self, data: bytes, start: int, stop: int) -> Stamp | None:
        """Return the stamp of the message between `start` and `stop`; None when it has none."""
        stamp = read_stamp(data, self.mark, start, stop)
        if stamp is not None and stop - start < self.size:
            self.tally.damaged += 1
        return stamp

    def remember(self, chunk: bytes, stamps: tuple[Stamp, ...], others: int) -> None:
        """Keep what `chunk` says: in a broadcast, other clients get the same bytes."""
        self.chunk = chunk
        self.stamps = stamps
        self.others = others

    def book(self, ledger: Ledger, stamps: Iterable[Stamp], others: int, size: int) -> None:
        """Count what came in one piece of `size` bytes: stamped messages, and others."""
        now_us = self.now_us()
        tally = self.tally
        tally.bytes_in += size
        tally.others += others
        next_numbers = ledger.next_numbers
        add = tally.latency.add
        for talker, number, due_us in stamps:
            if next_numbers.get(talker) == number:
                next_numbers[talker] = number + 1
            elif not self._book_unusual(ledger, talker, number):
                continue
            ledger.got += 1
            tally.delivered += 1
            add(now_us - due_us)
            if talker == ledger.client and ledger.on_own is not None:
                ledger.on_own(number)

    def _book_unusual(self, ledger: Ledger, talker: int, number: int) -> bool:
        """Book a first message, a gap, a late or a second one; tell whether it is new."""
        wanted = ledger.next_numbers.get(talker)
        if wanted is None and not self.audience.hears(ledger.client, talker):
            self.tally.stray += 1
            return False
        wanted = wanted or 0
        if number >= wanted:
            ledger.next_numbers[talker] = number + 1
            self._note_missing(ledger, talker, range(wanted, number))
            return True
        if (talker, number) in ledger.missing:
            ledger.missing.remove((talker, number))
            self._remembered -= 1
            self.tally.lost -= 1
            self.tally.reordered += 1
            return True
        self.tally.duplicated += 1
        return False

    def _note_missing(self, ledger: Ledger, talker: int, numbers: range) -> None:
        self.tally.lost += len(numbers)
        room = numbers[: max(MAX_REMEMBERED - self._remembered, 0)]
        ledger.missing.update((talker, number) for number in room)
        self._remembered += len(room)

    def outstanding(self, ledgers: Iterable[Ledger], sent: dict[int, int]) -> int:
        """Return how many messages the clients that are still connected wait for."""
        due = self.audience.due_to(sent)
        return sum(max(due(each.client) - each.got, 0) for each in ledgers if each.is_open)

    def settle(self, ledgers: Iterable[Ledger], sent: dict[int, int]) -> None:
        """Write down what is lost, now that nothing more is expected to come."""
        due = self.audience.due_to(sent)
        self.tally.lost = self.tally.cut_off = 0
        for each in ledgers:
            missed = max(due(each.client) - each.got, 0)
            if each.is_open:
                self.tally.lost += missed
            else:
                self.tally.cut_off += missed


def due_times(
    talkers: Iterable[int], all_talkers: int, per_second: float, start_us: int
) -> Iterator[tuple[int, int, int]]:
    """Yield `(due_us, talker, number)` for a process's `talkers` in an open loop, without end.

    All talkers together send `per_second` messages, spread evenly: message k of all is due k /
    `per_second` seconds after the start, and the talkers take turns. `talkers` are the places in
    that order.
    """
    places = sorted(talkers)
    number = 0
    while places:
        for place in places:
            turn = place + number * all_talkers
            yield start_us + round(turn * 1_000_000 / per_second), place, number
        number += 1
