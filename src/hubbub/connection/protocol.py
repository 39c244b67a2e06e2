"""What is said to a route of the dialect "centrifuge", and what it says: JSON, one object on a line.

Pure: bytes and values. What must not live here: when something is said (`room_connection`, `room_state`),
and what waits for an answer (`commands`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ..errors import PROTOCOL_ERROR
from ..model import ClientInfo, Close, Position
from ..wire.frame import encode_json
from .outcome import AttemptEnded, Outcome, Retry

EXPIRED = 109
"""The token has expired: another one may be good."""
TAKEN_OUT = 2000
"""Unsubscribed with this code: the server has taken the client out."""
COMES_BACK = 2500
"""Unsubscribed with this code or a higher one: ask for the room again."""
SUBSCRIPTION_EXPIRED, STATE_LOST = 2501, 2502
"""Why: the room's token has ended; the position is worth nothing any more."""
CONNECTION_EXPIRED, ALL_LOST = 3005, 3014
"""Closed with these codes: the connection's token has ended; it and all positions are worth nothing."""
PONG = b"{}"
"""A ping, and its answer."""

_NULL = msgspec.Raw(b"null")
_NOTHING = msgspec.Raw()


class Refusal(msgspec.Struct):
    """Why a command is not carried out."""

    code: int
    message: str = ""
    temporary: bool = False


class Published(msgspec.Struct):
    """A message of a room. `offset` counts from 1; 0: the room keeps no history. `info` is the `Member` that
    published it, not read yet (empty: the server did)."""

    data: msgspec.Raw = _NULL
    offset: int = 0
    info: msgspec.Raw = _NOTHING


class Member(msgspec.Struct):
    """A client, as others see it in a room."""

    client: str = ""
    user: str = ""
    conn_info: Any = None
    chan_info: Any = None

    def as_info(self, client: str = "") -> ClientInfo:
        """Return it as a program has it. `client` is its id, where it does not say that itself."""
        return ClientInfo(self.client or client, self.user or None, self.chan_info, self.conn_info)


_decode_member = msgspec.json.Decoder(Member | None).decode


def publisher_of(info: bytes | msgspec.Raw) -> ClientInfo | None:
    """Return who published a message. Raises `msgspec.ValidationError` for what says that of nobody."""
    member = _decode_member(info) if info else None
    return None if member is None else member.as_info()


class Expiry(msgspec.Struct):
    """Whether something ends, and in how many seconds."""

    expires: bool = False
    ttl: int = 0


class RoomAnswer(Expiry):
    """The client is in a room."""

    recoverable: bool = False
    epoch: str = ""
    offset: int = 0
    publications: list[Published] = []
    recovered: bool = False

    @property
    def position(self) -> Position | None:
        """Where the client is in the room's history; None in a room that keeps none."""
        return Position(self.offset, self.epoch) if self.recoverable else None


class ConnectAnswer(Expiry, kw_only=True):
    """The server knows who the client is: the answer always says so."""

    client: str
    ping: int = 0
    pong: bool = False
    subs: dict[str, RoomAnswer] = {}


class PageAnswer(msgspec.Struct):
    """A part of a room's history, and where the room stands."""

    publications: list[Published] = []
    offset: int = 0
    epoch: str = ""


class PresenceAnswer(msgspec.Struct):
    """Who is in a room, by the ids of clients."""

    presence: dict[str, Member] = {}


class CountsAnswer(msgspec.Struct):
    """How many are in a room."""

    num_clients: int = 0
    num_users: int = 0


class DataAnswer(msgspec.Struct):
    """What a function of the server has returned, or what the server says to this client alone."""

    data: msgspec.Raw = _NULL


class Nothing(msgspec.Struct):
    """An answer with nothing in it."""


class Ending(msgspec.Struct):
    """The server has taken the client out of a room."""

    code: int = 0
    reason: str = ""


class Push(msgspec.Struct):
    """What the server says without being asked: one of the fields is there, or none that is known."""

    channel: str = ""
    pub: Published | None = None
    subscribe: RoomAnswer | None = None
    unsubscribe: Ending | None = None
    message: DataAnswer | None = None


class Reply(msgspec.Struct):
    """One object of the server's: an answer, a push, or a ping."""

    id: int = 0
    error: Refusal | None = None
    push: Push | None = None
    connect: ConnectAnswer | None = None
    subscribe: RoomAnswer | None = None
    unsubscribe: Nothing | None = None
    publish: Nothing | None = None
    history: PageAnswer | None = None
    presence: PresenceAnswer | None = None
    presence_stats: CountsAnswer | None = None
    rpc: DataAnswer | None = None
    refresh: Expiry | None = None
    sub_refresh: Expiry | None = None

    @property
    def is_ping(self) -> bool:
        """Whether it says nothing."""
        return not self.id and self.push is None and self.error is None


_decode = msgspec.json.Decoder(Reply).decode


def read(frame: bytes) -> Iterator[Reply]:
    """Yield what is in a message. Raises `AttemptEnded` for what no server of this protocol says."""
    for line in frame.split(b"\n"):
        if not line or line.isspace():
            continue
        try:
            reply = _decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise violation(f"no message of the protocol: {error}") from error
        if reply.is_ping and line.strip() != PONG:
            raise violation("no message of the protocol: neither an answer nor a push")
        yield reply


def violation(text: str) -> AttemptEnded:
    """Return how a connection ends whose server speaks something else."""
    hint = f"{text}; is this a route of the dialect centrifuge?"
    return AttemptEnded(Outcome(Close(PROTOCOL_ERROR, hint), Retry.LIMITED))


def write(number: int, method: str, params: Mapping[str, Any]) -> bytes:
    """Return a command on one line; a `number` of 0 asks for no answer.

    Raises `TypeError` or `ValueError` for what JSON cannot say.
    """
    command: dict[str, Any] = {"id": number} if number else {}
    return encode_json({**command, method: params})


def since_of(position: Position | None) -> dict[str, Any]:
    """Return what a subscription from a position asks for besides; nothing without one."""
    if position is None:
        return {}
    return {"recover": True, "offset": position.offset, "epoch": position.epoch}
