"""The native protocol class: the short way of a handshake, and uvicorn's own class for all the rest."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from websockets.exceptions import InvalidStatus
from websockets.utils import accept_key

from hubbub import Handshake, HttpProtocol, Hub, Protocol, Settings
from hubbub.logs import RateLimitedLogger
from hubbub.transports import uvicorn_protocol
from hubbub.transports.uvicorn_protocol import MAX_EARLY_BYTES
from rawsocket import TEXT, frame
from serving import PATIENCE_S, Served, nothing, serve, take, until
from transports.heads import KEY, LINES, head, without
from transports.loops import both_loops

pytestmark = pytest.mark.anyio

App = Callable[[Any, Any, Any], Awaitable[None]]


anyio_backend = both_loops


def sockets_only(app: App) -> App:
    """Keep the server's lifespan from an application that speaks of sockets alone."""

    async def called(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket", "this application has no lifespan"
        await app(scope, receive, send)

    return called


@asynccontextmanager
async def asking(served: Served, request: bytes) -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(request)
    try:
        yield reader
    finally:
        writer.transport.abort()


async def answer_to(
    served: Served, request: bytes
) -> tuple[bytes, dict[bytes, bytes], list[bytes]]:
    """Send a request; return the status line, the headers, and the headers' names as they came."""
    async with asking(served, request) as reader:
        text = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    status, *lines = text[:-4].split(b"\r\n")
    pairs = [tuple(line.split(b": ", 1)) for line in lines]
    headers = {name.lower(): value for name, value in pairs}
    return status, headers, [name.lower() for name, _ in pairs]


def test_the_protocol_class_needs_no_framework() -> None:
    assert Protocol.__module__ == "hubbub.transports.uvicorn_protocol"


async def test_the_answer_is_that_of_the_rfc() -> None:
    hub = Hub()
    async with serve(hub.mount(nothing), headers=[("X-Server", "ours")]) as served:
        status, headers, names = await answer_to(served, head(*LINES))
    assert status == b"HTTP/1.1 101 Switching Protocols"
    assert headers[b"sec-websocket-accept"] == accept_key(KEY).encode()
    assert headers[b"sec-websocket-accept"] == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert (headers[b"upgrade"], headers[b"connection"]) == (b"websocket", b"Upgrade")
    assert headers[b"x-server"] == b"ours"
    assert sorted(names) == sorted(set(names)), "no header comes twice"
    assert b"date" in headers


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (without("Sec-WebSocket-Key"), b"400"),
        ([*without("Sec-WebSocket-Key"), "Sec-WebSocket-Key: c2hvcnQ="], b"400"),
        ([*without("Sec-WebSocket-Version"), "Sec-WebSocket-Version: 8"], b"400"),
        ([*LINES, f"Sec-WebSocket-Key: {KEY}"], b"400"),
    ],
)
async def test_a_wrong_request_is_answered_with_a_status(lines: list[str], status: bytes) -> None:
    hub = Hub()
    async with serve(hub.mount(nothing)) as served:
        line, _, _ = await answer_to(served, head(*lines))
        assert line.split()[1] == status
        async with served.connect():
            await until(lambda: len(hub) == 1)
    assert hub.stats()["total_clients"] == 1


async def test_a_scope_has_what_uvicorns_class_puts_into_it() -> None:
    scopes: list[dict[str, Any]] = []

    async def note(scope: Any, receive: Any, send: Any) -> None:
        scopes.append({**scope, "extensions": {}})
        await receive()
        await send({"type": "websocket.close"})

    hub = Hub()
    for native in (True, False):
        async with serve(hub.mount(sockets_only(note)), native=native, root_path="/base") as served:
            request = head(
                *LINES, "X: \xe4", "Sec-WebSocket-Protocol: a, b", start="GET /w%20s?q=%20 HTTP/1.1"
            )
            line, _, _ = await answer_to(served, request)
            assert line.split()[1] == b"403"
    ours, theirs = scopes
    for scope in scopes:
        scope["client"] = scope["client"][0]
        scope["server"] = scope["server"][0]
    assert ours == theirs
    assert ours["path"] == "/base/w s"


