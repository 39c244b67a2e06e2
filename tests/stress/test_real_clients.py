"""Real clients against both transports: each says the same things and closes with 4001.

The browsers, wscat and Firefox have tests of their own: `tests/end_to_end` and
`stress/firefox_check.py`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hubbub import Client, Close, Frame, Hub
from places import ROOT
from rawsocket import CLOSE, TEXT, frame
from serving import PATIENCE_S, Served, nothing, serve, take, until

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent

MESSAGES: list[str | bytes] = ["h\u00e9llo \u20ac \U0001f600", bytes(range(256)), "", "a" * 70_000]
START_S = 30.0
"""How long a program may take altogether; Node.js is slow to start on a busy machine."""


class Echo:
    """A served echo, and how its clients ended."""

    def __init__(self, hub: Hub, served: Served) -> None:
        self.hub = hub
        self.served = served
        self.closes: list[Close] = []

    async def saw_them_go(self) -> None:
        """Wait for the one client's end; check its close frame."""
        await until(lambda: bool(self.closes) and len(self.hub) == 0)
        (close,) = self.closes
        assert (close.code, close.reason, close.by_server) == (4001, "done", False)


@asynccontextmanager
async def echo(native: bool, **settings: Any) -> AsyncIterator[Echo]:
    hub = Hub(max_message_bytes=100_000, **settings)

    @hub.on_message
    def back(client: Client, message: Frame) -> None:
        client.send(message)

    async with serve(hub.mount(nothing), native=native) as served:
        place = Echo(hub, served)
        hub.on_disconnect(lambda client, close: place.closes.append(close))
        yield place


@pytest.fixture(params=[True, False], ids=["native", "portable"])
def native(request: pytest.FixtureRequest) -> bool:
    chosen: bool = request.param
    return chosen


async def output_of(*command: str) -> str:
    """Run a program to its end; fail unless that is good."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), START_S)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output.decode()
    return output.decode()


def program(name: str) -> str:
    path = shutil.which(name)
    assert path is not None, f"{name} is missing: install it"
    return path


async def test_websockets(native: bool) -> None:
    async with echo(native) as place:
        async with place.served.connect() as client:
            for message in MESSAGES:
                await client.send(message)
            assert await take(client, len(MESSAGES)) == MESSAGES
            await client.close(4001, "done")
        await place.saw_them_go()


async def test_aiohttp(native: bool) -> None:
    async with echo(native) as place:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(place.served.ws()) as client,
        ):
            for message in MESSAGES:
                if isinstance(message, str):
                    await client.send_str(message)
                else:
                    await client.send_bytes(message)
                assert (await client.receive(PATIENCE_S)).data == message
            await client.close(code=4001, message=b"done")
        await place.saw_them_go()


async def test_node_with_ws(native: bool) -> None:
    assert (ROOT / "node_modules" / "ws").exists(), "ws is missing: `make test` brings it"
    async with echo(native) as place:
        command = (program("node"), str(HERE / "echo_client.mjs"))
        assert "talked" in await output_of(*command, place.served.ws(), "ws")
        await place.saw_them_go()


async def test_node_with_its_own_websocket(native: bool) -> None:
    async with echo(native) as place:
        node = program("node")
        has_one = await output_of(node, "--eval", "console.log(typeof WebSocket)")
        options = [] if "function" in has_one else ["--experimental-websocket"]
        script = str(HERE / "echo_client.mjs")
        assert "talked" in await output_of(node, *options, script, place.served.ws(), "builtin")
        await place.saw_them_go()


async def test_curl_shows_the_handshake(native: bool) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    headers = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    arguments = [word for line in (*headers, f"Sec-WebSocket-Key: {key}") for word in ("-H", line)]
    async with echo(native, write_timeout_s=0.5) as place:
        place.hub.on_connect(lambda client: client.close(4001, "done"))
        command = [program("curl"), "--include", "--http1.1", "--no-buffer", "--silent"]
        command += ["--max-time", "20"]
        process = await asyncio.create_subprocess_exec(
            *command, *arguments, place.served.http(), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        async with asyncio.timeout(START_S):
            head = await process.stdout.readuntil(b"\r\n\r\n")
            close_frame = await process.stdout.readexactly(8)
            if not native:  # there the server waits ten seconds for the answer to its close frame
                process.terminate()
            # Nobody answers, so the hub cuts the connection, and curl ends by itself.
            assert await process.stdout.read() == b""
            await process.wait()
        await until(lambda: len(place.hub) == 0)
        digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert (
            f"sec-websocket-accept: {base64.b64encode(digest).decode()}".lower()
            in head.decode().lower()
        )
        assert close_frame == b"\x88\x06\x0f\xa1done"


async def test_bare_sockets(native: bool) -> None:
    async with echo(native) as place:
        talked = await asyncio.to_thread(_talk_bare, place.served.port)
        assert talked == [b"\x81\x05hello", b"\x88\x06\x0f\xa1done", b""]
        await place.saw_them_go()


def _talk_bare(port: int) -> list[bytes]:
    """Shake hands, say hello, send a close frame; return each answer, and what came after them."""
    request = (
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as bare:
        file = bare.makefile("rb")
        bare.sendall(request.encode())
        assert file.readline() == b"HTTP/1.1 101 Switching Protocols\r\n"
        while file.readline() != b"\r\n":
            pass
        bare.sendall(frame(TEXT, b"hello"))
        hello = file.read(7)
        bare.sendall(frame(CLOSE, (4001).to_bytes(2) + b"done"))
        return [hello, file.read(8), file.read()]
