"""The books of a load: markers, histograms, audiences, and everything that can happen to a message."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from hubbub.bench import accounting
from hubbub.bench.accounting import (
    MIN_SIZE_BYTES,
    Audience,
    Books,
    Expect,
    Histogram,
    Ledger,
    Stamp,
    Tally,
    due_times,
    guess_audience,
    mark_of,
    read_stamp,
    write_message,
)

MARK = mark_of(0xBEEF, 2)
EVERYBODY = Audience("everybody", 1)


def books(audience: Audience = EVERYBODY, now_us: int = 500) -> Books:
    return Books(MARK, MIN_SIZE_BYTES, audience, lambda: now_us)


def hear(into: Books, ledger: Ledger, *numbers: int, talker: int = 0) -> None:
    for number in numbers:
        into.book(ledger, [Stamp(talker, number, 100)], 0, 40)


# Messages.


@pytest.mark.parametrize("size", [MIN_SIZE_BYTES, 33, 128, 70_000])
@pytest.mark.parametrize("stamp", [Stamp(0, 0, 0), Stamp(0xFFFFF, 0xFFFF_FFFF, 0xFFF_FFFF_FFFF)])
def test_a_message_has_its_size_and_carries_its_stamp(size: int, stamp: Stamp) -> None:
    message = write_message(MARK, stamp, size)
    assert len(message) == size
    assert read_stamp(message, MARK, 0, size) == stamp


def test_a_marker_is_found_wherever_a_server_puts_it() -> None:
    stamp = Stamp(7, 1234, 987_654)
    message = write_message(MARK, stamp, 64).decode()
    for text in (f"ann: {message}", json.dumps({"type": "said", "text": message, "by": "ä"})):
        data = text.encode()
        assert read_stamp(data, MARK, 0, len(data)) == stamp


def test_what_is_no_marker_of_this_phase() -> None:
    message = write_message(MARK, Stamp(1, 2, 3), 40)
    assert read_stamp(message, mark_of(0xBEEF, 1), 0, 40) is None
    assert read_stamp(message, mark_of(0xBEEE, 2), 0, 40) is None
    assert read_stamp(message, MARK, 0, MIN_SIZE_BYTES - 1) is None
    assert read_stamp(message, MARK, 1, 40) is None
    assert read_stamp(MARK + b"z" * 30, MARK, 0, 38) is None


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


# Audiences.


@pytest.mark.parametrize(
    ("expect", "hears_itself", "listeners"),
    [
        ("everybody", True, [0, 1, 2, 3, 4]),
        ("everybody", False, [0, 1, 3, 4]),
        ("room", True, [0, 2, 4]),
        ("room", False, [0, 4]),
        ("echo", True, [2]),
        ("echo", False, []),
    ],
)
def test_who_hears_and_how_much_is_due(
    expect: Expect, hears_itself: bool, listeners: list[int]
) -> None:
    audience = Audience(expect, 2, hears_itself)
    assert [client for client in range(5) if audience.hears(client, 2)] == listeners
    sent = {0: 5, 1: 70, 2: 900}
    due = audience.due_to(sent)
    for client in range(5):
        heard = sum(count for talker, count in sent.items() if audience.hears(client, talker))
        assert due(client) == heard


@pytest.mark.parametrize(
    ("heard", "rooms", "expected"),
    [
        ({0, 1, 2, 3}, 1, Audience("everybody", 1)),
        ({0, 1, 3}, 1, Audience("everybody", 1)),
        ({1, 2, 3}, 1, Audience("everybody", 1, hears_itself=False)),
        ({0}, 1, Audience("echo", 1)),
        ({0}, 2, Audience("echo", 2)),
        ({0, 2}, 2, Audience("room", 2)),
        ({2}, 2, Audience("room", 2, hears_itself=False)),
        ({0, 1}, 2, Audience("everybody", 2)),
    ],
)
def test_the_audience_is_the_smallest_that_fits(
    heard: set[int], rooms: int, expected: Audience
) -> None:
    assert guess_audience(0, heard, 4, rooms) == expected


def test_a_lone_client_is_an_echo() -> None:
    assert guess_audience(0, {0}, 1, 1) == Audience("echo", 1)


# What happens to messages.


def test_in_order() -> None:
    into, ledger = books(), Ledger(3)
    hear(into, ledger, 0, 1, 2)
    hear(into, ledger, 0, 1, talker=9)
    assert (into.tally.delivered, ledger.got, into.tally.bytes_in) == (5, 5, 200)
    assert into.tally.latency.at(0.5) == 400
    assert into.tally.lost == into.tally.duplicated == into.tally.reordered == 0


def test_a_gap_is_lost_until_it_comes_late() -> None:
    into, ledger = books(), Ledger(3)
    hear(into, ledger, 2, 5)
    assert (into.tally.lost, into.tally.delivered) == (4, 2)
    hear(into, ledger, 1)
    assert (into.tally.lost, into.tally.delivered, into.tally.reordered) == (3, 3, 1)
    hear(into, ledger, 1)
    assert (into.tally.delivered, into.tally.duplicated) == (3, 1)


def test_twice_is_duplicated() -> None:
    into, ledger = books(), Ledger(3)
    hear(into, ledger, 0, 0, 1, 1, 0)
    assert (into.tally.delivered, into.tally.duplicated, into.tally.lost) == (2, 3, 0)


def test_what_is_remembered_of_gaps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "MAX_REMEMBERED", 3)
    into, ledger = books(), Ledger(3)
    hear(into, ledger, 10)
    assert (into.tally.lost, len(ledger.missing)) == (10, 3)
    hear(into, ledger, 0, 9)
    assert (into.tally.reordered, into.tally.duplicated) == (1, 1)


def test_what_is_for_somebody_else_is_stray() -> None:
    into, ledger = books(Audience("room", 2)), Ledger(3)
    hear(into, ledger, 0, 1, talker=2)
    assert (into.tally.stray, into.tally.delivered, ledger.got) == (2, 0, 0)
    hear(into, ledger, 0, talker=1)
    assert into.tally.delivered == 1


def test_a_message_that_was_cut_is_damaged() -> None:
    into = Books(MARK, 64, EVERYBODY, lambda: 0)
    message = write_message(MARK, Stamp(0, 0, 0), 64)
    assert into.read(message, 0, 64) is not None
    assert into.tally.damaged == 0
    assert into.read(message, 0, 60) is not None
    assert into.tally.damaged == 1


def test_a_talker_is_told_of_its_own_new_messages() -> None:
    into, ledger = books(), Ledger(3)
    numbers: list[int] = []
    ledger.on_own = numbers.append
    hear(into, ledger, 0, 0, 1, talker=3)
    hear(into, ledger, 0, talker=4)
    assert numbers == [0, 1]


def test_at_the_end_what_has_not_come_is_lost_or_cut_off() -> None:
    into = books()
    stays, goes, whole = Ledger(0), Ledger(1), Ledger(2)
    hear(into, whole, 0, 1, 2)
    hear(into, stays, 0)
    hear(into, goes, 0, 1)
    goes.is_open = False
    assert into.outstanding([stays, goes, whole], {0: 3}) == 2
    into.settle([stays, goes, whole], {0: 3})
    assert (into.tally.lost, into.tally.cut_off) == (2, 1)


def test_a_new_phase_forgets_the_last() -> None:
    ledger = Ledger(0)
    hear(books(), ledger, 0, 5)
    ledger.clear()
    assert (ledger.got, ledger.next_numbers, ledger.missing) == (0, {}, set())


def test_tallies_add_up() -> None:
    first, second = Tally(sent=1, lost=2), Tally(sent=10, delivered=5)
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
