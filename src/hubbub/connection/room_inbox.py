"""What was read of a room and not taken by the program yet, and how far both have come.

Pure: no event loop. What must not live here: what becomes of a room whose inbox is full (`room_state`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from ..model import Position
from .protocol import Published

MAX_ROOM_MESSAGES = 1000
"""How many messages of a room are read ahead of the program."""
MAX_ROOM_BYTES = 2**20
"""How many bytes of messages; one message at least."""


class Item(NamedTuple):
    """A message, or a gap (`data` is None), and the position of who has taken it. `info` is who published the
    message, as `protocol.publisher_of` reads it."""

    data: bytes | None
    offset: int | None
    after: Position | None
    info: bytes = b""

    @property
    def nbytes(self) -> int:
        """How many bytes are held for it."""
        return len(self.data or b"") + len(self.info)


class RoomInbox:
    """The messages of one room, in order, and two positions.

    `taken` is the position after the last message that the program has taken, `read` after the last
    that was put here: the room is asked for from there. None: the room keeps no history, or nothing is
    known of it yet.
    """

    def __init__(self, since: Position | None = None) -> None:
        self.taken: Position | None = since
        self.read: Position | None = since
        self._items: deque[Item] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_full(self) -> bool:
        """Whether no more should be put here."""
        return len(self._items) >= MAX_ROOM_MESSAGES or self._bytes >= MAX_ROOM_BYTES

    def put(self, message: Published) -> None:
        """Add a message."""
        offset = message.offset or None
        if self.read is not None and offset is not None:
            self.read = Position(offset, self.read.epoch)
        self._append(Item(bytes(message.data), offset, self.read, bytes(message.info)))

    def put_all(self, messages: Sequence[Published]) -> bool:
        """Add messages as long as there is room; return whether all were added."""
        for message in messages:
            if self.is_full:
                return False
            self.put(message)
        return True

    def begin(self, position: Position | None, *, is_whole: bool) -> None:
        """Note where the room is read from now on.

        `is_whole`: what follows at once is all there is to know, so that the program has no position
        before it has taken that.
        """
        self.read = position
        if not self._items:
            self.taken = None if is_whole else position

    def put_gap(self, position: Position | None, *, is_whole: bool) -> None:
        """Note that something is missing here, and where the room is read from now on; see `begin`."""
        self._append(Item(None, None, None if is_whole else position))
        self.read = position

    def take(self) -> Item:
        """Remove and return the oldest."""
        item = self._items.popleft()
        self._bytes -= item.nbytes
        self.taken = item.after
        return item

    def clear(self) -> None:
        """Forget what was read ahead."""
        self._items.clear()
        self._bytes = 0
        self.read = self.taken

    def _append(self, item: Item) -> None:
        self._items.append(item)
        self._bytes += item.nbytes
