"""Which keys and channels of a server belong to a room, and to an application.

What must not live here: what is in them (`valkey_scripts`, `valkey_presence`).

All keys of a room are in one slot of a cluster. Whatever a room is called, its name reaches no key and no
channel of another room or application: in keys it is percent-encoded, and channels are never patterns.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote


class Names(NamedTuple):
    """The keys and channels of an application. In a cluster (`is_sharded`) a room's channel is in the slot of its keys.

    A prefix has no colon. The server has keys for each `database`, and channels for all of them together.
    """

    prefix: str
    is_sharded: bool = False
    database: int = 0

    @property
    def _channels(self) -> str:
        """With what channels begin."""
        return f"{self.prefix}@{self.database}" if self.database else self.prefix

    def channel(self, room: str) -> bytes:
        """Return where publications of a room come."""
        if self.is_sharded:
            return self.key(room, "c").encode()
        return f"{self._channels}:r:".encode() + _bytes(room)

    @property
    def control(self) -> bytes:
        """Where nodes speak to one another."""
        return f"{self._channels}:control".encode()

    @property
    def mark(self) -> str:
        """What is gone when a server has forgotten everything."""
        return f"{self.prefix}:mark"

    @property
    def format(self) -> str:
        """What names the form in which nodes write, for as long as one of them is there."""
        return f"{self.prefix}:format"

    def format_beside(self, mark: str) -> str:
        """Return that key as it is on the server, or in the slot, that has a mark."""
        return self.format + mark.removeprefix(self.mark)

    def mark_in(self, has: Callable[[bytes], bool]) -> str:
        """Return a mark whose key has a property, as that a shard of a cluster has its slot."""
        keys = (f"{self.mark}:{{{number}}}" for number in itertools.count())
        return next(key for key in keys if has(key.encode()))

    def note(self, name: str) -> str:
        """Return the key of a text that nodes keep for one another."""
        return f"{self.prefix}:note:{quote(_bytes(name), safe='')}"

    def key(self, room: str, kind: str, more: str = "") -> str:
        """Return a key of a room. `more` may be any text."""
        name = quote(_bytes(room), safe="") or "%"
        return f"{self.prefix}:{{{name}}}:{kind}{quote(_bytes(more), safe='')}"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
