"""The contract between a transport and a hub: what each of them owes the other.

What must not live here: an implementation. A transport is to a hub what a socket is to asyncio, and a
`Session` is to a transport what an `asyncio.Protocol` is to a socket: the hub calls `Transport`, a
transport calls `Session`, and neither knows anything else of the other. Everything is called on the
hub's event loop, and returns at once.

The life of a connection, as both see it:

    bind                      once, before everything else
    receive, write, ...       in any order
    closed                    as soon as the end is known: the first call counts
    connection_lost           once, when the socket is gone; nothing is called after it

A hub that wants to end a connection calls `close` (or `abort`), counts the client as gone in the same
step, and waits for `connection_lost`, which the transport owes within a bounded time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Protocol

from ..limits import TurnBudget
from ..model import Close
from ..wire.frame import Batch, Frame


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """What a transport has to know of the settings. One object serves all transports of a hub.

    `max_message_bytes` bounds one inbound message (None: no bound), `write_timeout_s` how long a
    close may take (None: the transport's own bound). A transport that cannot stop its peer may read
    `read_ahead_messages` or `read_ahead_bytes` a second while reading is paused. `inflating` is what
    all transports together may inflate in one turn of the event loop. `clock` gives seconds.
    """

    max_message_bytes: int | None
    write_timeout_s: float | None
    read_ahead_messages: int
    read_ahead_bytes: int
    inflating: TurnBudget
    clock: Callable[[], float]


class Session(Protocol):
    """What a transport may call: the hub's side of one connection."""

    last_seen: float
    """When the peer last gave a sign of life, by `limits.clock`. The transport writes it when bytes
    come, before it makes messages of them."""

    limits: TransportLimits
    """What the transport has to keep."""

    context: Context
    """The context of the handshake. What the peer sends is handled in it, or in a copy of it."""

    @property
    def has_waiting(self) -> bool:
        """Whether the hub holds back messages for this client until the transport is writable."""
        ...

    def receive(self, frame: Frame) -> None:
        """Take one whole message: unmasked, inflated, valid UTF-8 if it is text, within the limits."""
        ...

    def charge_frame(self, *, droppable: bool) -> bool:
        """Charge a frame that costs work and is no message: a ping, a pong, a tiny fragment.

        False: the client sends too many of them, and this one is to be dropped. One that cannot be
        dropped (a fragment) has closed the client.
        """
        ...

    def write_blocked(self) -> None:
        """The transport is not `writable` any more. Twice is no error."""
        ...

    def write_resumed(self) -> None:
        """The transport is `writable` again. What waits is written within this call."""
        ...

    def flush(self) -> None:
        """Have all written that this turn has for the client; to be called before the last frame."""
        ...

    def violated(self, code: int, reason: str) -> None:
        """The peer broke RFC 6455 or a limit. The transport closes the connection by itself."""
        ...

    def failed(self, error: BaseException | None) -> None:
        """The transport itself has failed (None: it was cancelled): the hub closes the client, 1011."""
        ...

    def closed(self, close: Close) -> None:
        """The connection ends: from now on nothing reaches the peer. The first call counts."""
        ...

    def connection_lost(self) -> None:
        """The socket is gone. If `closed` was not called, the client was cut off (1006)."""
        ...

    def server_stopping(self) -> None:
        """The server begins its shutdown: the hub closes all its clients, paced."""
        ...


class Transport(Protocol):
    """What a transport owes: how bytes reach one client."""

    writable: bool
    """Whether `write` may be called now. Says so to the session when it changes."""

    write_wire: Callable[[bytes], object] | None
    """Writes wire bytes straight to a socket, for transports that have one (else None). It is called
    only while the transport is `writable` and nothing waits."""

    deflates: bool
    """Whether the client negotiated permessage-deflate, and is owed batches in that form. It never
    changes, so it is an attribute of the class where it can be, and costs a client nothing."""

    def bind(self, session: Session) -> None:
        """Learn whose transport this is. Called once, before everything else."""
        ...

    def write(self, batch: Batch) -> None:
        """Take a whole batch, however large. Called only while `writable`; may end that."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Send a close frame after all that was written, and after what the session `has_waiting`;
        end within a bound. The second call is no error and has no effect."""
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

    def write_progress(self) -> int:
        """Return a number that changes whenever the peer took some of what is buffered."""
        ...


EXTENSION = "hubbub"
"""The key in `scope["extensions"]` under which a server's socket offers itself to a hub."""


class HandshakeSocket(Protocol):
    """A server's socket during its handshake: what the hub's endpoint may ask of it.

    `scope["extensions"][EXTENSION]["socket"]` is one. In this order: `stop_deadline`, `claim`, the
    ASGI event that accepts, `detach`, and in the same turn `read_buffered`.
    """

    @property
    def is_open(self) -> bool:
        """Whether the handshake can still be answered: nobody has done that, and the peer is there."""
        ...

    def stop_deadline(self, shutdown_timeout_s: float) -> None:
        """Let the handshake take its time: a hub sees to its end, and has so long at a shutdown."""
        ...

    def claim(self, *, deflate: bool) -> None:
        """Offer no compression of the server's own; negotiate the hub's, if `deflate`.

        Raises `Refused` for offers that cannot be read.
        """
        ...

    def detach(self, report: Callable[[BaseException], None]) -> Transport | None:
        """Hand the socket over, after the handshake was accepted; None if it is gone already.

        What the application raises from then on is no answer to anybody, and goes to `report`.
        """
        ...

    def read_buffered(self) -> None:
        """Deliver what the client sent before its handshake was answered."""
        ...
