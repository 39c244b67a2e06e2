"""The transport of a client whose socket is gone: all of them share one, so that nothing of the socket
is kept for as long as somebody keeps the client.

What must not live here: when a socket is gone (the transports tell their session).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..wire.frame import Batch
    from .transport import Session


class LostTransport:
    """Takes nothing, closes nothing and has nothing to read. See `transport.Transport`."""

    writable: bool = False
    write_wire: Callable[[bytes], object] | None = None
    deflates: bool = False

    def bind(self, session: Session) -> None:
        """It is nobody's in particular."""

    def write(self, batch: Batch) -> None:
        """Drop what nobody can be sent."""

    def close(self, code: int, reason: str) -> None:
        """Do nothing: it is over."""

    def abort(self) -> None:
        """Do nothing: it is over."""

    def ping(self) -> bool:
        """Return False: nobody can answer."""
        return False

    def pause_reading(self) -> None:
        """Do nothing: nothing comes."""

    def resume_reading(self) -> None:
        """Do nothing: nothing comes."""

    def write_progress(self) -> int:
        """Return 0: nobody takes anything."""
        return 0


LOST: LostTransport = LostTransport()
"""The one that all clients share."""
