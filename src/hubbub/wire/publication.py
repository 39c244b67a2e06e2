"""Publication: a message on its way to a room.

What must not live here: order and spread (a broker gives them), delivery, and what the bytes look like
to a client (a dialect).
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

import msgspec

from ..model import ClientInfo, Position
from .frame import Frame


class Kind(Enum):
    """What a publication tells of: a message, or that somebody joined or left."""

    MESSAGE = "message"
    JOIN = "join"
    LEAVE = "leave"


class Publication(msgspec.Struct, eq=False, gc=False):
    """A message on its way to a room: what a broker orders, keeps and spreads.

    `room` is the room's name (`EVERYBODY` for a broadcast), `frame` the encoded message; `data` and
    `is_text` are its bytes. `exclude` names a connection that does not get it: such a name is made
    once, and belongs to no other connection in any process. `key` is the publisher's own name for the
    message, by which a broker that can tells a second try from a second message (None: it has none).
    `kind` says what it tells of, `origin` which node published it (None: not said), `time_ms` when, as
    a Unix time in milliseconds (None: not said). `publisher` is the client that published it by a command of its
    own, as others see it in that room (None: no client has). `position` is what the broker gave it.
    `base` is the message before it in its room, where there are members that take patches, and `made` what `forms`
    returns (None: not asked for yet): both are the hub's own.
    """

    # One is made for every message, and many live until the end of their turn: a Struct is made in C, and is nothing
    # that the garbage collector has to look at. It refers to nothing that could refer to it.
    room: str
    frame: Frame
    exclude: str | None = None
    position: Position | None = None
    key: str | None = None
    kind: Kind = Kind.MESSAGE
    origin: str | None = None
    time_ms: int | None = None
    publisher: ClientInfo | None = None
    base: Frame | None = None
    made: dict[object, Frame | None] | None = None

    @property
    def data(self) -> bytes:
        """The message's bytes, for brokers that carry them."""
        return self.frame.payload

    @property
    def is_text(self) -> bool:
        """Whether the bytes are text (UTF-8)."""
        return self.frame.is_text

    @property
    def forms(self) -> dict[object, Frame | None]:
        """What dialects have made of it so far, by dialect: each makes it once."""
        made = self.made
        if made is None:  # most publications meet one dialect, which takes them as they are
            made = self.made = {}
        return made

    def __repr__(self) -> str:
        return f"Publication(room={self.room!r}, {len(self.frame.payload)} bytes)"


class Subscribed(NamedTuple):
    """What `Client.subscribe` answers: the client is in `room`.

    In a room that keeps a history `position` is where it stands; the client can come back with it (its
    epoch says who the client was too, so that it is not served later what it was excluded from). None:
    the room keeps no history. `recovered` says that `publications` are all that it missed since the
    position that it came with; otherwise there are none, but for a room of which only the newest counts
    (that one), a stream (the text so far, in one: there is always one of a stream), and who came with
    `Position(0, "")` (all that is kept).
    `expires_in_s` says when the token ends by which the client is in (None: it needs none).
    `is_recoverable` says whether it can come back with its position and be given what it missed,
    `takes_patches` that a message may come as the difference to the one before it. `data` is what the token by which
    the client is in says to it (None: nothing).
    """

    room: str
    position: Position | None = None
    recovered: bool = False
    publications: tuple[Publication, ...] = ()
    expires_in_s: float | None = None
    is_recoverable: bool = False
    takes_patches: bool = False
    data: Any = None
