"""Handshakes that are malformed, huge, slow, doubled or contradictory, over real sockets.

Every answer is an HTTP response with a proper status, or the connection ends within a bound; the
event loop's exception handler is not called; and a good client is served afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub import Hub
from serving import PATIENCE_S, Served, nothing, serve, take
from stress.fuzz_report import HANDSHAKES

KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
VERSION = b"Sec-WebSocket-Version: 13\r\n"
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
HOST = b"Host: 127.0.0.1\r\n"
LINE = b"GET /ws HTTP/1.1\r\n"
GOOD = LINE + HOST + UPGRADE + KEY + VERSION

STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d) [^\r\n]*\r\n")

CRAFTED = {
    "empty lines": b"\r\n\r\n\r\n",
    "noise": bytes(range(256)),
    "a tls hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "no version": LINE + HOST + UPGRADE + KEY + b"\r\n",
    "version 8": LINE + HOST + UPGRADE + KEY + b"Sec-WebSocket-Version: 8\r\n\r\n",
    "two versions": GOOD + b"Sec-WebSocket-Version: 12\r\n\r\n",
    "no key": LINE + HOST + UPGRADE + VERSION + b"\r\n",
    "a short key": LINE + HOST + UPGRADE + VERSION + b"Sec-WebSocket-Key: AAAA\r\n\r\n",
    "a key that is no base64": LINE + HOST + UPGRADE + VERSION + b"Sec-WebSocket-Key: ****\r\n\r\n",
    "two keys": GOOD + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    "no host": LINE + UPGRADE + KEY + VERSION + b"\r\n",
    "two hosts": GOOD + b"Host: example.com\r\n\r\n",
    "two origins": GOOD + b"Origin: http://127.0.0.1\r\nOrigin: http://evil.example\r\n\r\n",
    "an origin that is none": GOOD + b"Origin: \xff\xfe://\r\n\r\n",
    "an origin with a port that is none": GOOD + b"Origin: http://127.0.0.1:99999999\r\n\r\n",
    "an origin with half an address": GOOD + b"Origin: http://[::1\r\n\r\n",
    "no upgrade": LINE + HOST + KEY + VERSION + b"\r\n",
    "no connection": LINE + HOST + b"Upgrade: websocket\r\n" + KEY + VERSION + b"\r\n",
    "another upgrade": LINE
    + HOST
    + b"Upgrade: h2c\r\nConnection: Upgrade\r\n"
    + KEY
    + VERSION
    + b"\r\n",
    "two upgrades": GOOD + b"Upgrade: h2c\r\n\r\n",
    "a post": GOOD.replace(b"GET", b"POST") + b"Content-Length: 5\r\n\r\nhello",
    "a body": GOOD + b"Content-Length: 5\r\n\r\nhello",
    "two lengths": GOOD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a length and chunks": GOOD
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "http/1.0": GOOD.replace(b"1.1", b"1.0") + b"\r\n",
    "http/9": GOOD.replace(b"1.1", b"9.9") + b"\r\n",
    "the preface of http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a folded header": GOOD + b"X-Folded: one\r\n two\r\n\r\n",
    "a header without a colon": GOOD + b"nonsense\r\n\r\n",
    "a space before the colon": GOOD + b"Cookie : a=b\r\n\r\n",
    "bare line feeds": GOOD.replace(b"\r\n", b"\n") + b"\n",
    "a zero byte in a value": GOOD + b"X-Zero: a\x00b\r\n\r\n",
    "bytes above ascii": GOOD + "X-Name: \u00e9\u20ac\r\n\r\n".encode(),
    "a long path": GOOD.replace(b"/ws", b"/" + b"w" * 100_000) + b"\r\n",
    "a long query": GOOD.replace(b"/ws", b"/ws?" + b"q" * 30_000) + b"\r\n",
    "a long header": GOOD + b"X-Long: " + b"x" * 1_000_000 + b"\r\n\r\n",
    "a header without an end": GOOD + b"X-Long: " + b"x" * 300_000,
    "many headers": GOOD + b"".join(b"X-%d: x\r\n" % i for i in range(5000)) + b"\r\n",
    "many protocols": GOOD + b"Sec-WebSocket-Protocol: " + b"a, " * 1000 + b"b\r\n\r\n",
    "protocols that are none": GOOD + b"Sec-WebSocket-Protocol: ,,\x7f;=\r\n\r\n",
    "extensions that are none": GOOD + b'Sec-WebSocket-Extensions: ;;=,"\r\n\r\n',
    "extensions that nobody knows": GOOD + b"Sec-WebSocket-Extensions: x; y=1, z\r\n\r\n",
    "window bits out of range": GOOD
    + b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99\r\n\r\n",
    "a path that climbs": GOOD.replace(b"/ws", b"/../../ws") + b"\r\n",
    "a path of escapes": GOOD.replace(b"/ws", b"/%00%ff%2e") + b"\r\n",
    "a whole url": GOOD.replace(b"/ws", b"http://evil.example/ws") + b"\r\n",
    "a star": GOOD.replace(b"/ws", b"*") + b"\r\n",
    "frames before the answer": GOOD + b"\r\n" + b"\x81\x85\x00\x00\x00\x00hello" * 10,
    "two requests": GOOD + b"\r\n" + GOOD + b"\r\n",
}


class Watched(logging.Handler):
    """A served hub; what reached the event loop's exception handler, or was logged as an error."""

    def __init__(self, hub: Hub, served: Served) -> None:
        super().__init__(logging.ERROR)
        self.hub = hub
        self.served = served
        self.errors: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self.errors.append(context)
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Keep an error that was logged."""
        self.errors.append(record.getMessage())

    async def answer(self, request: bytes, *, cut: int | None = None) -> bytes:
        """Send a request, in two parts if `cut`, and no more; return all that comes back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.served.port)
        try:
            try:
                writer.write(request[:cut])
                await writer.drain()
                if cut is not None:
                    writer.write(request[cut:])
                    await writer.drain()
                if writer.can_write_eof():
                    writer.write_eof()
                return await asyncio.wait_for(reader.read(), PATIENCE_S)
            except ConnectionError:
                return b""
        finally:
            writer.transport.abort()

    async def check(self, request: bytes, *, cut: int | None = None) -> bytes:
        """Send a request; check the answer, and that a good client is served."""
        answer = await self.answer(request, cut=cut)
        if answer:
            assert STATUS.match(answer), answer[:200]
            assert b"\r\n\r\n" in answer
        async with self.served.connect() as good:
            await good.send("hello")
            assert await take(good, 1) == ["hello"]
        assert self.errors == []
        return answer


