"""Piece: a part of a text that grows, as a broker keeps it and as clients are shown it.

What must not live here: who gets it (`hub`), and its place in the order (a broker).

A broker keeps `{"type": "stream", "text": ""}` where a text begins, `{"type": "append", "text": …}` for
each piece, and says at the last one that it `is_final`. What clients are shown has the room and the
offset too. Whoever joins is shown all that there is for it in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from ..model import Position
from .frame import Frame, encode
from .publication import Publication

PieceType = Literal["stream", "append"]


class Piece(msgspec.Struct):
    """A part of a text. "stream": the text begins here. `is_broken`: it ended before it was whole."""

    type: PieceType
    text: str = ""
    is_final: bool = False
    is_broken: bool = False


_decode = msgspec.json.Decoder(Piece).decode


def frame_of(piece: Piece) -> Frame:
    """Return a piece as a broker keeps it. Raises as `wire.frame.encode` for a text that is no UTF-8."""
    return encode({"type": piece.type, "text": piece.text} | _flags(piece))


def shown(publication: Publication) -> Publication:
    """Return a piece as the members of its room are shown it, each of them the same."""
    piece, position = _read(publication), publication.position
    if piece is None or position is None:
        return publication
    return _publication(publication.room, piece, position, publication)


def joined(
    room: str, publications: Sequence[Publication], position: Position, *, is_all: bool
) -> Publication:
    """Return as one what one who joins is shown; the room stands at `position`.

    `is_all`: the publications are all that is kept, else they are what came after those that the client
    has seen. Where all that is kept is not all that there was, it says `is_cut`.
    """
    pieces = [piece for piece in map(_read, publications) if piece is not None]
    begins = [number for number, piece in enumerate(pieces) if piece.type == "stream"]
    if begins:
        pieces = pieces[begins[-1] :]
    whole = Piece(
        "stream" if begins or is_all else "append",
        "".join(piece.text for piece in pieces),
        any(piece.is_final for piece in pieces),
        any(piece.is_broken for piece in pieces),
    )
    more: dict[str, Any] = {"epoch": position.epoch}
    if is_all and not begins and position.offset:
        more["is_cut"] = True
    return _publication(room, whole, position, None, more)


def _read(publication: Publication) -> Piece | None:
    """Return the piece in a publication; None for one of a time when the room was no stream."""
    try:
        return _decode(publication.frame.payload)
    except msgspec.DecodeError:
        return None


def _publication(
    room: str,
    piece: Piece,
    position: Position,
    like: Publication | None,
    more: dict[str, Any] | None = None,
) -> Publication:
    body: dict[str, Any] = {"type": piece.type, "room": room, "text": piece.text}
    body |= {"offset": position.offset, **(more or {}), **_flags(piece)}
    frame = encode(body)
    if like is None:
        return Publication(room, frame, None, position)
    return Publication(
        room, frame, like.exclude, position, origin=like.origin, time_ms=like.time_ms
    )


def _flags(piece: Piece) -> dict[str, bool]:
    """Return what is true of a piece; what is not is left out."""
    flags = {"is_final": piece.is_final, "is_broken": piece.is_broken}
    return {name: value for name, value in flags.items() if value}
