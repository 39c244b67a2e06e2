"""The reader alone: any bytes, cut anywhere; its budget; what it holds; what a violation says."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.wire.frame import Frame
from hubbub.wire.reader import (
    CORE_FRAME_COST,
    COST_BYTES,
    Due,
    Event,
    FrameReader,
    PeerClose,
    Ping,
    Pong,
    Violation,
    close_frame,
    read_common,
)
from rawsocket import BINARY, CLOSE, PING, PONG, TEXT, deflate, frame

LIMIT = 300
PLENTY = 10_000

Told = list[tuple[object, ...]]

HELLO = frame(TEXT, b"hello")
CLOSE_1000 = frame(CLOSE, b"\x03\xe8")


def told(events: list[Event]) -> Told:
    """Write events so that they can be compared."""
    return [
        (event.is_text, bytes(event.payload)) if isinstance(event, Frame) else (event,)
        for event in events
    ]


def whole(reader: FrameReader, data: bytes, budget: int = PLENTY) -> list[Event]:
    """Read all that is there, in as many turns as it takes."""
    events = reader.read(data, budget)
    while reader.has_more and not ended(events):
        events += reader.read(b"", reader.left if reader.left > 0 else budget)
    return events


def ended(events: list[Event]) -> bool:
    return bool(events) and isinstance(events[-1], (PeerClose, Violation))


def read_in_pieces(pieces: list[bytes], budget: int, *, deflates: bool = False) -> Told:
    reader = FrameReader(LIMIT, deflates=deflates)
    events: list[Event] = []
    for piece in pieces:
        if not ended(events):
            events += whole(reader, piece, budget)
    return told(events)


payloads = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=10).map(str.encode),
    st.integers(100, LIMIT + 20).map(bytes),
)
frames = st.builds(
    frame,
    st.sampled_from([TEXT, TEXT, BINARY, BINARY, 0, 0, PING, PONG, CLOSE, 0x3]),
    payloads,
    fin=st.sampled_from([True, True, False]),
    masked=st.sampled_from([True] * 19 + [False]),
    rsv=st.sampled_from([0] * 19 + [4]),
)
deflated = st.builds(
    lambda opcode, payload: frame(opcode, deflate(payload), rsv=4),
    st.sampled_from([TEXT, BINARY]),
    payloads,
)
streams = st.lists(st.one_of(frames, frames, deflated, st.binary(max_size=12)), max_size=8)


@given(streams.map(b"".join), st.data(), st.booleans())
def test_any_bytes_give_the_same_events_however_they_are_cut_and_whatever_a_turn_may(
    stream: bytes, data: st.DataObject, deflates: bool
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in itertools.pairwise([0, *cuts, len(stream)]) if a < b]
    budget = data.draw(st.sampled_from([1, 2, 9, PLENTY]))
    at_once = read_in_pieces([stream], PLENTY, deflates=deflates)
    assert read_in_pieces(pieces, budget, deflates=deflates) == at_once
    bytewise = [stream[i : i + 1] for i in range(len(stream))]
    assert read_in_pieces(bytewise, budget, deflates=deflates) == at_once


@given(st.lists(st.one_of(frames, st.binary(max_size=12)), max_size=8).map(b"".join))
def test_the_common_lane_and_a_reader_for_the_rest_are_one_reader(stream: bytes) -> None:
    taken, used, need = read_common(stream, PLENTY, LIMIT)
    reader = FrameReader(LIMIT)
    reader.unread(taken)
    reader.keep(stream[used:], need)
    assert told(whole(reader, b"")) == read_in_pieces([stream], PLENTY)
    assert need == 0 or need > len(stream) - used


def test_every_kind_of_event_in_the_order_of_its_bytes() -> None:
    reader = FrameReader(LIMIT)
    data = b"".join(
        [
            HELLO,
            frame(PING, b"?"),
            frame(BINARY, b"be", fin=False),
            frame(PONG, b"!"),
            frame(0, b"gin"),
            frame(TEXT, "é".encode()),
            frame(CLOSE, b"\x0f\xa1tired"),
        ]
    )
    assert told(whole(reader, data)) == [
        (True, b"hello"),
        (Ping(b"?"),),
        (Due.FRAGMENT,),
        (Pong(b"!"),),
        (False, b"begin"),
        (True, "é".encode()),
        (PeerClose(4001, "tired", b"\x88\x07\x0f\xa1tired"),),
    ]


def test_text_comes_decoded() -> None:
    for data in (frame(TEXT, "é".encode()), frame(TEXT, bytes(200), fin=False) + frame(0, b"")):
        (message,) = whole(FrameReader(None), data)
        assert isinstance(message, Frame)
        assert message.text_seen == message.payload.decode()


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (frame(TEXT, b"\xff\xfe"), 1007, "invalid UTF-8 in a text message"),
        (frame(TEXT, b"no mask", masked=False), 1002, "incorrect masking"),
        (frame(TEXT, b"rsv", rsv=1), 1002, "reserved bits must be 0"),
        (frame(0x3, b"unknown"), 1002, "invalid opcode"),
        (frame(0, b"continues nothing"), 1002, "unexpected continuation frame"),
        (frame(PING, b"x", fin=False), 1002, "fragmented control frame"),
        (frame(PING, bytes(126)), 1002, "control frame too long"),
        (frame(TEXT, bytes(LIMIT + 1))[:4], 1009, "larger than max_message_bytes, which is 300"),
        (frame(BINARY, bytes(70_000))[:10], 1009, "which is 300"),
        (frame(CLOSE, b"\x03"), 1002, ""),
        (frame(CLOSE, (1005).to_bytes(2)), 1002, ""),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007, ""),
        (frame(TEXT, deflate(b"x"), rsv=4), 1002, "reserved bits must be 0"),
    ],
)
def test_a_violation_says_why_and_is_the_last_event(data: bytes, code: int, reason: str) -> None:
    for cut in (len(data), 1):
        reader = FrameReader(LIMIT)
        events = whole(reader, HELLO)
        for start in range(0, len(data), cut):
            if not ended(events):
                events += whole(reader, data[start : start + cut])
        (_, violation) = events
        assert isinstance(violation, Violation)
        assert violation.code == code
        assert reason in violation.reason
        assert violation.wire == close_frame(code, violation.reason)


def test_a_message_larger_than_the_limit_is_one_too_in_fragments_and_inflated() -> None:
    part = bytes(LIMIT - 100)
    events = whole(FrameReader(LIMIT), frame(BINARY, part, fin=False) + frame(0, part)[:8])
    assert [event.code for event in events if isinstance(event, Violation)] == [1009]
    bomb = frame(BINARY, deflate(bytes(100 * LIMIT)), rsv=4)
    (violation,) = whole(FrameReader(LIMIT, deflates=True), bomb)
    assert isinstance(violation, Violation)
    assert violation.code == 1009


def test_a_turn_takes_what_its_budget_allows_and_the_next_one_the_rest() -> None:
    reader = FrameReader(LIMIT)
    assert len(reader.read(HELLO * 10, 4)) == 4
    assert (reader.has_more, reader.left, reader.is_idle) == (True, 0, False)
    assert len(reader.read(b"", 4)) == 4
    assert len(reader.read(b"", 4)) == 2
    assert (reader.has_more, reader.left, reader.is_idle) == (False, 2, True)
    assert reader.read(HELLO, 0) == []
    assert reader.has_more
    assert len(reader.read(b"", 1)) == 1


def test_a_list_ends_with_the_first_frame_that_is_not_common() -> None:
    reader = FrameReader(LIMIT)
    assert told(reader.read(HELLO + frame(PING, b"") + HELLO, 20)) == [
        (True, b"hello"),
        (Ping(b""),),
    ]
    assert (reader.has_more, reader.left) == (True, 20 - 1 - CORE_FRAME_COST)
    assert told(reader.read(b"", reader.left)) == [(True, b"hello")]
    assert (reader.has_more, reader.left) == (False, 20 - 2 - CORE_FRAME_COST)


def test_a_tiny_fragment_has_to_be_paid_for_before_it_is_read_and_a_large_one_has_not() -> None:
    reader = FrameReader(None)
    first, large, last = (
        frame(TEXT, b"a", fin=False),
        frame(0, bytes(126), fin=False),
        frame(0, b"z"),
    )
    assert reader.read(first + large + last, 100) == [Due.FRAGMENT]
    assert (reader.has_more, reader.left) == (True, 100)
    assert reader.read(b"", 100) == []
    assert (reader.has_more, reader.left) == (True, 100 - CORE_FRAME_COST)
    assert told(whole(reader, b"")) == [(True, b"a" + bytes(126) + b"z")]
    assert reader.is_idle


def test_what_is_inflated_is_counted_and_costs() -> None:
    size = 10 * COST_BYTES
    reader = FrameReader(None, deflates=True)
    message = frame(BINARY, deflate(bytes(size)), rsv=4)
    assert reader.read(HELLO + message + message, 100, may_inflate=False) != []
    assert (reader.has_more, reader.left, reader.inflated) == (True, 0, 0)
    for has_more in (True, False):
        assert told(reader.read(b"", 100)) == [(False, bytes(size))]
        assert (reader.has_more, reader.inflated) == (has_more, size)
        assert reader.left == 100 - CORE_FRAME_COST - 10
    half = len(message) // 2
    fragments = frame(BINARY, deflate(bytes(size))[:half], rsv=4, fin=False)
    fragments += frame(0, deflate(bytes(size))[half:])
    inflated = 0
    events = reader.read(fragments, 100)
    while reader.has_more:
        inflated += reader.inflated
        events += reader.read(b"", 100)
    assert inflated + reader.inflated == size
    assert told(events)[-1] == (False, bytes(size))


def test_pings_are_read_while_nothing_may_be_inflated() -> None:
    reader = FrameReader(None, deflates=True)
    data = frame(PING, b"?") + frame(TEXT, deflate(b"x"), rsv=4)
    assert reader.read(data, 100, may_inflate=False) == [Ping(b"?")]
    assert reader.read(b"", reader.left, may_inflate=False) == []
    assert (reader.has_more, reader.left) == (True, 0)
    assert told(reader.read(b"", 100)) == [(True, b"x")]


def test_what_is_given_back_comes_first() -> None:
    reader = FrameReader(LIMIT)
    one, two, three = reader.read(b"".join(frame(TEXT, text) for text in (b"1", b"2", b"3")), 10)
    assert reader.is_idle
    reader.unread([two, three])
    reader.keep(frame(TEXT, b"4") + frame(TEXT, b"5")[:3])
    assert not reader.is_idle
    events = [one, *reader.read(frame(TEXT, b"5")[3:], 3)]
    assert events == [one, two, three]
    assert (reader.has_more, reader.left) == (True, 1)
    assert told(whole(reader, b"")) == [(True, b"4"), (True, b"5")]


def test_a_reader_is_idle_when_nothing_is_pending() -> None:
    reader = FrameReader(LIMIT, deflates=True)
    for data in (HELLO, frame(PING, b""), frame(TEXT, deflate(b"x"), rsv=4)):
        reader.read(data[:4], PLENTY)
        assert not reader.is_idle
        reader.read(data[4:], PLENTY)
        assert reader.is_idle
    whole(reader, frame(TEXT, b"", fin=False))
    assert not reader.is_idle, "a message is open"
    whole(reader, frame(0, b""))
    assert reader.is_idle
    assert reader._core is None, "what inflates is gone with the message"


def test_a_frame_that_trickles_in_is_looked_at_when_it_is_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    read_rare = FrameReader._read_rare

    def counted(self: FrameReader, *arguments: object) -> int:
        nonlocal looks
        looks += 1
        return read_rare(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(FrameReader, "_read_rare", counted)
    reader = FrameReader(None)
    data = frame(BINARY, bytes(70_000))
    events = [
        event for i in range(0, len(data), 7) for event in reader.read(data[i : i + 7], PLENTY)
    ]
    assert told(events) == [(False, bytes(70_000))]
    assert looks <= 5


@pytest.mark.parametrize("before", [b"", HELLO[:3], frame(TEXT, b"open", fin=False)])
def test_after_our_close_only_the_peers_counts(before: bytes) -> None:
    reader = FrameReader(LIMIT)
    whole(reader, before)
    rest = HELLO[len(before) :] if before == HELLO[:3] else b""
    data = rest + frame(0 if len(before) > 3 else TEXT, b"\xff") + frame(PING, b"") + CLOSE_1000
    assert not reader.find_close(data[:-1], PLENTY)
    assert not reader.has_more
    assert reader.find_close(data[-1:], PLENTY)


def test_after_our_close_so_many_bytes_are_looked_through_at_once() -> None:
    reader = FrameReader(LIMIT)
    data = HELLO * 10 + CLOSE_1000
    assert not reader.find_close(data, 60)
    turns = 1
    while reader.has_more:
        found = reader.find_close(b"", 60)
        turns += 1
    assert found
    assert turns == -(-len(data) // 60)


def test_after_our_close_what_was_given_back_is_looked_through_too() -> None:
    for last, is_end in ((CLOSE_1000, True), (frame(PING, b""), False), (frame(0x3, b""), True)):
        reader = FrameReader(LIMIT)
        events = reader.read(HELLO + last, PLENTY)
        reader.unread(events)
        assert reader.find_close(b"", PLENTY) == is_end
        assert reader.read(b"", PLENTY) == []
    reader = FrameReader(LIMIT)
    assert reader.find_close(frame(0x3, b""), PLENTY), "a violation is as good"
