"""Servers for the tests of client programs: they answer a handshake with what they are told to."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from websockets.utils import accept_key

RESET = b"(reset)"
"""Instead of an answer: the connection is reset."""
SILENCE = b"(silence)"
"""Instead of an answer: none, and the connection stays."""


def asynchronous(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an event loop of its own, and demand that it leaves no task behind.

    `loop=` is what makes the event loop; None: asyncio's own.
    """

    @functools.wraps(test)
    def run(*args: Any, loop: Any = None, **keywords: Any) -> None:
        async def alone() -> None:
            await test(*args, **keywords)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not [task for task in left if task.get_name().startswith("hubbub")]

        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(alone())

    return run


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.005)


class Answers:
    """One answer for each connection, the last one for all that follow.

    `{accept}` in an answer becomes the right Sec-WebSocket-Accept, `{port}` the port. `heads` are
    the requests that came.
    """

    def __init__(self, *answers: bytes) -> None:
        self.heads: list[str] = []
        self.port = 0
        self._answers = answers
        self._open: set[asyncio.StreamWriter] = set()

    def url(self, scheme: str = "ws") -> str:
        return f"{scheme}://127.0.0.1:{self.port}/ws"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            answer = self._answers[min(len(self.heads), len(self._answers)) - 1]
            if answer == SILENCE:
                await reader.read()
            elif answer == RESET:
                reset(writer)
            else:
                writer.write(self._filled(answer, head))
                writer.write_eof() if writer.can_write_eof() else None
                await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    def _filled(self, answer: bytes, head: str) -> bytes:
        key = head.partition("Sec-WebSocket-Key: ")[2].partition("\r\n")[0]
        answer = answer.replace(b"{accept}", accept_key(key).encode())
        return answer.replace(b"{port}", str(self.port).encode())

    def cut_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that the other side gets ECONNRESET."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.asynccontextmanager
async def answering(
    *answers: bytes, tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[Answers]:
    """Serve `answers`, in this order, on a free port of 127.0.0.1."""
    served = Answers(*answers)
    server = await asyncio.start_server(served.serve, "127.0.0.1", port, ssl=tls, limit=2**20)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        served.cut_all()
        await asyncio.sleep(0)
        await server.wait_closed()


def status(code: int, *headers: str, body: bytes = b"", version: str = "1.1") -> bytes:
    """Return an HTTP answer."""
    lines = [f"HTTP/{version} {code} Some Phrase", f"Content-Length: {len(body)}", *headers]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


def upgraded(*headers: str, accept: str = "{accept}") -> bytes:
    """Return the answer that opens a WebSocket."""
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept}",
        *headers,
    ]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"
