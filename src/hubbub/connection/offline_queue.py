"""What a client program sends while it has no connection: a queue with bounds.

Pure: no socket, no event loop. What must not live here: when its messages are sent (`connection`).
"""

from __future__ import annotations

from collections import deque

from ..wire.frame import Frame


class OfflineQueue:
    """The messages that wait for a connection, bounded in number and bytes: the oldest go first."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        if max_messages < 0 or max_bytes < 0:
            raise ValueError(
                f"max_queue={max_messages}, max_queue_bytes={max_bytes}: must not be negative"
            )
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._frames: deque[Frame] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    def append(self, frame: Frame) -> None:
        """Add a message; `trim` says what there is no room for."""
        self._frames.append(frame)
        self._bytes += len(frame.payload)

    @property
    def first(self) -> Frame:
        """The oldest message."""
        return self._frames[0]

    def take(self) -> Frame:
        """Remove and return the oldest message."""
        frame = self._frames.popleft()
        self._bytes -= len(frame.payload)
        return frame

    def trim(self) -> int:
        """Drop what is over the bounds and return how many messages that were.

        A message that is too large for an empty queue goes alone: it does not take others along.
        """
        before = len(self._frames)
        if self._frames and len(self._frames[-1].payload) > self._max_bytes:
            self._bytes -= len(self._frames.pop().payload)
        while len(self._frames) > self._max_messages or self._bytes > self._max_bytes:
            self.take()
        return before - len(self._frames)

    def clear(self) -> int:
        """Drop everything and return how many messages that were."""
        count = len(self._frames)
        self._frames.clear()
        self._bytes = 0
        return count
