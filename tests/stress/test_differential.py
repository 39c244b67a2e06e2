"""The lanes under pressure: held back and released, closed from both sides, at every moment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rawsocket import BINARY, CLOSE, PING, TEXT, frame
from stress.differential import CoreLane, NativeLane, ReaderLane, compare, idle_loop

payloads = st.one_of(
    st.binary(max_size=20), st.text(max_size=10).map(str.encode), st.integers(100, 320).map(bytes)
)
frames = st.builds(
    frame,
    st.sampled_from([TEXT, TEXT, BINARY, 0, 0, PING, 0xA, CLOSE, 0x3]),
    payloads,
    fin=st.booleans(),
    masked=st.sampled_from([True] * 9 + [False]),
    rsv=st.sampled_from([0] * 9 + [4]),
)
close_frames = st.builds(
    lambda code, reason: frame(CLOSE, code.to_bytes(2) + reason.encode()),
    st.sampled_from([1000, 1001, 1005, 2999, 3000, 4999]),
    st.text(max_size=5),
)
pieces = st.one_of(frames, frames, close_frames, st.binary(max_size=12))


class TwoLanes(RuleBasedStateMachine):
    """Whatever comes, cut anywhere, while the native lane is busy or not: the same comes out."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = idle_loop()
        self._loop.__enter__()
        self.native = NativeLane()
        self.core = CoreLane()
        self.is_held = self.has_closed = False
        self.waiting = b""

    @initialize(pieces=st.lists(st.builds(frame, st.just(TEXT), st.just(b"hello")), max_size=2))
    def begin(self, pieces: list[bytes]) -> None:
        self.feed(b"".join(pieces))

    @rule(data=pieces)
    def arrives(self, data: bytes) -> None:
        self.waiting += data

    @precondition(lambda self: self.waiting)
    @rule(part=st.integers(1, 400))
    def is_read(self, part: int) -> None:
        piece, self.waiting = self.waiting[:part], self.waiting[part:]
        self.feed(piece)

    def feed(self, piece: bytes) -> None:
        if piece:
            self.native.feed(piece)
            self.core.feed(piece)

    @precondition(lambda self: not self.is_held)
    @rule()
    def gets_busy(self) -> None:
        self.is_held = True
        self.native.hold()

    @precondition(lambda self: self.is_held)
    @rule()
    def gets_idle(self) -> None:
        self.is_held = False
        self.native.release()

    @precondition(lambda self: not self.is_held and self.core.code is None)
    @rule()
    def the_server_closes(self) -> None:
        self.has_closed = True
        self.native.transport.close(1000, "")
        self.core.close(1000)

    @invariant()
    def the_peers_close_frame_ends_it(self) -> None:
        if self.has_closed and self.core.has_received_close:
            assert self.native.socket.is_over

    @invariant()
    def nothing_comes_out_that_should_not(self) -> None:
        count = len(self.native.messages)
        assert self.native.messages == self.core.messages[:count]
        if not self.is_held:
            assert count == len(self.core.messages)

    def teardown(self) -> None:
        try:
            if self.is_held:
                self.native.release()
            ours, theirs = self.native.outcome(), self.core.outcome()
            assert ours[:2] == theirs[:2]
            if theirs.code is None:
                assert ours.pongs == theirs.pongs
        finally:
            self._loop.__exit__(None, None, None)


TestTwoLanes = TwoLanes.TestCase
TestTwoLanes.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)


@pytest.fixture
def _no_loop() -> Iterator[None]:
    with idle_loop():
        yield


@pytest.mark.usefixtures("_no_loop")
@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 200, 299, 300, 301])
@pytest.mark.parametrize("opcode", [0, TEXT, BINARY, CLOSE, PING])
def test_the_lanes_agree_on_any_frame_between_fragments(opcode: int, size: int) -> None:
    first = frame(TEXT, b"a" * 200, fin=False)
    data = first + frame(opcode, b"\x03\xe8" + b"b" * size) + frame(0, b"c")
    compare([data])
    compare([data[i : i + 1] for i in range(len(data))])
    for end in range(len(first), len(data), 3):
        compare([data[:end]])


@pytest.mark.usefixtures("_no_loop")
def test_a_difference_is_told() -> None:
    for ours in (NativeLane(), ReaderLane()):
        ours.feed(frame(TEXT, b"hello"))
        assert ours.outcome() != CoreLane().outcome()
    for lane in (NativeLane(), ReaderLane(), CoreLane()):
        lane.feed(frame(TEXT, b"hello") + frame(PING, b"?") + frame(CLOSE, b""))
        assert lane.outcome() == ([(True, b"hello")], 1005, [b"?"])
