"""The contract of a transport: how bytes reach one client.

What must not live here: an implementation. `client` and `fanout` call transports; a transport
calls back `Client.pump` when it is writable again, and the registry with what arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from .frame import Batch

if TYPE_CHECKING:
    from .client import Client


class Transport(Protocol):
    """What a transport owes. Everything is called on the event loop and returns at once."""

    writable: bool
    """Whether `write` may be called now. A transport that becomes writable calls `Client.pump`."""

    raw_write: Callable[[bytes], object] | None
    """Writes wire bytes straight to a socket, for transports that have one (else None). The
    fan-out calls it only while the client is `fast`; the transport owns that flag."""

    deflates: bool
    """Whether the client negotiated permessage-deflate, and is owed batches in that form. It never
    changes, so it is an attribute of the class where it can be, and costs a client nothing."""

    def bind(self, client: Client) -> None:
        """Learn whose transport this is. Called once, before everything else."""
        ...

    def write(self, batch: Batch) -> None:
        """Take a whole batch, however large. Called only while `writable`; may end that."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Say goodbye with a close frame after all that was written; end within a bound."""
        ...

    def abort(self) -> None:
        """End the connection now."""
        ...

    def ping(self) -> bool:
        """Ask for a sign of life; False if this transport has no way to."""
        ...

    def pause_reading(self) -> None:
        """Read no more from the peer, until `resume_reading`: its messages pile up in the hub.

        While a handler runs the transport goes on reading, so that pings, pongs and the end of the
        connection are taken at all times; the hub keeps the messages. It calls this when there are
        too many.
        """
        ...

    def resume_reading(self) -> None:
        """Read again, what was held back first; never from within this call."""
        ...

    def progress(self) -> int:
        """Return a number that changes whenever the peer took some of what is buffered."""
        ...
