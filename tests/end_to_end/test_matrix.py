"""The smoke matrix: one application under every ASGI server, each a process of its own.

What the rows expect is what `docs/deployment.md` says of the servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from asgi.handshakes import closed
from places import TESTS
from serving import PATIENCE_S, held_port, take

pytestmark = pytest.mark.anyio

START_S = 30.0
"""How long a server may take to start, on a busy machine."""
STOP_S = 10.0
"""How long a server may take to end after SIGTERM; the hub's own bound is one second."""


def uvicorn(*options: str) -> Callable[[str], list[str]]:
    return lambda port: ["uvicorn", "matrix_app:app", "--port", port, *options]


def hypercorn(timeout_s: int) -> Callable[[str], list[str]]:
    options = ("--graceful-timeout", str(timeout_s))
    return lambda port: ["hypercorn", "--bind", f"127.0.0.1:{port}", *options, "matrix_app:app"]


class Row(NamedTuple):
    """How a server is started, and in what it differs."""

    command: Callable[[str], list[str]]
    denial_body: bool = True
    """Whether a refusal reaches the client with its status and body; otherwise it is a bare 403."""
    reasons: bool = True
    """Whether the reason of a close reaches the client."""
    empty_messages: bool = True
    """Whether an empty message that the application sends reaches the client."""
    too_big: int = 1009
    """The close code that a client gets for a message over `max_message_bytes`."""
    at_sigterm: int | None = 1012
    """The close code that clients see when the server ends; None: the connection breaks (1006)."""
    or_at_sigterm: int | None = None
    """Another that they may see instead (None: no other)."""
    told: int = 4567
    """The close code that the application sees when a client closes with 4567."""
    waits_for_clients: bool = False
    """Whether the server goes on, after SIGTERM, until its last client has left by itself."""
    query_in_log: bool = False
    """Whether the access log, as it is by default, shows query strings."""


ROWS = {
    "native": Row(uvicorn("--ws", "hubbub:Protocol")),
    "native-h11": Row(uvicorn("--ws", "hubbub:Protocol", "--http", "h11", "--loop", "asyncio")),
    "uvicorn-sansio": Row(uvicorn("--ws", "websockets-sansio")),
    "uvicorn-wsproto": Row(uvicorn("--ws", "wsproto")),
    "gunicorn": Row(
        lambda port: [
            "gunicorn",
            *("--worker-class", "matrix_worker.HubWorker", "--workers", "1"),
            *("--no-control-socket", "--bind", f"127.0.0.1:{port}", "matrix_app:app"),
        ],
    ),
    "hypercorn": Row(
        hypercorn(1),
        told=1006,
        waits_for_clients=sys.version_info >= (3, 12),
    ),
    "granian": Row(
        lambda port: ["granian", "--interface", "asgi", "--port", port, "matrix_app:app"],
        at_sigterm=None,
    ),
    "daphne": Row(
        lambda port: ["daphne", "-b", "127.0.0.1", "-p", port, "matrix_app:app"],
        denial_body=False,
        reasons=False,
        empty_messages=False,
        # daphne refuses to send the codes 1001 to 2999.
        too_big=4009,
        at_sigterm=None,
        or_at_sigterm=4012,  # it ends the call and the socket at once: either may be first
        query_in_log=True,
    ),
}
WORKERS = Row(uvicorn("--ws", "hubbub:Protocol", "--workers", "2"))


class Running:
    """A server that runs as a process of its own."""

    def __init__(self, row: Row, process: subprocess.Popen[bytes], port: str, log: Path) -> None:
        self.row = row
        self.process = process
        self.address = f"127.0.0.1:{port}"
        self.log = log

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(f"http://{self.address}{path}", timeout=PATIENCE_S, trust_env=False)

    def connect(self, path: str = "/ws?token=open-sesame") -> connect:
        return connect(f"ws://{self.address}{path}", proxy=None, ping_interval=None)

    def stats(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.get("/stats").json()
        return answer

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the application's numbers are as they should be."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition(self.stats()):
                await asyncio.sleep(0.02)


@contextlib.contextmanager
def running(row: Row, folder: Path) -> Iterator[Running]:
    """Start a server, wait until it answers, and end it."""
    path = folder / "server.log"
    with held_port() as number, path.open("wb") as log:
        port = str(number)
        process = subprocess.Popen(
            [sys.executable, "-m", *row.command(port)],
            cwd=TESTS,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        server = Running(row, process, port, path)
        try:
            wait_for(server)
            yield server
        finally:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_S)
                process.kill()
            process.wait()


def wait_for(server: Running) -> None:
    deadline = time.monotonic() + START_S
    while True:
        assert server.process.poll() is None, server.log.read_text()
        with contextlib.suppress(httpx2.TransportError):
            server.get("/stats")
            return
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)


