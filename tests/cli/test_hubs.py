"""What is shown first of a room that remembers, and where that goes on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hubbub import Position, PositionLost
from hubbub.cli.hubs import Message, Note, Page, Start, begin

pytestmark = pytest.mark.anyio


class Kept:
    """A room that keeps messages 3 to 5 of the epoch "e"."""

    async def read(self, since: Position | None = None, newest: int | None = None) -> Page:
        found = [Message(f"m{offset}", Position(offset, "e")) for offset in (3, 4, 5)]
        if newest is not None:
            found = found[len(found) - newest :] if newest < len(found) else found
        elif since is not None:
            if since.epoch != "e" or not 2 <= since.offset <= 5:
                raise PositionLost("room", is_other_epoch=since.epoch != "e")
            found = found[since.offset - 2 :]
        return Page(found, Position(5, "e"))


@pytest.mark.parametrize(
    ("start", "shown"),
    [
        (Start(), []),
        (Start(newest=2), ["m4", "m5"]),
        (Start(newest=9), ["m3", "m4", "m5"]),
        (Start(offset=4), ["m5"]),
        (Start(offset=5, epoch="e"), []),
        (Start(offset=0), ["gap", "m3", "m4", "m5"]),
        (Start(offset=4, epoch="other"), ["gap", "m3", "m4", "m5"]),
    ],
)
async def test_what_is_shown_first(start: Start, shown: Sequence[str]) -> None:
    found, position = await begin(Kept(), start)
    assert [each.kind if isinstance(each, Note) else each.data for each in found] == shown
    assert position == Position(5, "e")
