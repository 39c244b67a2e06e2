"""A serving process: the port for the inside, and the drain on SIGTERM; real servers and real signals."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from commands import PATIENCE_S, Command, run, serving
from hubbub import AsyncPublisher, Hub
from hubbub.cli import worker
from hubbub.cli.worker import Inside, InsideServer, read_inside, require_metrics
from hubbub.errors import MissingExtra
from hubbub.hub.core import core_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")


def ask(address: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def insides(server: Command, count: int = 1) -> list[str]:
    """Return where the processes of a server answer the inside, from their lines in the log."""
    pattern = r"metrics are at http://([\d.]+:\d+)/metrics"
    server.wait_for(rf"(?s)({pattern}.*){{{count}}}", "err")
    return re.findall(pattern, server.err)


def numbers(address: str) -> dict[str, float]:
    """Return the numbers that have no labels of their own, by name; and the workers, by their ids."""
    text = ask(address, "/metrics")[1].decode()
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    return {each.name: each.value for each in samples if set(each.labels) <= {"hub", "worker"}}


def test_metrics_and_health_are_on_a_port_of_their_own() -> None:
    with serving("serve", "--metrics", "0") as (server, address):
        (inside,) = insides(server)
        assert inside.startswith("127.0.0.1:")
        with connect(f"ws://{address}/ws", proxy=None) as client:
            client.send("hello")
            assert client.recv(PATIENCE_S) == "hello"
            found = numbers(inside)
        assert (found["hubbub_clients"], found["hubbub_sent_messages_total"]) == (1, 1)
        assert ask(inside, "/readyz")[0] == ask(inside, "/healthz")[0] == 200
        assert ask(inside, "/ws")[0] == ask(inside, "/")[0] == 404
        assert ask(address, "/metrics")[0] == 404, "the outside is told nothing"
        server.interrupt()
        assert server.wait() == 0
        assert "Traceback" not in server.err


def test_without_it_nothing_listens() -> None:
    with serving("serve") as (server, _):
        assert "metrics are at" not in server.err


TWO_HUBS = """
from hubbub import Hub
first, second = Hub(), Hub()
async def nothing(scope, receive, send):
    assert scope["type"] == "lifespan", scope
    raise RuntimeError("no lifespan")
app = first.mount(second.mount(nothing, "/second"), "/first")
"""


def test_two_hubs_are_told_apart_by_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO_HUBS)
    with serving("serve", "two", "--metrics", "127.0.0.1:0", cwd=tmp_path) as (server, address):
        (inside,) = insides(server)
        with connect(f"ws://{address}/second", proxy=None):
            text = ask(inside, "/metrics")[1].decode()
        clients = re.findall(r'^hubbub_clients\{hub="(.*?)",worker="\d+"\} (\S+)$', text, re.M)
        assert clients == [("two:first", "0.0"), ("two:second", "1.0")]


def test_each_of_several_workers_has_a_port(tmp_path: Path) -> None:
    with free_ports(3) as port:
        pass
    flags = ("--workers", "2", "--workers-ok", "yes", "--metrics", str(port))
    with serving("serve", *flags) as (server, _):
        found = insides(server, 2)
        assert sorted(found) == [f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"]
        workers = [re.search(r'worker="(\d+)"', ask(at, "/metrics")[1].decode()) for at in found]
        assert len({each[1] for each in workers if each}) == 2


@contextmanager
def free_ports(count: int) -> Iterator[int]:
    """Find a port after which the next ones are free too."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            try:
                others = [socket.create_server(("127.0.0.1", port + n)) for n in range(1, count)]
            except OSError:
                continue
            for other in others:
                other.close()
        yield port
        return


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_that_is_taken_is_passed_over_and_without_any_nothing_starts(workers: int) -> None:
    with free_ports(3) as port:
        first = Inside("127.0.0.1", port, 2).listen()
        second = Inside("127.0.0.1", port, 2).listen()
        assert [each.getsockname()[1] for each in (first, second)] == [port, port + 1]
        with pytest.raises(OSError, match="in use"):
            Inside("127.0.0.1", port, 2).listen()
        flags = ("--metrics", str(port), "--workers", str(workers), "--port", "0")
        code, out, err = run("serve", *flags)
        assert (code, out, err.count("\n")) == (1, "", 1)
        last = "" if workers == 1 else f" to {port + 2}"
        assert f"--metrics: cannot listen on port {port}{last} of 127.0.0.1: Address already" in err
        second.close()
        first.close()