async def test_an_application_may_wait_before_it_answers() -> None:
    """The second `receive` before an answer is for uvicorn's class; it tells when the peer goes."""
    events: list[str] = []

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        events.append((await receive())["type"])
        events.append((await receive())["type"])

    hub = Hub()
    async with serve(hub.mount(sockets_only(wait))) as served:
        async with asking(served, head(*LINES, start="GET /own HTTP/1.1")):
            await until(lambda: len(events) == 1)
        await until(lambda: len(events) == 2)
    assert events == ["websocket.connect", "websocket.disconnect"]


async def test_a_route_of_its_own_is_served_by_uvicorns_class() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        accept = {"type": "websocket.accept", "headers": [(b"x-own", b"1")], "subprotocol": "chat"}
        await send(accept)
        event = await receive()
        await send({"type": "websocket.send", "text": event["text"]})
        await receive()

    hub = Hub()
    async with serve(hub.mount(sockets_only(echo))) as served:
        options: dict[str, Any] = {"subprotocols": ["chat"], "compression": "deflate"}
        async with served.connect("/own", **options) as socket:
            assert socket.response is not None
            assert socket.response.headers["x-own"] == "1"
            assert "deflate" in socket.response.headers["Sec-WebSocket-Extensions"]
            assert socket.subprotocol == "chat"
            await socket.send("hello")
            assert await take(socket, 1) == ["hello"]


async def test_what_is_sent_before_the_answer_is_kept_for_the_route() -> None:
    came, go_on = asyncio.Event(), asyncio.Event()
    got: list[str] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        came.set()
        await go_on.wait()
        await send({"type": "websocket.accept"})
        got.append((await receive())["text"])

    hub = Hub()
    async with serve(hub.mount(sockets_only(slow))) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(head(*LINES, start="GET /own HTTP/1.1"))
        await came.wait()
        writer.write(frame(TEXT, b"early"))
        assert served.server is not None
        [connection] = served.server.server_state.connections
        assert isinstance(connection, Protocol)
        await until(lambda: bool(connection._buffered))
        go_on.set()
        await until(lambda: got == ["early"])
        await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.transport.abort()


@pytest.mark.parametrize("fails", [True, False], ids=["raises", "returns"])
async def test_an_application_that_gives_no_answer_is_a_500(
    fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if fails:
            raise LookupError("no such thing")

    hub = Hub()
    async with serve(hub.mount(sockets_only(app)), log_config=None) as served:
        line, _, _ = await answer_to(served, head(*LINES, start="GET /own HTTP/1.1"))
    assert line.split()[1] == b"500"
    assert ("no such thing" if fails else "without completing handshake") in caplog.text


async def test_extensions_that_cannot_be_read_are_a_400_for_a_route_of_its_own() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})

    hub = Hub()
    async with serve(hub.mount(sockets_only(app)), log_level="critical") as served:
        request = head(*LINES, "Sec-WebSocket-Extensions: ;;;", start="GET /own HTTP/1.1")
        line, _, _ = await answer_to(served, request)
        assert line.split()[1] == b"400"


