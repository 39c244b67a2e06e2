"""Decoders: what becomes of a message by the handler's annotation."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from datetime import datetime
from typing import Any, TypedDict, Union

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import CommandError, Frame
from hubbub.messages.decoders import decoder_for, type_of

OLD_STYLE = Union[str, bytes]  # noqa: UP007


class Say(msgspec.Struct, tag="say"):
    text: str


class Move(msgspec.Struct, tag="move", forbid_unknown_fields=True):
    x: int
    y: int


@dataclasses.dataclass
class Point:
    x: int
    at: datetime | None = None


class Options(TypedDict):
    size: int


class Order(pydantic.BaseModel):
    amount: int
    note: str = ""


def text(data: str) -> Frame:
    return Frame(data.encode(), True)


def decode(annotation: Any, frame: Frame) -> Any:
    return decoder_for(annotation)(frame)


def refusal(annotation: Any, frame: Frame) -> CommandError:
    with pytest.raises(CommandError) as error:
        decode(annotation, frame)
    return error.value


def test_text_and_binary() -> None:
    binary = Frame(b"\x00\xff", False)
    assert decode(str, text("héllo")) == "héllo"
    assert decode(bytes, binary) == b"\x00\xff"
    assert refusal(str, binary).code == "text_expected"
    assert refusal(bytes, text("x")).code == "binary_expected"


@pytest.mark.parametrize("annotation", [str | bytes, bytes | str, OLD_STYLE, Any], ids=str)
def test_either(annotation: Any) -> None:
    assert decode(annotation, text("x")) == "x"
    assert decode(annotation, Frame(b"x", False)) == b"x"


def test_the_frame_itself() -> None:
    frame = text("x")
    assert decode(Frame, frame) is frame


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (dict, {"a": 1}),
        (dict[str, Any], {"type": "x", "n": None}),
        (list[int], [1, 2]),
        (int | None, None),
        (Options, {"size": 3}),
    ],
    ids=str,
)
def test_json(annotation: Any, value: Any) -> None:
    assert decode(annotation, text(json.dumps(value))) == value
    assert decode(annotation, Frame(json.dumps(value).encode(), False)) == value


def test_records_are_validated() -> None:
    assert decode(Say, text('{"type": "say", "text": "hi"}')) == Say("hi")
    assert decode(Say | Move, text('{"type": "move", "x": 1, "y": 2}')) == Move(1, 2)
    assert decode(Point, text('{"x": 1, "at": "2026-11-23T10:00:00"}')) == Point(
        1, datetime(2026, 11, 23, 10)
    )
    assert decode(Order, text('{"amount": 3}')) == Order(amount=3)


@pytest.mark.parametrize(
    ("annotation", "data", "said"),
    [
        (dict, "no json", "malformed"),
        (dict, "", "truncated"),
        (dict, "[1]", "Expected `object`"),
        (Say | Move, '{"type": "fly"}', "fly"),
        (Move, '{"type": "move", "x": "1", "y": 2}', "$.x"),
        (Move, '{"type": "move", "x": 1, "y": 2, "z": 3}', "unknown field"),
        (Point, "{}", "missing required field `x`"),
        (Options, "{}", "size"),
        (Order, '{"amount": "many"}', "amount"),
        (Order, "[", "Invalid JSON"),
    ],
)
def test_what_is_not_valid_is_refused_and_says_why(annotation: Any, data: str, said: str) -> None:
    error = refusal(annotation, text(data))
    assert error.code == "invalid_message"
    assert said in error.message
    assert len(error.message) <= 200


def test_json_that_is_not_utf8_or_too_deep_is_refused() -> None:
    assert refusal(dict, Frame(b'{"a": "\xff"}', False)).code == "invalid_message"
    assert refusal(dict, Frame(b'{"a": ' + b"[" * 100_000, True)).code == "invalid_message"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ('{"type": "say"}', "say"),
        ('  \n {"a": {"type": "inner"}, "type": "outer"}', "outer"),
        ('{"type": null}', None),
        ('{"type": 7}', None),
        ("{}", None),
        ('{"type": "say"', None),
        ('["type", "say"]', None),
        ('"say"', None),
        ("say", None),
        ("", None),
    ],
)
def test_the_type_of_a_message(data: str, kind: str | None) -> None:
    assert type_of(text(data)) == kind


@given(st.binary(max_size=60))
def test_no_bytes_whatever_do_more_than_be_refused(data: bytes) -> None:
    for is_text in (True, False):
        frame = Frame(data, is_text)
        type_of(frame)
        for annotation in (bytes, dict, Say | Move, Order):
            with suppress(CommandError):
                decode(annotation, frame)


FRAMES = [
    Frame(b"", True),
    Frame(b"text", True),
    Frame(b'{"type": "say"}', True),
    Frame(b"\xff\xfe", False),
    Frame(b"[" * 100_000, True),
]


@pytest.mark.parametrize("annotation", [str, bytes, dict, str | bytes], ids=str)
def test_a_decoder_answers_or_refuses_and_nothing_else(annotation: object) -> None:
    decode = decoder_for(annotation)
    for frame in FRAMES:
        with suppress(CommandError):
            decode(frame)


def test_a_type_is_a_string_or_none_whatever_the_bytes() -> None:
    assert [type_of(frame) for frame in FRAMES] == [None, None, "say", None, None]


def test_an_annotation_that_cannot_be_read_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        decoder_for(dict[str, int] | dict[int, str])
