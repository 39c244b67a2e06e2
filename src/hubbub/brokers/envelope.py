"""Envelope: a publication as bytes, for brokers that carry it over a network.

What must not live here: what carries it, order, positions.
"""

from __future__ import annotations

import msgspec

from ..errors import BrokerUnavailable
from ..limits import printable
from ..model import ClientInfo, Position
from ..wire.frame import Frame
from ..wire.publication import Kind, Publication
from .broker import Control

FORMAT: str = "1"
"""Which form processes that share a server write and read. Another form of what is below has another one."""

_KINDS: tuple[Kind, ...] = (Kind.MESSAGE, Kind.JOIN, Kind.LEAVE)


class OtherFormat(BrokerUnavailable):
    """Processes of another version of Hubbub are there, which write what this one cannot read."""


def require_format(held: bytes, own: str) -> None:
    """Raise `OtherFormat` if others write `held`, and that is not what this process writes."""
    if held != own.encode():
        theirs = printable(held.decode(errors="replace"), 20)
        raise OtherFormat(
            f"other processes there have a version of Hubbub that writes format {theirs}, and this one"
            f" writes {own}: end them, or give this one another prefix"
        )


class Envelope(msgspec.Struct, array_like=True):
    """What is sent of a publication, beside its room and its position. `sender` names a broker's start, and
    `number` the publication among those of that start: by them a broker knows its own again."""

    sender: str
    number: int
    data: bytes
    is_text: bool = True
    kind: int = 0
    exclude: str | None = None
    key: str | None = None
    origin: str | None = None
    time_ms: int | None = None
    publisher: ClientInfo | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)
_controls = msgspec.msgpack.Decoder(Control)


def seal(publication: Publication, sender: str, number: int) -> bytes:
    """Write a publication as bytes."""
    return _encoder.encode(
        Envelope(
            sender,
            number,
            publication.data,
            publication.is_text,
            _KINDS.index(publication.kind),
            publication.exclude,
            publication.key,
            publication.origin,
            publication.time_ms,
            publication.publisher,
        )
    )


def unseal(data: bytes) -> Envelope:
    """Read what `seal` has written. Raises `ValueError` for anything else."""
    envelope = _decoder.decode(data)
    if not 0 <= envelope.kind < len(_KINDS):
        raise ValueError("a publication of an unknown kind")
    return envelope


def packed_size(size: int) -> int:
    """Return how many bytes of a run an envelope of this size takes."""
    return len(b"%d:" % size) + size


def pack(envelopes: list[bytes]) -> bytes:
    """Write the envelopes of a run as one message."""
    return b"".join(b"%d:%b" % (len(each), each) for each in envelopes)


def unpack(data: bytes) -> list[bytes]:
    """Read what `pack` has written. Raises `ValueError` for anything else."""
    found, start = [], 0
    while start < len(data):
        colon = data.index(b":", start)
        end = colon + 1 + int(data[start:colon])
        if not colon < end <= len(data):
            raise ValueError("a run that ends too early")
        found.append(data[colon + 1 : end])
        start = end
    return found


def publication_of(envelope: Envelope, room: str, position: Position | None) -> Publication:
    """Return the publication in an envelope."""
    return Publication(
        room,
        Frame(envelope.data, envelope.is_text),
        envelope.exclude,
        position,
        key=envelope.key,
        kind=_KINDS[envelope.kind],
        origin=envelope.origin,
        time_ms=envelope.time_ms,
        publisher=envelope.publisher,
    )


def seal_control(control: Control) -> bytes:
    """Write a control message as bytes."""
    return _encoder.encode(control)


def unseal_control(data: bytes) -> Control:
    """Read what `seal_control` has written. Raises `ValueError` for anything else."""
    return _controls.decode(data)
