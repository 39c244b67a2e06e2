"""The end of a server process: Ctrl-C, SIGTERM, --reload; with clients that answer and that do not."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from rawsocket import raw_connect
from serving import PATIENCE_S, Served, held_port, take

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM"),
]

APP = """
import asyncio
from starlette.applications import Starlette
from starlette.routing import Mount
from hubbub import Hub

hub = Hub(shutdown_timeout_s=2, origins="*")

@hub.on_message
async def said(client, text):
    if text == "sleep":
        client.send("sleeping")
        await asyncio.sleep(3600)
    hub.broadcast(text)

@hub.on_disconnect
async def left(client, close):
    await asyncio.sleep(0.01)
    print("left", close.code, flush=True)

@hub.every(0.05)
async def tick():
    await asyncio.sleep(3600)

app = Starlette(routes=[Mount("/ws", app=hub)], lifespan=hub.lifespan)
"""


class Process:
    """A uvicorn process that serves `APP`."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, folder: Path) -> None:
        self.process = process
        self.port = port
        self.folder = folder
        self.origin = f"ws://127.0.0.1:{port}"
        self.ws = f"{self.origin}/ws/"

    async def wait_until_up(self) -> None:
        """Wait until the server takes connections."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert self.process.returncode is None, "the server has ended"
            try:
                async with connect(self.ws, proxy=None):
                    return
            except OSError:
                assert time.monotonic() < deadline, "the server does not come up"
                await asyncio.sleep(0.05)

    async def end(self, signal_number: int) -> tuple[float, str]:
        """Send a signal; return how many seconds the end took and what was printed."""
        start = time.monotonic()
        self.process.send_signal(signal_number)
        output, _ = await asyncio.wait_for(self.process.communicate(), 20)
        return time.monotonic() - start, output.decode()


@asynccontextmanager
async def uvicorn_process(folder: Path, *flags: str, app: str = APP) -> AsyncIterator[Process]:
    (folder / "app.py").write_text(app)
    with held_port() as port:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), *flags),
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            yield Process(process, port, folder)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@pytest.mark.parametrize("ws", ["hubbub:Protocol", "websockets-sansio"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_closes_every_socket_with_1012(
    tmp_path: Path, ws: str, number: signal.Signals
) -> None:
    async with uvicorn_process(tmp_path, "--ws", ws) as server, AsyncExitStack() as stack:
        await server.wait_until_up()
        sockets = [
            await stack.enter_async_context(connect(server.ws, proxy=None)) for _ in range(100)
        ]
        seconds, output = await server.end(number)
        for socket in sockets:
            with pytest.raises(ConnectionClosed):
                await take(socket, 1)
            assert socket.close_code == 1012
    assert seconds < 5
    assert output.count("left 1012") == 100
    assert "Traceback" not in output
    assert "never retrieved" not in output


@pytest.mark.parametrize(
    ("ws", "reason"),
    [("hubbub:Protocol", r"service restart; retry after 3\.\d{3} s"), ("websockets-sansio", "")],
)
async def test_under_plain_uvicorn_the_native_transport_alone_drains(
    tmp_path: Path, ws: str, reason: str
) -> None:
    """uvicorn's own class closes by itself what it has, and the hub hears of the end afterwards."""
    app = APP.replace("shutdown_timeout_s=2", "shutdown_timeout_s=8, drain_s=0.3, come_back_s=3")
    async with uvicorn_process(tmp_path, "--ws", ws, app=app) as server, AsyncExitStack() as stack:
        await server.wait_until_up()
        sockets = [
            await stack.enter_async_context(connect(server.ws, proxy=None)) for _ in range(10)
        ]
        _, output = await server.end(signal.SIGTERM)
        for socket in sockets:
            with pytest.raises(ConnectionClosed):
                await take(socket, 1)
            assert socket.close_code == 1012
            assert re.fullmatch(reason, socket.close_reason or "")
    assert "Traceback" not in output


async def test_clients_that_never_answer_and_handlers_that_never_end_delay_nothing_for_long(
    tmp_path: Path,
) -> None:
    async with uvicorn_process(tmp_path, "--ws", "hubbub:Protocol") as server:
        await server.wait_until_up()
        served = Served(None, server.port)
        async with raw_connect(served, "/ws/"), connect(server.ws, proxy=None) as busy:
            await busy.send("sleep")
            assert await take(busy, 1) == ["sleeping"]
            seconds, output = await server.end(signal.SIGTERM)
        # The shutdown's two seconds, and what the process itself takes.
        assert 1.5 < seconds < 6
        assert "Traceback" not in output


