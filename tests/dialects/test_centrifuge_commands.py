"""What a client says in the Centrifuge protocol: what is read, and what is refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import Frame, Position, ProtocolError
from hubbub.dialects.centrifuge import CENTRIFUGE
from hubbub.dialects.centrifuge_commands import is_lone_connect
from hubbub.dialects.centrifuge_events import code_of
from hubbub.dialects.dialect import (
    Connect,
    History,
    Pong,
    Presence,
    PresenceStats,
    Publish,
    Refresh,
    Rpc,
    Send,
    SubRefresh,
    Subscribe,
    Unsubscribe,
    Unsupported,
)
from hubbub.errors import MAX_REASON_BYTES


def read(text: str) -> list[Any]:
    return list(CENTRIFUGE.parse(Frame(text.encode(), True)))


def test_each_command() -> None:
    rows: list[tuple[str, Any]] = [
        ('"connect":{"token":"t","data":{"a":1}}', Connect(7, "t", {"a": 1})),
        (
            '"connect":{"subs":{"a":{"recover":true,"offset":3,"epoch":"e"},"b":{}}}',
            Connect(7, None, None, {"a": Position(3, "e")}),
        ),
        ('"subscribe":{"channel":"a"}', Subscribe(7, "a")),
        (
            '"subscribe":{"channel":"a","recover":true,"epoch":"e","offset":5,"flag":3}',
            Subscribe(7, "a", Position(5, "e"), must_recover=True),
        ),
        ('"subscribe":{"channel":"a","recover":true}', Subscribe(7, "a", Position(0, ""))),
        ('"unsubscribe":{"channel":"a"}', Unsubscribe(7, "a")),
        ('"presence":{"channel":"a"}', Presence(7, "a")),
        ('"presence_stats":{"channel":"a"}', PresenceStats(7, "a")),
        ('"history":{"channel":"a"}', History(7, "a", 0)),
        ('"history":{"channel":"a","limit":-1}', History(7, "a", None)),
        (
            '"history":{"channel":"a","limit":2,"since":{"offset":1,"epoch":"e"},"reverse":true}',
            History(7, "a", 2, Position(1, "e"), True),
        ),
        ('"refresh":{"token":"t"}', Refresh(7, "t")),
        (
            '"subscribe":{"channel":"a","delta":"fossil"}',
            Subscribe(7, "a", takes_patches=True),
        ),
        ('"subscribe":{"channel":"a","token":"t"}', Subscribe(7, "a", token="t")),
        ('"sub_refresh":{"channel":"a","token":"t"}', SubRefresh(7, "a", "t")),
    ]
    for text, expected in rows:
        assert read(f'{{{text},"id":7}}') == [expected]


def test_payloads_pass_as_they_are() -> None:
    (publish,) = read(
        '{"id":1,"publish":{"channel":"a","data":{"n": 1.10, "big": 12345678901234567890}}}'
    )
    assert isinstance(publish, Publish)
    assert publish.message.payload == b'{"n": 1.10, "big": 12345678901234567890}'
    (rpc,) = read('{"id":1,"rpc":{"method":"m","data":[1, 2]}}')
    assert isinstance(rpc, Rpc)
    assert (rpc.method, rpc.data.payload) == ("m", b"[1, 2]")
    (send,) = read('{"send":{"data":"x"}}')
    assert isinstance(send, Send)
    assert send.message.payload == b'"x"'
    (nothing,) = read('{"send":{}}')
    assert nothing.message.payload == b"null"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('"sub_refresh":{"channel":"a"}', 107),
        ('"subscribe":{"channel":"a","tf":{"op":""}}', 107),
        ('"publish":{"channel":"a"}', 107),
    ],
)
def test_what_nobody_carries_out_is_answered(text: str, code: int) -> None:
    (command,) = read(f'{{"id":4,{text}}}')
    assert isinstance(command, Unsupported)
    assert (command.id, code_of(command.error)) == (4, code)


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 99, -1])
@pytest.mark.parametrize(
    "text",
    [
        '"subscribe":{"channel":"a","type":%s}',
        '"subscribe":{"channel":"a","recover":true,"token":"t","type":%s}',
        '"publish":{"channel":"a","type":%s,"data":1}',
        '"publish":{"channel":"a","type":%s,"key":"k","removed":true}',
    ],
)
def test_maps_and_polls_are_not_available(text: str, kind: int) -> None:
    (command,) = read(f'{{"id":4,{text % kind}}}')
    assert isinstance(command, Unsupported)
    assert (command.id, code_of(command.error)) == (4, 108)


def test_a_stream_is_what_there_is() -> None:
    commands = read('{"id":1,"subscribe":{"channel":"a","type":0}}')
    commands += read('{"id":2,"publish":{"channel":"a","type":0,"data":1}}')
    assert [type(each) for each in commands] == [Subscribe, Publish]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        '{"id":1,"connect":{}}\n\n{"id":2,"subscribe":{"channel":"a"}}',
        "{",
        "[]",
        "5",
        "null",
        '{"id":"1","connect":{}}',
        '{"id":-1,"connect":{}}',
        '{"id":4294967296,"connect":{}}',
        '{"connect":{}}',
        '{"subscribe":{"channel":"a"}}',
        '{"id":1}',
        '{"id":1,"ping":{}}',
        '{"id":1,"subscribe":{}}',
        '{"id":1,"subscribe":{"channel":5}}',
        '{"id":1,"subscribe":{"channel":"a","delta":"other"}}',
        '{"id":1,"unsubscribe":{}}',
        '{"id":1,"publish":{"data":1}}',
        '{"id":1,"history":{}}',
        '{"id":1,"refresh":{}}',
        '{"id":1,"sub_refresh":{"token":"t"}}',
        "[" * 100_000,
        "hello",
        '{"type":"hello"}',
    ],
)
def test_what_no_sdk_sends_closes_the_connection_for_good(text: str) -> None:
    with pytest.raises(ProtocolError, match="bad request") as caught:
        read(text)
    assert caught.value.close_code == 3501
    assert not caught.value.reason.startswith("{"), "an SDK would read that as JSON"


@pytest.mark.parametrize("text", ["hello", '{"type":"hello"}', '{"id":0}', "[]"])
def test_a_plain_message_is_told_whose_route_it_is(text: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read(text)
    assert "this route is for rooms.js and Centrifuge SDKs" in caught.value.reason
    assert len(caught.value.reason) <= MAX_REASON_BYTES


@pytest.mark.parametrize("text", ["{}", " { } "])
def test_a_pong_says_nothing(text: str) -> None:
    assert read(text) == [Pong()]


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ('{"id":1,"connect":{}}', True),
        ('{"connect":{"token":"t","name":"js"},"id":1}', True),
        ('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"a"}}', True),
        (
            '{"id":1,"connect":{"token":"t","data":1,"subs":{},"name":"js","version":"1","headers":{}}}',
            True,
        ),
        ('{"id":1,"connect":{"to":"room 5"}}', False),
        ('{"id":1,"connect":{"token":"t","to":"room 5"}}', False),
        ('{"id":1,"connect":{},"type":"say"}', False),
        ('{"id":"1","connect":{}}', False),
        ('{"id":true,"connect":{}}', False),
        ('{"id":1,"connect":"now"}', False),
        ('{"connect":{}}', False),
        ('[{"id":1,"connect":{}}]', False),
        ('{"id":1,"connect":{}', False),
        ('{"id":1,"connect":{"a":"\\ud800"}}', False),
        ('{"connect"' + "[" * 100_000, False),
        ("connect", False),
    ],
)
def test_a_connect_command_is_known_where_none_belongs(text: str, is_one: bool) -> None:
    assert is_lone_connect(text.encode()) is is_one


def test_unknown_fields_are_passed_over() -> None:
    text = '{"id":1,"later":5,"publish":{"channel":"a","data":1},"subscribe":{"channel":"a","x":1}}'
    assert read(text) == [Subscribe(1, "a")]


IN_ORDER: list[tuple[str, type]] = [
    ("connect", Connect),
    ("subscribe", Subscribe),
    ("unsubscribe", Unsubscribe),
    ("publish", Publish),
    ("presence", Presence),
    ("presence_stats", PresenceStats),
    ("history", History),
    ("rpc", Rpc),
    ("send", Send),
    ("refresh", Refresh),
    ("sub_refresh", SubRefresh),
]
"""The names of commands, as the protocol counts them where one object has several."""


@pytest.mark.parametrize("is_reversed", [False, True])
def test_of_several_commands_in_one_object_the_first_of_the_protocol_counts(
    is_reversed: bool,
) -> None:
    request = {"channel": "a", "data": 1, "token": "t", "method": "m"}
    for number, (_, kind) in enumerate(IN_ORDER):
        names = [name for name, _ in IN_ORDER[number:]]
        written = dict.fromkeys(reversed(names) if is_reversed else names, request)
        (command,) = read(json.dumps({"id": 1, **written}))
        assert type(command) is kind


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_commands_or_a_protocol_error(payload: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        CENTRIFUGE.parse(Frame(payload, True))
