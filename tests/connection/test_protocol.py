"""What is said to a server of rooms, and what it says."""

from __future__ import annotations

import datetime

import msgspec
import pytest

from hubbub.connection.outcome import AttemptEnded, Retry
from hubbub.connection.protocol import publisher_of, read, since_of, write
from hubbub.model import ClientInfo, Position


def test_several_answers_and_pushes_in_one_message() -> None:
    frame = (
        b'{"id":1,"connect":{"client":"c","ping":25,"pong":true,"version":"x"}}\n'
        b'{"push":{"channel":"r","pub":{"data":{"a": 1},"offset":7,"tags":{"x":"y"}}}}\n\n'
        b"{}\n"
        b'{"id":2,"error":{"code":103,"message":"no"}}\n'
        b'{"push":{"channel":"r","join":{"info":{"user":"","client":"d"}}}}\n'
    )
    connect, pub, ping, error, join = read(frame)
    assert connect.connect is not None
    assert (connect.id, connect.connect.ping, connect.connect.pong) == (1, 25, True)
    assert pub.push is not None
    assert pub.push.pub is not None
    assert (bytes(pub.push.pub.data), pub.push.pub.offset) == (b'{"a": 1}', 7)
    assert [each.is_ping for each in (connect, pub, ping, error, join)].count(True) == 1
    assert ping.is_ping
    assert error.error is not None
    assert (error.error.code, error.error.temporary) == (103, False)


@pytest.mark.parametrize(
    "frame",
    [
        b"hello",
        b"[]",
        b'{"id":"1"}',
        b'{"type":"error","code":"x"}',
        b"[" * 100_000,
        b'{"id":1',
        b"\xff",
    ],
)
def test_what_is_no_message_of_the_protocol(frame: bytes) -> None:
    with pytest.raises(AttemptEnded) as caught:
        list(read(frame))
    outcome = caught.value.outcome
    assert (outcome.close.code, outcome.retry) == (1002, Retry.LIMITED)
    assert "is this a route of the dialect centrifuge?" in outcome.close.reason


def test_commands_are_lines() -> None:
    line = write(3, "publish", {"channel": "r", "data": {"when": datetime.date(2030, 1, 2)}})
    assert msgspec.json.decode(line) == {
        "id": 3,
        "publish": {"channel": "r", "data": {"when": "2030-01-02"}},
    }
    assert write(0, "send", {"data": "a\nb"}) == b'{"send":{"data":"a\\nb"}}'
    with pytest.raises(TypeError):
        write(1, "rpc", {"data": object()})


def test_a_position_is_asked_for_only_where_there_is_one() -> None:
    assert since_of(None) == {}
    assert since_of(Position(0, "")) == {"recover": True, "offset": 0, "epoch": ""}


def test_who_published_is_read_when_somebody_asks() -> None:
    line = b'{"push":{"channel":"r","pub":{"data":1,"info":%b}}}'
    for text, expected in (
        (
            b'{"user":"ann","client":"c","conn_info":1,"chan_info":[2]}',
            ClientInfo("c", "ann", [2], 1),
        ),
        (b'{"user":"","client":"c","other":1}', ClientInfo("c")),
        (b"null", None),
    ):
        (push,) = read(line % text)
        assert push.push is not None
        assert push.push.pub is not None
        assert publisher_of(push.push.pub.info) == expected
    assert publisher_of(b"") is None
    with pytest.raises(msgspec.ValidationError):
        publisher_of(b"5")
