"""Expiry: deadlines, questions before them, and what a heap keeps of those who are gone."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from hubbub.expiry import ASK_AHEAD_S, Expiry


class Book:
    """An expiry and what it has called."""

    def __init__(self, *, asks: bool = False) -> None:
        self.expiry: Expiry[str] = Expiry(asks=asks)
        self.asked: list[tuple[str, float]] = []
        self.expired: list[str] = []

    def turn(self, now: float, most: float = math.inf) -> bool:
        def ask(who: str, left: float) -> None:
            self.asked.append((who, left))

        return self.expiry.turn(now, ask, self.expired.append, most)


def test_who_is_at_the_end_is_named_once() -> None:
    book = Book()
    book.expiry.set("ann", 10.0, 0.0)
    book.expiry.set("bob", 5.0, 0.0)
    for now, expired in ((4.9, []), (5.0, ["bob"]), (9.0, ["bob"]), (100.0, ["bob", "ann"])):
        book.turn(now)
        assert book.expired == expired
    assert len(book.expiry) == 0
    assert book.asked == []


def test_who_is_near_the_end_is_asked_once_and_ends_all_the_same() -> None:
    book = Book(asks=True)
    book.expiry.set("ann", 100.0, 0.0)
    book.turn(99.0 - ASK_AHEAD_S)
    assert book.asked == []
    book.turn(101.0 - ASK_AHEAD_S)
    book.turn(102.0 - ASK_AHEAD_S)
    assert book.asked == [("ann", ASK_AHEAD_S - 1.0)]
    assert book.expired == []
    book.turn(100.0)
    assert book.expired == ["ann"]


def test_a_short_time_is_asked_about_at_its_half() -> None:
    book = Book(asks=True)
    book.expiry.set("ann", 10.0, 0.0)
    book.turn(4.9)
    assert book.asked == []
    book.turn(5.0)
    assert book.asked == [("ann", 5.0)]


def test_who_comes_with_what_is_over_is_not_asked() -> None:
    book = Book(asks=True)
    book.expiry.set("ann", 10.0, 20.0)
    book.turn(20.0)
    assert (book.asked, book.expired) == ([], ["ann"])


def test_a_turn_that_comes_late_asks_nobody_who_is_over() -> None:
    book = Book(asks=True)
    book.expiry.set("ann", 100.0, 0.0)
    book.turn(200.0)
    assert (book.asked, book.expired) == ([], ["ann"])


def test_a_new_deadline_takes_the_place_of_the_old_one() -> None:
    book = Book(asks=True)
    book.expiry.set("ann", 100.0, 0.0)
    book.turn(75.0)
    book.expiry.set("ann", 200.0, 75.0)
    book.turn(150.0)
    assert (len(book.asked), book.expired) == (1, [])
    book.turn(175.0)
    assert (len(book.asked), book.expired) == (2, [])
    book.turn(200.0)
    assert book.expired == ["ann"]


def test_who_has_gone_is_kept_by_nobody_and_numbers_do_not_pile_up() -> None:
    book = Book()
    for number in range(1000):
        book.expiry.set(f"client {number}", 1e9, 0.0)
        book.expiry.remove(f"client {number}")
        book.expiry.remove(f"client {number}")
    for _ in range(1000):
        book.expiry.set("ann", 1e9, 0.0)
    assert len(book.expiry) == 1
    assert len(book.expiry._heap) < 30
    book.turn(2e9)
    assert book.expired == ["ann"]


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.floats(0, 50), st.booleans(), st.floats(0, 5)),
        max_size=40,
    )
)
def test_nobody_ends_early_and_nobody_is_forgotten(
    steps: list[tuple[str, float, bool, float]],
) -> None:
    book, deadlines, now = Book(asks=True), dict[str, float](), 0.0
    for who, wait, stays, pause in steps:
        if stays:
            book.expiry.set(who, now + wait, now)
            deadlines[who] = now + wait
        else:
            book.expiry.remove(who)
            deadlines.pop(who, None)
        now += pause
        before = set(book.expired)
        book.expired.clear()
        book.turn(now)
        due = {who for who, deadline in deadlines.items() if deadline <= now}
        assert set(book.expired) == due, before
        for gone in due:
            del deadlines[gone]
        assert len(book.expiry) == len(deadlines)


def test_a_crowd_is_taken_in_parts() -> None:
    book = Book()
    for number in range(7):
        book.expiry.set(str(number), 10.0, 0.0)
    book.expiry.set("later", 11.0, 0.0)
    book.expiry.remove("3")
    assert book.turn(10.0, 3)
    assert book.expired == ["0", "1", "2"]
    assert not book.turn(10.0, 3), "what is due is done, though three were"
    assert book.expired == ["0", "1", "2", "4", "5", "6"]
    assert book.turn(11.0, 0)
    assert not book.turn(11.0, 1)
    assert book.expired[-1] == "later"
