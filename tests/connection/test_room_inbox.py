"""What is read ahead of a room, and the two positions."""

from __future__ import annotations

import msgspec

from hubbub.connection.protocol import Published
from hubbub.connection.room_inbox import MAX_ROOM_BYTES, MAX_ROOM_MESSAGES, RoomInbox
from hubbub.model import Position


def message(offset: int, data: bytes = b"1") -> Published:
    return Published(msgspec.Raw(data), offset)


def test_the_position_is_that_of_what_was_taken() -> None:
    inbox = RoomInbox(Position(3, "e"))
    inbox.put(message(4))
    inbox.put(message(6))  # 5 was excluded
    assert (inbox.taken, inbox.read) == (Position(3, "e"), Position(6, "e"))
    assert inbox.take() == (b"1", 4, Position(4, "e"), b"")
    assert inbox.taken == Position(4, "e")
    inbox.clear()
    assert (len(inbox), inbox.read) == (0, Position(4, "e"))


def test_a_room_without_a_history_has_no_position() -> None:
    inbox = RoomInbox()
    inbox.put(message(0))
    assert inbox.take() == (b"1", None, None, b"")
    assert inbox.taken is None


def test_a_gap_stands_where_it_happened() -> None:
    inbox = RoomInbox(Position(1, "e"))
    inbox.put(message(2))
    inbox.put_gap(Position(9, "f"), is_whole=False)
    inbox.put(message(10))
    assert inbox.take().after == Position(2, "e")
    assert inbox.take() == (None, None, Position(9, "f"), b"")
    assert inbox.take() == (b"1", 10, Position(10, "f"), b"")


def test_what_is_whole_has_no_position_before_it_is_taken() -> None:
    inbox = RoomInbox()
    inbox.begin(Position(5, "e"), is_whole=True)
    inbox.put(message(5))
    assert inbox.taken is None
    inbox.take()
    assert inbox.taken == Position(5, "e")
    inbox.put_gap(Position(7, "f"), is_whole=True)
    assert inbox.take().after is None
    assert inbox.read == Position(7, "f")


def test_a_new_beginning_does_not_pass_over_what_waits() -> None:
    inbox = RoomInbox(Position(1, "e"))
    inbox.put(message(2))
    inbox.begin(Position(2, "e~x"), is_whole=False)
    assert (inbox.taken, inbox.read) == (Position(1, "e"), Position(2, "e~x"))
    inbox.take()
    inbox.begin(Position(2, "e~x"), is_whole=False)
    assert inbox.taken == Position(2, "e~x")


def test_it_is_bounded_in_messages_and_in_bytes() -> None:
    inbox = RoomInbox(Position(0, "e"))
    assert not inbox.put_all([message(number) for number in range(1, MAX_ROOM_MESSAGES + 5)])
    assert len(inbox) == MAX_ROOM_MESSAGES
    assert inbox.read == Position(MAX_ROOM_MESSAGES, "e")
    inbox.clear()
    large = message(1, b"1" * (MAX_ROOM_BYTES + 1))
    assert not inbox.put_all([large, message(2)])
    assert len(inbox) == 1, "one goes in, whatever its size"
    inbox.take()
    assert not inbox.is_full
    assert inbox.put_all([message(2)])


def test_what_is_said_of_who_published_counts_too() -> None:
    inbox = RoomInbox(Position(0, "e"))
    info = msgspec.Raw(b'{"client":"c"}')
    inbox.put(Published(msgspec.Raw(b"1"), 1, info))
    inbox.put(Published(msgspec.Raw(b"2"), 2, msgspec.Raw(b"x" * MAX_ROOM_BYTES)))
    assert inbox.is_full
    assert inbox.take().info == bytes(info)
    inbox.take()
    assert (inbox.is_full, inbox._bytes) == (False, 0)
