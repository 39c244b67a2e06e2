"""Client: the server's record of one live connection.

What must not live here: sockets (a transport has them) and the registry's books (it is asked).
Application code and the hub's modules call it; all of it belongs to the event loop's thread,
except `send` and `close`, which may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Protocol

from .errors import NORMAL
from .frame import Batch, Frame, encode
from .model import EVERYBODY, USER_PREFIX, Close
from .outbox import Entry, Outbox, Overflow

if TYPE_CHECKING:
    from asyncio import Task

    from .inbox import Inbox
    from .limits import TokenBucket
    from .room import Members
    from .transport import Transport


class Books(Protocol):
    """What a client asks of the registry."""

    def join(self, client: Client, room: str) -> None: ...
    def leave(self, client: Client, room: str) -> None: ...
    def send(self, client: Client, frame: Frame) -> bool: ...
    def renew(self, client: Client, expires_at: float | None) -> None: ...
    def disconnect_client(self, client: Client, code: int, reason: str) -> None: ...

    @property
    def warden(self) -> Reports: ...


class Reports(Protocol):
    """What a client tells the warden."""

    def new_outbox(self, client: Client) -> Outbox: ...
    def wrote(self, batch: Batch) -> None: ...
    def overflowed(self, client: Client, overflow: Overflow) -> None: ...
    def dropped(self, client: Client, count: int) -> None: ...
    def caught_up(self, client: Client, count: int) -> None: ...


class Client:
    """One live connection.

    `id` is unique in the process, `user` the name that authentication gave (None: anonymous),
    `address` the peer's (None: unknown), `connected_at` a Unix time in seconds, `dropped` how many
    messages its outbox has dropped so far.
    """

    __slots__ = (
        "__weakref__",
        "_hub",
        "_is_cut",
        "_meta",
        "_missed",
        "address",
        "bucket",
        "busy",
        "close_info",
        "connected_at",
        "context",
        "dropped",
        "fast",
        "frame_bucket",
        "id",
        "inbox",
        "memberships",
        "outbox",
        "raw_write",
        "seen",
        "task",
        "transport",
        "user",
    )

    def __init__(
        self,
        hub: Books,
        client_id: str,
        transport: Transport,
        *,
        user: str | None = None,
        meta: Mapping[str, Any] | None = None,
        address: str | None = None,
        connected_at: float = 0.0,
    ) -> None:
        self.id: str = client_id
        self.user: str | None = user
        self.address: str | None = address
        self.connected_at: float = connected_at
        self.dropped: int = 0
        self.transport: Transport = transport
        self.raw_write: Callable[[bytes], object] | None = transport.raw_write
        self.fast: bool = transport.raw_write is not None
        self.memberships: dict[str, Members] = {}
        self.outbox: Outbox | None = None
        self.close_info: Close | None = None
        self.seen: float = 0.0
        self.busy: bool = False
        self.task: Task[None] | None = None
        self.inbox: Inbox | None = None
        self.context: Context = copy_context()
        self.bucket: TokenBucket | None = None
        self.frame_bucket: TokenBucket | None = None
        self._hub = hub
        self._meta: dict[str, Any] | None = dict(meta) if meta else None
        self._missed = 0
        self._is_cut = False

    def __repr__(self) -> str:
        user = "" if self.user is None else f" user={self.user!r}"
        return f"<Client {self.id}{user}>"

    @property
    def meta(self) -> dict[str, Any]:
        """A dictionary of the application's own; it lives as long as the client."""
        if self._meta is None:
            self._meta = {}
        return self._meta

    @property
    def rooms(self) -> frozenset[str]:
        """The names of the rooms that the client is in; after its end, of those it was in last."""
        return frozenset(
            name for name in self.memberships if name != EVERYBODY and name[0] != USER_PREFIX
        )

    @property
    def is_connected(self) -> bool:
        """Whether messages can still reach the client."""
        return self.close_info is None

    @property
    def is_held(self) -> bool:
        """Whether so many messages wait for its handler that its socket is not read."""
        return self.inbox is not None and self.inbox.is_full

    def send(self, data: Any) -> bool:
        """Send to this client alone; see `hubbub.frame.encode` for what becomes of `data`.

        Takes its place in the order of what this process publishes. Returns False, and counts it
        as `sends_to_gone`, when the client is gone already. Never blocks; any thread.
        """
        return self._hub.send(self, encode(data))

    def join(self, room: str) -> None:
        """Become a member of `room`; being one already is no error.

        Raises `CommandError` for a name that is not allowed or when the client is in
        `max_rooms_per_client` rooms already. A client that is gone joins nothing. Event loop only.
        """
        self._hub.join(self, room)

    def leave(self, room: str) -> None:
        """Stop being a member of `room`; not being one is no error. Event loop only."""
        self._hub.leave(self, room)

    def renew(self, expires_at: float | None) -> None:
        """Let the client stay until `expires_at` (Unix time in seconds; None: for good).

        For a client that has shown a new token; see `Identity.expires_at`. A time that has passed
        closes it within a second. A client that is gone stays gone. Raises `ValueError` for a time
        that is none. Event loop only.
        """
        self._hub.renew(self, expires_at)

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close the connection with `code` and `reason` (cut to 123 bytes of UTF-8).

        What was sent before is delivered first. Closing twice is no error. Raises `ValueError` for
        a code that RFC 6455 section 7.4 does not let an endpoint send. Any thread.
        """
        self._hub.disconnect_client(self, code, reason)

    # What follows is the hub's side: the way of a batch into the transport or the outbox.

    def offer(self, entries: Iterable[Entry]) -> None:
        """Write entries to the transport, or queue them in the outbox while it is not writable."""
        for entry in entries:
            if self.close_info is not None:
                return
            if self._is_cut:
                self._drop(len(entry.batch))
            elif self.transport.writable and not self.outbox:
                self._hub.warden.wrote(entry.batch)
                self.transport.write(entry.batch)
            else:
                self._queue(entry)

    def pump(self) -> None:
        """Move what waits into the transport while it is writable. Transports call it."""
        if self._is_cut:
            return
        outbox = self.outbox
        if outbox is not None:
            while self.transport.writable:
                batch = outbox.pop()
                if batch is None:
                    break
                self._hub.warden.wrote(batch)
                self.transport.write(batch)
            if outbox:
                return
            self.outbox = None
        if self._missed and self.transport.writable and self.close_info is None:
            missed, self._missed = self._missed, 0
            self._hub.warden.caught_up(self, missed)

    def _queue(self, entry: Entry) -> None:
        if self.outbox is None:
            self.outbox = self._hub.warden.new_outbox(self)
        try:
            dropped = self.outbox.push(entry)
        except Overflow as overflow:
            # It is closed after the running fan-out, and must not see what comes after the gap.
            self._is_cut = True
            self.outbox.clear()
            self._hub.warden.overflowed(self, overflow)
            return
        if dropped:
            self._missed += dropped
            self._drop(dropped)

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._hub.warden.dropped(self, count)
