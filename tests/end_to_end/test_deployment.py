"""nginx in front of one process and of two, and systemd's socket activation, as the guide writes them.

What is in the guide is what runs: only ports and places are put in. What must not live here: the drain
(cli/test_worker, test_draining), and other servers (test_matrix).
"""

from __future__ import annotations

import http.client
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from commands import PATIENCE_S, Command, clean_environment, serving
from pages import blocks
from places import ROOT
from serving import held_port

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="nginx and systemd are Linux's here"
)

GUIDE = ROOT / "docs" / "guides" / "deployment.md"

NGINX_HEAD = """
daemon off;
{user}
error_log stderr;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
"""

APP = """
from hubbub import Client, Hub

hub = Hub()

@hub.on_message
def said(client: Client, text: str) -> None:
    client.send(str(client.address) if text == "where" else text)

async def pages(scope, receive, send):
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})

app = hub.mount(pages, "/ws", routes={"/readyz": hub.health()})
"""


def program(name: str) -> str:
    """Return where a program is; fail without it."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found is not None, f"{name} is missing: `make test` brings it"
    return found


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait for what a process does; fail when it ends without that."""
    while not condition():
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError("it has ended")


@contextmanager
def nginx(folder: Path, text: str) -> Iterator[int]:
    """Run nginx with a block of the guide; give its port."""
    user = "user root;" if os.geteuid() == 0 else ""
    with held_port() as port:
        assert text.count("listen 443 ssl;") == 1
        text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
        config = folder / "nginx.conf"
        config.write_text(NGINX_HEAD.format(user=user, folder=folder) + text + "\n}\n")
        process = subprocess.Popen([program("nginx"), "-p", str(folder), "-c", str(config)])
        try:
            wait_for(lambda: is_listening(port), process)
            yield port
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def guide_blocks(kind: str) -> list[str]:
    return [block.text for block in blocks(GUIDE) if block.info[:1] == [kind]]


def with_ports(text: str, *addresses: str) -> str:
    """Put real addresses for those of the guide, 127.0.0.1:8000 and what follows."""
    for number, address in enumerate(addresses):
        place = f"server 127.0.0.1:{8000 + number};"
        assert text.count(place) == 1
        text = text.replace(place, f"server {address};")
    return text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with the application."""
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def status_of(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def code_of(client: ClientConnection) -> int | None:
    """Return the code that a client was closed with; None for one that is served."""
    try:
        echo(client, "still here")
    except ConnectionClosed as end:
        return 1006 if end.rcvd is None else end.rcvd.code
    return None


def echo(client: ClientConnection, text: str) -> None:
    client.send(text)
    assert client.recv(PATIENCE_S) == text


def test_nginx_in_front_of_one_process(folder: Path) -> None:
    one, _ = guide_blocks("nginx")
    with (
        serving("serve", "app", cwd=folder) as (_, address),
        nginx(folder, with_ports(one, address)) as port,
    ):
        origin = Origin(f"http://127.0.0.1:{port}")
        with connect(f"ws://127.0.0.1:{port}/ws", origin=origin, proxy=None) as client:
            echo(client, "hello")
            client.send("where")
            assert client.recv(PATIENCE_S) == "127.0.0.1"
        assert status_of(port, "/ws") == 426
        assert status_of(port, "/ws/hubbub.js") == status_of(port, "/readyz") == 200


def clients_of(server: Command) -> int:
    """Ask a process's port for the inside how many clients it has."""
    inside = server.wait_for(r"metrics are at http://127.0.0.1:(\d+)/metrics", "err")[1]
    connection = http.client.HTTPConnection("127.0.0.1", int(inside), timeout=PATIENCE_S)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    found = re.search(r"^hubbub_clients\{.*\} (\d+)", text, re.M)
    assert found is not None
    return int(found[1])