async def test_who_goes_during_the_handshake_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub()
    asked, go_on = asyncio.Event(), asyncio.Event()

    @hub.authenticate
    async def slowly(handshake: Handshake) -> str:
        asked.set()
        await go_on.wait()
        return "ann"

    async with serve(hub.mount(nothing)) as served:
        assert served.server is not None
        connections = served.server.server_state.connections
        async with asking(served, head(*LINES)):
            await asked.wait()
            assert len(connections) == 1
        await until(lambda: not connections)
        go_on.set()
        tasks = served.server.server_state.tasks
        await until(lambda: not tasks)
        assert (len(hub), hub.stats()["register"]) == (0, 0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_shutdown_does_not_wait_for_a_handshake() -> None:
    hub = Hub(shutdown_timeout_s=0.2, handshake_timeout_s=0.5)
    asked = asyncio.Event()

    @hub.authenticate
    async def never(handshake: Handshake) -> str:
        asked.set()
        await asyncio.Event().wait()
        return "ann"

    async with serve(hub.mount(nothing)) as served, asking(served, head(*LINES)) as reader:
        await asked.wait()
        assert served.server is not None
        served.server.should_exit = True
        line = await asyncio.wait_for(reader.readline(), PATIENCE_S)
        assert line.split()[1] == b"500"


async def test_a_middleware_adds_headers_to_the_answer() -> None:
    hub = Hub()

    async def adding(scope: Any, receive: Any, send: Any) -> None:
        async def send_more(event: Any) -> None:
            if event["type"] == "websocket.accept":
                event = {**event, "headers": [(b"x-more", b"1")]}
            await send(event)

        await hub(scope, receive, send_more if scope["type"] == "websocket" else send)

    async with serve(adding) as served:
        _, headers, _ = await answer_to(served, head(*LINES))
        assert headers[b"x-more"] == b"1"


async def test_a_header_with_a_line_end_is_not_written_as_two() -> None:
    hub = Hub()

    async def splitting(scope: Any, receive: Any, send: Any) -> None:
        async def send_more(event: Any) -> None:
            if event["type"] == "websocket.accept":
                event = {**event, "headers": [(b"x-more", b"1\r\nx-evil: 2")]}
            await send(event)

        await hub(scope, receive, send_more if scope["type"] == "websocket" else send)

    async with (
        serve(splitting, log_level="critical") as served,
        asking(served, head(*LINES)) as reader,
    ):
        text = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    assert b"x-evil" not in text


async def test_a_refusal_reaches_the_client_as_before(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    hub.authenticate(lambda handshake: None)
    caplog.set_level(logging.INFO, "uvicorn")
    async with serve(hub.mount(nothing), log_config=None, log_level="info") as served:
        with pytest.raises(InvalidStatus, match="401"):
            async with served.connect("/ws?token=secret"):
                pass
    assert "secret" not in caplog.text


async def test_the_access_line_names_the_path_and_no_token(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub()
    caplog.set_level(logging.INFO, "uvicorn")
    async with (
        serve(hub.mount(nothing), log_config=None, log_level="info") as served,
        served.connect("/ws?token=secret&room=1"),
    ):
        await until(lambda: len(hub) == 1)
    assert '"WebSocket /ws?token=***&room=1" [accepted]' in caplog.text
    assert "secret" not in caplog.text


async def test_a_flood_before_the_answer_is_cut() -> None:
    hub = Hub()
    go_on = asyncio.Event()

    @hub.authenticate
    async def slowly(handshake: Handshake) -> str:
        await go_on.wait()
        return "ann"

    async with serve(hub.mount(nothing)) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(head(*LINES))
        await until(lambda: hub.stats()["register"] == 1)
        writer.write(bytes(MAX_EARLY_BYTES + 1))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), PATIENCE_S)
        go_on.set()
        await until(lambda: hub.stats()["register"] == 0)
        writer.close()
    assert len(hub) == 0


async def test_a_fault_that_only_uvicorns_class_sees_is_answered_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub()
    request = head(*LINES, "Origin: http://localhost", "Origin: http://evil.example")
    async with (
        serve(hub.mount(nothing), log_config=None) as served,
        asking(served, request) as reader,
    ):
        answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1") == 1
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


# Heads that nobody would answer

HTTP_CLASSES = {"h11": "h11", "httptools": "httptools", "hubbub": HttpProtocol}


LONG = "x" * 9000


ODD_HEADS = {
    # what the request has besides, the status where a hub accepts, and where the application refuses
    "a line of 9 KB": ([f"Cookie: session={LONG}"], 101, 403),
    "200 headers": (["X: x"] * 195, 101, 403),
    "20 KB": ([f"X-{number}: {'x' * 4000}" for number in range(5)], 101, 403),
    "a body": (["Content-Length: 5"], 400, 400),
    "chunks": (["Transfer-Encoding: chunked"], 400, 400),
    "300 headers": (["X: x"] * 295, 431, 431),
    "100 KB": ([f"X-{number}: {LONG}" for number in range(11)], 431, 431),
}


async def refusing(scope: Any, receive: Any, send: Any) -> None:
    """Be the application beside the hub, and refuse every socket with a 403."""
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.close"})


async def whole_answer(served: Served, request: bytes) -> bytes:
    """Send a request; return all that comes until the server ends the connection."""
    async with asking(served, request) as reader:
        return await asyncio.wait_for(reader.read(), PATIENCE_S)


def errors_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("http", HTTP_CLASSES)
@pytest.mark.parametrize("name", ODD_HEADS)
async def test_fault_05_every_head_is_answered_with_a_status(
    name: str, http: str, caplog: pytest.LogCaptureFixture
) -> None:
    lines, accepted, refused = ODD_HEADS[name]
    hub = Hub()
    hub.authenticate(lambda handshake: None if "refuse" in handshake.query else "ann")
    config: dict[str, Any] = {"http": HTTP_CLASSES[http], "log_config": None}
    # h11 has a bound of its own for a head that does not come in one piece.
    config["h11_max_incomplete_event_size"] = 2**20
    async with serve(hub.mount(refusing), **config) as served:
        assert served.server is not None
        state = served.server.server_state
        line, _, _ = await answer_to(served, head(*LINES, *lines))
        assert int(line.split()[1]) == accepted
        for path, status in (("/own", refused), ("/ws?refuse", 401 if refused == 403 else refused)):
            answer = await whole_answer(served, head(*LINES, *lines, start=f"GET {path} HTTP/1.1"))
            assert int(answer.split()[1]) == status
            assert answer.count(b"HTTP/1.1 ") == 1
        await until(lambda: not state.connections and not state.tasks)
    assert errors_in(caplog) == []


@pytest.mark.parametrize("http", HTTP_CLASSES)
async def test_fault_05_300_refused_heads_are_counted_and_keep_no_memory(
    http: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: weakref.WeakSet[Protocol] = weakref.WeakSet()
    monkeypatch.setattr(uvicorn_protocol, "_log", RateLimitedLogger(lambda: 0.0))
    caplog.set_level(logging.INFO, "hubbub")

    class Noted(Protocol):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            made.add(self)

    hub = Hub()
    before = hub.stats()["refused_handshakes"]
    config: dict[str, Any] = {"http": HTTP_CLASSES[http], "log_config": None, "ws": Noted}
    async with serve(hub.mount(refusing), h11_max_incomplete_event_size=2**20, **config) as served:
        assert served.server is not None
        state = served.server.server_state
        requests = [
            head(*LINES, *ODD_HEADS["300 headers"][0]),
            head(*LINES, "Transfer-Encoding: chunked", start="GET /own HTTP/1.1"),
            head(*without("Sec-WebSocket-Key")),
        ]
        for _ in range(100):
            answers = [await whole_answer(served, request) for request in requests]
            assert [int(answer.split()[1]) for answer in answers] == [431, 400, 400]
        assert json.loads(answers[0].partition(b"\r\n\r\n")[2]) == {
            "error": "The request's head is larger than 256 headers and 64 KiB",
            "code": "head_too_large",
        }
        await until(lambda: not state.connections)
        gc.collect()
        assert len(made) == 0
        assert hub.stats()["refused_handshakes"] == before + 300
    lines = [line for line in caplog.messages if "was refused" in line]
    assert lines[0] == "a handshake from 127.0.0.1 was refused: 431 head_too_large"
    assert len(lines) < 10
    assert errors_in(caplog) == []


@pytest.mark.parametrize("http", HTTP_CLASSES)
async def test_fault_05_a_handshake_that_the_application_does_not_answer_ends(
    http: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a middleware or a dependency before the hub, in a route of its own, in half an answer."""
    monkeypatch.setattr(uvicorn_protocol, "head_timeout_s", lambda: 0.2)
    events: dict[str, str] = {}

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path == "/waits":
            assert (await receive())["type"] == "websocket.connect"
            events[path] = (await receive())["type"]
        elif path == "/half":
            start = {"type": "websocket.http.response.start", "status": 403, "headers": []}
            await send(start)
            events[path] = (await receive())["type"]
            events[path] = (await receive())["type"]
        else:
            await until(lambda: len(events) == 2)
            await receive()
            try:
                await send({"type": "websocket.accept"})
            except OSError:
                events[path] = "nobody is there to be accepted"

    hub = Hub()
    before = hub.stats()["slow_handshakes"]
    config: dict[str, Any] = {"http": HTTP_CLASSES[http], "log_config": None}
    async with serve(hub.mount(sockets_only(slow)), **config) as served:
        paths = ("/sleeps", "/half", "/waits")
        requests = [head(*LINES, start=f"GET {path} HTTP/1.1") for path in paths]
        answers = await asyncio.gather(*(whole_answer(served, each) for each in requests))
        assert [int(answer.split()[1]) for answer in answers] == [503] * 3
        assert all(b'"code": "handshake_timeout"' in answer for answer in answers)
        await until(lambda: len(events) == 3)
    assert events == {
        "/waits": "websocket.disconnect",
        "/half": "websocket.disconnect",
        "/sleeps": "nobody is there to be accepted",
    }
    assert hub.stats()["slow_handshakes"] == before + 3
    assert errors_in(caplog) == []


async def test_fault_05_a_hub_has_a_deadline_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_protocol, "head_timeout_s", lambda: 0.05)
    hub = Hub(handshake_timeout_s=PATIENCE_S)

    @hub.authenticate
    async def slowly(handshake: Handshake) -> str:
        await asyncio.sleep(0.2)
        return "ann"

    async with serve(hub.mount(nothing)) as served, served.connect():
        await until(lambda: len(hub) == 1)


async def test_fault_05_who_does_not_read_its_refusal_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uvicorn_protocol, "head_timeout_s", lambda: 0.2)

    async def talkative(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        start = {"type": "websocket.http.response.start", "status": 403, "headers": []}
        await send(start)
        await send({"type": "websocket.http.response.body", "body": bytes(2**25)})

    hub = Hub()
    async with serve(hub.mount(sockets_only(talkative))) as served:
        assert served.server is not None
        connections = served.server.server_state.connections
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        cast(asyncio.Transport, writer.transport).pause_reading()
        writer.write(head(*LINES, start="GET /own HTTP/1.1"))
        await until(lambda: any(isinstance(each, Protocol) for each in connections))
        await until(lambda: not connections)
        writer.transport.abort()


@pytest.mark.parametrize("path", ["/ws", "/own"])
async def test_fault_05_a_shutdown_ends_a_handshake_that_nobody_answers(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn_protocol, "environment", lambda: Settings(shutdown_timeout_s=0.2))
    was_asked = asyncio.Event()

    async def never(scope: Any, receive: Any, send: Any) -> None:
        was_asked.set()
        await asyncio.Event().wait()

    hub = Hub(handshake_timeout_s=600, shutdown_timeout_s=0.2)
    hub.authenticate(lambda handshake: never(None, None, None))
    async with serve(hub.mount(sockets_only(never)), log_level="critical") as served:
        assert served.server is not None
        async with asking(served, head(*LINES, start=f"GET {path} HTTP/1.1")) as reader:
            await was_asked.wait()
            served.server.should_exit = True
            assert b" 500 " in await asyncio.wait_for(reader.readline(), PATIENCE_S)
    assert not served.server.server_state.tasks


async def test_a_handshake_leaves_nothing_to_the_garbage_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left: list[weakref.ref[Any]] = []
    connection_made = Protocol.connection_made

    def note(protocol: Protocol, transport: asyncio.BaseTransport) -> None:
        left.extend((weakref.ref(protocol), weakref.ref(transport.get_protocol())))
        connection_made(protocol, transport)

    monkeypatch.setattr(Protocol, "connection_made", note)
    hub = Hub()
    async with serve(hub) as served:
        gc.disable()
        try:
            async with served.connect() as socket:
                await until(lambda: len(hub) == 1)
                await until(lambda: not any(each() for each in left))
                assert len(left) == 2
                hub.broadcast("hello")
                assert await take(socket, 1) == ["hello"]
        finally:
            gc.enable()
