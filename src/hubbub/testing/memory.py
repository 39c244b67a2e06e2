"""Clients in memory, and a clock that stands still.

What must not live here: a second hub. A client from here goes through the real registry, fan-out,
outbox and handlers; only its transport has no socket.
"""

from __future__ import annotations

import asyncio
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec

from ..dialects.dialect import Dialect
from ..dialects.names import dialect_of
from ..errors import (
    ABNORMAL,
    MESSAGE_TOO_BIG,
    NORMAL,
    SERVICE_RESTART,
    Disconnected,
    HubNotRunning,
)
from ..hub.client import Client, session_of
from ..hub.core import core_of
from ..hub.hub import Hub
from ..hub.session import ClientSession
from ..limits import too_big
from ..model import Close, Handshake, Identity
from ..transports.transport import Session, Transport
from ..wire.frame import TEXT, Batch, Frame, encode

QUIET_TURNS = 10
"""How many turns of the event loop without a publication `settle` takes for silence."""
MOST_TURNS = 10_000
"""After how many turns `settle` gives up."""


class FakeClock:
    """A clock of seconds that moves only when told. Give it to a hub with `set_clock`, before its start."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now: float = now

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move forward at once, as after a sleep of the machine. See `advance_time` for time that passes."""
        if seconds < 0:
            raise ValueError(f"this clock never goes back, not even {-seconds:g} seconds")
        self.now += seconds


class MemoryTransport:
    """A transport without a socket; see `hubbub.transports.transport.Transport` for what a transport owes.

    With `fast` it has a `write_wire`, as the native transport does; without, all goes through
    `write`, as under the portable one. `writes` are the bytes of every write, in order;
    `wire_writes` those that came by `write_wire`, `batches` what came by `write`; `pings` counts the
    pings, which the peer answers while `answers_pings`.
    """

    _session: Session
    deflates = False

    def __init__(self, *, fast: bool = True) -> None:
        self.writable: bool = True
        self.write_wire: Callable[[bytes], object] | None = self._write_wire if fast else None
        self.writes: list[bytes] = []
        self.wire_writes: list[bytes] = []
        self.batches: list[Batch] = []
        self.pings: int = 0
        self.answers_pings = True
        self.is_reading: bool = True
        self.closed: Close | None = None
        self._allowance: int | None = None
        self._progress = 0
        self._close_frame: Close | None = None
        self._held: deque[Frame | Close] = deque()
        self._is_delivering = False

    # What a test does to it

    def block(self) -> None:
        """Stop taking bytes, as a socket whose buffer is full, since its peer does not read.

        After `write_timeout_s` of this the hub closes the client, whether or not it sends more.
        """
        if self.writable:
            self.writable = False
            self._session.write_blocked()

    def unblock(self, writes: int | None = None) -> None:
        """Take bytes again, what waits first; block again after so many `writes` (None: never)."""
        if self.closed is not None:
            return
        self._allowance = writes
        self.writable = writes is None or writes > 0
        self._session.write_resumed()
        self._close_if_drained()

    def accept_some(self) -> None:
        """Let the peer take a little of what is buffered, too little to become writable."""
        self._progress += 1

    def feed(self, frame: Frame) -> None:
        """Be sent one message by the peer. What comes while reading has stopped is held back."""
        self._arrive(frame)

    def send_close(self, code: int = NORMAL, reason: str = "") -> None:
        """Be sent a close frame by the peer, behind the messages that are held back."""
        self._arrive(Close(code, reason))

    def drop_connection(self) -> None:
        """Lose the connection without a close frame (1006); what is held back is lost too."""
        self._end(Close(ABNORMAL))

    def stop_server(self) -> None:
        """Be told that the server shuts down, as the native transport is."""
        self._session.server_stopping()

    # What the hub calls

    def bind(self, session: Session) -> None:
        """See `Transport.bind`."""
        self._session = session

    def write(self, batch: Batch) -> None:
        """See `Transport.write`."""
        self.batches.append(batch)
        self._take(batch.wire)

    def close(self, code: int, reason: str) -> None:
        """See `Transport.close`. Behind an outbox it waits for `unblock`, or for the hub's end."""
        if self._close_frame is None and self.closed is None:
            self._close_frame = Close(code, reason, by_server=True)
            self._held.clear()
            if code == SERVICE_RESTART:  # the hub's end waits for nobody
                self._end(self._close_frame)
            else:
                self._close_if_drained()

    def abort(self) -> None:
        """See `Transport.abort`."""
        self._end(Close(ABNORMAL, by_server=True))

    def ping(self) -> bool:
        """See `Transport.ping`."""
        self.pings += 1
        if self.answers_pings:
            self._note_life()
        return True

    def pause_reading(self) -> None:
        """See `Transport.pause_reading`."""
        self.is_reading = False

    def resume_reading(self) -> None:
        """See `Transport.resume_reading`."""
        self.is_reading = True
        asyncio.get_running_loop().call_soon(self._deliver_held)  # never from within this call

    def write_progress(self) -> int:
        """See `Transport.write_progress`."""
        return self._progress

    def _note_life(self) -> None:
        self._session.last_seen = self._session.limits.clock()

    def _write_wire(self, wire: bytes) -> None:
        self.wire_writes.append(wire)
        self._take(wire)

    def _take(self, wire: bytes) -> None:
        self.writes.append(wire)
        self._progress += 1
        if self._allowance is not None:
            self._allowance -= 1
            if self._allowance <= 0:
                self.block()

    def _close_if_drained(self) -> None:
        if self._close_frame is not None and not self._session.has_waiting:
            self._end(self._close_frame)

    def _end(self, close: Close) -> None:
        if self.closed is not None:
            return
        self.closed = close
        self.writable = False
        self._held.clear()
        self._session.closed(close)
        self._session.connection_lost()

    def _arrive(self, item: Frame | Close) -> None:
        if self.closed is not None or self._close_frame is not None:
            return
        self._held.append(item)
        if len(self._held) == 1 and not self._is_delivering:
            self._deliver_held()

    def _deliver_held(self) -> None:
        self._is_delivering = True
        try:
            while self._held and self.is_reading:
                self._deliver(self._held.popleft())
        finally:
            self._is_delivering = False

    def _deliver(self, item: Frame | Close) -> None:
        self._note_life()
        if isinstance(item, Close):
            self._session.flush()
            self._end(item)
        else:
            self._receive(item)

    def _receive(self, frame: Frame) -> None:
        session, limit = self._session, self._session.limits.max_message_bytes
        if limit is not None and len(frame.payload) > limit:
            session.flush()
            session.violated(MESSAGE_TOO_BIG, too_big(limit))
            self.close(MESSAGE_TOO_BIG, too_big(limit))
        else:
            session.context.copy().run(session.receive, frame)


