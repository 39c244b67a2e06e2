"""The Python client's door: its arguments, and the examples of its guide."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from answering import asynchronous, until
from centrifuge_app import do, make_app, make_hub
from connection.peers import hold, server
from hubbub.connection import Connection, RoomConnection, connect
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from places import ROOT
from serving import serve

# Arguments.

ROOMS = {"dialect": "centrifuge"}

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"url": None}, TypeError, "url must be a str or a function"),
    ({"url": b"ws://h/"}, TypeError, "url must be a str or a function"),
    ({"url": "ftp://h/"}, ValueError, "is no WebSocket address"),
    ({"url": lambda attempt: "ws://h/"}, TypeError, "the url function is called without arguments"),
    ({"headers": ["a: b"]}, TypeError, "headers must be a dict"),
    ({"headers": {"a": "x\n"}}, ValueError, "the value of a has characters"),
    ({"headers": {"Host": "x"}}, ValueError, "the handshake sets Host by itself"),
    ({"headers": {"Sec-WebSocket-Protocol": "x"}}, ValueError, "use subprotocols="),
    ({"headers": {"origin": "x"}, "origin": "http://y"}, ValueError, "Origin is given twice"),
    ({"headers": lambda attempt: {}}, TypeError, "the headers function is called without"),
    ({"subprotocols": "chat"}, TypeError, "subprotocols must be a list of str, not str"),
    ({"subprotocols": ["a b"]}, ValueError, "'a b' is no token"),
    ({"subprotocols": ["a", "a"]}, ValueError, "one is there twice"),
    ({"origin": "http://x\r\n"}, ValueError, "is no origin"),
    ({"proxy": False}, TypeError, "proxy must be True"),
    ({"proxy": "ftp://u:secret@h"}, ValueError, "proxy='ftp://h': scheme ftp isn't supported"),
    ({"proxy": "http://h:x"}, ValueError, "is no address of a proxy"),
    ({"proxy": "socks5://h"}, ValueError, "SOCKS needs python-socks"),
    ({"ssl": True}, TypeError, "ssl must be an ssl.SSLContext"),
    ({"on_state": "print"}, TypeError, "on_state must be a function"),
    ({"on_state": hold}, TypeError, "on_state must be a plain function"),
    ({"open_timeout_s": 0}, ValueError, "open_timeout_s=0: must be seconds, more than 0, or None"),
    ({"open_timeout_s": "5"}, TypeError, "open_timeout_s must be seconds, or None, not str"),
    ({"close_timeout_s": -1}, ValueError, "close_timeout_s=-1: must be seconds, not negative"),
    ({"close_timeout_s": None}, TypeError, "close_timeout_s must be seconds, not None"),
    ({"ping_interval_s": float("inf")}, ValueError, "ping_interval_s=inf"),
    ({"ping_timeout_s": float("nan")}, ValueError, "ping_timeout_s=nan"),
    ({"max_message_bytes": 0}, ValueError, "must be at least 1 byte"),
    ({"max_message_bytes": 1.5}, TypeError, "must be a number of bytes"),
]


@pytest.mark.parametrize(("keywords", "kind", "text"), WRONG)
def test_fault_12_a_wrong_argument_is_an_error_at_once(
    keywords: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=re.escape(text)) as caught:
        connect(**{"url": "ws://localhost/", **keywords})
    assert "secret" not in str(caught.value)


def test_a_wrong_address_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match="is no WebSocket address"):
        connect("localhost:8080/ws")
    with pytest.raises(ValueError, match="must be seconds"):
        connect("ws://localhost/", min_delay_s=30)
    with pytest.raises(ValueError, match="max_queue"):
        connect("ws://localhost/", max_queue=-1)


WRONG_ROOMS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"dialect": "json"}, ValueError, 'dialect=\'json\': must be "plain" or "centrifuge"'),
    ({"token": "t"}, TypeError, 'token and data are for dialect="centrifuge"'),
    ({"data": {}}, TypeError, 'token and data are for dialect="centrifuge"'),
    ({**ROOMS, "token": 5}, TypeError, "a token must be a str, not int"),
    ({**ROOMS, "token": lambda x: x}, TypeError, "the token function is called without arguments"),
    ({**ROOMS, "data": object()}, TypeError, "it has no JSON form"),
    ({**ROOMS, "timeout_s": 0}, ValueError, "timeout_s=0: must be seconds, more than 0"),
    ({**ROOMS, "max_ping_delay_s": -1}, ValueError, "max_ping_delay_s=-1: must be seconds"),
    ({**ROOMS, "max_queue": -1}, ValueError, "max_queue=-1: must not be negative"),
    ({**ROOMS, "max_queue_bytes": 1}, TypeError, "max_queue_bytes is for plain messages"),
    ({**ROOMS, "max_message_bytes": 0}, ValueError, "must be at least 1 byte"),
    ({**ROOMS, "min_delay_s": 30}, ValueError, "must be seconds"),
]


@pytest.mark.parametrize(("keywords", "kind", "text"), WRONG_ROOMS)
def test_a_wrong_argument_for_rooms_is_an_error_at_once(
    keywords: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=re.escape(text)):
        connect(**{"url": "ws://localhost/", **keywords})


def test_each_dialect_has_its_connection_and_its_usual_bounds() -> None:
    plain, rooms = connect("ws://localhost/"), connect("ws://localhost/", dialect="centrifuge")
    assert (type(plain), type(rooms)) == (Connection, RoomConnection)
    assert plain._options.max_message_bytes == 2**20
    assert rooms._options.max_message_bytes == 2**24
    unbounded = connect("ws://localhost/", dialect="centrifuge", max_message_bytes=None)
    assert unbounded._options.max_message_bytes is None
    with pytest.raises(TypeError, match=re.escape('write  connect(url, dialect="centrifuge")')):
        plain.subscribe("chat:1")


# The guide.


def examples() -> list[dict[str, Any]]:
    """Return what the Python blocks of the guide define, one namespace for each."""
    text = (ROOT / "docs" / "python-client.md").read_text("utf-8")
    spaces: list[dict[str, Any]] = []
    for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        spaces.append({"__name__": "example"})
        exec(code, spaces[-1])
        spaces[-1]["connect"] = connect  # in a test process the name may mean the module
    return spaces


@asynchronous
async def test_the_examples_of_the_guide(capsys: pytest.CaptureFixture[str]) -> None:
    tokens: list[str | None] = []

    async def answer(socket: ServerConnection) -> None:
        assert socket.request is not None
        tokens.append(socket.request.headers.get("Authorization"))
        await socket.send('{"type":"said","user":"ann","text":"hi"}')

    listener, typed, fresh, *_ = examples()
    async with server(answer) as url:
        await listener["main"](url)
        await typed["listen"](url)
        await fresh["listen"](url)
    said = '{"type":"said","user":"ann","text":"hi"}'
    assert capsys.readouterr().out.splitlines() == [said, "ann hi", said]
    assert tokens == [None, None, "Bearer ann-secret"]


@asynchronous
async def test_the_examples_with_rooms_of_the_guide(capsys: pytest.CaptureFixture[str]) -> None:
    *_, follow, show, read = examples()
    hub = make_hub()
    async with serve(make_app(hub)) as served:
        url = served.ws("/connection/websocket")

        async def during(example: Any, *requests: list[Any]) -> Any:
            """Run an example; do something, once it is in the room; end it, once all is done."""
            running = asyncio.create_task(example)
            await until(lambda: len(hub.room("chat:1")) == 1)
            for request in requests:
                await do(hub, request)
            core_of(hub).fanout.flush()
            for each in list(hub):
                session_of(each).transport.close(1000, "bye")  # the hub itself says 3503 here
            return await running

        position = await during(follow["follow"](url), ["publish", "chat:1", "one", "two"])
        assert position.offset == 2
        await do(hub, ["publish", "chat:1", "three"])
        assert (await during(follow["follow"](url, position))).offset == 3
        await during(show["show"](url), ["publish", "chat:1", "four"])
        await during(read["read"](url), ["publish", "chat:1", "five"])
    printed = ["1 one", "2 two", "3 three", "four", "five"]
    assert capsys.readouterr().out.splitlines() == printed
