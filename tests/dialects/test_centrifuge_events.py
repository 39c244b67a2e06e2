"""What the server says in the Centrifuge protocol, byte by byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import ClientInfo, CommandError, Frame, Position, Publication
from hubbub.dialects import centrifuge_events
from hubbub.dialects.centrifuge import CENTRIFUGE
from hubbub.dialects.centrifuge_events import ERROR_CODES, code_of
from hubbub.dialects.dialect import (
    Connected,
    ErrorReply,
    Gap,
    Given,
    History,
    Joined,
    Left,
    Message,
    Page,
    Patched,
    Ping,
    Presence,
    PresencePaused,
    PresenceStats,
    Present,
    Publish,
    Published,
    Refresh,
    RefreshDue,
    Refreshed,
    Reply,
    Returned,
    Rpc,
    ServerSubscribed,
    ServerUnsubscribed,
    SubRefresh,
    Subscribe,
    Unsubscribe,
)
from hubbub.model import PresenceStats as Counts
from hubbub.wire.publication import Subscribed


def written(event: Any) -> str | None:
    frame = CENTRIFUGE.encode(event)
    return None if frame is None else frame.text


def publication(text: str, offset: int | None = None) -> Publication:
    position = None if offset is None else Position(offset, "e")
    return Publication("chat", Frame(text.encode(), True), None, position)


def by(publisher: ClientInfo, text: str, offset: int | None = None) -> Publication:
    made = publication(text, offset)
    made.publisher = publisher
    return made


ANN = ClientInfo("c1", "ann", {"n": 1})
EVE = ClientInfo("c3", "eve", [1], {"name": "Eve"})
BEFORE = b'["as it was, and so on", 1]'
STANDING = Subscribed("a", Position(9, "e"), is_recoverable=True)
FOUND = (publication("8", 8), publication("9", 9))
RECOVERED = STANDING._replace(recovered=True, publications=FOUND)
EVENTS: dict[str, tuple[Any, str | None]] = {
    "published": (
        Published(publication('{"a": 1}', 7)),
        '{"push":{"channel":"chat","pub":{"data":{"a": 1},"offset":7}}}',
    ),
    "published without history": (
        Published(publication("5")),
        '{"push":{"channel":"chat","pub":{"data":5}}}',
    ),
    "patched, without a base": (
        Patched(publication('{"a": 1}', 7), None),
        r'{"push":{"channel":"chat","pub":{"data":"{\"a\": 1}","offset":7}}}',
    ),
    "patched": (
        Patched(publication('["as it was, and so on", 2]', 8), Frame(BEFORE, True)),
        '{"push":{"channel":"chat","pub":{"data":"R\\nP@0,2:2]33OfLk;","offset":8,"delta":true}}}',
    ),
    "patched, where nothing is like before": (
        Patched(publication("5", 9), Frame(BEFORE, True)),
        '{"push":{"channel":"chat","pub":{"data":"5","offset":9}}}',
    ),
    "published by a client": (
        Published(by(EVE, '{"a": 1}', 7)),
        (
            '{"push":{"channel":"chat","pub":{"data":{"a": 1},'
            '"info":{"user":"eve","client":"c3","conn_info":{"name":"Eve"},"chan_info":[1]},"offset":7}}}'
        ),
    ),
    "published by an anonymous client, without history": (
        Published(by(ClientInfo("c2"), "5")),
        '{"push":{"channel":"chat","pub":{"data":5,"info":{"user":"","client":"c2"}}}}',
    ),
    "patched, by a client": (
        Patched(by(ANN, '["as it was, and so on", 2]', 8), Frame(BEFORE, True)),
        (
            '{"push":{"channel":"chat","pub":{"data":"R\\nP@0,2:2]33OfLk;",'
            '"info":{"user":"ann","client":"c1","chan_info":{"n":1}},"offset":8,"delta":true}}}'
        ),
    ),
    "patched, by a client, without a base": (
        Patched(by(ANN, "1", 7), None),
        (
            '{"push":{"channel":"chat","pub":{"data":"1",'
            '"info":{"user":"ann","client":"c1","chan_info":{"n":1}},"offset":7}}}'
        ),
    ),
    "message": (Message(Frame(b'"hi"', True)), '{"push":{"message":{"data":"hi"}}}'),
    "ping": (Ping(), "{}"),
    "connected": (
        Connected(1, "id"),
        '{"id":1,"connect":{"client":"id","version":"hubbub","ping":25,"pong":true}}',
    ),
    "connected for a while": (
        Connected(1, "id", 29.7),
        '{"id":1,"connect":{"client":"id","version":"hubbub","ping":25,"pong":true,"expires":true,"ttl":29}}',
    ),
    "refreshed": (
        Reply(2, Refresh(2, "t"), Refreshed(0.2)),
        '{"id":2,"refresh":{"expires":true,"ttl":1}}',
    ),
    "subscribed for a while": (
        Reply(3, Subscribe(3, "a"), Subscribed("a", expires_in_s=9.5)),
        '{"id":3,"subscribe":{"expires":true,"ttl":9}}',
    ),
    "refreshed in a room": (
        Reply(2, SubRefresh(2, "a", "t"), Refreshed(60.5)),
        '{"id":2,"sub_refresh":{"expires":true,"ttl":60}}',
    ),
    "expired in a room": (
        ServerUnsubscribed("a", is_expired=True),
        '{"push":{"channel":"a","unsubscribe":{"code":2501,"reason":"subscription expired"}}}',
    ),
    "refreshed for good": (Reply(2, Refresh(2, "t"), Refreshed(None)), '{"id":2,"refresh":{}}'),
    "subscribed": (Reply(3, Subscribe(3, "a"), Subscribed("a")), '{"id":3,"subscribe":{}}'),
    "subscribed to a history": (
        Reply(3, Subscribe(3, "a"), STANDING),
        '{"id":3,"subscribe":{"recoverable":true,"positioned":true,"epoch":"e","offset":9}}',
    ),
    "recovered": (
        Reply(
            3,
            Subscribe(3, "a", Position(7, "e")),
            RECOVERED,
        ),
        (
            '{"id":3,"subscribe":{"recoverable":true,"positioned":true,"epoch":"e","offset":7,'
            '"was_recovering":true,"recovered":true,'
            '"publications":[{"data":8,"offset":8},{"data":9,"offset":9}]}}'
        ),
    ),
    "subscribed by a token that says something": (
        Reply(3, Subscribe(3, "a"), STANDING._replace(data={"seat": 7}, expires_in_s=9.5)),
        (
            '{"id":3,"subscribe":{"expires":true,"ttl":9,"recoverable":true,"positioned":true,'
            '"epoch":"e","offset":9,"data":{"seat":7}}}'
        ),
    ),
    "subscribed by a token that says something in bytes": (
        Reply(3, Subscribe(3, "a"), Subscribed("a", data=b"\x00\xff")),
        '{"id":3,"subscribe":{"data":"AP8="}}',
    ),
    "recovered, and published by clients": (
        Reply(
            3,
            Subscribe(3, "a", Position(7, "e")),
            RECOVERED._replace(publications=(by(ClientInfo("c2", "bob"), "8", 8), FOUND[1])),
        ),
        (
            '{"id":3,"subscribe":{"recoverable":true,"positioned":true,"epoch":"e","offset":7,'
            '"was_recovering":true,"recovered":true,"publications":['
            '{"data":8,"info":{"user":"bob","client":"c2"},"offset":8},{"data":9,"offset":9}]}}'
        ),
    ),
    "not recovered": (
        Reply(3, Subscribe(3, "a", Position(1, "e")), STANDING),
        (
            '{"id":3,"subscribe":{"recoverable":true,"positioned":true,"epoch":"e","offset":9,'
            '"was_recovering":true,"recovered":false}}'
        ),
    ),
    "not recoverable": (
        Reply(3, Subscribe(3, "a"), Subscribed("a", Position(9, "e"))),
        '{"id":3,"subscribe":{}}',
    ),
    "newest of a state": (
        Reply(3, Subscribe(3, "a"), Subscribed("a", publications=FOUND[1:])),
        '{"id":3,"subscribe":{"publications":[{"data":9,"offset":9}]}}',
    ),
    "connected into rooms": (
        Connected(
            1,
            "id",
            rooms=[
                Given(RECOVERED, Position(7, "e")),
                Given(Subscribed("b", publications=FOUND)),
                Given(STANDING._replace(room="c"), Position(1, "d")),
            ],
        ),
        (
            '{"id":1,"connect":{"client":"id","version":"hubbub","ping":25,"pong":true,"subs":{'
            '"a":{"recoverable":true,"positioned":true,"epoch":"e","offset":7,'
            '"was_recovering":true,"recovered":true,'
            '"publications":[{"data":8,"offset":8},{"data":9,"offset":9}]},'
            '"b":{},'
            '"c":{"recoverable":true,"positioned":true,"epoch":"e","offset":9,'
            '"was_recovering":true,"recovered":false}}}}'
        ),
    ),
    "recovered by who takes patches": (
        Reply(3, Subscribe(3, "a", Position(7, "e")), RECOVERED._replace(takes_patches=True)),
        (
            '{"id":3,"subscribe":{"recoverable":true,"positioned":true,"epoch":"e","offset":7,'
            '"was_recovering":true,"recovered":true,"delta":true,'
            '"publications":[{"data":"8","offset":8},{"data":"9","offset":9}]}}'
        ),
    ),
    "page": (
        Reply(4, History(4, "a"), Page([publication("8", 8)], Position(9, "e"))),
        '{"id":4,"history":{"publications":[{"data":8,"offset":8}],"epoch":"e","offset":9}}',
    ),
    "a page of what clients published": (
        Reply(4, History(4, "a"), Page([by(EVE, "8", 8)], Position(9, "e"))),
        (
            '{"id":4,"history":{"publications":[{"data":8,'
            '"info":{"user":"eve","client":"c3","conn_info":{"name":"Eve"},"chan_info":[1]},"offset":8}],'
            '"epoch":"e","offset":9}}'
        ),
    ),
    "returned": (
        Reply(5, Rpc(5, "m", Frame(b"1", True)), Returned(Frame(b"[1]", True))),
        '{"id":5,"rpc":{"data":[1]}}',
    ),
    "present": (
        Reply(5, Presence(5, "a"), Present({"c1": ANN, "c2": ClientInfo("c2"), "c3": EVE})),
        (
            '{"id":5,"presence":{"presence":{"c1":{"user":"ann","client":"c1","chan_info":{"n":1}},'
            '"c2":{"user":"","client":"c2"},'
            '"c3":{"user":"eve","client":"c3","conn_info":{"name":"Eve"},"chan_info":[1]}}}}'
        ),
    ),
    "nobody present": (
        Reply(5, Presence(5, "a"), Present({})),
        '{"id":5,"presence":{"presence":{}}}',
    ),
    "counted": (
        Reply(5, PresenceStats(5, "a"), Counts(3, 2)),
        '{"id":5,"presence_stats":{"num_clients":3,"num_users":2}}',
    ),
    "joined": (
        Joined("a", [ANN, ClientInfo("c2")]),
        (
            '{"push":{"channel":"a","join":{"info":{"user":"ann","client":"c1","chan_info":{"n":1}}}}}\n'
            '{"push":{"channel":"a","join":{"info":{"user":"","client":"c2"}}}}'
        ),
    ),
    "left": (
        Left("a", [ClientInfo("c2", "bob")]),
        '{"push":{"channel":"a","leave":{"info":{"user":"bob","client":"c2"}}}}',
    ),
    "paused": (PresencePaused("a", True), None),
    "unsubscribed": (Reply(6, Unsubscribe(6, "a")), '{"id":6,"unsubscribe":{}}'),
    "publish": (Reply(7, Publish(7, "a", Frame(b"1", True))), '{"id":7,"publish":{}}'),
    "error": (
        ErrorReply(8, CommandError("forbidden", "not here")),
        '{"id":8,"error":{"code":103,"message":"not here"}}',
    ),
    "temporary error": (
        ErrorReply(8, CommandError("unavailable", "")),
        '{"id":8,"error":{"code":100,"message":"unavailable","temporary":true}}',
    ),
    "error for no command": (ErrorReply(None, CommandError("invalid_message", "what?")), None),
    "server subscribed": (
        ServerSubscribed("a", Position(9, "e")),
        '{"push":{"channel":"a","subscribe":{"recoverable":true,"positioned":true,"epoch":"e","offset":9}}}',
    ),
    "server subscribed with what else there is to say": (
        ServerSubscribed("a", data=Frame(b'{"why":\n1}', True)),
        '{"push":{"channel":"a","subscribe":{"data":{"why":1}}}}',
    ),
    "server subscribed without history": (
        ServerSubscribed("a"),
        '{"push":{"channel":"a","subscribe":{}}}',
    ),
    "server unsubscribed": (
        ServerUnsubscribed("a"),
        '{"push":{"channel":"a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}',
    ),
    "gap": (
        ServerUnsubscribed("a", is_gap=True),
        '{"push":{"channel":"a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}',
    ),
    "a gap that stays": (Gap("a"), None),
    "refresh due": (RefreshDue(3.0), None),
    "answer to nothing": (Reply(None, Unsubscribe(None, "a")), None),
}


@pytest.mark.parametrize("name", EVENTS)
def test_each_event_is_written(name: str) -> None:
    event, expected = EVENTS[name]
    assert written(event) == expected


@pytest.mark.parametrize(
    ("payload", "is_text", "expected"),
    [
        (b"no JSON", True, '"no JSON"'),
        (b'"\xc3\xa9"', True, '"é"'),
        (b'{\n "a": [1,\r\n 2]\n}', True, '{"a":[1,2]}'),
        (b'"a\\nb"', True, '"a\\nb"'),
        (b"line\nbreak", True, '"line\\nbreak"'),
        (b"", True, '""'),
        (b"\x00\xff", False, '"AP8="'),
    ],
)
def test_any_message_is_a_json_value_on_one_line(
    payload: bytes, is_text: bool, expected: str
) -> None:
    text = written(Message(Frame(payload, is_text)))
    assert text == f'{{"push":{{"message":{{"data":{expected}}}}}}}'


@given(st.text() | st.binary())
def test_whatever_is_published_is_one_line_of_json(message: str | bytes) -> None:
    is_text = isinstance(message, str)
    payload = message.encode("utf-8", "replace") if isinstance(message, str) else message
    frame = CENTRIFUGE.encode(Published(Publication('a\n"', Frame(payload, is_text))))
    assert frame is not None
    assert b"\n" not in frame.payload
    assert json.loads(frame.payload)["push"]["channel"] == 'a\n"'


def test_who_published_it_is_written_once_for_all_its_forms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[ClientInfo] = []

    def counted(info: ClientInfo) -> dict[str, Any]:
        made.append(info)
        return {"user": info.user}

    monkeypatch.setattr(centrifuge_events, "_info", counted)
    shared = by(ANN, '["as it was, and so on", 2]', 8)
    for event in (
        Published(shared),
        Patched(shared, Frame(BEFORE, True)),
        Patched(shared, None),
        Reply(4, History(4, "a"), Page([shared], Position(9, "e"))),
    ):
        assert '"info":{"user":"ann"}' in str(written(event))
    assert made == [ANN]


def test_what_is_said_of_a_publication_is_made_once() -> None:
    shared = publication("1", 1)
    CENTRIFUGE.encode(Published(shared))
    made = dict(shared.forms)
    written(
        Reply(
            3,
            Subscribe(3, "a", Position(0, "e")),
            Subscribed("a", Position(1, "e"), True, (shared,), is_recoverable=True),
        )
    )
    assert shared.forms == made


@pytest.mark.parametrize(
    ("word", "code"),
    [*ERROR_CODES.items(), ("450", 450), ("1999", 1999), ("2000", 400), ("7", 400), ("what", 400)],
)
def test_words_have_numbers(word: str, code: int) -> None:
    assert code_of(CommandError(word, "why")) == code
