"""What a publication says that tells of joins and leaves: it is written and read here only.

What must not live here: who is where, and what is told (`brokers.presence`, `hub.presence`).

It is JSON as plain clients get it, so that nothing has to be made for them:
`{"type": "presence", "room": "red", "joined": [{"client": …, "user": …, "info": …}], "left": [], "at": 7}`.
Of a client whose identity says something of it there is `conn_info` too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from ..model import ClientInfo
from .frame import Frame
from .publication import Kind

M = TypeVar("M")


class Told(NamedTuple):
    """Who joined or left (`kind`). `at` grows in a room from change to change (None: not said).

    `is_paused` is said without infos: True, that nothing is told from now on, since the room is too
    large; False, that it is told again.
    """

    kind: Kind
    infos: Sequence[ClientInfo]
    at: int | None = None
    is_paused: bool | None = None


class _Member(msgspec.Struct):
    client: str
    user: str | None
    info: Any
    conn_info: Any | UnsetType


class _Message(msgspec.Struct, Generic[M], omit_defaults=True):
    type: str
    room: str
    joined: Sequence[M]
    left: Sequence[M]
    at: int | None = None
    paused: bool | None = None


_encode = msgspec.json.Encoder().encode
MOST_LEVELS = 32
"""How many lists and mappings may be in one another in what is said of a client."""

_pack = msgspec.msgpack.Encoder().encode
_decode = msgspec.json.Decoder(_Message[ClientInfo]).decode


def told_frame(room: str, told: Told) -> Frame:
    """Write it down."""
    members, nobody = [_member(info) for info in told.infos], list[_Member]()
    joined, left = (members, nobody) if told.kind is Kind.JOIN else (nobody, members)
    return Frame(_encode(_Message("presence", room, joined, left, told.at, told.is_paused)), True)


def _member(info: ClientInfo) -> _Member:
    said = info.conn_info
    return _Member(info.client, info.user, info.info, UNSET if said is None else said)


def read_told(frame: Frame, kind: Kind) -> Told:
    """Read it back. Raises `ValueError` for what is none."""
    message = _decode(frame.payload)
    infos = message.joined if kind is Kind.JOIN else message.left
    return Told(kind, tuple(infos), message.at, message.paused)


def as_json(value: Any, max_bytes: int) -> Any:
    """Return `value` as what JSON makes of it: mappings, lists, texts, numbers.

    Raises `TypeError` for what JSON has not, `ValueError` for more than `max_bytes` bytes or `MOST_LEVELS` lists and
    mappings in one another, and `OverflowError` for whole numbers of more than 64 bits, which brokers cannot carry.
    """
    payload = _encode(value)
    if len(payload) > max_bytes:
        raise ValueError(f"it has {len(payload)} bytes as JSON, and may have {max_bytes}")
    found = msgspec.json.decode(payload)
    if not _is_shallow(found, MOST_LEVELS):
        raise ValueError(f"it has more than {MOST_LEVELS} lists and mappings in one another")
    _pack(found)
    return found


def _is_shallow(value: Any, levels: int) -> bool:
    """Tell whether there are no more levels than that in a value: all who read it, in whatever depth, can."""
    if not isinstance(value, list | dict):
        return True
    parts = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_shallow(part, levels - 1) for part in parts)
