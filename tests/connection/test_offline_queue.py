"""The queue of a client without a connection: its bounds, and what is counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.connection.offline_queue import OfflineQueue
from hubbub.wire.frame import encode


def test_the_oldest_goes_when_there_are_too_many() -> None:
    queue = OfflineQueue(2, 1000)
    dropped = 0
    for text in "abcd":
        queue.append(encode(text))
        dropped += queue.trim()
    assert dropped == 2
    assert [queue.take().text for _ in range(len(queue))] == ["c", "d"]


def test_the_oldest_goes_when_they_are_too_large() -> None:
    queue = OfflineQueue(100, 10)
    for text in ("aaaa", "bbbb", "cccc"):
        queue.append(encode(text))
        queue.trim()
    assert [queue.take().text for _ in range(len(queue))] == ["bbbb", "cccc"]


def test_a_message_that_never_fits_goes_alone() -> None:
    queue = OfflineQueue(100, 10)
    queue.append(encode("small"))
    queue.append(encode("x" * 11))
    assert queue.trim() == 1
    assert queue.take().text == "small"


def test_no_room_at_all() -> None:
    queue = OfflineQueue(0, 1000)
    queue.append(encode("a"))
    assert queue.trim() == 1
    assert len(queue) == 0


def test_clear_counts() -> None:
    queue = OfflineQueue(5, 4)
    queue.append(encode("abcd"))
    assert queue.clear() == 1
    queue.append(encode("efgh"))
    assert queue.trim() == 0


def test_negative_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="max_queue=-1"):
        OfflineQueue(-1, 0)


@given(st.lists(st.binary(max_size=12), max_size=40), st.integers(0, 8), st.integers(0, 30))
def test_it_is_bounded_and_nothing_is_lost_uncounted(
    payloads: list[bytes], most: int, size: int
) -> None:
    queue = OfflineQueue(most, size)
    dropped = 0
    for payload in payloads:
        queue.append(encode(payload))
        dropped += queue.trim()
        assert len(queue) <= most
    left = [queue.take().payload for _ in range(len(queue))]
    assert sum(map(len, left)) <= size
    assert len(left) + dropped == len(payloads)