WAITING_APP = """
import asyncio
from starlette.applications import Starlette
from starlette.routing import Mount
from hubbub import Hub

hub = Hub(shutdown_timeout_s=3, origins="*", inbox_max_messages=4)

@hub.on_connect
async def arrived(client, handshake):
    client.send("here")
    if handshake.query_string == "connect":
        await asyncio.Event().wait()

@hub.on_message
async def said(client, text):
    client.send("heard")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if text != "deaf":
                raise

@hub.on_disconnect
async def left(client, close):
    print("left", close.code, flush=True)

app = Starlette(routes=[Mount("/ws", app=hub)], lifespan=hub.lifespan)
"""


@pytest.mark.parametrize("ws", ["hubbub:Protocol", "websockets-sansio", "wsproto"])
@pytest.mark.parametrize(
    ("query", "texts"),
    [("connect", []), ("", ["go"]), ("", ["go"] * 20), ("", ["deaf"])],
    ids=["on_connect waits", "a handler waits", "messages wait", "a handler swallows its end"],
)
async def test_fault_03_handlers_that_wait_do_not_hold_up_the_shutdown(
    tmp_path: Path, ws: str, query: str, texts: list[str]
) -> None:
    async with uvicorn_process(tmp_path, "--ws", ws, app=WAITING_APP) as server:
        await server.wait_until_up()
        async with connect(f"{server.ws}?{query}", proxy=None) as socket:
            assert await take(socket, 1) == ["here"]
            for text in texts:
                await socket.send(text)
            # The first handler waits; what comes after it waits in the inbox.
            assert await take(socket, min(len(texts), 1)) == ["heard"] * min(len(texts), 1)
            seconds, output = await server.end(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                await take(socket, 1)
            assert socket.close_code == 1012
    # The shutdown's three seconds, and what the process itself takes.
    assert seconds < 8, output
    assert server.process.returncode in (0, -signal.SIGTERM)
    assert "Application shutdown complete" in output
    assert "Traceback" not in output
    assert output.count("left 1012") == (0 if texts == ["deaf"] else 1)


async def test_reload_never_hangs_with_open_sockets(tmp_path: Path) -> None:
    flags = ("--ws", "hubbub:Protocol", "--reload", "--reload-delay", "0.1")
    async with uvicorn_process(tmp_path, *flags) as server:
        await server.wait_until_up()
        for number in range(2):
            async with connect(server.ws, proxy=None) as socket:
                await socket.send("hello")
                assert await take(socket, 1) == ["hello"]
                (tmp_path / "app.py").write_text(APP + f"# {number}\n")
                start = time.monotonic()
                with pytest.raises(ConnectionClosed):
                    await take(socket, 1)
                assert socket.close_code == 1012
            await server.wait_until_up()
            assert time.monotonic() - start < 8
        _, output = await server.end(signal.SIGINT)
    assert "Traceback" not in output


RUDE_APP = """
from fastapi import FastAPI, WebSocket
from hubbub import Hub

hub = Hub(origins="*", shutdown_timeout_s=2)
app = FastAPI()
app.include_router(hub.router("/ws"))
app.include_router(hub.router("/ws/"))

@app.websocket("/rude")
async def rude(websocket: WebSocket):
    await hub.attach(websocket)
    await websocket.close()

@hub.on_disconnect
def left(client, close):
    print("left", close.code, flush=True)
"""

ODD_HEADS = (
    "Transfer-Encoding: chunked\r\n",
    "X: x\r\n" * 300,
    f"Cookie: {'x' * 9000}\r\n",
)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    await asyncio.sleep(0)  # the transport's end is told one turn later


@pytest.mark.parametrize("http", ["h11", "httptools", "hubbub:HttpProtocol"])
async def test_fault_04_and_05_the_process_ends_whole_whatever_was_done_to_its_sockets(
    tmp_path: Path, http: str
) -> None:
    flags = ("--ws", "hubbub:Protocol", "--http", http)
    async with uvicorn_process(tmp_path, *flags, app=RUDE_APP) as server, AsyncExitStack() as stack:
        await server.wait_until_up()
        sockets = [
            await stack.enter_async_context(connect(f"{server.origin}{path}", proxy=None))
            for path in ("/ws", "/rude", "/rude")
        ]
        for path in ("/foreign", "/ws"):
            for odd in ODD_HEADS:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                stack.push_async_callback(hang_up, writer)
                lines = "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                writer.write(f"GET {path} HTTP/1.1\r\n{lines}{odd}\r\n".encode())
                answer = await asyncio.wait_for(reader.readline(), PATIENCE_S)
                assert answer.split()[1] in (b"400", b"431")
        seconds, output = await server.end(signal.SIGTERM)
        for socket in sockets:
            with pytest.raises(ConnectionClosed):
                await take(socket, 1)
            assert socket.close_code == 1012
    # uvicorn ends itself by the signal that it got, when all is done.
    assert server.process.returncode in (0, -signal.SIGTERM)
    assert seconds < 5
    assert output.count("left 1012") == 3
    assert "Application shutdown complete." in output
    assert "AssertionError" not in output
