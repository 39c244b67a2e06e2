"""Inbox: the messages that wait for a handler, bounded by number and by bytes."""

from __future__ import annotations

import pytest

from hubbub.hub.inbox import Inbox
from hubbub.wire.frame import Frame


def message(size: int) -> Frame:
    return Frame(b"x" * size, False)


def test_messages_come_out_in_the_order_they_went_in() -> None:
    inbox = Inbox(100, 1000)
    frames = [message(number) for number in range(10)]
    for frame in frames:
        assert not inbox.push(frame)
    assert len(inbox) == 10
    assert [inbox.pop() for _ in range(11)] == [*frames, None]
    assert len(inbox) == 0


@pytest.mark.parametrize(
    ("limits", "size", "fills", "frees"), [((4, 1000), 1, 4, 2), ((1000, 40), 10, 4, 2)]
)
def test_it_is_full_at_its_bound_until_half_of_it_is_free(
    limits: tuple[int, int], size: int, fills: int, frees: int
) -> None:
    inbox = Inbox(*limits)
    assert [inbox.push(message(size)) for _ in range(fills)] == [False] * (fills - 1) + [True]
    assert inbox.is_full
    for _ in range(frees):
        assert inbox.is_full
        inbox.pop()
    assert not inbox.is_full
    assert [inbox.push(message(size)) for _ in range(frees)][-1], "full a second time"


def test_the_bound_is_soft_and_is_told_once() -> None:
    inbox = Inbox(2, 1000)
    assert [inbox.push(message(1)) for _ in range(5)] == [False, True, False, False, False]
    assert len(inbox) == 5


def test_one_message_larger_than_the_bound_is_taken() -> None:
    inbox = Inbox(100, 10)
    assert inbox.push(message(50))
    assert inbox.pop() is not None
    assert not inbox.is_full


def test_one_message_at_a_time_is_possible() -> None:
    inbox = Inbox(1, 10)
    for _ in range(3):
        assert inbox.push(message(1))
        inbox.pop()
        assert not inbox.is_full


def test_clearing_counts_and_frees() -> None:
    inbox = Inbox(2, 10)
    inbox.push(message(1))
    inbox.push(message(1))
    assert inbox.clear() == 2
    assert (len(inbox), inbox.is_full, inbox.pop()) == (0, False, None)
