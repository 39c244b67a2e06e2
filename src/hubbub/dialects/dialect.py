"""The contract of a dialect: what the bytes mean to a client.

What must not live here: an implementation; what a handler gets of a message (`decoders`).
"""

from __future__ import annotations

from typing import Protocol

from ..errors import CommandError
from ..wire.frame import Frame


class Dialect(Protocol):
    """What a dialect owes. All methods are pure and may be called from the event loop only."""

    def refresh(self, left_s: float) -> Frame:
        """Return the frame that asks for a new token, for one that ends in `left_s` seconds."""
        ...

    def error(self, error: CommandError) -> Frame:
        """Return the frame that answers a message with an error."""
        ...
