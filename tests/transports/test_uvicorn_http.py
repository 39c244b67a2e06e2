"""uvicorn's HTTP protocol with a bound for the head of a request, over real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hubbub import HttpProtocol, Hub
from hubbub.limits import MAX_HEAD_BYTES
from hubbub.logs import RateLimitedLogger
from hubbub.transports import uvicorn_http
from hubbub.transports.uvicorn_http import environment, head_timeout_s
from serving import PATIENCE_S, Served, serve, until
from transports.loops import both_loops

pytestmark = pytest.mark.anyio

SHORT_S = 0.2
HEAD = b"GET /ws HTTP/1.1\r\nHost: x\r\n"


anyio_backend = both_loops


def have_timeout(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(uvicorn_http, "head_timeout_s", lambda: seconds)


@asynccontextmanager
async def served(**config: Any) -> AsyncIterator[Served]:
    async with serve(Hub(), http=HttpProtocol, **config) as server:
        yield server


@asynccontextmanager
async def opened(
    server: Served,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


def count_connections(server: Served) -> int:
    assert server.server is not None
    return len(server.server.server_state.connections)


def only_connection(server: Served) -> HttpProtocol:
    """Return the server's end of the one connection that is open."""
    assert server.server is not None
    (protocol,) = server.server.server_state.connections
    assert isinstance(protocol, HttpProtocol)
    return protocol


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Read to the end, which has to come; a reset is an end too."""
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    except ConnectionError:
        return b""


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    """Read one answer: its status line."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await asyncio.wait_for(reader.readexactly(int(line.split(b":")[1])), PATIENCE_S)
    return head.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "beginning", [b"", b"G", HEAD, b"\r\n\r\n"], ids=["nothing", "a byte", "half", "line ends"]
)
async def test_who_does_not_finish_a_head_is_closed(
    beginning: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hubbub")
    have_timeout(monkeypatch, SHORT_S)
    monkeypatch.setattr(uvicorn_http, "_log", RateLimitedLogger(lambda: 0.0))
    before = Hub().stats()["slow_handshakes"]
    async with served() as server, opened(server) as (reader, writer):
        writer.write(beginning)
        assert await rest_of(reader) == b""
        await until(lambda: count_connections(server) == 0)
    assert Hub().stats()["slow_handshakes"] == before + 1
    assert f"a connection from 127.0.0.1 sent no whole request within {SHORT_S:g}" in caplog.text


async def test_a_byte_now_and_then_does_not_help(monkeypatch: pytest.MonkeyPatch) -> None:
    have_timeout(monkeypatch, SHORT_S)
    async with served() as server, opened(server) as (reader, writer):

        async def drip() -> None:
            writer.write(HEAD + b"X-Long: ")
            while not writer.is_closing():
                writer.write(b"x")
                await asyncio.sleep(SHORT_S / 10)

        dripping = asyncio.ensure_future(drip())
        assert await rest_of(reader) == b""
        dripping.cancel()
        await asyncio.wait([dripping])


async def test_the_second_head_of_a_connection_is_bounded_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have_timeout(monkeypatch, PATIENCE_S * 10)
    async with served(timeout_keep_alive=1000) as server, opened(server) as (reader, writer):
        writer.write(HEAD + b"\r\n")
        assert b" 426 " in await answer_of(reader)
        have_timeout(monkeypatch, SHORT_S)
        writer.write(HEAD)
        assert await rest_of(reader) == b""


async def test_a_connection_between_two_requests_is_uvicorn_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have_timeout(monkeypatch, SHORT_S)
    async with served(timeout_keep_alive=1000) as server, opened(server) as (reader, writer):
        for _ in range(3):
            for part in (HEAD[:10], HEAD[10:], b"\r\n"):
                writer.write(part)
                await asyncio.sleep(0)
            assert b" 426 " in await answer_of(reader)
        protocol = only_connection(server)
        assert protocol._deadline is None
        assert protocol.timeout_keep_alive_task is not None


async def test_a_body_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            event = await receive()
            received.append(event["body"])
            if not event["more_body"]:
                break
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    have_timeout(monkeypatch, PATIENCE_S * 10)
    server_of_app = serve(app, http=HttpProtocol, lifespan="off")
    async with server_of_app as server, opened(server) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        await until(lambda: received == [b"ab"])
        protocol = only_connection(server)
        assert protocol._deadline is None
        writer.write(b"cd")
        assert b" 204 " in await answer_of(reader)


async def test_a_head_without_end_is_a_431(monkeypatch: pytest.MonkeyPatch) -> None:
    have_timeout(monkeypatch, PATIENCE_S * 10)
    async with served() as server, opened(server) as (reader, writer):
        head = HEAD + b"X-Long: "
        writer.write(head + b"x" * (MAX_HEAD_BYTES - len(head)))
        await until(lambda: count_connections(server) == 1)
        protocol = only_connection(server)
        await until(lambda: protocol._head_bytes == MAX_HEAD_BYTES)
        writer.write(b"x")
        assert (await rest_of(reader)).startswith(b"HTTP/1.1 431 ")


async def test_a_socket_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[HttpProtocol] = []

    class Noted(HttpProtocol):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            made.append(self)

    have_timeout(monkeypatch, PATIENCE_S * 10)
    async with serve(Hub(), http=Noted) as server, server.connect() as socket:
        assert [each._deadline for each in made] == [None]
        await socket.send("hello")
        assert await asyncio.wait_for(socket.recv(), PATIENCE_S) == "hello"


def test_the_environment_says_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    environment.cache_clear()
    monkeypatch.setenv("HUBBUB_HANDSHAKE_TIMEOUT_S", "3.5")
    try:
        assert head_timeout_s() == 3.5
    finally:
        environment.cache_clear()


async def test_fault_05_who_completes_tls_and_sends_nothing_is_closed(
    certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    have_timeout(monkeypatch, SHORT_S)
    before = Hub().stats()["slow_handshakes"]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    cert, key = certificate
    async with served(ssl_certfile=cert, ssl_keyfile=key) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        await until(lambda: count_connections(server) == 1)
        assert await rest_of(reader) == b""
        await until(lambda: count_connections(server) == 0)
        writer.transport.abort()
        await asyncio.sleep(0)
    assert Hub().stats()["slow_handshakes"] == before + 1


async def test_fault_05_a_head_that_is_too_large_is_counted_and_its_socket_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have_timeout(monkeypatch, PATIENCE_S * 10)
    before = Hub().stats()["refused_handshakes"]
    async with served() as server, opened(server) as (reader, writer):
        writer.write(HEAD + b"X-Long: " + b"x" * MAX_HEAD_BYTES)
        answer = await rest_of(reader)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b"connection: close\r\n" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "head_too_large"
        await until(lambda: count_connections(server) == 0)
    assert Hub().stats()["refused_handshakes"] == before + 1


async def test_fault_05_a_handshake_whose_body_never_comes_is_answered() -> None:
    """Not waited for: the answer is the same whether the body comes, in part or not at all."""
    handshake = (
        HEAD + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 5\r\n\r\n"
    )
    async with served() as server:
        for body in (b"", b"he", b"hello"):
            async with opened(server) as (reader, writer):
                writer.write(handshake + body)
                assert (await rest_of(reader)).startswith(b"HTTP/1.1 400 ")
        await until(lambda: count_connections(server) == 0)
