"""Which subjects and streams of a NATS server belong to a room, and to an application.

What must not live here: what is in them (`nats_history`, `nats_presence`).

A prefix, a room, a name is one token each, percent-encoded, so none is ever a wildcard or reaches another. One that is
too long for a subject is named by its SHA-256.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple
from urllib.parse import quote

LONGEST_TOKEN = 1024
"""A subject stands in a line of 4096 bytes at most, twice in some."""


class NatsNames(NamedTuple):
    """The subjects and streams of an application."""

    prefix: str

    @property
    def _top(self) -> str:
        return _token(self.prefix)

    def stream(self, what: str) -> str:
        """Return the name of a stream: "rooms", or "presence". It is a file's name too."""
        return f"hubbub_{quote(self.prefix, safe='').replace('.', '%2E')}_{what}".replace("%", "=")

    @property
    def in_rooms(self) -> list[str]:
        """What the stream "rooms" keeps: histories, publications with a key, notes."""
        return [f"{self._top}.s.*.*", f"{self._top}.n.*"]

    @property
    def in_presence(self) -> list[str]:
        """What the stream "presence" keeps."""
        return [f"{self._top}.p.*"]

    @property
    def told_of_rooms(self) -> dict[str, str]:
        """What the stream "rooms" hands on when it has stored it, and where."""
        return {"src": f"{self._top}.s.*.*", "dest": f"{self._top}.r.{{{{wildcard(2)}}}}"}

    @property
    def told_of_presence(self) -> dict[str, object]:
        """The same for the stream "presence": what is told is in the headers."""
        dest = f"{self._top}.r.{{{{wildcard(1)}}}}"
        return {"src": f"{self._top}.p.*", "dest": dest, "headers_only": True}

    @property
    def control(self) -> str:
        """Where nodes speak to one another."""
        return f"{self._top}.control"

    @property
    def format(self) -> str:
        """Where they say in which form they write."""
        return f"{self._top}.format"

    @property
    def inbox(self) -> str:
        """Below this they get the answers to what they have asked."""
        return f"{self._top}.i"

    def room(self, room: str) -> str:
        """Return where publications of a room come."""
        return f"{self._top}.r.{_token(room)}"

    def history(self, room: str) -> str:
        """Return where publications of a room are kept."""
        return f"{self._top}.s.h.{_token(room)}"

    @property
    def history_of_all(self) -> str:
        """Every `history`."""
        return f"{self._top}.s.h.*"

    def keyed(self, room: str) -> str:
        """Return where publications with a key go that are not kept."""
        return f"{self._top}.s.k.{_token(room)}"

    def presence(self, room: str) -> str:
        """Return where it is kept who is in a room."""
        return f"{self._top}.p.{_token(room)}"

    def note(self, name: str) -> str:
        """Return where a text is that nodes keep for one another."""
        return f"{self._top}.n.{_token(name)}"

    def unique(self, room: str, key: str) -> str:
        """Return by which id a stream knows a publication's key again."""
        both = f"{len(room)}:{room}{key}"
        return hashlib.sha256(both.encode("utf-8", "surrogatepass")).hexdigest()


def _token(text: str) -> str:
    encoded = text.encode("utf-8", "surrogatepass")
    token = quote(encoded, safe="").replace(".", "%2E") or "%"
    # What is encoded never has two of these in a row.
    return token if len(token) <= LONGEST_TOKEN else f"%%{hashlib.sha256(encoded).hexdigest()}"
