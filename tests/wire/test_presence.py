"""What tells of joins and leaves, as it is written for plain clients and read back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hubbub import ClientInfo, Frame
from hubbub.wire.presence import MOST_LEVELS, Told, as_json, read_told, told_frame
from hubbub.wire.publication import Kind

ANN = ClientInfo("c1", "ann", {"name": "Ann"})
EVE = ClientInfo("c3", "eve", None, {"name": "Eve"})
SOMEBODY = ClientInfo("c2")


@pytest.mark.parametrize(
    "told",
    [
        Told(Kind.JOIN, (ANN, SOMEBODY, EVE), 7),
        Told(Kind.LEAVE, (SOMEBODY,), 8),
        Told(Kind.JOIN, (), 9, is_paused=True),
        Told(Kind.LEAVE, (), 10, is_paused=False),
        Told(Kind.LEAVE, ()),
    ],
)
def test_what_is_written_is_read(told: Told) -> None:
    frame = told_frame("red", told)
    assert frame.is_text
    assert read_told(frame, told.kind) == told


def test_plain_clients_get_it_as_it_is() -> None:
    said = json.loads(told_frame("red", Told(Kind.JOIN, (ANN,), 7)).payload)
    info = {"client": "c1", "user": "ann", "info": {"name": "Ann"}}
    assert said == {"type": "presence", "room": "red", "joined": [info], "left": [], "at": 7}
    said = json.loads(told_frame("red", Told(Kind.LEAVE, (EVE,), 8)).payload)
    eve = {"client": "c3", "user": "eve", "info": None, "conn_info": {"name": "Eve"}}
    assert (said["joined"], said["left"]) == ([], [eve])
    said = json.loads(told_frame("red", Told(Kind.LEAVE, (), 8, is_paused=False)).payload)
    assert said["paused"] is False


@pytest.mark.parametrize("text", ["", "[]", '{"type": "presence"}', '{"joined": 5}', "\\xff"])
def test_what_is_none_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_told(Frame(text.encode(), True), Kind.JOIN)


def test_what_is_said_of_a_member_is_what_json_has_and_bounded() -> None:
    assert as_json({"a": (1, 2), "b": None}, 100) == {"a": [1, 2], "b": None}
    wrong: Any = object()
    with pytest.raises(TypeError):
        as_json(wrong, 100)
    with pytest.raises(ValueError, match="it has 102 bytes as JSON, and may have 101"):
        as_json("x" * 100, 101)
    deep: Any = 1
    for level in range(MOST_LEVELS):
        deep = [deep] if level % 2 else {"a": deep}
    assert as_json(deep, 4096) == deep
    for deeper in ([deep], {"a": deep}, [1, [deep]]):
        with pytest.raises(ValueError, match="it has more than 32 lists and mappings"):
            as_json(deeper, 4096)
    assert as_json([2**64 - 1, -(2**63)], 100) == [2**64 - 1, -(2**63)]
    for number in (2**64, -(2**63) - 1):
        with pytest.raises(OverflowError):
            as_json(number, 100)
