"""The Python client against real servers of the `websockets` library on 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from answering import asynchronous, until
from connection.peers import QUICK, Inlet, closing, echo, hold, received, refusing, server
from hubbub.connection import Connection, connect
from hubbub.connection.connection import MAX_INBOX_MESSAGES
from hubbub.errors import Disconnected
from places import ROOT

# Talking.


@asynchronous
async def test_text_binary_and_json_there_and_back() -> None:
    async with server(echo) as url, connect(url, **QUICK) as connection:
        await connection.send("grüße")
        await connection.send(b"\x00\xff")
        await connection.send({"type": "say"})
        assert await received(connection, 3) == ["grüße", b"\x00\xff", '{"type":"say"}']


@asynchronous
async def test_a_message_sent_at_once_arrives_although_the_block_ends() -> None:
    seen: list[Any] = []

    async def collect(socket: ServerConnection) -> None:
        async for message in socket:
            seen.append(message)

    async with server(collect) as url:
        async with connect(url, **QUICK) as connection:
            assert await connection.send("one") is True
        assert connection.state == "closed"
        await until(lambda: seen == ["one"])
        assert connection.dropped == 0


@asynchronous
async def test_entering_waits_for_the_first_attempt_and_raises_nothing() -> None:
    async with server(echo) as url, connect(url, **QUICK) as connection:
        assert connection.state == "open"
    async with connect(url, fixed_delay_s=60, proxy=None) as connection:
        assert connection.state == "waiting"
        assert await connection.send("later") is False
        await connection.close()
    async with server(hold, process_request=refusing(401)) as url, connect(url) as connection:
        assert connection.state == "closed"


@asynchronous
async def test_json_iteration_and_its_types() -> None:
    class Say(msgspec.Struct, tag_field="type", tag="say"):
        text: str

    async with server(echo) as url, connect(url, **QUICK) as connection:
        await connection.send({"type": "say", "text": "one"})
        await connection.send("not json")
        await connection.send({"type": "say", "text": "two"})
        typed = connection.json(Say)
        assert await anext(typed) == Say("one")
        with pytest.raises(msgspec.DecodeError):
            await anext(typed)
        assert await anext(typed) == Say("two")
        await connection.send([1, 2])
        assert await anext(connection.json()) == [1, 2]


@asynchronous
async def test_json_ends_with_the_connection() -> None:
    async def one(socket: ServerConnection) -> None:
        await socket.send("[1]")

    async with server(one) as url, connect(url, **QUICK) as connection:
        assert [message async for message in connection.json()] == [[1]]


@asynchronous
async def test_order_is_kept_with_many_senders() -> None:
    async with server(echo) as url, connect(url, **QUICK) as connection:

        async def send(name: str) -> None:
            for number in range(200):
                await connection.send(f"{name} {number}")

        senders = asyncio.gather(*map(send, "abc"))
        messages = [str(message) for message in await received(connection, 600)]
        await senders
        for name in "abc":
            own = [int(text[2:]) for text in messages if text[0] == name]
            assert own == list(range(200))


@asynchronous
async def test_a_burst_while_open_is_held_back_and_not_dropped() -> None:
    async def slow(socket: ServerConnection) -> None:
        await socket.recv()
        socket.transport.pause_reading()
        await started.wait()
        socket.transport.resume_reading()
        async for message in socket:
            sizes.append(len(message))
            if len(sizes) == 64:
                await socket.send("done")

    started = asyncio.Event()
    sizes: list[int] = []
    async with (
        server(slow, max_size=None, compression=None) as url,
        connect(url, max_queue=2, **QUICK) as connection,
    ):
        await connection.wait_open()
        await connection.send("begin")

        async def burst() -> None:
            for _ in range(64):
                await connection.send(b"x" * 2**20)

        sender = asyncio.create_task(burst())
        done, _ = await asyncio.wait([sender], timeout=0.2)
        started.set()
        assert not done  # it waited for the server, which did not read
        assert await received(connection, 1) == ["done"]
        await sender
        assert sizes == [2**20] * 64
        assert connection.dropped == 0


@asynchronous
async def test_a_program_that_does_not_read_holds_the_server_back() -> None:
    sent = 0

    async def flood(socket: ServerConnection) -> None:
        nonlocal sent
        for number in range(2000):
            await socket.send(str(number) + "x" * 10_000)
            sent += 1

    async with server(flood, compression=None) as url, connect(url, **QUICK) as connection:
        await until(lambda: sent > 16)
        await asyncio.sleep(0.2)
        assert sent < 2000
        assert len(connection._inbox) == MAX_INBOX_MESSAGES
        messages = await received(connection, 2000)
        assert [int(str(message).rstrip("x")) for message in messages] == list(range(2000))


@asynchronous
async def test_headers_origin_and_subprotocol() -> None:
    seen: list[Headers] = []

    async def look(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append(socket.request.headers)
        await hold(socket)

    async with (
        server(look, subprotocols=[Subprotocol("chat.v2")]) as url,
        connect(
            url,
            headers={"Authorization": "Bearer abc"},
            origin="https://example.com",
            subprotocols=["chat.v3", "chat.v2"],
            **QUICK,
        ) as connection,
    ):
        await connection.wait_open()
        assert connection.subprotocol == "chat.v2"
        await until(lambda: bool(seen))
        assert seen[0]["Authorization"] == "Bearer abc"
        assert seen[0]["Origin"] == "https://example.com"


# Coming back.


@asynchronous
async def test_s12_it_comes_back_after_a_restart_on_the_same_port() -> None:
    states: list[str] = []
    async with server(echo) as url:
        connection = connect(url, on_state=states.append, **QUICK)
        await connection.__aenter__()
        await connection.send("before")
        assert await received(connection, 1) == ["before"]
    await until(lambda: connection.state == "waiting")
    await connection.send("meanwhile 1")
    await connection.send("meanwhile 2")
    async with server(echo, int(url.split(":")[2].split("/")[0])):
        assert await received(connection, 2) == ["meanwhile 1", "meanwhile 2"]
        await connection.close()
    assert states[:4] == ["connecting", "open", "waiting", "connecting"]
    assert states[-2:] == ["open", "closed"]
    assert connection.dropped == 0


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 3005, 3008, 3012, 4000, 4499])
def test_codes_that_mean_come_back(code: int) -> None:
    @asynchronous
    async def scenario() -> None:
        handlers = iter([closing(code, "away for a moment"), echo])

        async def first_close_then_echo(socket: ServerConnection) -> None:
            await next(handlers)(socket)

        async with server(first_close_then_echo) as url, connect(url, **QUICK) as connection:
            await until(lambda: connection.last_close is not None)
            await connection.send("again")
            assert await received(connection, 1) == ["again"]
            assert connection.last_close == (code, "away for a moment", True)

    scenario()


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1010, 3500, 3503, 3511, 4500, 4999])
def test_codes_that_mean_stay_away(code: int) -> None:
    @asynchronous
    async def scenario() -> None:
        handshakes = 0

        async def close(socket: ServerConnection) -> None:
            nonlocal handshakes
            handshakes += 1
            await closing(code, "not you")(socket)

        async with server(close) as url, connect(url, **QUICK) as connection:
            with pytest.raises(Disconnected) as caught:
                async for _ in connection:
                    pass
            assert (caught.value.code, caught.value.reason) == (code, "not you")
            assert connection.state == "closed"
            with pytest.raises(Disconnected):
                await connection.send("too late")
            with pytest.raises(Disconnected):
                await connection.wait_open()
        assert handshakes == 1

    scenario()


@asynchronous
async def test_1000_ends_the_iteration_quietly() -> None:
    async def say_bye(socket: ServerConnection) -> None:
        await socket.send("bye")

    async with server(say_bye) as url, connect(url, **QUICK) as connection:
        assert [message async for message in connection] == ["bye"]
        assert connection.last_close == (1000, "", True)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_handshake_stops_with_the_reason(status: int) -> None:
    @asynchronous
    async def scenario() -> None:
        body = json.dumps({"error": "The token is not known", "code": "unauthorized"}).encode()
        refuse = refusing(status, body, Content_Type="application/json")
        async with server(hold, process_request=refuse) as url:
            async with connect(url, **QUICK) as connection:
                with pytest.raises(Disconnected, match="The token is not known") as caught:
                    await anext(connection)
            assert caught.value.code == status

    scenario()


@pytest.mark.parametrize("status", [404, 500, 429, 503])
def test_other_refusals_are_tried_again(status: int) -> None:
    @asynchronous
    async def scenario() -> None:
        refuse = refusing(status)
        is_refused = iter([True, True, False])

        def answer(socket: ServerConnection, request: Request) -> Response | None:
            return refuse(socket, request) if next(is_refused) else None

        async with server(echo, process_request=answer) as url, connect(url, **QUICK) as connection:
            await connection.wait_open()
            assert connection.last_close == (status, "No", True)

    scenario()


@asynchronous
async def test_retry_after_is_honoured() -> None:
    refuse = refusing(503, Retry_After="30")
    async with server(hold, process_request=refuse) as url, connect(url, **QUICK) as connection:
        await until(lambda: connection.state == "waiting")
        assert connection.retry_in_s == pytest.approx(30.01)


@asynchronous
async def test_without_reconnection_the_end_is_an_error() -> None:
    once: dict[str, Any] = {"reconnect": False, "proxy": None}
    restart = closing(1012, "restart")
    async with server(restart) as url, connect(url, **once) as connection:
        with pytest.raises(Disconnected, match="1012 restart"):
            await anext(connection)
    async with connect(url, **once) as connection:
        with pytest.raises(Disconnected, match="1006 cannot connect") as caught:
            await connection.wait_open()
        assert caught.value.code == 1006


@asynchronous
async def test_a_server_that_does_not_answer_the_handshake() -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()

    mute = await asyncio.start_server(silence, "127.0.0.1", 0)
    async with mute:
        url = f"ws://127.0.0.1:{mute.sockets[0].getsockname()[1]}/"
        options: dict[str, Any] = {"open_timeout_s": 0.1, "reconnect": False, "proxy": None}
        async with connect(url, **options) as connection:
            with pytest.raises(Disconnected, match="no answer in time"):
                await anext(connection)


@asynchronous
async def test_a_message_over_the_limit_closes_with_1009_and_comes_back() -> None:
    sizes = iter([100, 10])

    async def send(socket: ServerConnection) -> None:
        await socket.send("x" * next(sizes))
        await hold(socket)

    async with server(send) as url, connect(url, max_message_bytes=50, **QUICK) as connection:
        assert await anext(connection) == "x" * 10
        assert connection.last_close is not None
        assert connection.last_close.code == 1009
        assert not connection.last_close.by_server


# The queue while offline.


async def unused_url() -> str:
    async with server(hold) as url:
        return url


@asynchronous
async def test_the_offline_queue_is_bounded_and_drops_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = await unused_url()
    with caplog.at_level(logging.WARNING, "hubbub.connect"):
        connection = connect(url, max_queue=10, **QUICK)
        await connection.__aenter__()
        await until(lambda: connection.state == "waiting")
        for number in range(25):
            assert await connection.send(str(number)) is False
    assert (connection.queued, connection.dropped) == (10, 15)
    assert "the offline queue is full" in caplog.text
    async with server(echo, int(url.split(":")[2].split("/")[0])):
        expected = [str(number) for number in range(15, 25)]
        assert await received(connection, 10) == expected
        await connection.close()


@asynchronous
async def test_what_is_queued_at_the_end_is_counted_as_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = await unused_url()
    async with connect(url, close_timeout_s=0.05, **QUICK) as connection:
        await connection.send("one")
        await connection.send("two")
    assert connection.dropped == 2
    assert "closed with messages in the queue: 2" in caplog.text


@asynchronous
async def test_a_message_that_cannot_be_encoded_is_an_error_at_once() -> None:
    async with server(echo) as url, connect(url, **QUICK) as connection:
        with pytest.raises(TypeError, match="has no JSON form"):
            await connection.send(object())
        await connection.send("fine")
        assert await received(connection, 1) == ["fine"]


# What was accepted to be sent is sent or reported.


@asynchronous
async def test_a_send_that_is_cancelled_loses_and_repeats_nothing() -> None:
    inlet = Inlet()
    async with (
        server(inlet.serve, max_size=None, compression=None) as url,
        connect(url, **QUICK) as connection,
    ):
        await connection.wait_open()
        await until(lambda: inlet.sockets)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connection.send("0" + "x" * 2**24)
        with pytest.raises(TimeoutError):  # it waits behind the first: nothing of it was taken
            async with asyncio.timeout(0.1):
                await connection.send("never")
        inlet.sockets[0].transport.resume_reading()
        assert await connection.flush(10)
        assert await connection.send("2") is True
        await until(lambda: len(inlet.came[0]) >= 2)
        assert "".join(inlet.came[0]) in ("0never2", "02")
        assert inlet.came[0].count("0") == 1
        assert connection.dropped == 0


@asynchronous
async def test_fault_12_what_a_close_cuts_off_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inlet = Inlet()
    deaf: dict[str, Any] = {"max_size": None, "compression": None, "close_timeout": 0.1}
    async with server(inlet.serve, **deaf) as url:
        connection = connect(url, close_timeout_s=0.1, **QUICK)
        await connection.__aenter__()
        await until(lambda: inlet.sockets)
        senders = [asyncio.create_task(connection.send("x" * 2**24)) for _ in range(3)]
        await asyncio.sleep(0.05)
        flushing = asyncio.create_task(connection.flush())
        await connection.close()
        results = await asyncio.gather(*senders, return_exceptions=True)
        assert all(isinstance(result, Disconnected) for result in results)
        assert connection.dropped == 1  # the others were never accepted
        assert await flushing is False
        assert "closed with messages in the queue: 1 messages dropped" in caplog.text


@asynchronous
async def test_fault_12_a_flush_does_not_call_sent_what_was_dropped() -> None:
    def address() -> str:
        if connection.queued:
            raise Disconnected(401, "signed out")
        raise OSError("not yet")

    connection = connect(address, **QUICK)
    async with connection:
        assert await connection.send("lost") is False
        assert await connection.flush() is False
        assert connection.dropped == 1
        with pytest.raises(Disconnected, match="401 signed out"):
            await connection.send("late")


@asynchronous
async def test_a_send_on_a_dead_connection_that_nobody_reads_does_not_hang() -> None:
    async def flood(socket: ServerConnection) -> None:
        for number in range(MAX_INBOX_MESSAGES + 40):
            await socket.send(str(number))
        socket.transport.abort()

    async with server(flood) as url, connect(url, close_timeout_s=0.1, **QUICK) as connection:
        await until(lambda: len(connection._inbox) == MAX_INBOX_MESSAGES)
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            results = [await connection.send("x") for _ in range(3)]
        assert results[-1] is False


@asynchronous
async def test_a_ping_proves_what_was_sent_before() -> None:
    inlet = Inlet()
    inlet.is_first_deaf = False
    async with server(inlet.serve) as url:
        connection = connect(url, **QUICK)
        async with connection:
            await connection.send("one")
            assert await connection.ping() is True
            assert inlet.came == [["one"]]
            inlet.sockets[0].transport.pause_reading()
            pinging = asyncio.create_task(connection.ping())
            await asyncio.sleep(0.02)
            inlet.sockets[0].transport.abort()
            assert await pinging is False
        assert await connection.ping() is False


@asynchronous
async def test_a_close_reason_that_no_frame_can_hold() -> None:
    async with server(hold) as url, connect(url, **QUICK) as connection:
        with pytest.raises(ValueError, match="123 bytes"):
            await connection.close(1000, "\N{EURO SIGN}" * 42)
        assert connection.state == "open"
        await connection.close(1000, "\N{EURO SIGN}" * 41)
        assert connection.last_close == (1000, "\N{EURO SIGN}" * 41, False)


# Arguments.


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

    listener, typed, fresh = examples()
    async with server(answer) as url:
        await listener["main"](url)
        await typed["listen"](url)
        await fresh["listen"](url)
    said = '{"type":"said","user":"ann","text":"hi"}'
    assert capsys.readouterr().out.splitlines() == [said, "ann hi", said]
    assert tokens == [None, None, "Bearer ann-secret"]


# The end.


@asynchronous
async def test_close_ends_an_iteration_that_waits() -> None:
    async with server(hold) as url, connect(url, **QUICK) as connection:
        await connection.wait_open()
        reader = asyncio.create_task(anext(connection, "ended"))
        await asyncio.sleep(0)
        await connection.close(4000, "enough")
        assert await reader == "ended"
        assert connection.last_close == (4000, "enough", False)
        await connection.close()
        assert connection.state == "closed"


@asynchronous
async def test_close_while_waiting_does_not_wait() -> None:
    url = await unused_url()
    async with connect(url, fixed_delay_s=60, proxy=None) as connection:
        await until(lambda: connection.state == "waiting")
        async with asyncio.timeout(1):
            await connection.close()
        assert [message async for message in connection] == []


@asynchronous
async def test_close_with_unread_messages_is_quick_and_loses_none() -> None:
    async def flood(socket: ServerConnection) -> None:
        for number in range(60):
            await socket.send(str(number))
        await hold(socket)

    async with server(flood) as url, connect(url, **QUICK) as connection:
        await until(lambda: len(connection._inbox) == MAX_INBOX_MESSAGES)
        async with asyncio.timeout(2):
            await connection.close()
        rest = [message async for message in connection]
        assert rest == [str(number) for number in range(len(rest))]
        assert len(rest) >= MAX_INBOX_MESSAGES


@asynchronous
async def test_close_with_a_code_that_cannot_be_sent() -> None:
    async with server(hold) as url, connect(url, **QUICK) as connection:
        with pytest.raises(ValueError, match="code=1006"):
            await connection.close(1006)
        await connection.wait_open()


@pytest.mark.parametrize("at", ["connecting", "open", "waiting"])
def test_a_cancelled_program_leaves_nothing_behind(at: str) -> None:
    @asynchronous
    async def scenario() -> None:
        held = refusing(503) if at == "waiting" else None
        gate = asyncio.Event()

        async def gated(socket: ServerConnection, request: Request) -> Response | None:
            if at == "connecting":
                await gate.wait()
            return held(socket, request) if held else None

        async with server(hold, process_request=gated) as url:
            connection = connect(url, fixed_delay_s=60, proxy=None)

            async def program() -> None:
                async with connection:
                    async for _ in connection:
                        pass

            task = asyncio.create_task(program())
            await until(lambda: connection.state == at)
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert connection.state == "closed"
            gate.set()

    scenario()


@asynchronous
async def test_a_close_that_is_cancelled_cuts_the_connection() -> None:
    frozen = asyncio.Event()

    async def never_close(socket: ServerConnection) -> None:
        socket.transport.pause_reading()  # the close handshake gets no answer
        await frozen.wait()
        socket.transport.resume_reading()

    async with server(never_close) as url:
        connection = connect(url, **QUICK)
        await connection.__aenter__()
        await connection.wait_open()
        await asyncio.sleep(0.02)
        closer = asyncio.create_task(connection.close())
        await asyncio.sleep(0.02)
        closer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closer
        assert connection.state == "closed"
        frozen.set()


@asynchronous
async def test_an_error_in_the_block_is_not_swallowed() -> None:
    async def fail(connection: Connection) -> None:
        async with connection:
            raise KeyError("mine")

    async with server(hold) as url:
        connection = connect(url, **QUICK)
        with pytest.raises(KeyError, match="mine"):
            await fail(connection)
        assert connection.state == "closed"


@asynchronous
async def test_a_state_callback_that_fails_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(state: str) -> None:
        raise RuntimeError("callback")

    async with server(echo) as url, connect(url, on_state=fail, **QUICK) as connection:
        await connection.send("x")
        assert await received(connection, 1) == ["x"]
    assert "on_state failed" in caplog.text


@asynchronous
async def test_it_must_be_entered_and_only_once() -> None:
    async with server(hold) as url:
        connection = connect(url, **QUICK)
        with pytest.raises(RuntimeError, match="async with"):
            await connection.send("x")
        with pytest.raises(RuntimeError, match="async with"):
            await anext(connection)
        async with connection:
            with pytest.raises(RuntimeError, match="once"):
                await connection.__aenter__()


@asynchronous
async def test_closed_before_it_was_entered() -> None:
    connection = connect("ws://127.0.0.1:1/")
    await connection.close()
    assert [message async for message in connection] == []
    assert repr(connection) == "<Connection closed, 0 queued, 0 dropped>"


@asynchronous
async def test_a_ping_tells_whether_all_that_was_sent_has_arrived() -> None:
    seen: list[str | bytes] = []

    async def take_two(socket: ServerConnection) -> None:
        seen.append(await socket.recv())
        seen.append(await socket.recv())
        socket.transport.pause_reading()
        await asyncio.sleep(0.05)
        socket.transport.abort()

    async with server(take_two) as url, connect(url, reconnect=False, **QUICK) as connection:
        await connection.send("one")
        assert await connection.ping()
        await connection.send("two")
        await until(lambda: seen == ["one", "two"])
        assert not await connection.ping(), "it ended first"
        await until(lambda: connection.state == "closed")
        assert not await connection.ping(), "there is none"
