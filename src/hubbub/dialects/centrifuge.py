"""The Centrifuge client protocol, JSON over WebSocket: for the SDKs that speak it.

What must not live here: who may do what, and what becomes of a command (`hub.commands`).

A message of a client is one or more JSON objects, a line each; so is one of the server. Payloads are
JSON values, and are passed on as they are: a text that is no JSON becomes a JSON string, and bytes
become a JSON string in base64.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..errors import CommandError, ProtocolError
from ..model import ClientInfo, Position
from ..model import PresenceStats as Counts
from ..wire.frame import Frame
from ..wire.publication import Publication, Subscribed
from .dialect import (
    Command,
    Connect,
    Connected,
    Dialect,
    ErrorReply,
    Event,
    History,
    Joined,
    Left,
    Message,
    Page,
    Ping,
    Pong,
    Presence,
    PresenceStats,
    Present,
    Publish,
    Published,
    Refresh,
    Refreshed,
    Reply,
    Returned,
    Rpc,
    Send,
    ServerSubscribed,
    ServerUnsubscribed,
    SubRefresh,
    Subscribe,
    Unsubscribe,
    Unsupported,
)

BAD_REQUEST = 3501
"""The close code for what no client of this protocol sends."""
PING_INTERVAL_S = 25.0
"""How often a client hears from the server, so that it knows the connection for a living one."""
ENVELOPE_BYTES = 64 * 1024
"""An SDK's first message has its token and all its subscriptions, with their positions."""
VERSION = "hubbub"
"""What a client is told of the server's version: applications see it, and nobody reads it."""
INTERNAL_ERROR = 100
"""The code of an error that passes by itself."""
APPLICATION_ERROR = 400
"""The code of an error that the application has named itself, with a word."""
ERROR_CODES: Mapping[str, int] = {
    "internal_error": INTERNAL_ERROR,
    "unavailable": INTERNAL_ERROR,
    "left": INTERNAL_ERROR,
    "joining": INTERNAL_ERROR,
    "broker_unavailable": INTERNAL_ERROR,
    "handshake_timeout": INTERNAL_ERROR,
    "token_keys_unavailable": INTERNAL_ERROR,
    "shutting_down": INTERNAL_ERROR,
    "unauthorized": 101,
    "token_invalid": 101,
    "token_missing": 101,
    "forbidden": 103,
    "unknown_method": 104,
    "unknown_type": 104,
    "already_subscribed": 105,
    "too_many_rooms": 106,
    "too_many_members": 106,
    "bad_room": 107,
    "bad_request": 107,
    "too_large": 107,
    "invalid_message": 107,
    "text_expected": 107,
    "binary_expected": 107,
    "not_available": 108,
    "token_expired": 109,
    "too_many_messages": 111,
    "position_lost": 112,
}
"""What the hub's words are in this protocol."""
TEMPORARY = frozenset({INTERNAL_ERROR, 111, 113})
"""The codes after which an SDK tries again."""
GAP_CODE, EXPIRED_CODE, UNSUBSCRIBED_CODE = 2500, 2501, 2000
"""Why the server has ended a subscription: from 2500 on an SDK subscribes again, with its position."""
_FOSSIL = "fossil"
_MUST_RECOVER = 2  # a flag of subscribe: rather no subscription than one with a gap
_CAPABILITIES: Mapping[str, bool] = {"recoverable": True, "positioned": True}

_encode = msgspec.json.Encoder().encode
_Raw = msgspec.Raw
_NOTHING = _Raw()
"""A JSON value that is not there."""


class _Place(msgspec.Struct):
    offset: int = 0
    epoch: str = ""


class _ConnectRequest(msgspec.Struct):
    token: str = ""
    data: _Raw = _NOTHING
    subs: dict[str, _SubscribeRequest] = {}


class _SubscribeRequest(msgspec.Struct):
    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: int = 0
    delta: str = ""
    type: int = 0
    flag: int = 0
    tf: _Raw = _NOTHING


class _ChannelRequest(msgspec.Struct):
    channel: str = ""


class _PublishRequest(msgspec.Struct):
    channel: str = ""
    data: _Raw = _NOTHING
    type: int = 0


class _HistoryRequest(msgspec.Struct):
    channel: str = ""
    limit: int = 0
    since: _Place | None = None
    reverse: bool = False


