"""Raw clients: bare sockets, which send and leave unread what no library would.

What must not live here: what is done with them; that is the business of the scenarios.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import cast

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
CONTINUATION = 0x0
OPEN_S = 30.0
"""How long a handshake may take."""

_KEY = b"\x37\xfa\x21\x3d"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """Return one masked frame, right or wrong as told."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", first, 0x80 | length)
    elif length < 65536:
        head = struct.pack("!BBH", first, 0xFE, length)
    else:
        head = struct.pack("!BBQ", first, 0xFF, length)
    repeated = _KEY * (length // 4 + 1)
    masked = int.from_bytes(payload) ^ int.from_bytes(repeated[:length])
    return head + _KEY + masked.to_bytes(length)


def request(host: str, port: int, path: str = "/ws", headers: str = "") -> bytes:
    """Return the bytes that ask for a socket; `headers` are lines that end in CR LF."""
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        f"{headers}\r\n"
    ).encode("latin-1")


class Denied(Exception):
    """The handshake was answered, but not with a socket."""

    def __init__(self, status: int, head: str, body: str = "") -> None:
        self.status = status
        self.head = head
        self.body = body
        super().__init__(f"{status}")


class RawClient:
    """One connection after its handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def transport(self) -> asyncio.Transport:
        """The connection's transport."""
        return cast(asyncio.Transport, self.writer.transport)

    def stop_reading(self) -> None:
        """Take nothing more from the socket."""
        self.transport.pause_reading()

    async def recv(self) -> tuple[int, bytes]:
        """Receive one frame: its opcode and payload."""
        first, length = await self.reader.readexactly(2)
        if length == 126:
            (length,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
        return first & 0x0F, await self.reader.readexactly(length)

    async def close_code(self) -> int:
        """Read to the end; return the code of the close frame, 1006 if there was none."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                opcode, payload = await self.recv()
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2])
        return 1006

    async def flood(self, chunk: bytes, seconds: float, most_bytes: int) -> int:
        """Send `chunk` again and again while the peer takes it; return how many bytes went."""
        loop = asyncio.get_running_loop()
        end, sent = loop.time() + seconds, 0
        with suppress(ConnectionError):
            while loop.time() < end and sent < most_bytes and not self.writer.is_closing():
                self.writer.write(chunk)
                sent += len(chunk)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.writer.drain(), max(0.01, end - loop.time()))
        return sent

    def abort(self) -> None:
        """End with a reset."""
        self.transport.abort()

    async def close(self) -> None:
        """Send a close frame, read to the end, and close."""
        with suppress(ConnectionError, TimeoutError):
            self.writer.write(frame(CLOSE, (1000).to_bytes(2)))
            await asyncio.wait_for(self.close_code(), OPEN_S)
        self.abort()


async def open_connection(
    host: str, port: int, *, receive_bytes: int | None = None, source: str | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a TCP connection, with a small receive buffer or from an address if told."""
    sock = socket.socket()
    sock.setblocking(False)
    try:
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if source is not None:
            sock.bind((source, 0))
        async with asyncio.timeout(OPEN_S):
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return await asyncio.open_connection(sock=sock, limit=2**16)


async def connect(
    port: int,
    path: str = "/ws",
    *,
    headers: str = "",
    host: str = "127.0.0.1",
    receive_bytes: int | None = None,
    source: str | None = None,
) -> RawClient:
    """Shake hands; raise `Denied` when the answer is not 101."""
    reader, writer = await open_connection(host, port, receive_bytes=receive_bytes, source=source)
    try:
        async with asyncio.timeout(OPEN_S):
            writer.write(request(host, port, path, headers))
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status = int(head.split(" ", 2)[1])
            if status != 101:
                body = (await reader.read(2**16)).decode(errors="replace")
                raise Denied(status, head, body)
    except BaseException:
        writer.transport.abort()
        raise
    return RawClient(reader, writer)


@contextmanager
def abort_all(clients: list[RawClient]) -> Iterator[None]:
    """Reset what is left of them at the end."""
    try:
        yield
    finally:
        for client in clients:
            client.abort()
