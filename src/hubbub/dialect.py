"""The contract of a dialect: what the bytes mean to a client.

What must not live here: an implementation. `handlers` asks a dialect for decoders when a handler
is registered, `dispatcher` uses them for each message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .errors import CommandError
from .frame import Frame

Decoder = Callable[[Frame], Any]
"""Turns a frame into what a handler asked for, or raises `CommandError`."""


class Dialect(Protocol):
    """What a dialect owes. All methods are pure and may be called from the event loop only."""

    def decoder(self, annotation: Any, kind: str | None = None) -> Decoder:
        """Return a decoder for a handler's annotation.

        Raises `TypeError` for one that it cannot read, or that no message fits; with `kind`, no
        message whose type is that.
        """
        ...

    def type_of(self, frame: Frame) -> str | None:
        """Return the message's type, by which it finds its handler; None when it has none."""
        ...

    def refresh(self, left_s: float) -> Frame:
        """Return the frame that asks for a new token, for one that ends in `left_s` seconds."""
        ...

    def error(self, error: CommandError) -> Frame:
        """Return the frame that answers a message with an error."""
        ...
