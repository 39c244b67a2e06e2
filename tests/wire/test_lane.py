"""The outbound lane: each receiver is written to once, or returned."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from hubbub.wire.lane import write_shared


class Receiver:
    def __init__(self, *, writes_directly: bool) -> None:
        self.writes_directly = writes_directly
        self.got: list[bytes] = []
        self.write_wire: Callable[[bytes], object] | None = self.got.append


@given(st.lists(st.booleans()), st.binary())
def test_each_is_written_to_or_returned_and_the_order_is_kept(
    lanes: list[bool], wire: bytes
) -> None:
    receivers = [Receiver(writes_directly=lane) for lane in lanes]
    others = write_shared(receivers, wire)
    assert others == [each for each in receivers if not each.writes_directly]
    assert all(each.got == ([wire] if each.writes_directly else []) for each in receivers)
    assert all(each.got[0] is wire for each in receivers if each.got), "one object for all"
