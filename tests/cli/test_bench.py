"""`hubbub bench` in a pipe and on a terminal, against real servers."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from bench.results import result
from commands import PATIENCE_S, clean_environment, command, run, serving
from hubbub.bench.accounting import Counters
from hubbub.bench.ipc import Plan
from hubbub.bench.run import Snapshot
from hubbub.cli import main
from hubbub.cli.bench import BOUNDS, JsonScreen, PlainScreen, RichScreen, choose_screen
from hubbub.errors import MissingExtra
from serving import held_port

SHORT = ("--clients", "4", "--seconds", "0.3", "--warm", "0.1")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A hub that passes every message on to everybody, in a process of its own."""
    with serving("serve", "--log-level", "warning") as (_, address):
        yield f"ws://{address}/ws"


@contextmanager
def server(handler: Callable[[ServerConnection], None], **options: Any) -> Iterator[str]:
    with serve(handler, "127.0.0.1", 0, **options) as running:
        thread = threading.Thread(target=_serve, args=(running,))
        thread.start()
        try:
            yield f"ws://127.0.0.1:{running.socket.getsockname()[1]}/ws"
        finally:
            running.shutdown()
            thread.join(PATIENCE_S)


def _serve(running: Server) -> None:
    running.serve_forever()


def echo(socket: ServerConnection) -> None:
    for message in socket:
        socket.send(message)


# In a pipe.


def test_json_is_one_object(url: str) -> None:
    code, out, err = run("bench", f"{url}?token=secret", "--json", *SHORT)
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    shown = json.loads(out)
    assert shown["url"] == url
    assert (shown["clients"], shown["lost"], shown["interrupted"]) == (4, 0, False)
    assert (shown["expect"], shown["loop"]) == ("room", "closed")
    assert shown["delivered"] == 4 * shown["sent"] > 0
    assert set(shown["latency_ms"]) == {"p50", "p90", "p99", "p99_9", "max"}
    assert shown["limited_by"] in ("generator", "server or network")
    assert "secret" not in out


def test_without_a_terminal_lines_say_it(url: str) -> None:
    code, out, err = run("bench", url, *SHORT, "--rate", "100", "--processes", "2")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert re.fullmatch(r"clients: 4, [\d,.]+ connects per second", lines[0])
    assert "expected: every client gets every message" in lines
    assert "lost: 0" in lines
    assert re.search(r"^delivered: [1-9][\d,]*, [\d,]+ per second$", out, re.MULTILINE)
    assert re.search(r"^latency: p50 \S+, p90 .* ms$", out, re.MULTILINE)
    assert "limit" in lines[-1]
    assert lines[-1].endswith(".")


def test_the_handshake_carries_what_it_is_told() -> None:
    seen: list[Request] = []

    def look(socket: ServerConnection, request: Request) -> None:
        seen.append(request)

    with server(echo, process_request=look) as address:
        code, out, _ = run(
            *("bench", f"{address}?room={{room}}&id={{client}}", "--rooms", "2", "--json", *SHORT),
            *("--header", "X-Name: ann", "--token", "abc", "--origin", "https://x.org"),
            *("--rate", "20", "--expect", "self"),
        )
    assert code == 0
    assert json.loads(out)["expect"] == "self"
    assert {request.path for request in seen} == {
        f"/ws?room={client % 2}&id={client}" for client in range(4)
    }
    for request in seen:
        assert request.headers["X-Name"] == "ann"
        assert request.headers["Authorization"] == "Bearer abc"
        assert request.headers["Origin"] == "https://x.org"


def test_tls(certificate: tuple[str, str]) -> None:
    cert, key = certificate
    arguments = ("serve", "--ssl-certfile", cert, "--ssl-keyfile", key, "--log-level", "warning")
    with serving(*arguments) as (_, address):
        port = address.rpartition(":")[2]
        secure = ("bench", f"wss://localhost:{port}/ws", "--json", *SHORT, "--seconds", "3")
        with command(*secure, env={"SSL_CERT_FILE": cert}) as running:
            assert running.wait() == 0
            assert json.loads(running.out)["delivered"] > 0
        code, out, err = run(*secure)
        assert (code, out) == (1, "")
        assert err.endswith(
            "/ws cannot be connected to: its certificate is no good: self-signed certificate\n"
        )
        code, _, err = run("bench", f"127.0.0.1:{port}/ws", *SHORT)
        assert code == 1
        assert "cannot be connected to: did not receive a valid HTTP response" in err


# What it cannot do.


def test_a_refusal_is_exit_code_1_with_the_status() -> None:
    def refuse(socket: ServerConnection, request: Request) -> Response:
        return socket.respond(HTTPStatus.UNAUTHORIZED, "who are you?\n")

    with server(echo, process_request=refuse) as address:
        code, out, err = run("bench", f"{address}?token=secret", *SHORT)
    assert (code, out) == (1, "")
    assert err == f"Error: {address} refused all connections, with status 401\n"


