"""Accounting for every message of a load: its marker, who should get it, what came, and how late.

What must not live here: sockets, the event loop, processes. A `worker` has one `DeliveryTracker` for
each phase, and `run` adds up the counters of them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

import msgspec

Expect = Literal["all", "room", "others", "self"]
"""Who should get a message: all clients; those of the publisher's room; these, but not the publisher;
the publisher alone."""

MIN_SIZE_BYTES = 32
"""The marker's own size; a message cannot be smaller."""
MAX_REMEMBERED = 1_000_000
"""How many missing messages are remembered, to tell one that is late from one that comes twice."""

_PREFIX_BYTES = 8
_MARKER_BYTES = 32


class Marker(NamedTuple):
    """What a message carries: who sent it, as which of its own, and when it was due."""

    publisher: int
    number: int
    due_us: int


def prefix_of(run: int, phase: int) -> bytes:
    """Return the first bytes of all markers of one phase of one run."""
    return b"~hb%04x%x" % (run & 0xFFFF, phase & 0xF)


def write_message(prefix: bytes, marker: Marker, size: int) -> bytes:
    """Return a message of `size` bytes: the marker, then full stops.

    All of it is plain ASCII that JSON and HTML leave as it is, so a server may put the message
    anywhere into what it sends on.
    """
    return b"%b%05x%08x%011x" % (prefix, *marker) + b"." * (size - _MARKER_BYTES)


def read_marker(data: bytes, prefix: bytes, start: int, stop: int) -> Marker | None:
    """Return the first marker between `start` and `stop`; None when there is none."""
    place = data.find(prefix, start, stop)
    if place < 0 or place + _MARKER_BYTES > stop:
        return None
    try:
        value = int(data[place + _PREFIX_BYTES : place + _MARKER_BYTES], 16)
    except ValueError:
        return None
    return Marker(value >> 76, value >> 44 & 0xFFFF_FFFF, value & 0xFFF_FFFF_FFFF)


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


class Counters(msgspec.Struct):
    """What one worker process counted in one phase; `merge` adds up several.

    `delivered` are messages that somebody should have and got for the first time, `lost` those that
    a client which is still connected did not get, `cut_off` those that clients which were
    disconnected did not get. `stray` came to somebody who should not have them, `others` carried no
    marker. `bytes_in` is what the sockets received, frame headers included. `held_back` messages
    were due but not sent, since the server did not read what it had been sent before. `unreached`
    are connected clients that got no message at all, or none of their own, though they should.
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
    timeouts: int = 0
    unreached: int = 0
    latency: Histogram = msgspec.field(default_factory=Histogram)
    lateness: Histogram = msgspec.field(default_factory=Histogram)

    def merge(self, other: Counters) -> None:
        """Add another process's numbers."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.latency.merge(other.latency)
        self.lateness.merge(other.lateness)


_COUNTS = tuple(name for name in Counters.__struct_fields__ if name not in ("latency", "lateness"))


class Recipients(NamedTuple):
    """The rule for who should get whose messages; `rooms` is how many rooms there are."""

    expect: Expect
    rooms: int

    def includes(self, client: int, publisher: int) -> bool:
        """Tell whether `client` should get what `publisher` sends."""
        if client == publisher:
            return self.expect != "others"
        if self.expect == "all":
            return True
        return self.expect != "self" and client % self.rooms == publisher % self.rooms

    def due_to(self, sent: dict[int, int]) -> Callable[[int], int]:
        """Return a function that says how many of the messages `sent` a client should get."""
        by_room = dict.fromkeys(range(self.rooms), 0)
        for publisher, count in sent.items():
            by_room[publisher % self.rooms] += count
        total = sum(sent.values())

        def due(client: int) -> int:
            own = sent.get(client, 0)
            if self.expect == "self":
                return own
            if self.expect == "all":
                return total
            of_the_room = by_room[client % self.rooms]
            return of_the_room - own if self.expect == "others" else of_the_room

        return due


class Receiver:
    """What one client should get next from each publisher, and what it has missed."""

    __slots__ = ("client", "is_open", "missing", "next_numbers", "on_own", "received")

    def __init__(self, client: int) -> None:
        self.client: int = client
        self.is_open: bool = True
        self.on_own: Callable[[int], None] | None = None
        """Called with the number of each new message of the client's own, in a closed loop."""
        self.clear()

    def clear(self) -> None:
        """Begin a phase: nothing is sent, nothing has come."""
        self.received: int = 0
        self.next_numbers: dict[int, int] = {}
        self.missing: set[tuple[int, int]] = set()


