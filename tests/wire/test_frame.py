"""Frames: the wire form against websockets' own, and what each Python value becomes."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import json
import uuid
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame as Reference
from websockets.frames import Opcode

import hubbub.wire.frame
from hubbub.wire.frame import BINARY, TEXT, Batch, DeflatedBatch, Frame, encode, header
from hubbub.wire.publication import Publication


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Move(msgspec.Struct, tag="move"):
    to: Point


class Person(pydantic.BaseModel):
    name: str
    born: datetime.date


LENGTHS = [0, 1, 125, 126, 127, 65535, 65536, 70000]


def reference(opcode: Opcode, payload: bytes) -> bytes:
    return Reference(opcode, payload).serialize(mask=False)


@given(st.binary(max_size=300), st.booleans())
def test_the_wire_form_equals_websockets(payload: bytes, is_text: bool) -> None:
    opcode = Opcode.TEXT if is_text else Opcode.BINARY
    assert Frame(payload, is_text).wire == reference(opcode, payload)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_wire_form_equals_websockets_at_every_change_of_the_header(length: int) -> None:
    assert Frame(bytes(length), False).wire == reference(Opcode.BINARY, bytes(length))


@given(st.integers(0, 2**63 - 1))
@example(2**63 - 1)
def test_a_header_says_its_length(length: int) -> None:
    head = header(TEXT, length)
    assert head[0] == 0x80 | TEXT
    assert not head[1] & 0x80, "a server never masks"
    if len(head) == 2:
        assert head[1] == length < 126
    elif len(head) == 4:
        assert head[1] == 126
        assert int.from_bytes(head[2:], "big") == length
        assert 126 <= length < 2**16, "the shortest form, as RFC 6455 section 5.2 demands"
    else:
        assert head[1] == 127
        assert len(head) == 10
        assert int.from_bytes(head[2:], "big") == length >= 2**16


def test_opcodes_are_those_of_the_rfc() -> None:
    assert (TEXT, BINARY) == (Opcode.TEXT, Opcode.BINARY)


def test_the_wire_form_is_built_once_and_shared() -> None:
    frame = encode("hello")
    assert frame.wire is frame.wire
    assert frame.text is frame.text


@given(st.text())
def test_text_stays_text(text: str) -> None:
    frame = encode(text)
    assert frame.is_text
    assert frame.payload == text.encode()
    assert frame.text == text


def test_a_subclass_of_str_is_text_not_json() -> None:
    class Name(str):
        __slots__ = ()

    assert encode(Name("ann")).payload == b"ann"


@pytest.mark.parametrize(
    "data", [b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"a-b-c")[::2]]
)
def test_bytes_of_every_kind_are_binary(data: bytes | bytearray | memoryview) -> None:
    frame = encode(data)
    assert not frame.is_text
    assert frame.payload == b"abc"
    assert type(frame.payload) is bytes


def test_a_bytearray_is_copied_so_that_its_owner_may_reuse_it() -> None:
    buffer = bytearray(b"abc")
    frame = encode(buffer)
    buffer[:] = b"xyz"
    assert frame.payload == b"abc"


def test_a_frame_stays_itself() -> None:
    frame = encode("once")
    assert encode(frame) is frame


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values.filter(lambda value: not isinstance(value, str)))
def test_anything_else_is_json_text(value: Any) -> None:
    frame = encode(value)
    assert frame.is_text
    assert json.loads(frame.payload) == value


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        (Point(1, 2), b'{"x":1,"y":2}'),
        (Move(Point(1, 2)), b'{"type":"move","to":{"x":1,"y":2}}'),
        (Person(name="Ann", born=datetime.date(1990, 5, 1)), b'{"name":"Ann","born":"1990-05-01"}'),
        (
            {"who": Person(name="A", born=datetime.date(1990, 5, 1))},
            b'{"who":{"name":"A","born":"1990-05-01"}}',
        ),
        ({1}, b"[1]"),
        (frozenset({"a"}), b'["a"]'),
        (uuid.UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (decimal.Decimal("1.50"), b'"1.50"'),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), b'"2026-01-02T03:04:05Z"'),
        (None, b"null"),
        (1.5, b"1.5"),
        (2**70, b"1180591620717411303424"),
    ],
    ids=repr,
)
def test_the_json_of_rich_values(value: Any, payload: bytes) -> None:
    assert encode(value).payload == payload


def test_s09_times_go_out_as_iso_8601() -> None:
    moment = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.UTC)
    frame = encode({"type": "notification", "message": "Build done", "time": moment})
    sent = json.loads(frame.text)
    assert sent["time"] == "2026-11-23T12:00:00Z"
    assert datetime.datetime.fromisoformat(sent["time"]) == moment


@pytest.mark.parametrize(
    "value",
    [object(), ValueError("x"), encode, {(1, 2): 3}, iter([1])],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_json_form_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match="it has no JSON form"):
        encode(value)


@pytest.mark.parametrize("value", ["\ud800", {"text": "\ud800"}])
def test_half_a_surrogate_pair_is_refused(value: Any) -> None:
    with pytest.raises(UnicodeEncodeError):
        encode(value)


@given(st.binary(max_size=12) | st.text().map(str.encode))
def test_has_text_agrees_with_python(payload: bytes) -> None:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        assert not Frame(payload, True).has_text()
    else:
        frame = Frame(payload, True)
        assert frame.has_text()
        assert frame.text == text


def test_a_frame_shows_its_size_and_not_its_contents() -> None:
    assert repr(encode("secret")) == "Frame(text, 6 bytes)"
    assert repr(encode(b"")) == "Frame(binary, 0 bytes)"


@given(st.lists(st.text(max_size=20) | st.binary(max_size=200), min_size=1, max_size=8))
def test_a_batch_is_its_frames_behind_one_another(messages: list[str | bytes]) -> None:
    frames = [encode(message) for message in messages]
    batch = Batch(frames)
    assert len(batch) == len(frames)
    assert batch.wire == b"".join(frame.wire for frame in frames)
    assert batch.wire is batch.wire


def test_a_batch_of_one_shares_the_bytes_of_its_frame() -> None:
    frame = encode("alone")
    assert Batch([frame]).wire is frame.wire


def inflated(wire: bytes) -> tuple[Opcode, bytes]:
    """Read one frame of a server with websockets' own extension."""
    length, start = wire[1], 2
    if length == 126:
        length, start = int.from_bytes(wire[2:4]), 4
    elif length == 127:
        length, start = int.from_bytes(wire[2:10]), 10
    assert len(wire) == start + length
    reader = PerMessageDeflate(True, True, 12, 12)
    got = reader.decode(Reference(Opcode(wire[0] & 15), wire[start:], rsv1=bool(wire[0] & 0x40)))
    return got.opcode, bytes(got.data)


