"""The contract of a dialect: what the bytes mean to a client, in both directions.

What must not live here: an implementation; what a handler gets of a message (`messages`); what
becomes of a command (`hub.commands`).

A dialect belongs to a client: it is chosen when the client's handshake is accepted, and stays. Two
dialects meet in a room. What the hub does is the same for all of them; a dialect reads commands out of
frames, and writes events into frames, and holds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import CommandError
from ..model import ClientInfo, Position
from ..model import PresenceStats as Counts
from ..wire.frame import Frame
from ..wire.publication import Publication, Subscribed

# Commands: what a client asks for. `id` is the client's own number for its answer; None asks for none.


@dataclass(frozen=True, slots=True)
class Connect:
    """The first command, where a dialect has one: who the client is.

    `token` is what it shows (None: nothing), `data` whatever else it says, `positions` how far it has come
    in rooms that the server had put it into.
    """

    id: int | None
    token: str | None = None
    data: Any = None
    positions: Mapping[str, Position] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Join a room. `since` is the last position that the client has seen of it (None: it wants
    nothing of what was before; an empty epoch: it does not know which, and, at the offset 0, wants all that is
    kept). `must_recover`: it wants to be in
    only if it misses nothing. `token` is what it shows to be let in (None: nothing). `takes_patches`: it can
    make a message of the one before it and the difference."""

    id: int | None
    room: str
    since: Position | None = None
    must_recover: bool = False
    token: str | None = None
    takes_patches: bool = False


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Leave a room."""

    id: int | None
    room: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Send a message to a room."""

    id: int | None
    room: str
    message: Frame


@dataclass(frozen=True, slots=True)
class Send:
    """A message for the application's handlers, as every message of the plain dialect is."""

    message: Frame


@dataclass(frozen=True, slots=True)
class Rpc:
    """Call a function of the application by its name, and wait for what it returns. `data` is JSON."""

    id: int | None
    method: str
    data: Frame


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A command that is understood, and that nobody carries out; `error` is its answer."""

    id: int | None
    error: CommandError


@dataclass(frozen=True, slots=True)
class History:
    """Ask for what was published to a room: after `since`, or before it, the newest first, with
    `reverse`; `limit` publications at most. What is not kept any more is left out; an empty epoch stands
    for the one that there is."""

    id: int | None
    room: str
    limit: int | None = None
    since: Position | None = None
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Presence:
    """Ask who is in a room."""

    id: int | None
    room: str


@dataclass(frozen=True, slots=True)
class PresenceStats:
    """Ask how many are in a room."""

    id: int | None
    room: str


@dataclass(frozen=True, slots=True)
class Refresh:
    """Show a new token before the old one ends."""

    id: int | None
    token: str


@dataclass(frozen=True, slots=True)
class SubRefresh:
    """Show a new token for a room before the old one ends."""

    id: int | None
    room: str
    token: str


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer a ping of the dialect's own."""


Command = (
    Connect
    | Subscribe
    | Unsubscribe
    | Publish
    | Send
    | Rpc
    | History
    | Presence
    | PresenceStats
    | Refresh
    | SubRefresh
    | Pong
    | Unsupported
)

# Events: what the hub has to say to a client.


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a room's history; `position` is where the room stands."""

    publications: Sequence[Publication]
    position: Position


@dataclass(frozen=True, slots=True)
class Present:
    """Who is in a room, by the ids of clients."""

    clients: Mapping[str, ClientInfo]


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The new token is good; it ends in `expires_in_s` seconds (None: never)."""

    expires_in_s: float | None


@dataclass(frozen=True, slots=True)
class Returned:
    """What a function that was called has returned, as JSON."""

    data: Frame


@dataclass(frozen=True, slots=True)
class Published:
    """Something was published to a room that the client is in."""

    publication: Publication


@dataclass(frozen=True, slots=True)
class Patched:
    """The same, for clients that take patches. `base` is the message before it, which they have (None: they
    have none, and need the whole)."""

    publication: Publication
    base: Frame | None


@dataclass(frozen=True, slots=True)
class Message:
    """The application sends this to the client alone, or to everybody."""

    message: Frame


@dataclass(frozen=True, slots=True)
class Given:
    """A room that the server has put a client into as it connected. `since` is the position that the client
    came with (None: with none). What it has missed is in `answer`, if that says so, and follows if not."""

    answer: Subscribed
    since: Position | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """The answer to `Connect`: the client is `client_id`; its token ends in `expires_in_s` seconds; `rooms`
    are those that the server has put it into."""

    id: int | None
    client_id: str
    expires_in_s: float | None = None
    rooms: Sequence[Given] = ()


Result = Subscribed | Page | Refreshed | Returned | Present | Counts


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to any other command that was carried out.

    `result` is what there is to say: `Subscribed` to a `Subscribe`, `Page` to a `History`, `Refreshed` to
    a `Refresh` or a `SubRefresh`, `Returned` to an `Rpc`, `Present` to a `Presence`, and to a
    `PresenceStats` what `model.PresenceStats` counts.
    """

    id: int | None
    command: Command
    result: Result | None = None


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """The answer to a command, or to a message (`id` is None), that was refused."""

    id: int | None
    error: CommandError


