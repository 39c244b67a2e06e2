"""Presence on a server: what is told has the form of the wire, and what others have written hurts nobody."""

from __future__ import annotations

import pytest

from hubbub import ClientInfo
from hubbub.brokers.valkey_presence import is_told, told_publication
from hubbub.wire.presence import Told, read_told, told_frame
from hubbub.wire.publication import Kind


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (b"j 5 -", Told(Kind.JOIN, (ClientInfo("c", "ann", {"n": 1}),), 5)),
        (b"l 1700000000000000 -", Told(Kind.LEAVE, (ClientInfo("c"),), 1700000000000000)),
        (b"j 6 1", Told(Kind.JOIN, (), 6, True)),
        (b"l 7 0", Told(Kind.LEAVE, (), 7, False)),
    ],
)
def test_what_is_told_is_what_the_wire_says(place: bytes, told: Told) -> None:
    rows = {"c": b'{"client":"c","user":"ann","info":{"n":1}}', "": b'{"client":"c","user":null}'}
    data = rows["c" if told.kind is Kind.JOIN else ""] if told.infos else b""
    publication = told_publication("red", place, b"[" + data + b"]")
    assert (publication.room, publication.kind, publication.position) == ("red", told.kind, None)
    assert read_told(publication.frame, publication.kind) == told
    assert publication.data == told_frame("red", told).payload
    assert is_told(place)


@pytest.mark.parametrize(
    ("place", "data"),
    [(b"j", b"[]"), (b"j x -", b"[]"), (b"j 5 - -", b"[]"), (b"j 5 -", b"{}"), (b"j 5 -", b"")],
)
def test_what_no_script_has_written_is_a_value_error(place: bytes, data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        told_publication("red", place, data)


def test_a_position_is_none_of_it() -> None:
    assert not is_told(b"")
    assert not is_told(b"5 abc")
