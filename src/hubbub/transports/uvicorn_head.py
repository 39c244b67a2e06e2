"""The head of a request for a WebSocket: read at once, and refused if it can be none.

What must not live here: the answer, and who owns the socket (`uvicorn_protocol`).
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64
from typing import NamedTuple

import httptools

from ..errors import Refused
from ..limits import MAX_HEAD_BYTES, MAX_HEADERS, head_too_large


class Head(NamedTuple):
    """The head of a request for a WebSocket; header names are in lower case."""

    url: bytes
    headers: list[tuple[bytes, bytes]]


class _HeadReader:
    """What httptools calls while it reads a head."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


def read_head(data: bytes) -> Head:
    """Read the whole head of a request for a WebSocket, as uvicorn's HTTP classes pass it on.

    Raises `Refused`: 431 for a head over `MAX_HEAD_BYTES` or `MAX_HEADERS`, 405 for another method
    than GET, 400 for one that is not HTTP/1.1, promises a body, or asks for no upgrade (RFC 6455
    section 4.2.1).
    """
    if len(data) > MAX_HEAD_BYTES or data.count(b"\n") > MAX_HEADERS + 2:
        raise head_too_large()
    reader = _HeadReader()
    parser = httptools.HttpRequestParser(reader)
    is_whole = False
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade as upgrade:
        is_whole = upgrade.args[0] == len(data)
    except httptools.HttpParserError:
        pass
    if is_whole and parser.get_method() != b"GET":
        raise Refused(405, headers={"Allow": "GET"})
    is_right = is_whole and parser.get_http_version() == "1.1" and reader.url.isascii()
    if not is_right or any(_promises_body(*header) for header in reader.headers):
        raise Refused(400, message="This is no request for a WebSocket")
    return Head(reader.url, reader.headers)


def _promises_body(name: bytes, value: bytes) -> bool:
    """Tell whether a header announces bytes that would be taken for frames (RFC 9112 section 6)."""
    return name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0") != b"")


def is_ordinary(head: Head) -> bool:
    """Tell whether a request has all that RFC 6455 section 4.2.1 asks for, each once and plainly.

    Any other is left to the core of `websockets`, which says what is wrong with it.
    """
    once: dict[bytes, bytes] = {}
    for name, value in head.headers:
        if name in _HANDSHAKE_HEADERS:
            if name in once:
                return False
            once[name] = value
    try:
        key = a2b_base64(once.get(b"sec-websocket-key", b""), strict_mode=True)
    except Base64Error:
        return False
    connection = once.get(b"connection", b"").lower()
    return (
        len(key) == 16
        and once.get(b"sec-websocket-version") == b"13"
        and once.get(b"upgrade", b"").lower() == b"websocket"
        and b"upgrade" in [token.strip() for token in connection.split(b",")]
        and b"host" in once
    )


_HANDSHAKE_HEADERS = frozenset(
    (b"sec-websocket-key", b"sec-websocket-version", b"upgrade", b"connection", b"host")
)
