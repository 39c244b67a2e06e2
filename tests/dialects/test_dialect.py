"""The contract of a dialect: what every implementation owes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from array_dialect import ArrayDialect
from hubbub import CommandError, Frame, ProtocolError, Publication
from hubbub.dialects.dialect import (
    Connected,
    Dialect,
    ErrorReply,
    Event,
    Message,
    Published,
    RefreshDue,
    Reply,
    ServerUnsubscribed,
    Subscribe,
)
from hubbub.dialects.plain import PlainDialect

DIALECTS: dict[str, Callable[[], Dialect]] = {
    "plain": lambda: PlainDialect(),
    "array": lambda: ArrayDialect(),
}
EVENTS: list[Event] = [
    Published(Publication("red", Frame(b"text", True))),
    Message(Frame(b"\x00\xff", False)),
    Connected(1, "ann"),
    Reply(2, Subscribe(2, "red")),
    ErrorReply(3, CommandError("code", "sentence")),
    ErrorReply(None, CommandError("code", "sentence")),
    ServerUnsubscribed("red"),
    RefreshDue(29.9),
]
FRAMES = [
    Frame(b"", True),
    Frame(b"text", True),
    Frame(b"[]", True),
    Frame(b"[[]]", True),
    Frame(b'["subscribe", 1, "red"]', True),
    Frame(b'["what"]', True),
    Frame(b"\xff\xfe", False),
    Frame(b"[" * 100_000, True),
]


@pytest.fixture(params=list(DIALECTS))
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return DIALECTS[request.param]()


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_a_frame_or_has_no_words(dialect: Dialect, event: Event) -> None:
    frame = dialect.encode(event)
    assert frame is None or isinstance(frame, Frame)
    if frame is not None and frame.is_text:
        assert frame.has_text()


def test_messages_and_errors_have_words_in_every_dialect(dialect: Dialect) -> None:
    for event in (EVENTS[0], EVENTS[1], EVENTS[5], EVENTS[7]):
        assert dialect.encode(event) is not None


@pytest.mark.parametrize("frame", FRAMES, ids=range(len(FRAMES)))
def test_a_message_is_read_or_refused_and_nothing_else(dialect: Dialect, frame: Frame) -> None:
    try:
        commands = dialect.parse(frame)
    except (CommandError, ProtocolError):
        return
    assert isinstance(commands, (list, tuple))


def test_what_is_joined_is_a_frame_or_more_and_one_alone_is_itself(dialect: Dialect) -> None:
    frames = [frame for event in EVENTS if (frame := dialect.encode(event)) is not None]
    assert list(dialect.merge(frames[:1])) == frames[:1]
    joined = dialect.merge(frames)
    assert 1 <= len(joined) <= len(frames)
    assert all(isinstance(frame, Frame) for frame in joined)
