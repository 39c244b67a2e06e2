"""What the tests of `hubbub connect` share: the command in a process of its own, and servers for it."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from websockets.asyncio.server import Server as AsyncServer
from websockets.asyncio.server import ServerConnection as AsyncConnection
from websockets.asyncio.server import serve as serve_async
from websockets.datastructures import Headers
from websockets.http11 import Response
from websockets.sync.server import ServerConnection, serve

from commands import PATIENCE_S

PATIENTLY = ("--linger", "30")
"""For answers after which the server ends it: the client waits for that and no longer."""


Handler = Callable[[ServerConnection], None]


@contextmanager
def server(handler: Handler, port: int = 0, **options: Any) -> Iterator[str]:
    """Run a server in threads, and give its address; at the end wait for all its handlers."""
    with serve(handler, "127.0.0.1", port, **options) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{running.socket.getsockname()[1]}/ws"
        finally:
            running.shutdown()
            thread.join(PATIENCE_S)


@contextmanager
def secure_server(context: ssl.SSLContext) -> Iterator[str]:
    """Run a server with TLS that answers one message of each client, and ends it; give its address.

    Not a server with threads: one may not write by TLS while another reads (OpenSSL).
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def answer(socket: AsyncConnection) -> None:
        await socket.send(await socket.recv())

    async def begin() -> AsyncServer:
        return await serve_async(answer, "127.0.0.1", 0, ssl=context)

    async def end(running: AsyncServer) -> None:
        running.close()
        await running.wait_closed()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(PATIENCE_S)

    try:
        running = run(begin())
        yield f"ws://127.0.0.1:{next(iter(running.sockets)).getsockname()[1]}/ws"
        run(end(running))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_S)
        loop.close()


def echo(socket: ServerConnection) -> None:
    for message in socket:
        socket.send(message)


def echo_times(count: int) -> Handler:
    """Echo so many messages, then end the connection."""

    def handle(socket: ServerConnection) -> None:
        for _ in range(count):
            socket.send(socket.recv())

    return handle


def closing(code: int, reason: str) -> Handler:
    return lambda socket: socket.close(code, reason)


def refusing(status: int, body: dict[str, str]) -> Callable[..., Response]:
    raw = json.dumps(body).encode()
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(raw))})
    return lambda socket, request: Response(status, "No", headers, raw)


def greet(socket: ServerConnection) -> None:
    socket.send("hello")
    for message in socket:
        socket.send(message)
