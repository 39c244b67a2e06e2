"""Delivery: when a line that was written has arrived, and how many may be on their way."""

from __future__ import annotations

from hubbub.cli.delivery import MAX_WINDOW_LINES, LineTracker


def test_a_line_has_arrived_when_two_pings_behind_it_were_answered() -> None:
    tracker = LineTracker()
    tracker.written = 1
    assert (tracker.in_flight, tracker.can_write) == (1, False)
    tracker.note_pong(1, 0.1)
    assert (tracker.in_flight, tracker.arrived, tracker.can_write) == (1, 0, True)
    tracker.written = 3
    tracker.note_pong(2, 0.1)
    assert (tracker.in_flight, tracker.arrived) == (2, 1)
    tracker.note_pong(3, 0.1)
    assert (tracker.in_flight, tracker.arrived) == (1, 2)
    tracker.note_pong(3, 0.1)
    assert (tracker.in_flight, tracker.arrived) == (0, 3)


def test_what_is_given_up_never_arrives() -> None:
    tracker = LineTracker()
    tracker.written = 3
    tracker.note_pong(1, 0.1)
    tracker.note_pong(1, 0.1)
    assert (tracker.give_up(), tracker.given_up, tracker.arrived) == (2, 2, 1)
    assert (tracker.in_flight, tracker.can_write, tracker.give_up()) == (0, True, 0)
    tracker.written = 4
    tracker.note_pong(4, 0.1)
    tracker.note_pong(4, 0.1)
    assert (tracker.in_flight, tracker.given_up, tracker.arrived) == (0, 2, 2)
    tracker.written = 6
    tracker.confirm_all()
    assert (tracker.in_flight, tracker.given_up, tracker.arrived) == (0, 2, 4)


def test_the_window_follows_the_pongs() -> None:
    tracker = LineTracker()
    tracker.note_pong(0, 0.1)
    tracker.note_pong(0, 0.1)
    assert tracker.window == 4
    tracker.note_pong(0, 5.0)
    assert tracker.window == 2
    for _ in range(20):
        tracker.note_pong(0, 0.1)
    assert tracker.window == MAX_WINDOW_LINES
    for _ in range(20):
        tracker.note_pong(0, 5.0)
    assert tracker.window == 1
