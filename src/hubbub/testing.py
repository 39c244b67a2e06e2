"""Testing: clients in memory and a clock that stands still, for the tests of applications.

What must not live here: a second hub. A client from here goes through the real registry, fan-out,
outbox and handlers; only its transport has no socket. Applications' tests call it, and Hubbub's own.

    async def test_greeting() -> None:
        await hub.start()
        ann = connect(hub, user="ann")
        ann.send("hello")
        await settle(hub)
        assert ann.received == ["hello"]
        await hub.stop()
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from .client import Client
from .errors import ABNORMAL, MESSAGE_TOO_BIG, NORMAL, Disconnected, HubNotRunning
from .frame import TEXT, Batch, Frame, encode
from .limits import too_big
from .model import Close, Handshake, Identity
from .registry import Registry

QUIET_TURNS = 10
"""How many turns of the event loop without a publication `settle` takes for silence."""
MOST_TURNS = 10_000
"""After how many turns `settle` gives up."""


class FakeClock:
    """A clock of seconds that moves only when told. Give it to a hub as `hub.clock`, before start."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now: float = now

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move forward at once, as after a sleep of the machine. See `let_pass` for time that passes."""
        if seconds < 0:
            raise ValueError(f"this clock never goes back, not even {-seconds:g} seconds")
        self.now += seconds


class MemoryTransport:
    """A transport without a socket; see `hubbub.transport.Transport` for what a transport owes.

    With `fast` it has a `raw_write`, as the native transport does; without, all goes through
    `write`, as under the portable one. `writes` are the bytes of every write, in order;
    `raw_writes` those that came by `raw_write`, `batches` what came by `write`; `pings` counts the
    pings, which the peer answers while `answers_pings`.
    """

    deflates = False

    def __init__(self, hub: Registry, *, fast: bool = True) -> None:
        self.writable: bool = True
        self.raw_write: Callable[[bytes], object] | None = self._raw_write if fast else None
        self.writes: list[bytes] = []
        self.raw_writes: list[bytes] = []
        self.batches: list[Batch] = []
        self.pings: int = 0
        self.answers_pings = True
        self.is_reading: bool = True
        self.closed: Close | None = None
        self._hub = hub
        self._client: Client = None  # type: ignore[assignment]
        self._allowance: int | None = None
        self._progress = 0
        self._goodbye: Close | None = None
        self._held: deque[Frame | Close] = deque()
        self._is_delivering = False

    # What a test does to it

    def block(self) -> None:
        """Stop taking bytes, as a socket whose peer does not read."""
        self.writable = False
        self._client.fast = False

    def unblock(self, writes: int | None = None) -> None:
        """Take bytes again, what waits first; block again after so many `writes` (None: never)."""
        if self.closed is not None:
            return
        client = self._client
        self._allowance = writes
        self.writable = writes is None or writes > 0
        client.pump()
        client.fast = self.raw_write is not None and self.writable and self._is_idle()
        self._say_goodbye()

    def trickle(self) -> None:
        """Let the peer take a little of what is buffered, too little to become writable."""
        self._progress += 1

    def feed(self, frame: Frame) -> None:
        """Be sent one message by the peer. What comes while reading has stopped is held back."""
        self._arrive(frame)

    def hang_up(self, code: int = NORMAL, reason: str = "") -> None:
        """Be sent a close frame by the peer, behind the messages that are held back."""
        self._arrive(Close(code, reason))

    def cut(self) -> None:
        """Lose the connection without a goodbye (1006); what is held back is lost too."""
        self._end(Close(ABNORMAL))

    # What the hub calls

    def bind(self, client: Client) -> None:
        """See `Transport.bind`."""
        self._client = client

    def write(self, batch: Batch) -> None:
        """See `Transport.write`."""
        self.batches.append(batch)
        self._take(batch.wire)

    def close(self, code: int, reason: str) -> None:
        """See `Transport.close`. Behind an outbox it waits for `unblock`, or for the hub's end."""
        if self._goodbye is None and self.closed is None:
            self._goodbye = Close(code, reason, by_server=True)
            self._held.clear()
            if self._hub.admission.is_closed:
                self._end(self._goodbye)
            else:
                self._say_goodbye()

    def abort(self) -> None:
        """See `Transport.abort`."""
        self._end(Close(ABNORMAL, by_server=True))

    def ping(self) -> bool:
        """See `Transport.ping`."""
        self.pings += 1
        if self.answers_pings:
            self._client.seen = self._hub.clock()
        return True

    def pause_reading(self) -> None:
        """See `Transport.pause_reading`."""
        self.is_reading = False

    def resume_reading(self) -> None:
        """See `Transport.resume_reading`."""
        self.is_reading = True
        asyncio.get_running_loop().call_soon(self._deliver_held)  # never from within this call

    def progress(self) -> int:
        """See `Transport.progress`."""
        return self._progress

    def _is_idle(self) -> bool:
        return self._client.outbox is None and self._goodbye is None

    def _raw_write(self, wire: bytes) -> None:
        self.raw_writes.append(wire)
        self._take(wire)

    def _take(self, wire: bytes) -> None:
        self.writes.append(wire)
        self._progress += 1
        if self._allowance is not None:
            self._allowance -= 1
            if self._allowance <= 0:
                self.block()

    def _say_goodbye(self) -> None:
        if self._goodbye is not None and not self._client.outbox:
            self._end(self._goodbye)

    def _end(self, close: Close) -> None:
        if self.closed is not None:
            return
        self.closed = close
        self.writable = self._client.fast = False
        self._held.clear()
        self._hub.gone(self, self._client)
        self._hub.lost(self._client, close.code, close.reason, by_server=close.by_server)

    def _arrive(self, item: Frame | Close) -> None:
        if self.closed is not None or self._goodbye is not None:
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
        self._client.seen = self._hub.clock()
        if isinstance(item, Close):
            self._hub.fanout.flush()
            self._end(item)
        else:
            self._receive(item)

    def _receive(self, frame: Frame) -> None:
        limit = self._hub.settings.max_message_bytes
        if limit is not None and len(frame.payload) > limit:
            self._hub.fanout.flush()
            self._hub.warden.broke_protocol(self._client, MESSAGE_TOO_BIG, too_big(limit))
        else:
            self._client.context.copy().run(self._hub.inbound.receive, self._client, frame)


