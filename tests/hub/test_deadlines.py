"""Deadlines, questions before them, and what a heap keeps of those who are gone."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from hubbub.hub.deadlines import ASK_AHEAD_S, DeadlineQueue


class Called:
    """A queue and what it has called."""

    def __init__(self, *, asks: bool = False) -> None:
        self.queue: DeadlineQueue[str] = DeadlineQueue(warn_before=asks)
        self.asked: list[tuple[str, float]] = []
        self.expired: list[str] = []

    def turn(self, now: float, most: float = math.inf) -> bool:
        def ask(who: str, left: float) -> None:
            self.asked.append((who, left))

        return self.queue.advance(now, ask, self.expired.append, most)


def test_who_is_at_the_end_is_named_once() -> None:
    called = Called()
    called.queue.set("ann", 10.0, 0.0)
    called.queue.set("bob", 5.0, 0.0)
    for now, expired in ((4.9, []), (5.0, ["bob"]), (9.0, ["bob"]), (100.0, ["bob", "ann"])):
        called.turn(now)
        assert called.expired == expired
    assert len(called.queue) == 0
    assert called.asked == []


def test_who_is_near_the_end_is_asked_once_and_ends_all_the_same() -> None:
    called = Called(asks=True)
    called.queue.set("ann", 100.0, 0.0)
    called.turn(99.0 - ASK_AHEAD_S)
    assert called.asked == []
    called.turn(101.0 - ASK_AHEAD_S)
    called.turn(102.0 - ASK_AHEAD_S)
    assert called.asked == [("ann", ASK_AHEAD_S - 1.0)]
    assert called.expired == []
    called.turn(100.0)
    assert called.expired == ["ann"]


def test_a_short_time_is_asked_about_at_its_half() -> None:
    called = Called(asks=True)
    called.queue.set("ann", 10.0, 0.0)
    called.turn(4.9)
    assert called.asked == []
    called.turn(5.0)
    assert called.asked == [("ann", 5.0)]


def test_who_comes_with_what_is_over_is_not_asked() -> None:
    called = Called(asks=True)
    called.queue.set("ann", 10.0, 20.0)
    called.turn(20.0)
    assert (called.asked, called.expired) == ([], ["ann"])


def test_a_turn_that_comes_late_asks_nobody_who_is_over() -> None:
    called = Called(asks=True)
    called.queue.set("ann", 100.0, 0.0)
    called.turn(200.0)
    assert (called.asked, called.expired) == ([], ["ann"])


def test_a_new_deadline_takes_the_place_of_the_old_one() -> None:
    called = Called(asks=True)
    called.queue.set("ann", 100.0, 0.0)
    called.turn(75.0)
    called.queue.set("ann", 200.0, 75.0)
    called.turn(150.0)
    assert (len(called.asked), called.expired) == (1, [])
    called.turn(175.0)
    assert (len(called.asked), called.expired) == (2, [])
    called.turn(200.0)
    assert called.expired == ["ann"]


def test_who_has_gone_is_kept_by_nobody_and_numbers_do_not_pile_up() -> None:
    called = Called()
    for number in range(1000):
        called.queue.set(f"client {number}", 1e9, 0.0)
        called.queue.remove(f"client {number}")
        called.queue.remove(f"client {number}")
    for _ in range(1000):
        called.queue.set("ann", 1e9, 0.0)
    assert len(called.queue) == 1
    assert len(called.queue._heap) < 30
    called.turn(2e9)
    assert called.expired == ["ann"]


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.floats(0, 50), st.booleans(), st.floats(0, 5)),
        max_size=40,
    )
)
def test_nobody_ends_early_and_nobody_is_forgotten(
    steps: list[tuple[str, float, bool, float]],
) -> None:
    called, deadlines, now = Called(asks=True), dict[str, float](), 0.0
    for who, wait, stays, pause in steps:
        if stays:
            called.queue.set(who, now + wait, now)
            deadlines[who] = now + wait
        else:
            called.queue.remove(who)
            deadlines.pop(who, None)
        now += pause
        before = set(called.expired)
        called.expired.clear()
        called.turn(now)
        due = {who for who, deadline in deadlines.items() if deadline <= now}
        assert set(called.expired) == due, before
        for gone in due:
            del deadlines[gone]
        assert len(called.queue) == len(deadlines)


def test_a_crowd_is_taken_in_parts() -> None:
    called = Called()
    for number in range(7):
        called.queue.set(str(number), 10.0, 0.0)
    called.queue.set("later", 11.0, 0.0)
    called.queue.remove("3")
    assert called.turn(10.0, 3)
    assert called.expired == ["0", "1", "2"]
    assert not called.turn(10.0, 3), "what is due is done, though three were"
    assert called.expired == ["0", "1", "2", "4", "5", "6"]
    assert called.turn(11.0, 0)
    assert not called.turn(11.0, 1)
    assert called.expired[-1] == "later"
