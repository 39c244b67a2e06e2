"""Inbox: the bounded queue of whole messages that wait for one client's handler.

What must not live here: who stops the socket (`dispatcher`, which asks the transport to), and what a
message means. `dispatcher` fills it while a handler of the client waits, and empties it afterwards.
"""

from __future__ import annotations

from collections import deque

from ..wire.frame import Frame


class Inbox:
    """Messages in the order of arrival, bounded by number and by bytes.

    The bound is soft: what a transport has read already is taken all the same. `is_full` says
    that it is reached, and that reading should stop; it stays true until half of it is free again,
    so that a socket is not stopped and started for each message.
    """

    __slots__ = ("_bytes", "_frames", "_max_bytes", "_max_messages", "is_full")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self.is_full: bool = False

    def __len__(self) -> int:
        return len(self._frames)

    def push(self, frame: Frame) -> bool:
        """Add a message; return whether this one has made the inbox full."""
        self._frames.append(frame)
        self._bytes += len(frame.payload)
        if self.is_full:
            return False
        self.is_full = len(self._frames) >= self._max_messages or self._bytes >= self._max_bytes
        return self.is_full

    def pop(self) -> Frame | None:
        """Take the oldest message; None when there is none."""
        if not self._frames:
            return None
        frame = self._frames.popleft()
        self._bytes -= len(frame.payload)
        if self.is_full:
            is_half = (
                len(self._frames) <= self._max_messages // 2 and self._bytes <= self._max_bytes // 2
            )
            self.is_full = not is_half
        return frame

    def clear(self) -> int:
        """Drop all; return how many messages that were."""
        count = len(self._frames)
        self._frames.clear()
        self._bytes = 0
        self.is_full = False
        return count