@asynccontextmanager
async def watched(**options: Any) -> AsyncIterator[Watched]:
    hub = Hub(**options)
    hub.on_message(lambda client, message: client.send(message))
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "hubbub", "asyncio")]
    async with serve(hub.mount(nothing_but_404), log_level="error") as served:
        place = Watched(hub, served)
        for logger in loggers:
            logger.addHandler(place)
        try:
            yield place
        finally:
            for logger in loggers:
                logger.removeHandler(place)


async def nothing_but_404(scope: Any, receive: Any, send: Any) -> None:
    """Be the application beside the hub."""
    if scope["type"] == "websocket":
        await nothing_accepted(receive, send)
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"nothing"})
    else:
        await nothing(scope, receive, send)


async def nothing_accepted(receive: Any, send: Any) -> None:
    """Refuse a socket."""
    await receive()
    await send({"type": "websocket.close", "code": 1000})


@pytest.mark.anyio
async def test_crafted_handshakes_are_answered_or_closed() -> None:
    async with watched() as place:
        for name, request in CRAFTED.items():
            try:
                await place.check(request)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("no key", {400}),
        ("a short key", {400}),
        ("no version", {400, 426}),
        ("version 8", {400, 426}),
        ("two origins", {400, 403}),
        ("an origin that is none", {403}),
        ("an origin with a port that is none", {403}),
        ("an origin with half an address", {403}),
        ("frames before the answer", {101}),
    ],
)
async def test_the_status_says_what_is_wrong(name: str, statuses: set[int]) -> None:
    async with watched() as place:
        answer = await place.check(CRAFTED[name])
        match = STATUS.match(answer)
        assert match is not None
        assert int(match[1]) in statuses


parts = st.sampled_from([HOST, UPGRADE, KEY, VERSION, LINE, b"\r\n", b" ", b":", b"\x00", b"13"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Draw a good handshake with things put in, left out, doubled and changed."""
    lines = [
        LINE,
        HOST,
        b"Upgrade: websocket\r\n",
        b"Connection: Upgrade\r\n",
        KEY,
        VERSION,
        b"\r\n",
    ]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        action = draw(st.sampled_from(["drop", "double", "swap", "put", "change"]))
        if action == "drop":
            lines[at] = b""
        elif action == "double":
            lines.insert(at, lines[at])
        elif action == "swap":
            lines[at], lines[-1] = lines[-1], lines[at]
        elif action == "put":
            lines.insert(at, draw(parts | st.binary(max_size=30)))
        elif lines[at]:
            line = bytearray(lines[at])
            line[draw(st.integers(0, len(line) - 1))] = draw(st.integers(0, 255))
            lines[at] = bytes(line)
    return b"".join(lines)


@settings(max_examples=HANDSHAKES // 10, deadline=None)
@given(st.lists(st.tuples(requests(), st.integers(0, 200) | st.none()), min_size=10, max_size=10))
def test_made_up_handshakes_are_answered_or_closed(made_up: list[tuple[bytes, int | None]]) -> None:
    async def check() -> None:
        async with watched() as place:
            for request, cut in made_up:
                await place.check(request, cut=cut)

    asyncio.run(check())


@pytest.mark.anyio
async def test_a_request_byte_by_byte_is_a_socket_like_any_other() -> None:
    async with watched() as place:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.served.port)
        request = GOOD + b"\r\n"
        for byte in request:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, "RFC 6455 section 1.3 works this example"
        writer.transport.abort()
        await asyncio.sleep(0)
