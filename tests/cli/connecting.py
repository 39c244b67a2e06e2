"""What the tests of `hubbub connect` share: the command in a process of its own, and servers for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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
