"""Handshake: what an ASGI scope says, and heads that are too large to be read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asgi.handshakes import big_heads
from hubbub import (
    Refused,
)
from hubbub.asgi.handshake import read_handshake


@pytest.mark.parametrize("name", ["many", "long"])
def test_fault_08_a_head_that_is_too_large_is_refused_before_it_is_read(name: str) -> None:
    class Unread(list[tuple[bytes, bytes]]):
        looks = 0

        def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
            type(self).looks += 1
            return super().__iter__()

    headers = Unread(big_heads()[name] * 1000)
    with pytest.raises(Refused) as caught:
        read_handshake({"path": "/ws", "headers": headers})
    assert (caught.value.status, caught.value.code) == (431, "head_too_large")
    assert Unread.looks == 0, "their number alone is enough"


def test_repeated_headers_are_joined() -> None:
    pairs = [(b"x", b"1"), (b"cookie", b"a=1"), (b"X", b"2"), (b"cookie", b"b=2"), (b"y", b"")]
    handshake = read_handshake({"path": "/ws", "headers": pairs})
    assert handshake.headers == {"x": "1, 2", "cookie": "a=1; b=2", "y": ""}
