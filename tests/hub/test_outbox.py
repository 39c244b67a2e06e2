"""Outbox: the four policies, against a model that is a plain list."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.hub.outbox import Entry, Outbox, Overflow
from hubbub.room_rules import SLOW_POLICIES, SlowPolicy
from hubbub.wire.frame import Batch, DeflatedBatch, Frame

MAX_ENTRIES = 4
MAX_BYTES = 60


def entry(policy: SlowPolicy, *sizes: int, room: str = "red") -> Entry:
    """Make an entry of messages whose wire forms have these sizes (2 and more)."""
    return Entry(Batch([Frame(bytes(size - 2), False) for size in sizes]), policy, room)


def popped(outbox: Outbox) -> list[Frame]:
    frames: list[Frame] = []
    while (batch := outbox.pop()) is not None:
        frames += batch.frames
    return frames


class ModelEntry(NamedTuple):
    policy: SlowPolicy
    room: str
    frames: tuple[Frame, ...]

    @property
    def nbytes(self) -> int:
        return sum(len(frame.wire) for frame in self.frames)


class Model:
    """The same rules, as slow and as plain as they can be said."""

    def __init__(self) -> None:
        self.waiting: list[ModelEntry] = []

    def fits(self, waiting: list[ModelEntry]) -> bool:
        return len(waiting) <= MAX_ENTRIES and sum(e.nbytes for e in waiting) <= MAX_BYTES

    def push(self, new: ModelEntry) -> int | None:
        """Return how many messages were dropped, None for an overflow."""
        dropped = 0
        if new.policy == "latest":
            older = [e for e in self.waiting if (e.policy, e.room) == ("latest", new.room)]
            self.waiting = [e for e in self.waiting if e not in older]
            dropped = sum(len(e.frames) for e in older) + len(new.frames) - 1
            new = new._replace(frames=new.frames[-1:])
        if self.fits([*self.waiting, new]):
            self.waiting.append(new)
            return dropped
        if new.policy == "disconnect":
            return None
        pinned = [e for e in self.waiting if e.policy == "disconnect"]
        if new.policy == "drop_newest" or not self.fits([*pinned, new]):
            return dropped + len(new.frames)
        while not self.fits([*self.waiting, new]):
            victim = next(e for e in self.waiting if e.policy != "disconnect")
            self.waiting = [e for e in self.waiting if e is not victim]
            dropped += len(victim.frames)
        self.waiting.append(new)
        return dropped


POPS = st.just(None)
PUSHES = st.tuples(
    st.sampled_from(SLOW_POLICIES),
    st.sampled_from(["red", "blue"]),
    st.lists(st.one_of(st.integers(2, 20), st.integers(2, 70)), min_size=1, max_size=3),
)


@settings(deadline=None)
@given(steps=st.lists(st.one_of(PUSHES, PUSHES, POPS), min_size=15, max_size=40))
def test_it_does_what_the_model_does(
    steps: list[tuple[SlowPolicy, str, list[int]] | None],
) -> None:
    outbox, model = Outbox(MAX_ENTRIES, MAX_BYTES), Model()
    pushed = dropped = taken = 0
    for step in steps:
        if step is None:
            batch = outbox.pop()
            expected = model.waiting.pop(0) if model.waiting else None
            assert (None if batch is None else tuple(batch.frames)) == (expected and expected[2])
            taken += 0 if batch is None else len(batch)
            continue
        policy, room, sizes = step
        new = entry(policy, *sizes, room=room)
        answer = model.push(ModelEntry(policy, room, tuple(new.batch.frames)))
        if answer is None:
            before = outbox.messages
            with pytest.raises(Overflow) as overflow:
                outbox.push(new)
            assert overflow.value.lost == before + len(new.batch)
            assert outbox.messages == before
        else:
            assert outbox.push(new) == answer
            pushed += len(new.batch)
            dropped += answer
        assert len(outbox) == len(model.waiting) <= MAX_ENTRIES
        assert outbox.nbytes == sum(e.nbytes for e in model.waiting) <= MAX_BYTES
        assert pushed == dropped + taken + outbox.messages
    assert popped(outbox) == [frame for e in model.waiting for frame in e.frames]
    assert (len(outbox), outbox.nbytes, outbox.messages) == (0, 0, 0)


def test_disconnect_keeps_everything_until_there_is_no_place() -> None:
    outbox = Outbox(2, 1000)
    assert outbox.push(entry("disconnect", 10, 10)) == 0
    assert outbox.push(entry("disconnect", 10)) == 0
    with pytest.raises(Overflow, match="5 messages") as overflow:
        outbox.push(entry("disconnect", 10, 10))
    assert overflow.value.lost == 5
    assert outbox.clear() == 3
    assert (len(outbox), outbox.nbytes, outbox.pop()) == (0, 0, None)


def test_drop_oldest_drops_from_the_front() -> None:
    outbox = Outbox(2, 1000)
    entries = [entry("drop_oldest", 10) for _ in range(4)]
    assert [outbox.push(e) for e in entries] == [0, 0, 1, 1]
    assert popped(outbox) == [*entries[2].batch.frames, *entries[3].batch.frames]


def test_drop_newest_keeps_what_is_there() -> None:
    outbox = Outbox(1, 1000)
    first = entry("drop_newest", 10)
    assert outbox.push(first) == 0
    assert outbox.push(entry("drop_newest", 10, 10)) == 2
    assert popped(outbox) == list(first.batch.frames)


def test_latest_keeps_one_message_for_each_room_and_moves_it_to_the_end() -> None:
    outbox = Outbox(9, 1000)
    for room in ("red", "blue", "red"):
        outbox.push(entry("latest", 10, 20, room=room))
    assert len(outbox) == 2
    newest = entry("latest", 30, room="blue")
    assert outbox.push(newest) == 1
    assert [len(frame.wire) for frame in popped(outbox)] == [20, 30]


def test_what_may_not_be_dropped_is_passed_over_on_the_way_to_the_oldest_that_may() -> None:
    outbox = Outbox(3, 1000)
    kept, gone, stays = entry("disconnect", 10), entry("drop_newest", 10), entry("latest", 10)
    for e in (kept, gone, stays):
        outbox.push(e)
    newest = entry("drop_oldest", 10)
    assert outbox.push(newest) == 1
    assert popped(outbox) == [e.batch.frames[0] for e in (kept, stays, newest)]


def test_entries_that_may_be_dropped_never_push_out_those_that_may_not() -> None:
    outbox = Outbox(2, 1000)
    kept = [entry("disconnect", 10), entry("disconnect", 10)]
    for e in kept:
        outbox.push(e)
    assert outbox.push(entry("drop_oldest", 10)) == 1
    assert outbox.push(entry("latest", 10)) == 1
    assert popped(outbox) == [frame for e in kept for frame in e.batch.frames]


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_what_can_never_fit_costs_the_others_nothing(policy: SlowPolicy) -> None:
    outbox = Outbox(4, 100)
    waiting = entry("drop_oldest", 40)
    outbox.push(waiting)
    outbox.push(entry("disconnect", 40))
    assert outbox.push(entry(policy, 61)) == 1, "the pinned 40 bytes leave place for 60"
    assert outbox.push(entry(policy, 101)) == 1
    assert len(outbox) == 2
    assert outbox.messages == 2


def test_rooms_that_share_one_batch_are_told_apart() -> None:
    outbox = Outbox(4, 1000)
    shared = Batch([Frame(b"x", True)])
    outbox.push(Entry(shared, "latest", "red"))
    outbox.push(Entry(shared, "latest", "blue"))
    assert outbox.push(Entry(shared, "latest", "blue")) == 1
    assert len(outbox) == 2


@pytest.mark.parametrize("policy", SLOW_POLICIES)
def test_deflated_messages_count_as_what_will_be_written(policy: SlowPolicy) -> None:
    outbox = Outbox(10, 1000)
    frame = Frame(b"a" * 5000, True)
    outbox.push(Entry(DeflatedBatch([frame], 0), policy, "red"))
    assert outbox.nbytes == len(frame.deflated(0)) < 100
    batch = outbox.pop()
    assert batch is not None
    assert batch.wire is frame.deflated(0)
    assert outbox.nbytes == 0


def test_latest_keeps_the_form_of_the_client() -> None:
    outbox = Outbox(10, 1000)
    frames = [Frame(letter * 5000, True) for letter in (b"a", b"b")]
    assert outbox.push(Entry(DeflatedBatch(frames, 0), "latest", "red")) == 1
    assert outbox.nbytes == len(frames[1].deflated(0))