@pytest.fixture(scope="module", params=ROWS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with running(ROWS[request.param], tmp_path_factory.mktemp(request.param)) as started:
        yield started


@contextlib.asynccontextmanager
async def visit(server: Running) -> AsyncIterator[ClientConnection]:
    """Connect, and wait until the hub has taken the client in: some servers answer before."""
    async with server.connect() as client:
        await client.send("hello")
        assert await take(client, 1) == ["hello"]
        yield client


async def ask(client: ClientConnection, question: dict[str, Any]) -> None:
    await client.send(json.dumps(question))


async def test_text_binary_and_json_come_back(server: Running) -> None:
    async with server.connect() as client:
        await client.send("grüße 👋")
        await client.send(b"\x00\xff\x80")
        await client.send('{"type": "unknown", "n": [1, 2]}')
        assert await take(client, 3) == [
            "grüße 👋",
            b"\x00\xff\x80",
            '{"type": "unknown", "n": [1, 2]}',
        ]


async def test_an_empty_message_is_a_message(server: Running) -> None:
    async with server.connect() as client:
        for message in ("", b"", "the end"):
            await client.send(message)
        expected = ["", b"", "the end"] if server.row.empty_messages else ["the end"]
        assert await take(client, len(expected)) == expected


async def test_two_clients_get_500_broadcasts_in_order(server: Running) -> None:
    async with visit(server) as one, visit(server) as other:
        await ask(one, {"type": "count", "to": 500})
        expected = [{"number": number} for number in range(500)]
        for client in (one, other):
            assert [json.loads(text) for text in await take(client, 500)] == expected


async def test_a_room_reaches_its_members_alone(server: Running) -> None:
    async with visit(server) as inside, visit(server) as outside, visit(server) as speaker:
        for member in (inside, speaker):
            await ask(member, {"type": "join", "room": "red"})
            assert await take(member, 1) == ['{"rooms":["red"]}']
        await ask(speaker, {"type": "room", "room": "red", "text": "hello"})
        assert await take(inside, 2) == ['{"text":"hello"}', "the room was told"]
        assert await take(speaker, 1) == ["the room was told"]
        assert await take(outside, 1) == ["the room was told"]


async def test_the_server_closes_with_code_and_reason(server: Running) -> None:
    async with server.connect() as client:
        await ask(client, {"type": "close", "code": 4321, "reason": "see you"})
        assert await take(client, 1) == ["before the close"]
        end = (await closed(client)).rcvd
        assert end is not None
        assert end.code == 4321
        assert end.reason == ("see you" if server.row.reasons else "")


async def test_the_application_learns_that_a_client_went(server: Running) -> None:
    told = server.row.told
    before = server.stats()["closes"].count(told)
    async with visit(server) as client:
        await client.close(4567, "enough")
    await server.until(lambda stats: stats["clients"] == 0 and stats["closes"].count(told) > before)


async def test_a_client_that_vanishes_is_taken_out(server: Running) -> None:
    async with visit(server) as client:
        client.transport.abort()
    await server.until(lambda stats: stats["clients"] == 0)


async def test_a_message_over_the_limit_ends_its_own_connection(server: Running) -> None:
    async with server.connect() as healthy:
        async with server.connect() as client:
            await client.send("x" * 513)
            end = (await closed(client)).rcvd
            assert end is not None
            assert end.code == server.row.too_big
            assert "max_message_bytes, which is 512" in end.reason or not server.row.reasons
        await healthy.send("x" * 512)
        assert await take(healthy, 1) == ["x" * 512]


async def test_s16_a_wrong_token_is_refused_before_the_upgrade(server: Running) -> None:
    before = server.stats()
    with pytest.raises(InvalidStatus) as caught:
        await server.connect("/ws?token=wrong")
    response = caught.value.response
    if server.row.denial_body:
        assert response.status_code == 401
        assert response.headers["Content-Type"] == "application/json"
        assert json.loads(response.body) == {"error": "Unauthorized", "code": "unauthorized"}
    else:
        assert response.status_code == 403
        assert not response.body
    after = server.stats()
    assert after["total_clients"] == before["total_clients"]
    assert after["refused"]["unauthorized"] == before["refused"].get("unauthorized", 0) + 1


async def test_s16_a_plain_get_tells_what_the_handshake_would(server: Running) -> None:
    refused = server.get("/ws?token=wrong")
    assert refused.status_code == 401
    assert refused.json() == {"error": "Unauthorized", "code": "unauthorized"}
    welcome = server.get("/ws?token=open-sesame")
    assert welcome.status_code == 426
    assert welcome.headers["Upgrade"] == "websocket"
    assert welcome.json()["code"] == "upgrade_required"
    script = server.get("/ws/hubbub.js")
    assert script.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert "WebSocket" in script.text


async def test_sockets_of_the_applications_own_still_work(server: Running) -> None:
    async with server.connect("/own") as client:
        await client.send("hello")
        assert await take(client, 1) == ["own: hello"]


async def test_no_token_is_logged(server: Running) -> None:
    async with visit(server):
        server.get("/ws?token=open-sesame")
    # A server that logs a request after its answer has done so when it answers the next one.
    await server.until(lambda stats: stats["clients"] == 0)
    assert ("open-sesame" in server.log.read_text()) == server.row.query_in_log


@pytest.mark.parametrize("name", ROWS)
async def test_sigterm_ends_the_server_with_clients_connected(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    with running(row, tmp_path) as server:
        clients = [await server.connect() for _ in range(3)]
        await server.until(lambda stats: stats["clients"] == 3)
        await end_by_sigterm(server, clients)


@pytest.mark.parametrize("name", ROWS)
async def test_fault_03_a_handler_that_waits_keeps_no_server_from_its_end(
    name: str, tmp_path: Path
) -> None:
    row = ROWS[name]
    with running(row, tmp_path) as server:
        clients = [await server.connect() for _ in range(2)]
        await clients[0].send('{"type": "wait"}')
        assert await take(clients[0], 1) == ["waiting"]
        await end_by_sigterm(server, clients)


async def end_by_sigterm(server: Running, clients: list[ClientConnection]) -> None:
    """End a server; its clients see the close code of its row, and its process ends in time."""
    server.process.send_signal(signal.SIGTERM)
    for client in clients:
        if server.row.waits_for_clients:
            await client.close()
            continue
        end = (await closed(client)).rcvd
        code = None if end is None else end.code
        assert code == server.row.at_sigterm or code == server.row.or_at_sigterm is not None
    await asyncio.to_thread(server.process.wait, STOP_S)
    assert "hubbub/" not in server.log.read_text(), "a traceback through the hub"


async def test_fault_32_each_row_has_the_transport_that_the_docs_say(server: Running) -> None:
    command = server.row.command("0")
    is_native = "hubbub:Protocol" in command or "matrix_worker.HubWorker" in command
    expected = "NativeTransport" if is_native else "ASGITransport"
    async with visit(server):
        # Clients of other tests may be about to leave.
        await server.until(lambda stats: stats["transports"] == [expected])


async def test_fault_32_hypercorn_serves_its_clients_until_the_graceful_timeout(
    tmp_path: Path,
) -> None:
    """Only then do they get 1012, or from Python 3.12 on nothing at all: see deployment.md."""
    row = ROWS["hypercorn"]
    # Time enough to ask in; or little, where it has to be over.
    row = row._replace(command=hypercorn(1 if row.waits_for_clients else 5))
    with running(row, tmp_path) as server:
        async with visit(server) as client:
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            await client.send("still there?")
            assert await take(client, 1) == ["still there?"]
            if server.row.waits_for_clients:
                await asyncio.sleep(1.5)  # longer than the graceful timeout
                await client.send("and now?")
                assert await take(client, 1) == ["and now?"]
            else:
                end = (await closed(client)).rcvd
                assert end is not None
                assert (end.code, end.reason) == (1012, "service restart")
        await asyncio.to_thread(server.process.wait, STOP_S)


async def test_two_workers_serve_and_end(tmp_path: Path) -> None:
    """Each process has its own hub; `--ws` is an import string, so every worker finds the class."""
    with running(WORKERS, tmp_path) as server:
        pids: set[int] = set()

        def both_have_answered(stats: dict[str, Any]) -> bool:
            pids.add(stats["pid"])
            return len(pids) == 2

        await server.until(both_have_answered)
        clients = [await server.connect() for _ in range(8)]
        for client in clients:
            await client.send("hello")
            assert await take(client, 1) == ["hello"]
        async with server.connect("/own") as client:
            await client.send("hello")
            assert await take(client, 1) == ["own: hello"]
        with pytest.raises(InvalidStatus):
            await server.connect("/ws?token=wrong")
        await end_by_sigterm(server, clients)