class MemoryClient:
    """The peer's end of a connection in memory; `client` is the server's record of it."""

    def __init__(self, session: ClientSession, transport: MemoryTransport) -> None:
        self._session = session
        self.transport = transport

    def __repr__(self) -> str:
        return f"<MemoryClient {self._session.label}>"

    @property
    def client(self) -> Client:
        """The server's record. Raises `AttributeError` before a connect command has made one."""
        return self._session.client

    @property
    def received(self) -> list[str | bytes]:
        """All messages received so far, in order: text as `str`, binary as `bytes`."""
        return messages(b"".join(self.transport.writes))

    def json(self) -> list[Any]:
        """Return the messages received so far, each decoded from JSON."""
        return [msgspec.json.decode(message) for message in self.received]

    @property
    def closed(self) -> Close | None:
        """How the connection ended, as the peer saw it; None while it is open."""
        return self.transport.closed

    def send(self, data: Any) -> None:
        """Send a message to the hub; `data` becomes a frame as in `hub.broadcast`.

        While an async handler of this client runs the message waits in the hub.
        Raises `Disconnected` when the connection has ended.
        """
        if self.closed is not None:
            raise Disconnected(self.closed.code, self.closed.reason)
        self.transport.feed(encode(data))

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Send the hub a close frame. Closing twice is no error."""
        self.transport.send_close(code, reason)


def connect(
    hub: Hub,
    *,
    user: str | None = None,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    client_id: str | None = None,
    meta: Mapping[str, Any] | None = None,
    address: str | None = "127.0.0.1",
    expires_at: float | None = None,
    rooms: Sequence[str] = (),
    info: Any = None,
    fast: bool = True,
    dialect: str | Dialect = "plain",
) -> MemoryClient:
    """Connect a client in memory to a hub that runs in this event loop, and run the connect handlers.

    `user`, `meta`, `client_id`, `expires_at`, `rooms` and `info` are what authentication would have found (the
    authenticate handler and the origin check are not asked), `query` and `headers` what the handshake carries,
    `address` where it comes from (None: unknown); `fast` says which lane of the fan-out the client takes, see
    `MemoryTransport`. With a `dialect` that has a connect command the client is connected when it has sent
    that, and the authenticate handler is asked then. Raises `Refused` where a handshake would be refused: 409
    for an id in use, 503 for a hub that is full, late or closing, or an address that has its clients already;
    `HubNotRunning` for a hub that does not run.
    """
    if not hub.is_running:
        raise HubNotRunning("await hub.start() before clients connect to the hub")
    handshake = Handshake(
        path="/ws",
        headers={name.lower(): value for name, value in (headers or {}).items()},
        query_string=urlencode(query or {}),
        address=address,
    )
    identity = Identity(
        user,
        {} if meta is None else meta,
        client_id,
        expires_at=expires_at,
        rooms=tuple(rooms),
        info=info,
    )
    transport = MemoryTransport(fast=fast)
    spoken = dialect_of(dialect)
    if spoken.is_plain:
        client = open_client(hub, transport, identity, handshake)
        return MemoryClient(session_of(client), transport)
    core = core_of(hub)
    with core.admission.reserve(address, core.liveness.recent_lag_s) as place:
        session = core.registry.open_unidentified(transport, spoken, place, handshake)
    return MemoryClient(session, transport)


def open_client(hub: Hub, transport: Transport, identity: Identity, handshake: Handshake) -> Client:
    """Bring a connection into a hub by any transport, as `connect` does: for transports' own tests.

    Raises what `connect` raises.
    """
    core = core_of(hub)
    with core.admission.reserve(handshake.address, core.liveness.recent_lag_s) as place:
        chosen = place.hold_id(handshake, identity)
        session = core.registry.open(transport)
        return core.registry.connect(session, place, identity, handshake, chosen)


async def settle(hub: Hub) -> None:
    """Let the event loop turn until what was published has been delivered and nothing follows.

    Raises `TimeoutError` when the hub goes on publishing for `MOST_TURNS` turns. A handler that
    waits for a timer or a socket is not waited for.
    """
    quiet = 0
    core = core_of(hub)
    for _ in range(MOST_TURNS):
        await asyncio.sleep(0)
        quiet = 0 if len(core.fanout) else quiet + 1
        core.fanout.flush()  # a fan-out to many is followed by a rest
        if quiet == QUIET_TURNS:
            return
    raise TimeoutError(f"the hub still publishes after {MOST_TURNS} turns of the event loop")


def set_clock(hub: Hub, clock: Callable[[], float]) -> None:
    """Give a hub another clock, before its start. Raises `RuntimeError` for a hub that runs.

    `clock` gives seconds and never goes back. It tells who is silent, stuck, expired or too fast.
    """
    if hub.is_running:
        raise RuntimeError("set_clock comes before the hub's start")
    core_of(hub).clock = clock


def advance_time(hub: Hub, seconds: float) -> None:
    """Let `seconds` pass on the hub's `FakeClock`, with every check of its clients that falls due.

    The hub pings, finds silent and stuck clients, and ends tokens, those of single rooms too, and times of
    grace, as it would in that time. Raises `TypeError` when the hub has another clock.
    """
    clock = core_of(hub).clock
    if not isinstance(clock, FakeClock):
        raise TypeError("advance_time needs a hub whose clock is a FakeClock: see set_clock")
    core = core_of(hub)
    liveness = core.liveness
    end = clock.now + seconds
    while clock.now < end:
        clock.advance(min(liveness.period_s, end - clock.now))
        liveness.check()
        core.subscriptions.look()
        core.presence.check()


def let_pass(hub: Hub, seconds: float) -> None:
    """Do what `advance_time` does: the old name, until the next minor version."""
    warnings.warn("let_pass is now advance_time", DeprecationWarning, stacklevel=2)
    advance_time(hub, seconds)


def messages(wire: bytes) -> list[str | bytes]:
    """Read the frames of a server (RFC 6455 section 5.2, unmasked) back into messages."""
    found: list[str | bytes] = []
    position = 0
    while position < len(wire):
        opcode, length = wire[position] & 0x0F, wire[position + 1]
        start = position + 2
        if length >= 126:
            start = position + (4 if length == 126 else 10)
            length = int.from_bytes(wire[position + 2 : start])
        position = start + length
        payload = wire[start:position]
        found.append(payload.decode() if opcode == TEXT else payload)
    return found