@given(st.binary(max_size=300) | st.integers(0, 70_000).map(lambda n: b"abc" * n), st.booleans())
@example(b"", True)
def test_the_deflated_form_says_the_same_and_is_never_longer(payload: bytes, is_text: bool) -> None:
    frame = Frame(payload, is_text)
    wire = frame.deflated(0)
    assert inflated(wire) == (Opcode.TEXT if is_text else Opcode.BINARY, payload)
    assert len(wire) <= len(frame.wire)
    assert (wire[0] & 0x40 == 0) == (wire == frame.wire), "what is not shorter goes out plain"


@pytest.mark.parametrize(("size", "is_deflated"), [(99, False), (100, True), (101, True)])
def test_small_payloads_go_out_plain(size: int, is_deflated: bool) -> None:
    frame = Frame(b"a" * size, True)
    assert bool(frame.deflated(100)[0] & 0x40) == is_deflated
    assert frame.wire[0] == 0x81, "the plain form is there as well"


@pytest.mark.parametrize("payload", [b"a" * 500, bytes(range(256))], ids=["shorter", "not shorter"])
def test_a_frame_is_deflated_once(payload: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    deflate = hubbub.wire.frame.deflate

    def counted(data: bytes) -> bytes:
        calls.append(data)
        return deflate(data)

    monkeypatch.setattr(hubbub.wire.frame, "deflate", counted)
    frame = Frame(payload, False)
    assert frame.deflated(0) is frame.deflated(1)
    batches = [DeflatedBatch([frame, encode("small"), frame], 100) for _ in range(3)]
    assert {batch.wire for batch in batches} == {
        frame.deflated(0) + b"\x81\x05small" + frame.deflated(0)
    }
    assert len(calls) == 1


def test_a_deflated_batch_stays_one_when_only_its_last_message_is_kept() -> None:
    first, last = encode("a" * 500), encode("b" * 500)
    assert DeflatedBatch([first, last], 0).last().wire is last.deflated(0)
    assert Batch([first, last]).last().wire is last.wire
    assert DeflatedBatch([last], 1000).last().wire is last.wire


def test_a_message_within_another_is_refused_and_not_taken_for_a_value() -> None:
    for value in ({"text": Frame(b"x", True)}, [Publication("red", Frame(b"x", True))]):
        with pytest.raises(TypeError, match="cannot send a Frame: it has no JSON form"):
            encode(value)


def test_equal_frames_are_two() -> None:
    one, other = Frame(b"x", True), Frame(b"x", True)
    assert one != other
    assert len({one, other, one}) == 2