@pytest.mark.anyio
async def test_a_process_that_finds_its_port_taken_later_serves_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with free_ports(1) as port:
        inside = Inside("127.0.0.1", port, 1)
        with inside.listen():
            server = InsideServer(inside)
            await server.start()
            await server.stop()
    assert f"--metrics: cannot listen on port {port}" in caplog.text


@pytest.mark.parametrize(
    ("text", "processes", "inside"),
    [
        ("9100", 1, Inside("127.0.0.1", 9100, 1)),
        ("0.0.0.0:9100", 4, Inside("0.0.0.0", 9100, 5)),
        ("[::1]:9100", 1, Inside("::1", 9100, 1)),
    ],
)
def test_where_the_inside_is(text: str, processes: int, inside: Inside) -> None:
    assert read_inside(text, processes) == inside


@pytest.mark.parametrize("text", ["", "x", "127.0.0.1:", "127.0.0.1", "65535", "-1", "9100:x"])
def test_what_is_no_port_is_said_before_anything_starts(text: str) -> None:
    with pytest.raises(click.ClickException, match="HOST:PORT"):
        read_inside(text, 1)
    if text:
        code, _, err = run("serve", f"--metrics={text}")
        assert (code, err.count("\n")) == (1, 1)


def test_without_the_extra_it_is_said_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "hubbub.asgi.metrics", None)
    with pytest.raises(MissingExtra, match=r"pip install 'hubbub\[metrics\]'"):
        require_metrics()


DRAINING = ("--drain-s", "0.6", "--shutdown-timeout-s", "8", "--come-back-s", "2", "--metrics", "0")


def connected(stack: ExitStack, address: str, count: int) -> list[ClientConnection]:
    """Return so many clients of a server, which the stack closes."""
    sockets = [connect(f"ws://{address}/ws", proxy=None) for _ in range(count)]
    return [stack.enter_context(socket) for socket in sockets]


def closes(clients: list[ClientConnection]) -> list[tuple[int, str]]:
    """Wait for the end of each connection; return how it ended."""
    found = []
    for client in clients:
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(PATIENCE_S)
        assert caught.value.rcvd is not None
        found.append((caught.value.rcvd.code, caught.value.rcvd.reason))
    return found


def test_on_sigterm_readiness_goes_down_while_the_server_still_answers() -> None:
    """Over a time longer than the test may take; Ctrl-C ends it."""
    long = ("--drain-s", "200", "--shutdown-timeout-s", "400")
    with serving("serve", *DRAINING, *long) as (server, address), ExitStack() as stack:
        (inside,) = insides(server)
        assert ask(address, "/readyz")[0] == 200
        clients = connected(stack, address, 2)
        os.kill(server.process.pid, signal.SIGTERM)
        server.wait_for("draining", "err")
        for at in (address, inside):
            status, body = ask(at, "/readyz")
            assert (status, json.loads(body)["state"]) == (503, "draining")
            assert ask(at, "/healthz")[0] == 200
        assert numbers(inside)["hubbub_draining"] == 1
        with pytest.raises(InvalidStatus) as caught:
            stack.enter_context(connect(f"ws://{address}/ws", proxy=None))
        assert caught.value.response.status_code == 503
        assert 100 < int(caught.value.response.headers["Retry-After"]) <= 202
        os.kill(server.process.pid, signal.SIGTERM)  # as of a supervisor that tells everybody
        assert ask(address, "/readyz")[0] == 503
        clients[0].send("still here")
        assert [client.recv(PATIENCE_S) for client in clients] == ["still here"] * 2
        server.interrupt()
        found = closes(clients)
        server.wait()
        assert "Traceback" not in server.err
    for code, reason in found:
        assert code == 1012
        assert re.fullmatch(r"service restart; retry after \d+\.\d{3} s", reason)


def test_after_the_drain_the_server_ends_by_itself() -> None:
    with serving("serve", *DRAINING) as (server, address), ExitStack() as stack:
        clients = connected(stack, address, 3)
        os.kill(server.process.pid, signal.SIGTERM)
        assert {code for code, _ in closes(clients)} == {1012}
        assert server.wait() in (0, -signal.SIGTERM)
        assert "Traceback" not in server.err
        assert "Application shutdown complete" in server.err


