"""What the tests of the native protocol class share: heads of requests for a WebSocket."""

from __future__ import annotations

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of RFC 6455 section 1.3; its answer stands there too."""


LINES = (
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
)


def head(*lines: str, start: str = "GET /ws?a=1 HTTP/1.1") -> bytes:
    return "\r\n".join((start, *lines, "", "")).encode("latin-1")


def without(name: str) -> list[str]:
    return [line for line in LINES if not line.startswith(name)]
