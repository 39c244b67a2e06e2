"""The plain dialect: what the hub itself has to say to a client."""

from __future__ import annotations

import json

from hubbub import ClientInfo, CommandError, Frame, Publication
from hubbub.dialects.dialect import (
    Connected,
    ErrorReply,
    Event,
    Joined,
    Left,
    Message,
    PresencePaused,
    Published,
    RefreshDue,
    Reply,
    ServerUnsubscribed,
    Subscribe,
)
from hubbub.dialects.plain import PlainDialect

plain = PlainDialect()


def said(event: Event) -> Frame:
    frame = plain.encode(event)
    assert frame is not None
    return frame


def test_messages_are_the_applications_own() -> None:
    frame = Frame(b"as it is", True)
    assert plain.is_plain
    assert plain.encode(Message(frame)) is frame
    assert plain.encode(Published(Publication("red", frame))) is frame
    assert plain.parse(frame) == ()
    assert plain.merge([frame, frame]) == [frame, frame]


def test_it_has_no_words_for_what_it_does_not_know() -> None:
    assert plain.encode(Connected(1, "ann")) is None
    assert plain.encode(Reply(1, Subscribe(1, "red"))) is None
    assert plain.encode(ServerUnsubscribed("red")) is None


def test_a_request_for_a_new_token() -> None:
    frame = said(RefreshDue(29.98765))
    assert frame.is_text
    assert json.loads(frame.payload) == {"type": "refresh", "expires_in_s": 29.988}


def test_an_error_reply() -> None:
    frame = said(ErrorReply(None, CommandError("bad", "a sentence", temporary=True)))
    assert frame.is_text
    assert json.loads(frame.payload) == {
        "type": "error",
        "code": "bad",
        "message": "a sentence",
        "temporary": True,
    }


def test_joins_and_leaves() -> None:
    info = {"client": "c1", "user": "ann", "info": None}
    row = {"type": "presence", "room": "red", "joined": [], "left": []}
    ann = [ClientInfo("c1", "ann")]
    assert json.loads(said(Joined("red", ann)).payload) == {**row, "joined": [info]}
    assert json.loads(said(Left("red", ann)).payload) == {**row, "left": [info]}
    assert json.loads(said(PresencePaused("red", True)).payload) == {**row, "paused": True}
