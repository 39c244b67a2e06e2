"""A WebSocket client of bare sockets, for tests that send what no library would."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from websockets.asyncio.client import ClientConnection

from hubbub import Hub
from serving import PATIENCE_S, Served, take, until

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


def frame(
    opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True, rsv: int = 0
) -> bytes:
    """Return the bytes of one frame, right or wrong as told."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if masked else 0
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", first, bit | length)
    elif length < 65536:
        head = struct.pack("!BBH", first, bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, bit | 127, length)
    if not masked:
        return head + payload
    key = b"\x37\xfa\x21\x3d"  # the one of RFC 6455's examples: tests are the same each time
    return head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def deflate(data: bytes, *, level: int = 6, final: bool = True) -> bytes:
    """Return `data` deflated, as the payload of a message (RFC 7692 section 7.2.1)."""
    deflater = zlib.compressobj(level, wbits=-15)
    deflated = deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return deflated[:-4] if final else deflated


def inflate(payload: bytes) -> bytes:
    """Return what a whole message says (RFC 7692 section 7.2.2), in a window of 4 KiB."""
    return zlib.decompressobj(wbits=-12).decompress(payload + b"\x00\x00\xff\xff")


class RawSocket:
    """One connection after its handshake."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str = ""
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.head = head
        self._transport = cast(asyncio.Transport, writer.transport)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def recv(self) -> tuple[int, bytes]:
        """Receive one frame: its opcode and payload."""
        return await asyncio.wait_for(self._recv(), PATIENCE_S)

    async def recv_deflated(self) -> tuple[int, bytes, bool]:
        """Receive one frame: its opcode, its payload, inflated if need be, and whether it was."""
        first, payload = await asyncio.wait_for(self._recv_any(), PATIENCE_S)
        assert first & 0xB0 == 0x80, "a server's frame is final, and RSV1 alone may be set"
        is_deflated = bool(first & 0x40)
        return first & 0x0F, inflate(payload) if is_deflated else payload, is_deflated

    async def _recv(self) -> tuple[int, bytes]:
        first, payload = await self._recv_any()
        assert first & 0xF0 == 0x80, "a server's frame is final, without reserved bits"
        return first & 0x0F, payload

    async def _recv_any(self) -> tuple[int, bytes]:
        first, second = await self.reader.readexactly(2)
        assert not second & 0x80, "a server never masks"
        length = second
        if length == 126:
            (length,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
        return first, await self.reader.readexactly(length)

    async def recv_close(self) -> tuple[int, str]:
        """Receive frames until the close frame; return its code and reason."""
        while True:
            opcode, payload = await self.recv()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2]), payload[2:].decode()

    async def at_end(self) -> bool:
        """Wait for the end of the stream; True if nothing more came before it."""
        try:
            return await asyncio.wait_for(self.reader.read(), PATIENCE_S) == b""
        except ConnectionError:
            return True

    def stop_reading(self) -> None:
        """Take nothing more from the socket, so that the peer's buffers fill."""
        self._transport.pause_reading()

    def read_on(self) -> None:
        """Take from the socket again."""
        self._transport.resume_reading()


@asynccontextmanager
async def raw_connect(
    served: Served, path: str = "/ws", *, extra: bytes = b"", headers: str = "", limit: int = 2**16
) -> AsyncIterator[RawSocket]:
    """Shake hands with bare bytes; `extra` follows the request in the same segment."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=limit)
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        f"{headers}\r\n"
    )
    writer.write(request.encode() + extra)
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        assert head.startswith(b"HTTP/1.1 101 "), head
        yield RawSocket(reader, writer, head.decode())
    finally:
        writer.transport.abort()
        # The transport's end is told one turn later.
        await asyncio.sleep(0)


async def assert_it_fails_alone(
    hub: Hub, socket: RawSocket, other: ClientConnection, code: int, reason: str
) -> None:
    """The socket is closed for breaking the protocol; the other client sees nothing of it."""
    closed = await socket.recv_close()
    assert closed[0] == code
    assert reason.lower() in closed[1].lower()
    assert await socket.at_end()
    await until(lambda: len(hub) == 1)
    assert hub.stats()["protocol_errors"] == 1
    await other.send("still here")
    assert await take(other, 1) == ["still here"]