@pytest.mark.anyio
@pytest.mark.parametrize(("patience_s", "most_left_s"), [(12, 11), (1, 1), (None, None)])
async def test_the_server_waits_for_what_the_drain_has_left_of_its_patience(
    patience_s: int | None, most_left_s: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Draining:
        async def drain(self) -> None:
            await asyncio.sleep(1.01)

    config = uvicorn.Config("none", timeout_graceful_shutdown=patience_s)
    stopped: list[int] = []
    lifecycle = SimpleNamespace(is_ready=lambda: True)
    hub = cast(Any, SimpleNamespace(lifecycle=lifecycle, serves_clients=True))
    monkeypatch.setattr(worker, "all_hubs", lambda: [Draining()])
    monkeypatch.setattr(worker, "core_of", lambda _: hub)
    drain = worker._Drain(
        asyncio.get_running_loop(), config, lambda number, frame: stopped.append(number)
    )
    await drain._drain(signal.SIGTERM, None)
    assert stopped == [signal.SIGTERM]
    left_s = config.timeout_graceful_shutdown
    assert left_s == most_left_s or (left_s and most_left_s and 1 <= left_s < most_left_s)


@pytest.mark.anyio
async def test_a_hub_of_another_thread_is_not_drained_from_here() -> None:
    started, over = threading.Event(), threading.Event()
    other = Hub()

    async def run_the_other() -> None:
        await other.start()
        started.set()
        await asyncio.to_thread(over.wait)
        await other.stop()

    thread = threading.Thread(target=lambda: asyncio.run(run_the_other()))
    thread.start()
    try:
        assert await asyncio.to_thread(started.wait, PATIENCE_S)
        loop, config = asyncio.get_running_loop(), uvicorn.Config("none")
        await worker._Drain(loop, config, lambda number, frame: None)._drain(signal.SIGTERM, None)
        assert not core_of(other).lifecycle.is_draining
    finally:
        over.set()
        await asyncio.to_thread(thread.join, PATIENCE_S)


@pytest.mark.anyio
async def test_a_publisher_in_the_same_process_publishes_while_the_hubs_drain(
    tmp_path: Path,
) -> None:
    url = f"local://{tmp_path}"
    hub = Hub(broker=url, broker_prefix="t")
    await hub.start()
    async with AsyncPublisher(url, prefix="t") as publisher:
        drain = worker._Drain(
            asyncio.get_running_loop(), uvicorn.Config("none"), lambda number, frame: None
        )
        await drain._drain(signal.SIGTERM, None)
        assert (await publisher.publish("red", 1)).delivered_to == 0
        assert not core_of(publisher._hub).lifecycle.is_draining
    await hub.stop()


def test_several_workers_drain_too(tmp_path: Path) -> None:
    flags = ("--workers", "2", "--workers-ok", "yes", *DRAINING)
    with serving("serve", *flags) as (server, address), ExitStack() as stack:
        insides(server, 2)
        clients = connected(stack, address, 6)
        os.kill(server.process.pid, signal.SIGTERM)
        found = closes(clients)
        assert server.wait() in (0, -signal.SIGTERM)
        assert "Traceback" not in server.err
        assert server.err.count("draining: readiness is down") == 2
    assert {code for code, _ in found} == {1012}
    assert all("retry after" in reason for _, reason in found)


def test_without_a_time_to_drain_clients_are_told_before_the_server_stops_too() -> None:
    with serving("serve") as (server, address):
        with connect(f"ws://{address}/ws", proxy=None) as client:
            os.kill(server.process.pid, signal.SIGTERM)
            assert closes([client]) == [(1012, "service restart")]
        assert server.wait() in (0, -signal.SIGTERM)
        assert server.err.index("draining: readiness is down") < server.err.index("Shutting down")


FROZEN_APP = """
import gc
from hubbub import Client, Hub

hub = Hub()

@hub.on_connect
def tell(client: Client) -> None:
    client.send(str(gc.get_freeze_count()))

app = hub
"""


@pytest.mark.parametrize("flags", [(), ("--reload",)])
def test_the_collector_leaves_alone_what_was_loaded(tmp_path: Path, flags: tuple[str, ...]) -> None:
    (tmp_path / "frozen.py").write_text(FROZEN_APP)
    with (
        serving("serve", "frozen", *flags, cwd=tmp_path) as (_, address),
        connect(f"ws://{address}/ws", proxy=None) as client,
    ):
        assert (int(client.recv(PATIENCE_S)) > 10_000) == (not flags)
