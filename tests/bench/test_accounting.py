"""Accounting for messages: markers, histograms, recipients, and everything that can happen to a message."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from hubbub.bench import accounting
from hubbub.bench.accounting import (
    MIN_SIZE_BYTES,
    Counters,
    DeliveryTracker,
    Expect,
    Histogram,
    Marker,
    Receiver,
    Recipients,
    due_times,
    prefix_of,
    read_marker,
    write_message,
)

PREFIX = prefix_of(0xBEEF, 2)
EVERYBODY = Recipients("all", 1)


def tracker(recipients: Recipients = EVERYBODY, now_us: int = 500) -> DeliveryTracker:
    return DeliveryTracker(PREFIX, MIN_SIZE_BYTES, recipients, lambda: now_us)


def deliver(into: DeliveryTracker, receiver: Receiver, *numbers: int, publisher: int = 0) -> None:
    for number in numbers:
        into.record(receiver, [Marker(publisher, number, 100)], 0, 40)


# Messages.


@pytest.mark.parametrize("size", [MIN_SIZE_BYTES, 33, 128, 70_000])
@pytest.mark.parametrize("marker", [Marker(0, 0, 0), Marker(0xFFFFF, 0xFFFF_FFFF, 0xFFF_FFFF_FFFF)])
def test_a_message_has_its_size_and_carries_its_marker(size: int, marker: Marker) -> None:
    message = write_message(PREFIX, marker, size)
    assert len(message) == size
    assert read_marker(message, PREFIX, 0, size) == marker


def test_a_marker_is_found_wherever_a_server_puts_it() -> None:
    marker = Marker(7, 1234, 987_654)
    message = write_message(PREFIX, marker, 64).decode()
    for text in (f"ann: {message}", json.dumps({"type": "said", "text": message, "by": "ä"})):
        data = text.encode()
        assert read_marker(data, PREFIX, 0, len(data)) == marker


def test_what_is_no_marker_of_this_phase() -> None:
    message = write_message(PREFIX, Marker(1, 2, 3), 40)
    assert read_marker(message, prefix_of(0xBEEF, 1), 0, 40) is None
    assert read_marker(message, prefix_of(0xBEEE, 2), 0, 40) is None
    assert read_marker(message, PREFIX, 0, MIN_SIZE_BYTES - 1) is None
    assert read_marker(message, PREFIX, 1, 40) is None
    assert read_marker(PREFIX + b"z" * 30, PREFIX, 0, 38) is None


# Histograms.


def test_percentiles_are_within_two_percent() -> None:
    chance = random.Random(1)
    values = [round(chance.lognormvariate(7, 2)) for _ in range(20_000)]
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    values.sort()
    for share in (0.5, 0.9, 0.99, 0.999):
        exact = values[round(share * len(values)) - 1]
        assert histogram.at(share) == pytest.approx(exact, rel=0.016, abs=1)
    assert histogram.at(1.0) == histogram.max_us == values[-1]
    assert len(histogram.buckets) < 1500


def test_small_values_are_exact_and_negative_ones_are_zero() -> None:
    histogram = Histogram()
    for value in (-5, 3, 127):
        histogram.add(value)
    assert [histogram.at(share) for share in (0.0, 1 / 3, 2 / 3, 1.0)] == [0, 0, 3, 127]
    assert Histogram().at(0.5) is None


def test_merged_histograms_have_the_values_of_both() -> None:
    parts, whole = [Histogram(), Histogram()], Histogram()
    for value in range(0, 100_000, 7):
        parts[value % 2].add(value)
        whole.add(value)
    parts[0].merge(parts[1])
    assert parts[0] == whole


# Recipients.


@pytest.mark.parametrize(
    ("expect", "clients"),
    [
        ("all", [0, 1, 2, 3, 4]),
        ("room", [0, 2, 4]),
        ("others", [0, 4]),
        ("self", [2]),
    ],
)
def test_who_gets_a_message_and_how_much_is_due(expect: Expect, clients: list[int]) -> None:
    recipients = Recipients(expect, 2)
    assert [client for client in range(5) if recipients.includes(client, 2)] == clients
    sent = {0: 5, 1: 70, 2: 900}
    due = recipients.due_to(sent)
    for client in range(5):
        counts = [
            count for publisher, count in sent.items() if recipients.includes(client, publisher)
        ]
        assert due(client) == sum(counts)


# What happens to messages.


def test_in_order() -> None:
    into, receiver = tracker(), Receiver(3)
    deliver(into, receiver, 0, 1, 2)
    deliver(into, receiver, 0, 1, publisher=9)
    assert (into.counters.delivered, receiver.received, into.counters.bytes_in) == (5, 5, 200)
    assert into.counters.latency.at(0.5) == 400
    assert into.counters.lost == into.counters.duplicated == into.counters.reordered == 0


def test_a_gap_is_lost_until_it_comes_late() -> None:
    into, receiver = tracker(), Receiver(3)
    deliver(into, receiver, 2, 5)
    assert (into.counters.lost, into.counters.delivered) == (4, 2)
    deliver(into, receiver, 1)
    assert (into.counters.lost, into.counters.delivered, into.counters.reordered) == (3, 3, 1)
    deliver(into, receiver, 1)
    assert (into.counters.delivered, into.counters.duplicated) == (3, 1)


def test_twice_is_duplicated() -> None:
    into, receiver = tracker(), Receiver(3)
    deliver(into, receiver, 0, 0, 1, 1, 0)
    assert (into.counters.delivered, into.counters.duplicated, into.counters.lost) == (2, 3, 0)


def test_what_is_remembered_of_gaps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "MAX_REMEMBERED", 3)
    into, receiver = tracker(), Receiver(3)
    deliver(into, receiver, 10)
    assert (into.counters.lost, len(receiver.missing)) == (10, 3)
    deliver(into, receiver, 0, 9)
    assert (into.counters.reordered, into.counters.duplicated) == (1, 1)


def test_what_is_for_somebody_else_is_stray() -> None:
    into, receiver = tracker(Recipients("room", 2)), Receiver(3)
    deliver(into, receiver, 0, 1, publisher=2)
    assert (into.counters.stray, into.counters.delivered, receiver.received) == (2, 0, 0)
    deliver(into, receiver, 0, publisher=1)
    assert into.counters.delivered == 1


def test_a_message_that_was_cut_is_damaged() -> None:
    into = DeliveryTracker(PREFIX, 64, EVERYBODY, lambda: 0)
    message = write_message(PREFIX, Marker(0, 0, 0), 64)
    assert into.read(message, 0, 64) is not None
    assert into.counters.damaged == 0
    assert into.read(message, 0, 60) is not None
    assert into.counters.damaged == 1


def test_a_publisher_is_told_of_its_own_new_messages() -> None:
    into, receiver = tracker(), Receiver(3)
    numbers: list[int] = []
    receiver.on_own = numbers.append
    deliver(into, receiver, 0, 0, 1, publisher=3)
    deliver(into, receiver, 0, publisher=4)
    assert numbers == [0, 1]


def test_at_the_end_what_has_not_come_is_lost_or_cut_off() -> None:
    into = tracker()
    stays, goes, whole = Receiver(0), Receiver(1), Receiver(2)
    deliver(into, whole, 0, 1, 2)
    deliver(into, stays, 0)
    deliver(into, goes, 0, 1)
    goes.is_open = False
    assert into.outstanding([stays, goes, whole], {0: 3}) == 2
    into.settle([stays, goes, whole], {0: 3})
    assert (into.counters.lost, into.counters.cut_off) == (2, 1)


def test_who_gets_nothing_or_nothing_of_its_own_is_unreached() -> None:
    into = tracker()
    publishes, deaf, some, gone = (Receiver(client) for client in range(4))
    deliver(into, publishes, 0, 1, publisher=2)
    deliver(into, some, 0, publisher=2)
    gone.is_open = False
    into.settle([publishes, deaf, some, gone], {0: 1, 2: 2})
    assert (into.counters.lost, into.counters.cut_off, into.counters.unreached) == (6, 3, 2)


def test_a_new_phase_forgets_the_last() -> None:
    receiver = Receiver(0)
    deliver(tracker(), receiver, 0, 5)
    receiver.clear()
    assert (receiver.received, receiver.next_numbers, receiver.missing) == (0, {}, set())


def test_tallies_add_up() -> None:
    first, second = Counters(sent=1, lost=2), Counters(sent=10, delivered=5)
    first.latency.add(7)
    second.latency.add(9)
    first.merge(second)
    assert (first.sent, first.lost, first.delivered) == (11, 2, 5)
    assert first.latency.max_us == 9


def test_messages_are_due_evenly_whoever_sends_them() -> None:
    everything = [
        *itertools.islice(due_times([0, 2], 3, 1000, 50), 8),
        *itertools.islice(due_times([1], 3, 1000, 50), 4),
    ]
    assert [(due, place) for due, place, _ in sorted(everything)] == [
        (50 + 1000 * turn, turn % 3) for turn in range(12)
    ]
    assert list(due_times([], 3, 1000, 50)) == []