class _DataRequest(msgspec.Struct):
    data: _Raw = _NOTHING
    method: str = ""


class _TokenRequest(msgspec.Struct):
    token: str = ""
    channel: str = ""


class _Request(msgspec.Struct):
    """One command, as it comes: one of the fields is there, or none, which is a pong."""

    id: int = 0
    connect: _ConnectRequest | None = None
    subscribe: _SubscribeRequest | None = None
    unsubscribe: _ChannelRequest | None = None
    publish: _PublishRequest | None = None
    presence: _ChannelRequest | None = None
    presence_stats: _ChannelRequest | None = None
    history: _HistoryRequest | None = None
    send: _DataRequest | None = None
    rpc: _DataRequest | None = None
    refresh: _TokenRequest | None = None
    sub_refresh: _TokenRequest | None = None


_decode = msgspec.json.Decoder(_Request).decode


class CentrifugeDialect:
    """The dialect of the Centrifuge SDKs; see the module."""

    name: str = "centrifuge"
    subprotocols: tuple[str, ...] = ("centrifuge-json",)
    is_plain: bool = False
    ping_interval_s: float = PING_INTERVAL_S
    envelope_bytes: int = ENVELOPE_BYTES

    def parse(self, frame: Frame) -> Sequence[Command]:
        """Return the commands in a message, a line each."""
        if not frame.is_text:
            raise ProtocolError(BAD_REQUEST, "bad request: a message is text")
        lines = frame.payload.removesuffix(b"\n").split(b"\n")
        return [_command_of(_read(line)) for line in lines]

    def encode(self, event: Event) -> Frame | None:
        """Return the frame that says `event`; None where this protocol has no words for it."""
        write = _WRITERS.get(type(event))
        text = None if write is None else write(event)
        return None if text is None else Frame(text, True)

    def merge(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Write several in one message, a line each."""
        if len(frames) == 1:
            return frames
        return [Frame(b"\n".join(frame.payload for frame in frames), True)]


CENTRIFUGE: Dialect = CentrifugeDialect()
"""The Centrifuge dialect: one object serves everybody."""


# What a client says


def _read(line: bytes) -> _Request:
    try:
        return _decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(BAD_REQUEST, "bad request: this is no command") from error


def _command_of(request: _Request) -> Command:
    """Return the command in a request: the first of the names that it has."""
    names = [name for name in _READERS if getattr(request, name) is not None]
    if not names:
        if request.id:
            raise ProtocolError(BAD_REQUEST, "bad request: this command is not known")
        return Pong()
    name = names[0]
    if not 0 < request.id < 2**32 and name != "send":
        raise ProtocolError(BAD_REQUEST, "bad request: a command has an id")
    return _READERS[name](request.id, getattr(request, name))


def _connect(number: int, request: _ConnectRequest) -> Command:
    try:
        data = msgspec.json.decode(request.data) if request.data else None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ProtocolError(BAD_REQUEST, "bad request: data is no JSON") from error
    places = {
        room: Position(place.offset, place.epoch)
        for room, place in request.subs.items()
        if place.recover
    }
    return Connect(number, request.token or None, data, places)


def _subscribe(number: int, request: _SubscribeRequest) -> Command:
    if request.delta not in ("", _FOSSIL):
        raise ProtocolError(BAD_REQUEST, "bad request: this delta is not known")
    since = Position(request.offset, request.epoch) if request.recover else None
    room = _channel(request)
    if request.type:
        return _not_available(number, "this type of subscription")
    if request.tf:  # never passed over: it would get what it has not asked for
        error = CommandError("bad_request", "bad request: filters by tags are not available")
        return Unsupported(number, error)
    must_recover = bool(request.flag & _MUST_RECOVER)
    return Subscribe(number, room, since, must_recover, request.token or None)


def _not_available(number: int, what: str) -> Command:
    return Unsupported(number, CommandError("not_available", f"not available: {what}"))


def _publish(number: int, request: _PublishRequest) -> Command:
    room = _channel(request)
    if request.type:
        return _not_available(number, "maps")
    if not request.data:
        return Unsupported(number, CommandError("bad_request", "bad request: data is missing"))
    return Publish(number, room, Frame(bytes(request.data), True))


def _history(number: int, request: _HistoryRequest) -> Command:
    place = request.since
    since = None if place is None else Position(place.offset, place.epoch)
    limit = None if request.limit < 0 else request.limit
    return History(number, _channel(request), limit, since, request.reverse)


def _refresh(number: int, request: _TokenRequest) -> Command:
    if not request.token:
        raise ProtocolError(BAD_REQUEST, "bad request: a refresh has a token")
    return Refresh(number, request.token)


def _sub_refresh(number: int, request: _TokenRequest) -> Command:
    room = _channel(request)
    if not request.token:
        return Unsupported(number, CommandError("bad_request", "bad request: a token is missing"))
    return SubRefresh(number, room, request.token)


def _channel(
    request: _SubscribeRequest
    | _ChannelRequest
    | _PublishRequest
    | _HistoryRequest
    | _TokenRequest,
) -> str:
    if not request.channel:
        raise ProtocolError(BAD_REQUEST, "bad request: a channel has a name")
    return request.channel


def _rpc(number: int, request: _DataRequest) -> Command:
    return Rpc(number, request.method, Frame(bytes(request.data) or b"null", True))


def _send(_: int, request: _DataRequest) -> Command:
    return Send(Frame(bytes(request.data) or b"null", True))


_READERS: Mapping[str, Callable[[int, Any], Command]] = {
    "connect": _connect,
    "subscribe": _subscribe,
    "unsubscribe": lambda number, request: Unsubscribe(number, _channel(request)),
    "publish": _publish,
    "presence": lambda number, request: Presence(number, _channel(request)),
    "history": _history,
    "presence_stats": lambda number, request: PresenceStats(number, _channel(request)),
    "rpc": _rpc,
    "send": _send,
    "refresh": _refresh,
    "sub_refresh": _sub_refresh,
}
"""By the names of commands, in the order in which they count if there are several."""


# What the server says


def _payload(frame: Frame) -> bytes:
    """Return a message as a JSON value on one line."""
    payload = frame.payload
    if not frame.is_text:
        return _encode(base64.b64encode(payload).decode())
    try:
        msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return _encode(frame.text)
    if b"\n" in payload or b"\r" in payload:
        return bytes(msgspec.json.format(payload, indent=-1))
    return payload


_PUBLICATION = object()
"""Under what a publication keeps what this dialect says of it, wherever that is to stand."""


def _publication(publication: Publication) -> bytes:
    made = publication.forms.get(_PUBLICATION)
    if made is None:
        data, position = _payload(publication.frame), publication.position
        offset = b"" if position is None else b',"offset":%d' % position.offset
        made = publication.forms[_PUBLICATION] = Frame(b'{"data":%b%b}' % (data, offset), True)
    return made.payload


def _publications(publications: Sequence[Publication]) -> bytes:
    return b"[%b]" % b",".join(map(_publication, publications))


def _published(event: Published) -> bytes:
    publication = event.publication
    return b'{"push":{"channel":%b,"pub":%b}}' % (
        _encode(publication.room),
        _publication(publication),
    )


def _connected(event: Connected) -> bytes:
    result: dict[str, Any] = {"client": event.client_id, "version": VERSION}
    result |= {"ping": round(PING_INTERVAL_S), "pong": True} | _expiry(event.expires_in_s)
    return _encode({"id": event.id, "connect": result})


def _expiry(left_s: float | None) -> dict[str, Any]:
    """Say in how many seconds a client has to show a new token. Never 0: it would ask all the time."""
    return {} if left_s is None else {"expires": True, "ttl": max(1, math.floor(left_s))}


def _subscribed(event: Reply, answer: Subscribed) -> bytes:
    result: dict[str, Any] = _expiry(answer.expires_in_s)
    found = b""
    if answer.position is not None:
        command = event.command
        since = command.since if isinstance(command, Subscribe) else None
        # What was recovered moves the client on from where it was, one by one.
        is_from_there = answer.recovered and since is not None
        offset = since.offset if is_from_there and since is not None else answer.position.offset
        result |= {**_CAPABILITIES, "epoch": answer.position.epoch, "offset": offset}
        if since is not None:
            result |= {"was_recovering": True, "recovered": answer.recovered}
        if answer.publications:
            found = b',"publications":' + _publications(answer.publications)
    body = _encode(result)
    return b'{"id":%d,"subscribe":%b%b}' % (event.id or 0, body[:-1], found + b"}")


def _page(event: Reply, page: Page) -> bytes:
    return b'{"id":%d,"history":{"publications":%b,"epoch":%b,"offset":%d}}' % (
        event.id or 0,
        _publications(page.publications),
        _encode(page.position.epoch),
        page.position.offset,
    )


def _reply(event: Reply) -> bytes | None:
    if event.id is None:
        return None
    match event.result:
        case Subscribed() as answer:
            return _subscribed(event, answer)
        case Page() as page:
            return _page(event, page)
        case Present(clients):
            infos = {client: _info(info) for client, info in clients.items()}
            return _encode({"id": event.id, "presence": {"presence": infos}})
        case Counts(clients=count, users=users):
            stats = {"num_clients": count, "num_users": users}
            return _encode({"id": event.id, "presence_stats": stats})
        case Returned(data):
            return b'{"id":%d,"rpc":{"data":%b}}' % (event.id, _payload(data))
        case Refreshed(left_s):
            is_sub = isinstance(event.command, SubRefresh)
            return _encode(
                {"id": event.id, "sub_refresh" if is_sub else "refresh": _expiry(left_s)}
            )
    name = _NAMES.get(type(event.command))
    return None if name is None else _encode({"id": event.id, name: {}})


def _info(info: ClientInfo) -> dict[str, Any]:
    """Return a member as SDKs read it: a user's name is a text in any case."""
    body: dict[str, Any] = {"user": info.user or "", "client": info.client}
    return body if info.info is None else body | {"chan_info": info.info}


def _told(event: Joined | Left) -> bytes:
    """Write joins or leaves, a push for each."""
    kind = "join" if isinstance(event, Joined) else "leave"
    pushes = [
        {"push": {"channel": event.room, kind: {"info": _info(info)}}} for info in event.infos
    ]
    return b"\n".join(map(_encode, pushes))


_NAMES: Mapping[type, str] = {Unsubscribe: "unsubscribe", Publish: "publish"}
"""The commands whose answer has nothing in it."""


def code_of(error: CommandError) -> int:
    """Return the number of an error: a word of the hub's has its own, and an application may write one."""
    known = ERROR_CODES.get(error.code)
    if known is not None:
        return known
    is_number = error.code.isascii() and error.code.isdigit() and len(error.code) <= 4
    number = int(error.code) if is_number else 0
    return number if INTERNAL_ERROR <= number < 2000 else APPLICATION_ERROR


def _error(event: ErrorReply) -> bytes | None:
    if event.id is None:
        return None  # there is no answer to what is no command
    code, error = code_of(event.error), event.error
    body: dict[str, Any] = {"code": code, "message": error.message or error.code}
    if error.temporary or code in TEMPORARY:
        body["temporary"] = True
    return _encode({"id": event.id, "error": body})


def _server_subscribed(event: ServerSubscribed) -> bytes:
    body: dict[str, Any] = {}
    if event.position is not None:
        body = {**_CAPABILITIES, "epoch": event.position.epoch, "offset": event.position.offset}
    return _encode({"push": {"channel": event.room, "subscribe": body}})


def _server_unsubscribed(event: ServerUnsubscribed) -> bytes:
    code, reason = UNSUBSCRIBED_CODE, "server unsubscribe"
    if event.is_gap:
        code, reason = GAP_CODE, "insufficient state"
    elif event.is_expired:
        code, reason = EXPIRED_CODE, "subscription expired"
    body = {"code": code, "reason": reason}
    return _encode({"push": {"channel": event.room, "unsubscribe": body}})


_WRITERS: Mapping[type, Callable[[Any], bytes | None]] = {
    Published: _published,
    Message: lambda event: b'{"push":{"message":{"data":%b}}}' % _payload(event.message),
    Connected: _connected,
    Reply: _reply,
    ErrorReply: _error,
    ServerSubscribed: _server_subscribed,
    ServerUnsubscribed: _server_unsubscribed,
    Joined: _told,
    Left: _told,
    Ping: lambda event: b"{}",
}
"""By the kinds of events; for the others (a gap, a token that ends soon) an SDK has its own ways."""
