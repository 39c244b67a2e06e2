"""Which keys and channels of a server belong to a room, and to an application.

What must not live here: what is in them (`valkey_scripts`, `valkey_presence`).

All keys of a room are in one slot of a cluster. Whatever a room is called, its name reaches no key and no
channel of another room or application: in keys it is percent-encoded, and channels are never patterns.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote


class Names(NamedTuple):
    """The keys and channels of an application."""

    prefix: str

    def channel(self, room: str) -> bytes:
        """Return where publications of a room come."""
        return f"{self.prefix}:r:".encode() + _bytes(room)

    @property
    def control(self) -> bytes:
        """Where nodes speak to one another."""
        return f"{self.prefix}:control".encode()

    @property
    def mark(self) -> str:
        """What is gone when a server has forgotten everything."""
        return f"{self.prefix}:mark"

    @property
    def format(self) -> str:
        """What names the form in which nodes write, for as long as one of them is there."""
        return f"{self.prefix}:format"

    def note(self, name: str) -> str:
        """Return the key of a text that nodes keep for one another."""
        return f"{self.prefix}:note:{quote(_bytes(name), safe='')}"

    def key(self, room: str, kind: str, more: str = "") -> str:
        """Return a key of a room. `more` may be any text."""
        name = quote(_bytes(room), safe="") or "%"
        return f"{self.prefix}:{{{name}}}:{kind}{quote(_bytes(more), safe='')}"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