def test_nobody_there_is_exit_code_1() -> None:
    with held_port() as port:
        address = f"127.0.0.1:{port}/ws"
        code, out, err = run("bench", address, *SHORT)
    assert (code, out) == (1, "")
    assert err == f"Error: ws://{address} cannot be connected to: Connection refused\n"


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["ftp://localhost"], 1, "is no WebSocket address"),
        (["ws://h", "--header", "nonsense"], 2, "'nonsense' is not  Name: value"),
        (["ws://h", "--rooms", "3"], 2, "room={room}"),
        (["ws://h", "--size", "31"], 2, "31 is not in the range x>=32"),
        (["ws://h", "--rate", "0"], 2, "0.0 is not in the range x>0"),
        (["ws://h", "--expect", "nobody"], 2, "'nobody' is not one of"),
        (["ws://h", "--expect", "others"], 2, "--expect others needs --rate"),
        *(
            (["ws://h", bound.option, f"{bound.most + 1:.0f}"], 1, "say --beyond-bounds")
            for bound in BOUNDS.values()
        ),
    ],
)
def test_what_is_refused(arguments: list[str], code: int, expected: str) -> None:
    done = CliRunner().invoke(main, ["bench", *arguments])
    assert (done.exit_code, done.stdout) == (code, "")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_beyond_bounds_is_allowed_when_it_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []

    def measure(plan: Plan, screen: object) -> Any:
        plans.append(plan)
        return result()

    monkeypatch.setattr("hubbub.cli.bench.measure", measure)
    arguments = ["bench", "ws://h", "--seconds", "601", "--beyond-bounds"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert plans[0].seconds == 601


def test_too_few_files_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (64, 64))
    done = CliRunner().invoke(main, ["bench", "ws://h", "--clients", "100"])
    assert done.exit_code == 1
    assert "need 132 open files each, and this user may open 64" in done.stderr


# Ctrl-C.


def test_ctrl_c_prints_what_there_is(url: str) -> None:
    heard = threading.Event()

    def tell(socket: ServerConnection) -> None:
        for number, message in enumerate(socket):
            socket.send(message)
            if number == 20:
                heard.set()

    with (
        server(tell) as address,
        command(
            "bench", address, "--json", "--clients", "2", "--warm", "0", "--seconds", "300"
        ) as running,
    ):
        assert heard.wait(PATIENCE_S)
        running.interrupt()
        assert running.wait() == 0
        assert running.err == ""
        shown = json.loads(running.out)
    assert (shown["interrupted"], shown["clients"], shown["limited_by"]) == (True, 2, None)


def test_ctrl_c_before_anybody_is_connected() -> None:
    started, over = threading.Event(), threading.Event()

    def hang(socket: ServerConnection, request: Request) -> None:
        started.set()
        over.wait(PATIENCE_S)

    with server(echo, process_request=hang) as address, command("bench", address) as running:
        assert started.wait(PATIENCE_S)
        running.interrupt()
        assert running.wait() == 1
        over.set()
        assert running.err == f"Error: interrupted before anybody was connected to {address}\n"


# On a terminal.


def on_terminal(*arguments: str) -> tuple[int, str]:
    """Run `hubbub bench` on a pseudo-terminal to its end; return its exit code and the screen."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-m", "hubbub", "bench", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=clean_environment({"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}),
    )
    os.close(slave)
    screen, end = b"", time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < end:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    screen += os.read(master, 65_536)
                except OSError:  # Linux says so when the other side is closed
                    break
        return process.wait(PATIENCE_S), screen.decode()
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        os.close(master)


def test_a_terminal_shows_a_bar_and_a_table_and_at_the_end_the_result(url: str) -> None:
    code, screen = on_terminal(url, *SHORT)
    assert code == 0
    assert "Traceback" not in screen
    for word in ("connecting", "measuring", "━━━", "missing", "of a core", f"hubbub bench {url}"):
        assert word in screen
    words = " ".join(re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", screen).split())
    assert "expected every client gets every message" in words
    assert re.search(r"The (server or the network|generator) was the limit", words)


def test_a_terminal_is_told_of_a_failure() -> None:
    with held_port() as port:
        code, screen = on_terminal(f"127.0.0.1:{port}", *SHORT)
    assert code == 1
    assert "cannot be connected to: Connection refused\r\n" in screen
    assert "Traceback" not in screen


def recording() -> Console:
    return Console(record=True, width=90, file=io.StringIO(), force_terminal=True)


def test_what_is_wrong_is_red() -> None:
    console = recording()
    RichScreen(console).finish(result(lost=7, limited_by="generator", url="ws://[red]/[/]"))
    drawn = console.export_text(styles=True)
    assert "hubbub bench ws://[red]/[/]" in drawn
    assert re.search(r"\x1b\[1;31m7 *\x1b", drawn)
    assert not re.search(r"\x1b\[1;31m0 *\x1b", drawn)
    assert re.search(r"\x1b\[1;33mNeither side was the limit\.", drawn)


def test_the_picture_follows_the_load() -> None:
    console = recording()
    screen = RichScreen(console)
    with screen.drawing():
        screen.show(Snapshot("measuring", 0.5, 1.0, 4, Counters(delivered=8000), [0.5], {}))
    drawn = console.export_text()
    assert re.search(r"measuring +━+[╺╸]━+ +1 s", drawn)
    assert re.search(r"delivered +8,000, 8,000 per second", drawn)


def test_a_missing_rich_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(MissingExtra, match=r"run  pip install 'hubbub\[bench\]'"):
        RichScreen()
    assert isinstance(choose_screen(as_json=True), JsonScreen)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert isinstance(choose_screen(as_json=False), PlainScreen)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(MissingExtra):
        choose_screen(as_json=False)


def test_it_says_whom_to_aim_at() -> None:
    assert "Only aim at a server of your own." in " ".join(
        CliRunner().invoke(main, ["bench", "--help"]).output.split()
    )