class MemoryClient:
    """The peer's end of a connection in memory; `client` is the server's record of it."""

    def __init__(self, client: Client, transport: MemoryTransport) -> None:
        self.client = client
        self.transport = transport

    def __repr__(self) -> str:
        return f"<MemoryClient {self.client.id}>"

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
        """Say goodbye to the hub. Closing twice is no error."""
        self.transport.hang_up(code, reason)


def connect(
    hub: Registry,
    *,
    user: str | None = None,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    client_id: str | None = None,
    meta: Mapping[str, Any] | None = None,
    address: str | None = "127.0.0.1",
    expires_at: float | None = None,
    fast: bool = True,
) -> MemoryClient:
    """Connect a client in memory to a hub that runs in this event loop, and run the connect handlers.

    `user`, `meta`, `client_id` and `expires_at` are what authentication would have found (the authenticate
    handler and the origin check are not asked), `query` and `headers` what the handshake carries,
    `address` where it comes from (None: unknown); `fast` says which lane of the fan-out the client
    takes, see `MemoryTransport`. Raises `Refused` where a handshake would be refused: 409 for an id
    in use, 503 for a hub that is full, late or closing, or an address that has its clients already;
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
    identity = Identity(user, {} if meta is None else meta, client_id, expires_at=expires_at)
    hub.admission.check_visitor(address, hub._watch.recent_lag_s)
    chosen = hub.admission.choose_id(handshake, identity)
    transport = MemoryTransport(hub, fast=fast)
    return MemoryClient(hub.register(transport, chosen, identity, handshake), transport)


async def settle(hub: Registry) -> None:
    """Let the event loop turn until what was published has been delivered and nothing follows.

    Raises `TimeoutError` when the hub goes on publishing for `MOST_TURNS` turns. A handler that
    waits for a timer or a socket is not waited for.
    """
    quiet = 0
    for _ in range(MOST_TURNS):
        await asyncio.sleep(0)
        quiet = 0 if len(hub.fanout) else quiet + 1
        hub.fanout.flush()  # a fan-out to many is followed by a rest
        if quiet == QUIET_TURNS:
            return
    raise TimeoutError(f"the hub still publishes after {MOST_TURNS} turns of the event loop")


def let_pass(hub: Registry, seconds: float) -> None:
    """Let `seconds` pass on the hub's `FakeClock`, with every look at its clients that falls due.

    The hub pings, and finds silent and stuck clients, as it would in that time. Raises `TypeError`
    when the hub has another clock.
    """
    clock = hub.clock
    if not isinstance(clock, FakeClock):
        raise TypeError("let_pass needs a hub whose clock is a FakeClock")
    watch = hub._watch
    end = clock.now + seconds
    while clock.now < end:
        clock.advance(min(watch.period_s, end - clock.now))
        watch.look()


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
