"""What clients over bare sockets write: the request of a handshake, and frames that are masked with zeros.

It needs the standard library only. Not here: what they read, which each generator does in a way of its own, as
fast as what it counts allows (`broker_load.py`, `compression.py`, `recovery.py`).
"""

from __future__ import annotations

import base64
import os


class Broken(RuntimeError):
    """The server answered what it should not."""


def handshake(port: int, path: str, *headers: str) -> bytes:
    """Return the request for a WebSocket (RFC 6455 section 4.1), with some headers more."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def check_handshake(head: bytes) -> None:
    """Raise `Broken` unless the answer opens a WebSocket."""
    if not head.startswith(b"HTTP/1.1 101 "):
        raise Broken(f"no handshake: {head[:80]!r}")


def masked(text: bytes) -> bytes:
    """Return a client's text frame (RFC 6455 section 5.2), masked with zeros."""
    if len(text) < 126:
        return b"\x81" + bytes([0x80 | len(text)]) + bytes(4) + text
    return b"\x81\xfe" + len(text).to_bytes(2) + bytes(4) + text
