"""ClientSession: the hub's side of one connection, which its transport calls.

What must not live here: sockets (a transport has them), the tables (`registry`), handlers
(`dispatcher`). This is the one place that knows whether a connection is dead, and whether bytes may
be written to its socket directly. All of it belongs to the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING

from ..errors import ABNORMAL
from ..limits import printable
from ..model import ClientInfo, Close
from ..transports.lost import LOST
from ..transports.transport import Transport, TransportLimits
from ..wire.frame import Batch, Frame
from .disconnects import INTERNAL_FAILURE, SLOW_CONSUMER
from .outbox import Entry, Outbox, Overflow

if TYPE_CHECKING:
    from asyncio import Task

    from ..dialects.dialect import Dialect
    from ..limits import TokenBucket
    from .admission import Place
    from .attempt import Attempt
    from .client import Client
    from .connecting import Opening
    from .core import Core
    from .dispatcher import Dispatcher
    from .inbox import Inbox
    from .room import Membership
    from .variant import Variant


class ClientSession:
    """One connection, from the accepted handshake to the end of its socket. See `transport.Session`.

    `client` is what the application sees of it. `close` says how the connection ended (None: it
    has not). `writes_directly` says whether the fan-out may call `write_wire`.
    """

    __slots__ = (
        "_core",
        "_id",
        "_is_cut",
        "_missed",
        "behind",
        "client",
        "close",
        "command_bucket",
        "context",
        "dispatcher",
        "dropped",
        "former_names",
        "frame_bucket",
        "gaps",
        "handler_task",
        "inbox",
        "infos",
        "is_handling",
        "joining",
        "last_seen",
        "limits",
        "memberships",
        "message_bucket",
        "opening",
        "outbox",
        "place",
        "transport",
        "unasked",
        "variant",
        "write_wire",
        "writes_directly",
    )

    client: Client

    def __init__(self, core: Core, transport: Transport, dialect: Dialect) -> None:
        self._core = core
        is_plain = dialect.is_plain
        self.dispatcher: Dispatcher = core.first_message if is_plain else core.commands
        self._id: str | None = None
        self._is_cut = False
        self._missed = 0
        self.limits: TransportLimits = core.limits if is_plain else core.limits_of(dialect)
        self.transport: Transport = transport
        self.close: Close | None = None
        self.context: Context = copy_context()
        self.last_seen: float = core.clock()
        self.memberships: dict[str, Membership] = {}
        self.outbox: Outbox | None = None
        self.inbox: Inbox | None = None
        self.is_handling: bool = False
        self.handler_task: Task[None] | None = None
        self.message_bucket: TokenBucket | None = None
        self.command_bucket: TokenBucket | None = None
        self.frame_bucket: TokenBucket | None = None
        self.place: Place | None = None
        self.opening: Opening | None = None
        self.joining: dict[str, Attempt] | None = None
        self.infos: dict[str, ClientInfo] | None = None
        """What others see of the client, by room, as far as it is known; see `client_infos`."""
        self.dropped: int = 0
        self.behind: set[str] | None = None
        """The rooms of which it has missed something that it has to know of (see `Outbox.gaps`); it is told when
        it can take it."""
        self.unasked: frozenset[str] = frozenset()
        """The streams that the server has put a plain client into without asking whether it may be in."""
        self.former_names: tuple[str, ...] = ()
        """Under which names the client was connected before, the last at the end; see `connection_id`."""
        self.gaps: tuple[int, float] | None = None
        """How often that has happened lately, and since when; see `recovery`."""
        self.variant: Variant = core.variants.get(dialect, deflates=transport.deflates)
        transport.bind(self)
        self.write_wire: Callable[[bytes], object] | None = transport.write_wire
        self.writes_directly: bool = self.write_wire is not None and transport.writable

    def __repr__(self) -> str:
        return f"<ClientSession of {self.label}>"

    @property
    def label(self) -> str:
        """The client's id for a line of the log; before it is connected, where it comes from."""
        if self.is_connected:
            return self.client.id
        address = None if self.opening is None else self.opening.handshake.address
        return f"from {printable(address or 'an unknown address')}"

    @property
    def is_connected(self) -> bool:
        """Whether the connection is, or was, that of a client: it is known who that is."""
        return hasattr(self, "client")

    @property
    def connection_id(self) -> str:
        """A name for this connection that no other has, in any process, and that is never used again."""
        if self._id is None:
            self._id = self._core.registry.name_session(self)
        return self._id

    @property
    def all_names(self) -> tuple[str, ...]:
        """The names of this connection and of those that its client had before, this one at the end."""
        return (*self.former_names, self.connection_id)

    @property
    def has_connection_id(self) -> bool:
        """Whether anybody has asked for the `connection_id`."""
        return self._id is not None

    @property
    def has_waiting(self) -> bool:
        """See `transport.Session`."""
        return bool(self.outbox)

    @property
    def is_held(self) -> bool:
        """Whether so many messages wait for the client's handler that its socket is not read."""
        return self.inbox is not None and self.inbox.is_full

    def is_given(self, room: str) -> bool:
        """Tell whether the server has put a client that speaks in commands into a room: it cannot come back
        to that by itself."""
        return self.opening is not None and room in self.opening.given

    # What the transport calls

    def receive(self, frame: Frame) -> None:
        """See `transport.Session`. Hands the message to its handler, or keeps it while one runs."""
        dispatcher = self.dispatcher
        stats = dispatcher.stats
        stats.messages_in += 1
        stats.bytes_in += len(frame.payload)
        bucket = self.message_bucket
        if bucket is not None and not bucket.take(self.last_seen):
            self._core.rates.message_limited(self, bucket)
        elif self.is_handling:
            dispatcher.keep(self, frame)
        else:
            self.is_handling = True  # for plain handlers too: who closes the client ends it first
            try:
                dispatcher.take(self, frame)
            finally:
                if self.handler_task is None and self.inbox is None and self.close is None:
                    self.is_handling = False  # `handler_done` would do no more
                elif self.handler_task is None:
                    dispatcher.handler_done(self)

    def charge_frame(self, *, droppable: bool) -> bool:
        """See `transport.Session`."""
        return self._core.rates.charge_frame(self, droppable=droppable)

    def write_blocked(self) -> None:
        """See `transport.Session`."""
        self.writes_directly = False
        if self.close is None:
            self._core.liveness.write_blocked(self)

    def write_resumed(self) -> None:
        """See `transport.Session`."""
        self.drain()
        self.writes_directly = (
            self.write_wire is not None
            and self.transport.writable
            and self.outbox is None
            and self.close is None
            and not self._is_cut
            and not self.behind
        )

    def flush(self) -> None:
        """See `transport.Session`."""
        self._core.fanout.flush()

    def violated(self, code: int, reason: str) -> None:
        """See `transport.Session`."""
        self._core.registry.violated(self, code, reason)

    def failed(self, error: BaseException | None) -> None:
        """See `transport.Session`."""
        self._core.registry.end(self, INTERNAL_FAILURE, error=error)

    def closed(self, close: Close) -> None:
        """See `transport.Session`."""
        self._core.registry.remove(self, close)

    def connection_lost(self) -> None:
        """See `transport.Session`."""
        self._core.registry.transport_lost(self)
        self.closed(Close(ABNORMAL))
        # A client and its session know each other: what hangs on them is left to the garbage collector.
        self.transport, self.write_wire = LOST, None
        if self.is_connected:
            self.opening = None

    def server_stopping(self) -> None:
        """See `transport.Session`."""
        self._core.lifecycle.shut_down()

    # What the hub calls

    def note_close(self, close: Close) -> None:
        """Be dead from now on. The registry alone calls this, once."""
        self.close = close
        self.writes_directly = False

    def enqueue(self, entries: Iterable[Entry]) -> None:
        """Write entries to the transport, or queue them in the outbox while it is not writable."""
        for entry in entries:
            if self.close is not None:
                return
            if self._is_cut or (entry.remembers and self._has_left_behind(entry.room)):
                self._dropped(len(entry.batch))
            elif self.transport.writable and not self.outbox:
                self._write(entry.batch)
            else:
                self._queue(entry)

    def drain(self) -> None:
        """Move what waits into the transport while it is writable."""
        if self._is_cut:
            return
        outbox = self.outbox
        if outbox is not None:
            while self.transport.writable:
                batch = outbox.pop()
                if batch is None:
                    break
                self._write(batch)
            if outbox:
                return
            self.outbox = None
        if (
            not (self._missed or self.behind)
            or not self.transport.writable
            or self.close is not None
        ):
            return
        core = self._core
        if self._missed:
            missed, self._missed = self._missed, 0
            core.lifecycle.schedule(lambda: self.dispatcher.drained(self, missed))
        if self.behind:  # it may have been told so before, while it could take no more
            core.lifecycle.schedule(lambda: core.gaps.note_dropped(self))

    def give_up_waiting(self) -> None:
        """Drop what waits, and all that would come behind that: it is too slow, and about to be closed."""
        if self.outbox is not None:
            self._is_cut = True
            self.count_lost(self.outbox.clear())

    def count_lost(self, count: int) -> None:
        """Count messages that this client will never get, since it is slow."""
        self.dropped += count
        self._core.stats.dropped += count

    def _write(self, batch: Batch) -> None:
        stats = self._core.stats
        stats.messages_out += len(batch)
        stats.bytes_out += len(batch.wire)
        self.transport.write(batch)

    def _queue(self, entry: Entry) -> None:
        if self.outbox is None:
            self.write_blocked()
            settings = self._core.settings
            self.outbox = Outbox(settings.outbox_max_entries, settings.outbox_max_bytes)
        try:
            dropped = self.outbox.push(entry)
        except Overflow as overflow:
            self._cut(overflow.lost)
            return
        if self.outbox.gaps is not None:
            dropped += self._fall_behind(self.outbox, self.outbox.gaps)
        if dropped:
            self._missed += dropped
            self._dropped(dropped)

    def told_of_gaps(self) -> None:
        """The client knows of its gaps: it is written to directly again, if that can be."""
        self.behind = None
        self.write_resumed()

    def _has_left_behind(self, room: str) -> bool:
        """Tell whether nothing more of a room may come before the client knows that there is a gap."""
        behind = self.behind
        return behind is not None and room in behind and self.leaves_for_gap(room)

    def leaves_for_gap(self, room: str) -> bool:
        """Tell whether it may get nothing more of a room of which something was dropped, before it has come back:
        with its position, or to a text so far."""
        rules = self._core.rules
        return rules.remembers(room) and (
            not self.variant.dialect.is_plain or rules.is_stream(room)
        )

    def _fall_behind(self, outbox: Outbox, rooms: set[str]) -> int:
        """Note rooms of which something was dropped; return how many messages more are.

        A client that can come back with its position is taken out of the room, and nothing more of it
        may reach the client: it would take that for the next. Any other stays, and gets what waits.
        """
        outbox.gaps = None
        self.behind = rooms if self.behind is None else self.behind | rooms
        rooms = {room for room in rooms if self.leaves_for_gap(room)}
        if not rooms:
            return 0
        core = self._core
        # After the running fan-out, and before the next.
        core.lifecycle.schedule(lambda: core.gaps.take_out(self, rooms))
        return sum(outbox.drop_room(room) for room in rooms)

    def _cut(self, lost: int) -> None:
        """Give up a client whose outbox is full: it must not see what comes after the gap.

        It is closed after the running fan-out.
        """
        self._is_cut = True
        if self.outbox is not None:
            self.outbox.clear()
        self.count_lost(lost)
        core = self._core
        core.lifecycle.schedule(
            lambda: core.registry.end(self, SLOW_CONSUMER, "its outbox is full")
        )

    def _dropped(self, count: int) -> None:
        self.count_lost(count)
        self._core.registry.tell_dropped(self)
