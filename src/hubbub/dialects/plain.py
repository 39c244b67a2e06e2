"""The plain dialect: text, binary, and JSON objects with a `type`.

What must not live here: who gets a message. See `dialect` for the contract.
"""

from __future__ import annotations

from ..errors import CommandError
from ..wire.frame import Frame, encode


class PlainDialect:
    """What the hub itself has to say is a JSON object with a `type`; all else is the application's."""

    def refresh(self, left_s: float) -> Frame:
        """Return `{"type": "refresh", "expires_in_s": …}` as a frame."""
        return encode({"type": "refresh", "expires_in_s": round(left_s, 3)})

    def error(self, error: CommandError) -> Frame:
        """Return `{"type": "error", "code": …, "message": …}` as a frame."""
        return encode(error.reply())
