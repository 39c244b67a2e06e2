"""Publication: what a broker orders and spreads."""

from __future__ import annotations

from hubbub import Publication
from hubbub.wire.frame import encode


def test_a_publication_shows_its_size_and_not_its_contents() -> None:
    publication = Publication("red", encode("secret"), exclude="c1")
    assert repr(publication) == "Publication(room='red', 6 bytes)"
    assert publication.exclude == "c1"
    assert publication.position is None
