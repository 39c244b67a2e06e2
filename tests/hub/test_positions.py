"""Positions: which publication is next, and a client's names in the epoch of its position."""

from __future__ import annotations

from hubbub import Frame, Position, Publication
from hubbub.hub.positions import Progress, end_of, is_after, split_names, with_names

HERE = Position(5, "e")


def publication(offset: int, epoch: str = "e") -> Publication:
    return Publication("red", Frame(b"x", True), None, Position(offset, epoch))


def test_the_next_of_the_same_epoch_is_next() -> None:
    progress = Progress(HERE)
    assert progress.is_next(Position(6, "e"))
    assert not any(map(progress.is_next, [Position(7, "e"), Position(6, "f"), HERE]))


def test_what_was_here_before_is_old() -> None:
    progress = Progress(HERE)
    assert progress.is_old(HERE)
    assert progress.is_old(Position(1, "e"))
    assert not any(map(progress.is_old, [Position(6, "e"), Position(1, "f")]))


def test_what_comes_after_a_position() -> None:
    assert is_after(publication(6), HERE)
    assert not any(is_after(each, HERE) for each in (publication(5), publication(6, "f")))
    assert not is_after(Publication("red", Frame(b"x", True)), HERE)


def test_where_a_room_stands_after_what_came() -> None:
    assert end_of(HERE, []) == HERE
    assert end_of(HERE, [publication(4), publication(6), publication(7)]) == Position(7, "e")
    assert end_of(HERE, [publication(7)]) is None
    assert end_of(HERE, [publication(6, "f")]) is None


def test_the_last_names_of_a_client_travel_in_its_epoch() -> None:
    assert split_names(with_names(HERE, ["a", "b"])) == (HERE, ["a", "b"])
    assert split_names(HERE) == (HERE, [])
    assert split_names(with_names(HERE, list("abcdef"))) == (HERE, list("cdef"))
    assert split_names(Position(5, "e~a~b~c~d~e~f"))[1] == list("cdef")
    assert split_names(Position(5, "e~a~" + "b" * 65)) == (HERE, ["a"])
