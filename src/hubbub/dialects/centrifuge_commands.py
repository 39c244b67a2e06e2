"""What a client says in the Centrifuge protocol: commands, read out of JSON.

What must not live here: what the server says (`centrifuge_events`), what becomes of a command
(`hub.commands`).

A value that an SDK never sends closes the connection; one that is only wrong is answered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ..errors import BAD_REQUEST, CommandError, ProtocolError
from ..model import Position
from ..wire.frame import Frame
from .dialect import (
    Command,
    Connect,
    History,
    Pong,
    Presence,
    PresenceStats,
    Publish,
    Refresh,
    Rpc,
    Send,
    SubRefresh,
    Subscribe,
    Unsubscribe,
    Unsupported,
)

_FOSSIL = "fossil"
_MUST_RECOVER = 2  # a flag of subscribe: rather no subscription than one with a gap

_Raw = msgspec.Raw
NO_COMMAND = (
    "bad request: no command; this route is for rooms.js and Centrifuge SDKs, not for plain clients"
)
"""Said to who sends something else: most often a plain client at the wrong address."""

_CONNECT_FIELDS = frozenset({"token", "data", "subs", "name", "version", "headers", "flag"})
"""All that a connect request of the protocol may have."""
_PONG = re.compile(rb"\s*\{\s*\}\s*")
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


def read_command(line: bytes) -> Command:
    """Return the command that is written in a line. Raises `ProtocolError`."""
    request = _read(line)
    command = _command_of(request)
    if isinstance(command, Pong) and not _PONG.fullmatch(line):
        raise _no_command()
    return command


def is_lone_connect(message: bytes) -> bool:
    """Tell whether a message begins with a connect command as SDKs write it, and nothing beside it."""
    if not message.startswith(b"{") or b'"connect"' not in message:
        return False
    try:
        found = msgspec.json.decode(message.partition(b"\n")[0])
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return (
        isinstance(found, dict)
        and found.keys() == {"id", "connect"}
        and type(found["id"]) is int
        and isinstance(found["connect"], dict)
        and found["connect"].keys() <= _CONNECT_FIELDS
    )


def _no_command() -> ProtocolError:
    return ProtocolError(BAD_REQUEST, NO_COMMAND)


def _read(line: bytes) -> _Request:
    try:
        return _decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _no_command() from error


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
        room: _position(place.offset, place.epoch)
        for room, place in request.subs.items()
        if place.recover
    }
    return Connect(number, request.token or None, data, places)


def _position(offset: int, epoch: str) -> Position:
    if not 0 <= offset < 2**64:
        raise ProtocolError(BAD_REQUEST, "bad request: an offset has 64 bits")
    return Position(offset, epoch)


def _subscribe(number: int, request: _SubscribeRequest) -> Command:
    if request.delta not in ("", _FOSSIL):
        raise ProtocolError(BAD_REQUEST, "bad request: this delta is not known")
    since = _position(request.offset, request.epoch) if request.recover else None
    room = _channel(request)
    if request.type:
        return _not_available(number, "this type of subscription")
    if request.tf:  # never passed over: it would get what it has not asked for
        error = CommandError("bad_request", "bad request: filters by tags are not available")
        return Unsupported(number, error)
    must_recover = bool(request.flag & _MUST_RECOVER)
    token, is_patched = request.token or None, request.delta == _FOSSIL
    return Subscribe(number, room, since, must_recover, token, takes_patches=is_patched)


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
    since = None if place is None else _position(place.offset, place.epoch)
    if not -(2**31) <= request.limit < 2**31:
        raise ProtocolError(BAD_REQUEST, "bad request: a limit has 32 bits")
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
    "presence_stats": lambda number, request: PresenceStats(number, _channel(request)),
    "history": _history,
    "rpc": _rpc,
    "send": _send,
    "refresh": _refresh,
    "sub_refresh": _sub_refresh,
}
"""By the names of commands, in the order in which they count if there are several."""
