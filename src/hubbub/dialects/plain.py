"""The plain dialect: text, binary, and JSON objects with a `type`.

What must not live here: who gets a message. See `dialect` for the contract.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..wire.frame import Frame, encode
from ..wire.presence import Told, told_frame
from ..wire.publication import Kind
from .dialect import (
    Command,
    Dialect,
    ErrorReply,
    Event,
    Gap,
    Joined,
    Left,
    Message,
    PresencePaused,
    Published,
    RefreshDue,
)


class PlainDialect:
    """Messages are the application's own, as they are; the hub adds a JSON object now and then."""

    name: str = "plain"
    subprotocols: tuple[str, ...] = ()
    is_plain: bool = True

    def parse(self, frame: Frame) -> Sequence[Command]:
        """Return nothing: there are no commands."""
        return ()

    def encode(self, event: Event) -> Frame | None:
        """Return a message as it is, and what the hub itself has to say as a JSON object.

        That is `{"type": "error", "code": …, "message": …}`, `{"type": "refresh", "expires_in_s": …}` and
        `{"type": "gap", "room": …}` for who has missed something, or may have. What tells of joins
        and leaves is in this form already when it is published: see `wire.presence`.
        """
        match event:
            case Published(publication):
                return publication.frame
            case Message(message):
                return message
            case ErrorReply(_, error):
                return encode(error.reply())
            case Gap(room):
                return encode({"type": "gap", "room": room})
            case Joined(room, infos):
                return told_frame(room, Told(Kind.JOIN, infos))
            case Left(room, infos):
                return told_frame(room, Told(Kind.LEAVE, infos))
            case PresencePaused(room, is_paused):
                return told_frame(room, Told(Kind.JOIN, (), is_paused=is_paused))
            case RefreshDue(left_s):
                return encode({"type": "refresh", "expires_in_s": round(left_s, 3)})
            case _:
                return None

    def merge(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Return the frames as they are: one WebSocket message for each message, always."""
        return frames


PLAIN: Dialect = PlainDialect()
"""The plain dialect: one object serves everybody."""
