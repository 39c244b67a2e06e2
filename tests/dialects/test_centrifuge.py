"""The Centrifuge dialect: messages of several lines, in both directions."""

from __future__ import annotations

from typing import Any

import pytest

from hubbub import Frame, ProtocolError
from hubbub.dialects.centrifuge import CENTRIFUGE
from hubbub.dialects.dialect import Connect, Pong, Subscribe


def read(text: str) -> list[Any]:
    return list(CENTRIFUGE.parse(Frame(text.encode(), True)))


def test_commands_are_read_in_order_a_line_each() -> None:
    text = '{"id":1,"connect":{"name":"js"}}\n{"subscribe":{"channel":"a","flag":1},"id":2}\n{}\n'
    assert read(text) == [Connect(1), Subscribe(2, "a"), Pong()]


def test_bytes_are_no_json() -> None:
    with pytest.raises(ProtocolError):
        CENTRIFUGE.parse(Frame(b"{}", False))


def test_several_go_in_one_message_a_line_each() -> None:
    frames = [Frame(b"{}", True), Frame(b'{"id":1}', True)]
    assert CENTRIFUGE.merge(frames[:1]) == frames[:1]
    (joined,) = CENTRIFUGE.merge(frames)
    assert joined.text == '{}\n{"id":1}'
