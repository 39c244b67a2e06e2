"""The Python client against real servers of the `websockets` library on 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from answering import (
    RESET,
    SILENCE,
    answering,
    asynchronous,
    status,
    until,
    upgraded,
)
from certificates import certificate
from hubbub.connection.connection import MAX_INBOX_MESSAGES, Connection, connect
from hubbub.errors import Disconnected

Handler = Callable[[ServerConnection], Awaitable[None]]
QUICK: dict[str, Any] = {"fixed_delay_s": 0.01, "proxy": None}


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


async def hold(socket: ServerConnection) -> None:
    await socket.wait_closed()


@contextlib.asynccontextmanager
async def server(handler: Handler, port: int = 0, **options: Any) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", port, **options) as running:
        yield url_of(running)


def url_of(running: Server) -> str:
    port: int = next(iter(running.sockets)).getsockname()[1]
    return f"ws://127.0.0.1:{port}/ws"


def closing(code: int, reason: str = "") -> Handler:
    async def close(socket: ServerConnection) -> None:
        await socket.close(code, reason)

    return close


def refusing(status: int, body: bytes = b"", **headers: str) -> Callable[..., Response]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def refuse(socket: ServerConnection, request: Request) -> Response:
        return Response(status, "No", Headers({**named, "Content-Length": str(len(body))}), body)

    return refuse


async def received(connection: Connection, count: int) -> list[str | bytes]:
    messages: list[str | bytes] = []
    async with asyncio.timeout(10):
        while len(messages) < count:
            messages.append(await anext(connection))
    return messages


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


class Inlet:
    """A server's side that may stop reading, and that notes what came on which connection."""

    def __init__(self) -> None:
        self.came: list[list[str]] = []
        self.sockets: list[ServerConnection] = []
        self.is_first_deaf = True

    async def serve(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        self.came.append(came := [])
        if self.is_first_deaf and len(self.sockets) == 1:
            socket.transport.pause_reading()
        with contextlib.suppress(ConnectionClosed):
            async for message in socket:
                came.append(str(message).rstrip("x"))


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_fault_12_a_message_that_was_cut_goes_with_the_next_connection(
    loop: str, is_tls: bool, tmp_path: Path
) -> None:
    """The messages are larger than all buffers, so the one that is cut cannot have arrived."""

    @asynchronous
    async def scenario() -> None:
        inlet = Inlet()
        options: dict[str, Any] = {"max_size": None, "compression": None, "ping_interval": None}
        if is_tls:
            options["ssl"] = certificate(tmp_path)
        trusting = ssl.create_default_context(cafile=tmp_path / "cert.pem") if is_tls else None
        async with server(inlet.serve, **options) as url:
            url = url.replace("ws:", "wss:") if is_tls else url
            async with connect(url, ssl=trusting, max_queue_bytes=2**26, **QUICK) as connection:
                await connection.wait_open()

                async def send_all() -> list[bool]:
                    return [await connection.send(f"{n}" + "x" * 2**23) for n in range(4)]

                sending = asyncio.create_task(send_all())
                await until(lambda: inlet.sockets)
                await asyncio.sleep(0.3)
                assert connection.queued == 1  # it waits for the server, which does not read
                inlet.sockets[0].transport.abort()
                results = await sending
                assert await connection.flush(10)
            await until(lambda: inlet.came[-1][-1:] == ["3"])
            taken = results.index(False)
            assert inlet.came[0] == []
            assert inlet.came[1] == [str(number) for number in range(taken, 4)]
            assert taken < 4
            assert connection.dropped == 0

    scenario(loop=LOOPS[loop])


@asynchronous
async def test_fault_12_a_message_to_a_socket_that_is_closing_goes_with_the_next() -> None:
    """A transport throws away without a word what is written to it after its end."""
    inlet = Inlet()
    inlet.is_first_deaf = False
    async with server(inlet.serve) as url, connect(url, **QUICK) as connection:
        await connection.wait_open()
        assert connection._socket is not None
        assert await connection.send("before") is True
        await until(lambda: inlet.came == [["before"]])
        connection._socket.transport.abort()
        assert connection.state == "open"
        assert await connection.send("after") is False
        await until(lambda: len(inlet.came) > 1 and inlet.came[1])
        assert inlet.came == [["before"], ["after"]]
        assert connection.dropped == 0


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


# Functions for the address and the headers.


@pytest.mark.parametrize("is_async", [True, False])
def test_a_function_gives_a_fresh_token_for_each_attempt(is_async: bool) -> None:
    @asynchronous
    async def scenario() -> None:
        paths: list[str] = []
        tokens = iter(range(10))

        async def look(socket: ServerConnection) -> None:
            assert socket.request is not None
            paths.append(socket.request.path + " " + socket.request.headers["X-Token"])
            await socket.close(1012)

        def address() -> str:
            return f"{url}?token={next(tokens)}"

        async def awaited_address() -> str:
            return address()

        def headers() -> dict[str, str]:
            return {"X-Token": str(len(paths))}

        async def awaited_headers() -> dict[str, str]:
            return headers()

        functions = (awaited_address, awaited_headers) if is_async else (address, headers)
        async with server(look) as url, connect(functions[0], headers=functions[1], **QUICK):
            await until(lambda: len(paths) >= 3)
        assert paths[:3] == ["/ws?token=0 0", "/ws?token=1 1", "/ws?token=2 2"]

    scenario()


@asynchronous
async def test_a_token_function_that_fails_is_asked_again_and_may_say_stop() -> None:
    answers: list[Exception] = [
        RuntimeError("no network"),
        OSError("down"),
        Disconnected(401, "out"),
    ]
    seen: list[tuple[int, str]] = []

    def address() -> str:
        raise answers.pop(0)

    def note(state: str) -> None:
        if state == "waiting" and connection.last_close:
            seen.append(connection.last_close[:2])

    connection = connect(address, on_state=note, **QUICK)
    async with connection:
        with pytest.raises(Disconnected, match="401 out"):
            await anext(connection)
    assert [code for code, _ in seen] == [1006, 1006]
    assert "no network" in seen[0][1]
    assert connection.last_close == (401, "out", False)


def functions_that(act: Callable[[], Any]) -> list[Callable[[], Any]]:
    """Return a plain and an async function that do `act`."""

    async def awaited() -> Any:
        return act()

    return [act, awaited]


def fails(error: BaseException) -> Callable[[], Any]:
    def act() -> Any:
        raise error

    return act


ERRORS = [
    RuntimeError("no token"),
    KeyError("token"),
    TimeoutError("slow"),
    ExceptionGroup("both", [ValueError("x")]),
    asyncio.CancelledError("a task that it waited for was cancelled"),
]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("keyword", ["url", "headers"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_fault_12_a_function_that_raises_is_asked_again(
    error: BaseException, keyword: str, is_async: bool
) -> None:
    @asynchronous
    async def scenario() -> None:
        async with server(echo) as url:
            good: dict[str, Any] = {"url": url, "headers": {}}
            actions: list[Callable[[], Any]] = [fails(error), fails(error), lambda: good[keyword]]
            function = functions_that(lambda: actions.pop(0)())[is_async]
            states: list[Any] = []

            def note(state: str) -> None:
                states.append((state, connection.last_close and connection.last_close[:2]))

            connection = connect(**{**good, keyword: function}, on_state=note, **QUICK)
            async with connection:
                await connection.wait_open()
            reason = f"cannot connect: the {keyword} function failed: {type(error).__name__}: "
            assert [name for name, _ in states].count("waiting") == 2
            for name, close in states:
                if name == "waiting":
                    assert close is not None
                    assert close[0] == 1006
                    assert close[1].startswith(reason)

    scenario()


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("url", None),
        ("url", b"ws://localhost/"),
        ("url", "localhost:80"),
        ("url", "ws://a..b/"),
        ("headers", None),
        ("headers", [("a", "b")]),
        ("headers", {"a": 1}),
        ("headers", {"a": "x\r\nb: y"}),
        ("headers", {"a b": "x"}),
        ("headers", {"Upgrade": "h2c"}),
    ],
)
def test_fault_12_a_function_that_returns_nonsense_ends_it(
    keyword: str, value: Any, is_async: bool
) -> None:
    @asynchronous
    async def scenario() -> None:
        calls = 0

        def act() -> Any:
            nonlocal calls
            calls += 1
            return value

        keywords: dict[str, Any] = {"url": "ws://127.0.0.1:1/", "headers": {}}
        keywords[keyword] = functions_that(act)[is_async]
        async with connect(**keywords, **QUICK) as connection:
            reason = f"the {keyword} function returned nonsense"
            with pytest.raises(Disconnected, match=reason) as caught:
                await anext(connection)
            assert caught.value.code == 1006
            assert calls == 1

    scenario()


@asynchronous
async def test_a_function_that_is_cancelled_with_the_connection_ends_quietly() -> None:
    async def address() -> str:
        await asyncio.sleep(60)
        return "ws://localhost/"

    connection = connect(address, **QUICK)
    entering = asyncio.create_task(connection.__aenter__())
    await asyncio.sleep(0.02)
    await connection.close()
    await entering
    assert [message async for message in connection] == []


# What is no refusal, and no WebSocket either.

FINAL: dict[str, Any] = {"fixed_delay_s": 0, "proxy": None}


async def the_end(connection: Connection) -> Disconnected:
    """Return what the iteration raises."""
    async with asyncio.timeout(20):
        with pytest.raises(Disconnected) as caught:
            await anext(connection)
    assert connection.state == "closed"
    assert connection.last_close is not None
    assert connection.last_close[:2] == (caught.value.code, caught.value.reason)
    return caught.value


STRANGE = {
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", 1002, "not HTTP: it begins with 'SSH-2.0-Op"),
    "a status that is none": (b"HTTP/1.1 abc No\r\n\r\n", 1002, "invalid status code"),
    "a status over 599": (b"HTTP/1.1 999 No\r\n\r\n", 1002, "invalid status code"),
    "a status line without an end": (b"HTTP/1.1 200 " + b"x" * 9000, 1002, "handshake"),
    "HTTP/2": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\n\r\n", 1002, "answer is not HTTP"),
    "a TLS alert": (b"\x15\x03\x01\x00\x02\x02\x46", 1002, "answer is not HTTP: it begins with"),
    "a wrong accept": (upgraded(accept="AAAA"), 1002, "Sec-WebSocket-Accept"),
    "no upgrade": (b"HTTP/1.1 101 OK\r\nConnection: close\r\n\r\n", 1002, "Connection header"),
    "a subprotocol": (upgraded("Sec-WebSocket-Protocol: x"), 1002, "no subprotocols supported"),
    "an extension": (upgraded("Sec-WebSocket-Extensions: x"), 1002, "Unsupported extension"),
    "a bad header": (b"HTTP/1.1 101 OK\r\nnonsense\r\n\r\n", 1002, "invalid HTTP header line"),
    "a bad body": (b"HTTP/1.1 403 No\r\nTransfer-Encoding: x\r\n\r\n", 403, "No"),
    "a bad chunk": (b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 403, "No"),
    "a huge body": (b"HTTP/1.1 401 No\r\n\r\n" + b"x" * 2**20 + b"x", 401, "No"),
    "a huge length": (b"HTTP/1.1 401 No\r\nContent-Length: 9999999999\r\n\r\n", 401, "No"),
    "half a body": (b"HTTP/1.1 401 No\r\nContent-Length: 10\r\n\r\nx", 401, "No"),
    "HTTP/1.0": (b"HTTP/1.0 401 No\r\n\r\n", 401, "No"),
    "a deep body": (status(401, body=b"[" * 100_000), 401, "Some Phrase"),
    "two Content-Types": (status(401, "Content-Type: a/b", "Content-Type: c/d"), 401, "Some"),
    "no phrase": (b"HTTP/1.1 401 \r\nContent-Length: 0\r\n\r\n", 401, "Unauthorized"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_fault_12_a_strange_answer_ends_it_with_a_reason(what: str) -> None:
    @asynchronous
    async def scenario() -> None:
        answer, code, reason = STRANGE[what]
        async with (
            answering(answer) as strange,
            connect(strange.url(), **FINAL) as connection,
        ):
            error = await the_end(connection)
            assert error.code == code
            assert reason in error.reason
            assert error.__cause__ is not None
            assert len(strange.heads) == (5 if code == 1002 else 1)

    scenario()


PASSING = {
    "nothing": (b"", 1006),
    "a reset": (RESET, 1006),
    "half a status line": (b"HTTP/1.1 1", 1006),
    "half of the headers": (b"HTTP/1.1 101 Switching Protocols\r\nUpgr", 1006),
    "silence": (SILENCE, 1006),
    "a strange answer": (b"SSH-2.0-x\r\n", 1002),
    "an upgrade and the end": (upgraded(), 1006),
    "HTTP/1.0 503": (status(503, version="1.0"), 503),
    "a huge 503": (status(503, "Content-Length: 9999999"), 503),
    "a Retry-After beyond the calendar": (
        status(503, "Retry-After: Fri, 31 Dec 99999 23:59:59 GMT"),
        503,
    ),
    "a Retry-After beyond all numbers": (
        status(503, "Retry-After: Fri, 31 Dec 99999999999999999999 23:59:59 GMT"),
        503,
    ),
    "two Retry-Afters": (status(503, "Retry-After: 0", "Retry-After: 0"), 503),
}


@pytest.mark.parametrize("what", PASSING)
def test_fault_12_it_comes_back_after_what_may_pass(what: str) -> None:
    @asynchronous
    async def scenario() -> None:
        answer, code = PASSING[what]
        async with (
            answering(answer, answer, upgraded() + b"\x81\x02hi" + b"\x88\x02\x03\xe8") as served,
            connect(served.url(), open_timeout_s=0.3, **FINAL) as connection,
        ):
            seen = []
            while not connection._inbox:
                seen.append(connection.last_close and connection.last_close.code)
                await asyncio.sleep(0)
            assert await anext(connection) == "hi"
            assert len(served.heads) == 3
            assert code in seen

    scenario()


@asynchronous
async def test_fault_12_what_nobody_foresaw_is_the_cause_of_the_documented_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(self: Any, *arguments: Any) -> Any:
        raise ZeroDivisionError("somewhere below")

    monkeypatch.setattr("websockets.asyncio.client.connect.connect", fail)
    async with connect("ws://127.0.0.1:1/", **FINAL) as connection:
        error = await the_end(connection)
        assert error.code == 1006
        assert error.reason == "cannot connect: ZeroDivisionError: somewhere below"
        assert isinstance(error.__cause__, ZeroDivisionError)
        with pytest.raises(Disconnected, match="somewhere below"):
            await connection.send("x")
        with pytest.raises(Disconnected, match="somewhere below"):
            await connection.wait_open()


@asynchronous
async def test_a_name_that_is_not_found_may_be_found_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lookups = 0

    async def look_up(*arguments: Any, **keywords: Any) -> Any:
        nonlocal lookups
        lookups += 1
        if lookups < 10:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await original("127.0.0.1", port, type=socket.SOCK_STREAM)

    async with server(echo) as url:
        port = int(url.split(":")[2].split("/")[0])
        original = asyncio.get_running_loop().getaddrinfo
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
        async with connect("ws://nowhere.invalid/", **FINAL) as connection:
            await connection.wait_open()
            assert connection.last_close is not None
            assert connection.last_close.reason.endswith("Name or service not known")


# Redirects.


@asynchronous
async def test_fault_12_a_redirect_loop_ends_it() -> None:
    async with (
        answering(status(302, "Location: http://127.0.0.1:{port}/again")) as loop,
        connect(loop.url(), **FINAL) as connection,
    ):
        error = await the_end(connection)
        assert (error.code, error.reason) == (302, "more than 10 redirects")
        assert len(loop.heads) == 5 * 11


@pytest.mark.parametrize(
    "location", ["ftp://127.0.0.1/", "http://", "javascript:alert(1)", "http://a..b/", "ws://:80/"]
)
def test_fault_12_a_redirect_to_what_is_no_address_ends_it(location: str) -> None:
    @asynchronous
    async def scenario() -> None:
        async with (
            answering(status(307, f"Location: {location}")) as served,
            connect(served.url(), **FINAL) as connection,
        ):
            error = await the_end(connection)
            assert error.code == 307
            assert "which is no WebSocket address" in error.reason
            assert len(served.heads) == 5

    scenario()


@pytest.mark.parametrize("location", ["/there", "http://127.0.0.1:{port}/there", "there"])
def test_fault_12_a_redirect_within_the_origin_keeps_the_headers(location: str) -> None:
    @asynchronous
    async def scenario() -> None:
        async with answering(status(308, f"Location: {location}"), upgraded(), SILENCE) as served:
            url = served.url().replace("ws://", "ws://ann:secret@")
            async with connect(url, headers={"X-Token": "abc"}, **FINAL) as connection:
                await until(lambda: len(served.heads) > 1)
                await connection.close()
            first, second = served.heads[:2]
            assert second.startswith("GET /there HTTP/1.1")
            for head in (first, second):
                assert "X-Token: abc" in head
                assert "Authorization: Basic YW5uOnNlY3JldA==" in head

    scenario()


@asynchronous
async def test_fault_12_another_origin_gets_no_secret_of_the_program() -> None:
    secrets = {"Authorization": "Bearer abc", "X-Api-Key": "def", "Cookie": "s=ghi"}
    async with (
        answering(upgraded(), SILENCE) as other,
        answering(status(302, f"Location: http://127.0.0.1:{other.port}/there")) as served,
    ):
        url = served.url().replace("ws://", "ws://ann:secret@")
        async with connect(url, headers=secrets, origin="https://me", **FINAL) as connection:
            await until(lambda: other.heads)
            await connection.close()
        assert all(f"{name}: {value}" in served.heads[0] for name, value in secrets.items())
        assert "Origin: https://me" in other.heads[0]
        for name in (*secrets, "YW5uOnNlY3JldA=="):
            assert name not in other.heads[0]


@asynchronous
async def test_fault_12_no_redirect_leads_out_of_tls(tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    async with (
        answering(SILENCE) as plain,
        answering(status(301, f"Location: {plain.url()}?token=x"), tls=tls) as served,
        connect(served.url("wss"), ssl=trusting, **FINAL) as connection,
    ):
        error = await the_end(connection)
        assert (error.code, error.reason) == (301, f"redirected from TLS to '{plain.url()}'")
        assert plain.heads == []


# TLS.


@pytest.mark.parametrize(
    ("name", "is_trusted", "reason"),
    [
        ("127.0.0.1", False, "self-signed certificate"),
        ("127.0.0.2", True, "IP address mismatch"),
    ],
)
def test_fault_12_a_wrong_certificate_ends_it(
    tmp_path: Path, name: str, is_trusted: bool, reason: str
) -> None:
    @asynchronous
    async def scenario() -> None:
        tls = certificate(tmp_path, name)
        cafile = tmp_path / "cert.pem" if is_trusted else None
        async with (
            answering(SILENCE, tls=tls) as served,
            connect(
                served.url("wss"), ssl=ssl.create_default_context(cafile=cafile), **FINAL
            ) as connection,
        ):
            error = await the_end(connection)
            assert error.code == 1015
            assert reason in error.reason
            assert served.heads == []

    scenario()


@asynchronous
async def test_fault_12_tls_where_there_is_none_ends_it() -> None:
    async def speak_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    plain = await asyncio.start_server(speak_plainly, "127.0.0.1", 0)
    async with plain:
        url = f"wss://127.0.0.1:{plain.sockets[0].getsockname()[1]}/"
        async with connect(url, **FINAL) as connection:
            assert (await the_end(connection)).code == 1015


@asynchronous
async def test_tls_that_is_cut_off_is_tried_again() -> None:
    attempts = 0

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        await reader.read(1)
        writer.close()

    cutting = await asyncio.start_server(cut, "127.0.0.1", 0)
    async with cutting:
        url = f"wss://127.0.0.1:{cutting.sockets[0].getsockname()[1]}/"
        async with connect(url, **FINAL) as connection:
            await until(lambda: attempts > 7)
            assert connection.state != "closed"


# Proxies.


PROXIES = {
    "wants a password": (status(407), 407, "the proxy answered 407 Some Phrase", 1),
    "forbids": (status(403), 403, "the proxy answered 403 Some Phrase", 1),
    "knows no CONNECT": (status(405), 405, "the proxy answered 405 Some Phrase", 5),
    "is none": (b"SSH-2.0-x\r\n", 1006, "the proxy's answer is not HTTP: invalid HTTP status", 5),
}


@pytest.mark.parametrize("what", PROXIES)
def test_fault_12_a_proxy_that_refuses_ends_it(what: str) -> None:
    @asynchronous
    async def scenario() -> None:
        answer, code, reason, attempts = PROXIES[what]
        async with (
            answering(answer) as proxy,
            connect(
                "ws://example.com/", fixed_delay_s=0, proxy=proxy.url("http")[:-3]
            ) as connection,
        ):
            error = await the_end(connection)
            assert error.code == code
            assert reason in error.reason
            assert len(proxy.heads) == attempts
            assert proxy.heads[0].startswith("CONNECT example.com:80 HTTP/1.1")

    scenario()


@pytest.mark.parametrize("answer", [status(502), b"", RESET, SILENCE], ids=repr)
def test_a_proxy_that_fails_is_tried_again(answer: bytes) -> None:
    @asynchronous
    async def scenario() -> None:
        async with (
            answering(answer) as proxy,
            connect(
                "ws://example.com/",
                fixed_delay_s=0,
                open_timeout_s=0.1,
                proxy=proxy.url("http")[:-3],
            ) as connection,
        ):
            await until(lambda: len(proxy.heads) > 7)
            assert connection.state != "closed"

    scenario()


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("ftp://ann:secret@localhost", "'ftp://localhost': scheme ftp isn't supported"),
        ("http://ann:secret@localhost/x", "'http://localhost/x': path is meaningless"),
        ("socks5h://localhost:1", "requires python-socks"),
    ],
)
def test_fault_12_a_proxy_of_the_system_that_cannot_be_used_ends_it(
    proxy: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynchronous
    async def scenario() -> None:
        monkeypatch.setenv("ws_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        async with connect("ws://example.com/", fixed_delay_s=0) as connection:
            error = await the_end(connection)
            assert error.code == 1006
            assert reason in error.reason
            assert "secret" not in error.reason

    scenario()


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
    text = (Path(__file__).parents[2] / "docs" / "python-client.md").read_text("utf-8")
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
