"""What the server says in the Centrifuge protocol: events, written as JSON.

What must not live here: what a client says (`centrifuge_commands`), who is told what (the hub).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..errors import CommandError
from ..model import ClientInfo, Position
from ..model import PresenceStats as Counts
from ..wire.fossil import fossil_delta
from ..wire.frame import Frame
from ..wire.publication import Publication, Subscribed
from .dialect import (
    Connected,
    ErrorReply,
    Event,
    Joined,
    Left,
    Message,
    Page,
    Patched,
    Ping,
    Present,
    Publish,
    Published,
    Refreshed,
    Reply,
    Returned,
    ServerSubscribed,
    ServerUnsubscribed,
    SubRefresh,
    Subscribe,
    Unsubscribe,
)

PING_INTERVAL_S = 25.0
"""How often a client hears from the server, so that it knows the connection for a living one."""
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
MOST_PATCHED_BYTES = 64 * 1024
"""A message is sent whole if it, or the one before it, is longer: to find the difference takes time, in which
nothing else is done."""
TEMPORARY = frozenset({INTERNAL_ERROR, 111, 113})
"""The codes after which an SDK tries again."""
GAP_CODE, EXPIRED_CODE, UNSUBSCRIBED_CODE = 2500, 2501, 2000
"""Why the server has ended a subscription: from 2500 on an SDK subscribes again, with its position."""
_CAPABILITIES: Mapping[str, bool] = {"recoverable": True, "positioned": True}

_encode = msgspec.json.Encoder().encode
_Raw = msgspec.Raw


def write_event(event: Event) -> Frame | None:
    """Return the frame that says `event`; None where this protocol has no words for it."""
    write = _WRITERS.get(type(event))
    text = None if write is None else write(event)
    return None if text is None else Frame(text, True)


def json_of(frame: Frame) -> bytes:
    """Return a message as a JSON value on one line: a text that is no JSON, and bytes in base64, as strings."""
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
        text = b'{"data":%b%b}' % (json_of(publication.frame), _beside(publication))
        made = publication.forms[_PUBLICATION] = Frame(text, True)
    return made.payload


_BESIDE = object()
"""Under what it keeps what stands beside its message, patched or not."""


def _beside(publication: Publication) -> bytes:
    """Write who published a message, if a client did, and its offset, if it has one."""
    publisher, position = publication.publisher, publication.position
    offset = b"" if position is None else b',"offset":%d' % position.offset
    if publisher is None:
        return offset
    made = publication.forms.get(_BESIDE)
    if made is None:
        text = b',"info":%b%b' % (_encode(_info(publisher)), offset)
        made = publication.forms[_BESIDE] = Frame(text, True)
    return made.payload


def _publications(publications: Sequence[Publication], *, are_patched: bool = False) -> bytes:
    write = _whole if are_patched else _publication
    return b"[%b]" % b",".join(map(write, publications))


_WHOLE = object()
"""Under what a publication keeps its form for who takes patches, and has not got the one before it."""


def _whole(publication: Publication) -> bytes:
    made = publication.forms.get(_WHOLE)
    if made is None:
        made = publication.forms[_WHOLE] = Frame(_patch(publication, None), True)
    return made.payload


def _patch(publication: Publication, base: Frame | None) -> bytes:
    """Write a publication for who takes patches: its JSON, or the difference to that of `base`, as a string."""
    data = json_of(publication.frame)
    patch = None
    if base is not None and max(len(data), len(base.payload)) <= MOST_PATCHED_BYTES:
        patch = fossil_delta(json_of(base), data)
    text, mark = (data, b"") if patch is None else (patch, b',"delta":true')
    return b'{"data":%b%b%b}' % (_encode(text.decode()), _beside(publication), mark)


def _patched(event: Patched) -> bytes:
    publication = event.publication
    base = event.base
    said = _whole(publication) if base is None else _patch(publication, base)
    return b'{"push":{"channel":%b,"pub":%b}}' % (_encode(publication.room), said)


def _published(event: Published) -> bytes:
    publication = event.publication
    return b'{"push":{"channel":%b,"pub":%b}}' % (
        _encode(publication.room),
        _publication(publication),
    )


def _connected(event: Connected) -> bytes:
    result: dict[str, Any] = {"client": event.client_id, "version": VERSION}
    result |= {"ping": round(PING_INTERVAL_S), "pong": True} | _expiry(event.expires_in_s)
    if event.rooms:
        result["subs"] = {
            each.answer.room: _Raw(_subscription(each.answer, each.since)) for each in event.rooms
        }
    return _encode({"id": event.id, "connect": result})


def _expiry(left_s: float | None) -> dict[str, Any]:
    """Say in how many seconds a client has to show a new token. Never 0: it would ask all the time."""
    return {} if left_s is None else {"expires": True, "ttl": max(1, math.floor(left_s))}


def _subscribed(event: Reply, answer: Subscribed) -> bytes:
    command = event.command
    since = command.since if isinstance(command, Subscribe) else None
    publications = answer.publications
    return b'{"id":%d,"subscribe":%b}' % (
        event.id or 0,
        _subscription(answer, since, publications),
    )


def _subscription(
    answer: Subscribed, since: Position | None, publications: Sequence[Publication] | None = None
) -> bytes:
    """Write what a client is told of a room that it is in now; `publications` are what it is given with
    that (None: what it has missed, if it is all)."""
    if publications is None:
        publications = answer.publications if answer.recovered else ()
    result: dict[str, Any] = _expiry(answer.expires_in_s)
    position = answer.position
    if position is not None and answer.is_recoverable:
        # What was recovered moves the client on from where it was, one by one. Where it has missed nothing
        # but what it was excluded from, it goes on from here.
        is_from_there = answer.recovered and since is not None and answer.publications
        offset = since.offset if is_from_there and since is not None else position.offset
        result |= {**_CAPABILITIES, "epoch": position.epoch, "offset": offset}
    if since is not None:
        result |= {"was_recovering": True, "recovered": answer.recovered}
    if answer.data is not None:
        result["data"] = answer.data
    if answer.takes_patches:
        result["delta"] = True
    found = b""
    if publications:
        are_patched = answer.takes_patches
        found = b',"publications":' + _publications(publications, are_patched=are_patched)
    body = _encode(result)[:-1] + found + b"}"
    return body.replace(b"{,", b"{", 1) if body.startswith(b"{,") else body


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
            return b'{"id":%d,"rpc":{"data":%b}}' % (event.id, json_of(data))
        case Refreshed(left_s):
            is_sub = isinstance(event.command, SubRefresh)
            return _encode(
                {"id": event.id, "sub_refresh" if is_sub else "refresh": _expiry(left_s)}
            )
    name = _NAMES.get(type(event.command))
    return None if name is None else _encode({"id": event.id, name: {}})


def _info(info: ClientInfo) -> dict[str, Any]:
    """Return a client as SDKs read it: a user's name is a text in any case."""
    body: dict[str, Any] = {"user": info.user or "", "client": info.client}
    if info.conn_info is not None:
        body["conn_info"] = info.conn_info
    if info.info is not None:
        body["chan_info"] = info.info
    return body


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
    if event.data is not None:
        body["data"] = _Raw(json_of(event.data))
    if event.recovered:  # the protocol has it in answers alone; our own clients read it here too
        body |= {"was_recovering": True, "recovered": True}
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
    Patched: _patched,
    Message: lambda event: b'{"push":{"message":{"data":%b}}}' % json_of(event.message),
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
