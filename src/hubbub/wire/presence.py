"""What a publication says that tells of joins and leaves: it is written and read here only.

What must not live here: who is where, and what is told (`brokers.presence`, `hub.presence`).

It is JSON as plain clients get it, so that nothing has to be made for them:
`{"type": "presence", "room": "red", "joined": [{"client": …, "user": …, "info": …}], "left": [], "at": 7}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from ..model import ClientInfo
from .frame import Frame
from .publication import Kind


class Told(NamedTuple):
    """Who joined or left (`kind`). `at` grows in a room from change to change (None: not said).

    `is_paused` is said without infos: True, that nothing is told from now on, since the room is too
    large; False, that it is told again.
    """

    kind: Kind
    infos: Sequence[ClientInfo]
    at: int | None = None
    is_paused: bool | None = None


class _Message(msgspec.Struct, omit_defaults=True):
    type: str
    room: str
    joined: Sequence[ClientInfo]
    left: Sequence[ClientInfo]
    at: int | None = None
    paused: bool | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Message).decode


def told_frame(room: str, told: Told) -> Frame:
    """Write it down."""
    joined, left = (told.infos, ()) if told.kind is Kind.JOIN else ((), told.infos)
    return Frame(_encode(_Message("presence", room, joined, left, told.at, told.is_paused)), True)


def read_told(frame: Frame, kind: Kind) -> Told:
    """Read it back. Raises `ValueError` for what is none."""
    message = _decode(frame.payload)
    infos = message.joined if kind is Kind.JOIN else message.left
    return Told(kind, tuple(infos), message.at, message.paused)


def as_json(value: Any, max_bytes: int) -> Any:
    """Return `value` as what JSON makes of it: mappings, lists, texts, numbers.

    Raises `TypeError` for what JSON has not, `ValueError` for more than `max_bytes` bytes.
    """
    payload = _encode(value)
    if len(payload) > max_bytes:
        raise ValueError(f"it has {len(payload)} bytes as JSON, and may have {max_bytes}")
    return msgspec.json.decode(payload)