class DeliveryTracker:
    """Follows the messages of one phase in one process: `record` is called with all that comes."""

    def __init__(
        self, prefix: bytes, size: int, recipients: Recipients, now_us: Callable[[], int]
    ) -> None:
        self.prefix = prefix
        self.size = size
        self.recipients = recipients
        self.counters: Counters = Counters()
        self.chunk: bytes = b""
        self.markers: tuple[Marker, ...] = ()
        self.others: int = 0
        self.now_us = now_us
        self._remembered = 0

    def read(self, data: bytes, start: int, stop: int) -> Marker | None:
        """Return the marker of the message between `start` and `stop`; None when it has none."""
        marker = read_marker(data, self.prefix, start, stop)
        if marker is not None and stop - start < self.size:
            self.counters.damaged += 1
        return marker

    def remember(self, chunk: bytes, markers: tuple[Marker, ...], others: int) -> None:
        """Keep what `chunk` says: in a broadcast, other clients get the same bytes."""
        self.chunk = chunk
        self.markers = markers
        self.others = others

    def record(self, receiver: Receiver, markers: Iterable[Marker], others: int, size: int) -> None:
        """Count what came in one piece of `size` bytes: marked messages, and others."""
        now_us = self.now_us()
        counters = self.counters
        counters.bytes_in += size
        counters.others += others
        next_numbers = receiver.next_numbers
        add = counters.latency.add
        for publisher, number, due_us in markers:
            if next_numbers.get(publisher) == number:
                next_numbers[publisher] = number + 1
            elif not self._record_unusual(receiver, publisher, number):
                continue
            receiver.received += 1
            counters.delivered += 1
            add(now_us - due_us)
            if publisher == receiver.client and receiver.on_own is not None:
                receiver.on_own(number)

    def _record_unusual(self, receiver: Receiver, publisher: int, number: int) -> bool:
        """Record a first message, a gap, a late or a second one; tell whether it is new."""
        wanted = receiver.next_numbers.get(publisher)
        if wanted is None and not self.recipients.includes(receiver.client, publisher):
            self.counters.stray += 1
            return False
        wanted = wanted or 0
        if number >= wanted:
            receiver.next_numbers[publisher] = number + 1
            self._note_missing(receiver, publisher, range(wanted, number))
            return True
        if (publisher, number) in receiver.missing:
            receiver.missing.remove((publisher, number))
            self._remembered -= 1
            self.counters.lost -= 1
            self.counters.reordered += 1
            return True
        self.counters.duplicated += 1
        return False

    def _note_missing(self, receiver: Receiver, publisher: int, numbers: range) -> None:
        self.counters.lost += len(numbers)
        room = numbers[: max(MAX_REMEMBERED - self._remembered, 0)]
        receiver.missing.update((publisher, number) for number in room)
        self._remembered += len(room)

    def outstanding(self, receivers: Iterable[Receiver], sent: dict[int, int]) -> int:
        """Return how many messages the clients that are still connected wait for."""
        due = self.recipients.due_to(sent)
        return sum(max(due(each.client) - each.received, 0) for each in receivers if each.is_open)

    def settle(self, receivers: Iterable[Receiver], sent: dict[int, int]) -> None:
        """Count what is lost, now that nothing more is expected to come."""
        due = self.recipients.due_to(sent)
        self.counters.lost = self.counters.cut_off = self.counters.unreached = 0
        for each in receivers:
            missed = max(due(each.client) - each.received, 0)
            if each.is_open:
                self.counters.lost += missed
                self.counters.unreached += missed > 0 and self._is_unreached(each, sent)
            else:
                self.counters.cut_off += missed

    def _is_unreached(self, receiver: Receiver, sent: dict[int, int]) -> bool:
        """Tell whether a client that misses messages got none at all, or none of its own."""
        client = receiver.client
        is_its_own = client in sent and self.recipients.includes(client, client)
        return not receiver.received or (is_its_own and client not in receiver.next_numbers)


def due_times(
    publishers: Iterable[int], all_publishers: int, per_second: float, start_us: int
) -> Iterator[tuple[int, int, int]]:
    """Yield `(due_us, publisher, number)` for a process's `publishers` in an open loop, without end.

    All publishers together send `per_second` messages, spread evenly: message k of all is due k /
    `per_second` seconds after the start, and the publishers take turns. `publishers` are the places in
    that order.
    """
    places = sorted(publishers)
    number = 0
    while places:
        for place in places:
            turn = place + number * all_publishers
            yield start_us + round(turn * 1_000_000 / per_second), place, number
        number += 1
