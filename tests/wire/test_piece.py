"""Pieces: what a broker keeps of a text that grows, and what clients are shown."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hubbub import Frame, Position, Publication
from hubbub.wire.piece import Piece, frame_of, joined, shown

EPOCH = "e"


def kept(*pieces: Piece, first: int = 1) -> list[Publication]:
    return [
        Publication("log", frame_of(piece), None, Position(offset, EPOCH))
        for offset, piece in enumerate(pieces, first)
    ]


def body(publication: Publication) -> Any:
    return msgspec.json.decode(publication.frame.payload)


def test_what_is_not_so_is_left_out() -> None:
    assert frame_of(Piece("append", "a")).payload == b'{"type":"append","text":"a"}'
    assert msgspec.json.decode(frame_of(Piece("append", "", True, True)).payload) == {
        "type": "append",
        "text": "",
        "is_final": True,
        "is_broken": True,
    }


def test_members_are_shown_the_room_and_the_offset() -> None:
    [publication] = kept(Piece("append", "ä🎉"), first=7)
    publication.exclude = "somebody"
    publication.time_ms = 5
    seen = shown(publication)
    assert body(seen) == {"type": "append", "room": "log", "text": "ä🎉", "offset": 7}
    assert (seen.exclude, seen.time_ms, seen.position) == ("somebody", 5, Position(7, EPOCH))
    assert body(publication) == {"type": "append", "text": "ä🎉"}, "what is kept stays as it is"


def test_what_is_no_piece_is_shown_as_it_is_and_joined_to_nothing() -> None:
    odd = Publication("log", Frame(b"\xff", False), None, Position(1, EPOCH))
    assert shown(odd) is odd
    bare = Publication("log", frame_of(Piece("append", "a")))
    assert shown(bare) is bare
    found = joined(
        "log", [odd, *kept(Piece("append", "a"), first=2)], Position(2, EPOCH), is_all=True
    )
    assert (body(found)["text"], body(found)["is_cut"]) == ("a", True)


@pytest.mark.parametrize(
    ("pieces", "is_all", "expected"),
    [
        pytest.param([], True, {"type": "stream", "text": "", "is_cut": True}, id="all lost"),
        pytest.param([], False, {"type": "append", "text": ""}, id="nothing missed"),
        pytest.param(
            [Piece("stream"), Piece("append", "a"), Piece("append", "b")],
            True,
            {"type": "stream", "text": "ab"},
            id="all",
        ),
        pytest.param(
            [Piece("append", "b"), Piece("append", "c", is_final=True)],
            False,
            {"type": "append", "text": "bc", "is_final": True},
            id="the rest",
        ),
        pytest.param(
            [Piece("append", "b")],
            True,
            {"type": "stream", "text": "b", "is_cut": True},
            id="the beginning is lost",
        ),
        pytest.param(
            [Piece("append", "a", True, True), Piece("stream"), Piece("append", "b")],
            False,
            {"type": "stream", "text": "b"},
            id="another text has begun",
        ),
    ],
)
def test_who_joins_is_shown_one(
    pieces: list[Piece], is_all: bool, expected: dict[str, Any]
) -> None:
    found = body(joined("log", kept(*pieces), Position(9, EPOCH), is_all=is_all))
    assert found == {"room": "log", "offset": 9, "epoch": EPOCH, **expected}


def test_a_room_in_which_nothing_was_ever_is_not_cut() -> None:
    assert "is_cut" not in body(joined("log", [], Position(0, EPOCH), is_all=True))