def test_nginx_sends_nobody_to_a_process_that_drains(folder: Path) -> None:
    """Of two processes one drains for longer than the test takes: whoever comes is served by the other."""
    _, two = guide_blocks("nginx")
    flags = ("--metrics", "0", "--drain-s", "200", "--shutdown-timeout-s", "400")
    with (
        serving("serve", "app", *flags, cwd=folder) as (first, first_address),
        serving("serve", "app", *flags, cwd=folder) as (second, second_address),
        nginx(folder, with_ports(two, first_address, second_address)) as port,
        ExitStack() as stack,
    ):

        def come() -> ClientConnection:
            return stack.enter_context(connect(f"ws://127.0.0.1:{port}/ws", proxy=None))

        clients = [come() for _ in range(6)]
        assert clients_of(first) + clients_of(second) == 6
        there = clients_of(first)
        assert 0 < there < 6
        os.kill(first.process.pid, signal.SIGTERM)
        first.wait_for("draining", "err")
        newcomers = [come() for _ in range(6)]
        for number, client in enumerate([*clients, *newcomers]):
            echo(client, f"{number}")
        assert clients_of(second) == 6 - there + 6
        first.interrupt()
        first.wait()
        codes = [code_of(client) for client in clients]
        assert sorted(codes, key=str) == [1012] * there + [None] * (6 - there)
        for client in newcomers:
            echo(client, "still here")
        assert all(status_of(port, "/readyz") == 200 for _ in range(4))


# systemd


def arguments_of_the_guide() -> list[str]:
    """Return what the guide's unit starts, after the name of the command."""
    text = "".join(guide_blocks("ini"))
    line = re.search(r"^ExecStart=(\S+)/hubbub (.+)$", text, re.M)
    assert line is not None
    assert "ListenStream=127.0.0.1:8000" in text
    return shlex.split(line[2])


def test_systemd_starts_it_with_the_first_connection(folder: Path) -> None:
    """By systemd's own program for trying that, with the arguments of the guide's unit."""
    environment = clean_environment()
    passed = [f"--setenv={name}={environment[name]}" for name in ("PYTHONPATH", "PATH")]
    command = [sys.executable, "-m", "hubbub", *arguments_of_the_guide()]
    with held_port() as port:
        activate = [program("systemd-socket-activate"), f"--listen=127.0.0.1:{port}", *passed]
        process = subprocess.Popen([*activate, *command], cwd=folder, env=environment)
        try:
            wait_for(lambda: holds(process.pid, port), process)
            url = f"ws://127.0.0.1:{port}/ws"
            with connect(url, proxy=None, open_timeout=PATIENCE_S) as client:
                echo(client, "hello")
        finally:
            process.kill()
            process.wait(PATIENCE_S)


def holds(pid: int, port: int) -> bool:
    """Tell whether a process listens on a port, without connecting, which would start the server."""
    text = Path(f"/proc/{pid}/net/tcp").read_text()
    return re.search(rf"^ *\d+: 0100007F:{port:04X} \S+ 0A ", text, re.M) is not None


def test_who_connects_while_it_restarts_waits_and_is_served(folder: Path) -> None:
    """The test holds the socket, as systemd does, and hands it to one process after the other."""
    flags = ["--drain-s", "0.2", "--come-back-s", "3", "--shutdown-timeout-s", "30"]
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as held, ExitStack() as stack:
        url = f"ws://127.0.0.1:{held.getsockname()[1]}/ws"

        def start() -> subprocess.Popen[bytes]:
            line = [
                sys.executable,
                "-m",
                "hubbub",
                "serve",
                "app",
                "--fd",
                str(held.fileno()),
                *flags,
            ]
            started = subprocess.Popen(
                line, cwd=folder, env=clean_environment(), pass_fds=[held.fileno()]
            )
            stack.callback(started.wait, PATIENCE_S)
            stack.callback(started.kill)
            return started

        first = start()
        with connect(url, proxy=None, open_timeout=PATIENCE_S) as client:
            echo(client, "hello")
            first.terminate()
            with pytest.raises(ConnectionClosed) as caught:
                client.recv(PATIENCE_S)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1012
            assert "retry after" in caught.value.rcvd.reason
        assert first.wait(PATIENCE_S) in (0, -signal.SIGTERM)
        waiting = stack.enter_context(socket.create_connection(held.getsockname()))
        start()
        with connect(url, sock=waiting, proxy=None, open_timeout=PATIENCE_S) as client:
            echo(client, "hello again")