@dataclass(frozen=True, slots=True)
class ServerSubscribed:
    """The server has put the client into a room, without being asked.

    `position` is where the room stands, if it keeps a history. `data` is what else the client is told of it
    (None: nothing). `recovered`: the client came with a position, and misses nothing but what follows.
    """

    room: str
    position: Position | None = None
    data: Frame | None = None
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class ServerUnsubscribed:
    """The server has taken the client out of a room.

    `is_gap`: it has missed something of the room, and should come back with its position. `is_expired`:
    its token for the room has ended, and it should come back with a new one.
    """

    room: str
    is_gap: bool = False
    is_expired: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """The client has missed something of a room that it is still in."""

    room: str


@dataclass(frozen=True, slots=True)
class Joined:
    """These people have come into a room that the client is in, each with the client that it came with.

    The client's own join is among them."""

    room: str
    infos: Sequence[ClientInfo]


@dataclass(frozen=True, slots=True)
class Left:
    """These people have left a room that the client is in, each with the client that was its last."""

    room: str
    infos: Sequence[ClientInfo]


@dataclass(frozen=True, slots=True)
class PresencePaused:
    """The room has become too large to tell of joins and leaves; or, it is told again, and who is there
    has to be asked for anew."""

    room: str
    is_paused: bool


@dataclass(frozen=True, slots=True)
class Ping:
    """The server is alive; see `PingingDialect`."""


@dataclass(frozen=True, slots=True)
class RefreshDue:
    """The client's token ends in `left_s` seconds: it is asked for a new one."""

    left_s: float


Event = (
    Published
    | Patched
    | Message
    | Connected
    | Reply
    | ErrorReply
    | ServerSubscribed
    | ServerUnsubscribed
    | Gap
    | Joined
    | Left
    | PresencePaused
    | Ping
    | RefreshDue
)


class Dialect(Protocol):
    """What a dialect owes. All methods are pure, and are called on the event loop only.

    What it is owed: `parse` is given whole messages, valid UTF-8 where they are text, within
    `max_message_bytes`. Each frame that `encode` returns goes to its client once and in order, and may
    be shared by others: nobody changes it.
    """

    name: str
    """How routes and settings name it."""

    subprotocols: tuple[str, ...]
    """Those that it answers to, the best first; a client need not offer one (RFC 6455 section 1.9)."""

    is_plain: bool
    """True: messages are the application's own in both directions, so `parse` is never called, and
    `encode` is not asked for them. False: the first command is `Connect`, and who the client is turns
    out then."""

    def parse(self, frame: Frame) -> Sequence[Command]:
        """Return the commands in a message, in order.

        Raises `ProtocolError` for one that no client of this dialect sends, which closes the client;
        `CommandError` for one that is only wrong, which is answered.
        """
        ...

    def encode(self, event: Event) -> Frame | None:
        """Return the frame that says `event`; None where this dialect has no words for it."""
        ...

    def merge(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Join frames of one turn, where the dialect can say several things in one message."""
        ...


class EnvelopeDialect(Dialect, Protocol):
    """A dialect in whose messages there is more than the application's own."""

    envelope_bytes: int
    """How many bytes beside them a message of a client may have: tokens, the names of rooms, several
    commands at once. `max_message_bytes` bounds the application's own then, each for itself."""


class ClosingDialect(Dialect, Protocol):
    """A dialect with close codes of its own."""

    def closing(self, code: int, reason: str) -> tuple[int, str]:
        """Return the code and the reason that tell its clients what these tell plain ones."""
        ...


class PingingDialect(Dialect, Protocol):
    """A dialect whose clients expect to hear from the server, whatever else there is to say."""

    ping_interval_s: float
    """How often, in seconds: then `encode` is asked for a `Ping`."""
