"""`hubbub connect` in a pipe: lines in, messages out, exit codes, and coming back."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request
from websockets.sync.server import ServerConnection
from websockets.typing import Subprotocol

from cli.connecting import PATIENTLY, closing, echo, echo_times, refusing, server
from commands import PATIENCE_S, clean_environment, command, run
from hubbub.cli import main
from serving import held_port

# In a pipe.


def test_s18_lines_go_in_and_messages_come_out() -> None:
    with server(echo_times(4)) as url:
        text = "one\ngrüße\r\n\nlast without an end"
        code, out, err = run("connect", url, *PATIENTLY, stdin=text)
    assert (code, err) == (0, "")
    assert out == "one\ngrüße\n\nlast without an end\n"


def test_a_file_can_be_the_input(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"line {number}\n" for number in range(5000)))
    with server(echo_times(5000)) as url, path.open() as lines:
        done = subprocess.run(
            [sys.executable, "-m", "hubbub", "connect", url, *PATIENTLY],
            stdin=lines,
            capture_output=True,
            text=True,
            env=clean_environment(),
            timeout=PATIENCE_S,
            check=True,
        )
    assert done.stdout == path.read_text()
    assert done.stderr == ""


def test_each_event_is_a_json_object() -> None:
    def answer(socket: ServerConnection) -> None:
        socket.send(f"got {socket.recv(decode=True)}")
        socket.send(b"\x00\x01")
        socket.close(1000, "over")

    with server(answer, subprotocols=[Subprotocol("chat")]) as url:
        arguments = ("connect", url, "--json", "--subprotocol", "chat", *PATIENTLY)
        code, out, err = run(*arguments, stdin='{"type":"say"}\n')
    assert (code, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    for event in events:
        assert datetime.fromisoformat(event.pop("time")).tzinfo is not None
    assert events == [
        {"event": "open", "subprotocol": "chat"},
        {"event": "message", "kind": "text", "data": 'got {"type":"say"}'},
        {"event": "message", "kind": "binary", "data": "AAE="},
        {"event": "close", "code": 1000, "reason": "over", "by_server": True, "retry_in_s": None},
    ]


def test_what_the_handshake_carries() -> None:
    seen: list[Headers] = []

    def look(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append(socket.request.headers)

    with server(look, subprotocols=[Subprotocol("b")]) as url:
        code, _, err = run(
            *("connect", url, "--header", "X-Room: red", "--header", "X-Time:now"),
            *("--token", "abc", "--origin", "https://example.com"),
            *("--subprotocol", "a", "--subprotocol", "b"),
        )
    assert (code, err) == (0, "")
    (headers,) = seen
    assert (headers["X-Room"], headers["X-Time"]) == ("red", "now")
    assert headers["Authorization"] == "Bearer abc"
    assert headers["Origin"] == "https://example.com"
    assert headers["Sec-WebSocket-Protocol"] in ("a, b", "a,b")


def test_an_address_without_a_scheme() -> None:
    with server(echo_times(1)) as url:
        address = url.removeprefix("ws://")
        assert run("connect", address, *PATIENTLY, stdin="x\n")[:2] == (0, "x\n")


def test_a_refusal_is_exit_code_1_with_the_reason() -> None:
    body = {"error": "The token is not known", "code": "unauthorized"}
    with server(echo, process_request=refusing(401, body)) as url:
        code, out, err = run("connect", f"{url}?token=secret", stdin="x\n")
    assert (code, out) == (1, "")
    assert err == f"Error: {url} refused the connection: 401 The token is not known\n"


def test_nobody_there_is_exit_code_1() -> None:
    with held_port() as port:
        url = f"ws://127.0.0.1:{port}/ws"
        code, out, err = run("connect", url)
    assert (code, out) == (1, "")
    assert err.startswith(f"Error: {url}: cannot connect: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["ftp://localhost"], 1, "is no WebSocket address"),
        (["ws:/localhost"], 1, "is no WebSocket address"),
        ([""], 1, "is no WebSocket address"),
        (["ws://localhost", "--header", "nonsense"], 2, "'nonsense' is not  Name: value"),
    ],
)
def test_what_cannot_be_meant(arguments: list[str], code: int, expected: str) -> None:
    code_, out, err = run("connect", *arguments)
    assert (code_, out) == (code, "")
    assert expected in err
    assert "Traceback" not in err


def test_the_server_ends_it_well() -> None:
    with server(closing(1000, "bye")) as url, command("connect", url) as running:
        assert running.wait() == 0
        assert (running.out, running.err) == ("", "")


def test_the_server_sends_the_client_away() -> None:
    with server(closing(3503, "not you")) as url, command("connect", url) as running:
        assert running.wait() == 1
        assert (running.out, running.err) == ("", "Error: closed: 3503 not you\n")


def test_without_reconnection_a_restart_is_the_end() -> None:
    with server(closing(1012, "restart")) as url, command("connect", url, "--no-reconnect") as one:
        assert one.wait() == 1
        assert one.err == "Error: closed: 1012 restart\n"


def test_a_lost_connection_comes_back_and_lines_wait_for_it() -> None:
    handlers = iter([closing(1012, "restart"), echo])

    def handle(socket: ServerConnection) -> None:
        next(handlers)(socket)

    with server(handle) as url, command("connect", url) as running:
        running.wait_for(r"connection lost \(1012 restart\); again in [01]\.\d s", "err")
        running.send("meanwhile\n")
        running.wait_for("^meanwhile$")
        running.end_input()
        assert running.wait() == 0
        assert "* connected again\n" in running.err


def test_linger_waits_for_answers() -> None:
    def late(socket: ServerConnection) -> None:
        message = socket.recv(decode=True)
        time.sleep(0.3)
        socket.send(f"late {message}")

    with server(late) as url:
        code, out, _ = run("connect", url, *PATIENTLY, stdin="x\n")
        assert (code, out) == (0, "late x\n")


def test_without_linger_nobody_waits_for_answers() -> None:
    is_over = threading.Event()

    def too_late(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            socket.recv()
            assert is_over.wait(PATIENCE_S)
            socket.send("too late")

    with server(too_late) as url:
        assert run("connect", url, "--linger", "0", stdin="x\n") == (0, "", "")
        is_over.set()


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_ctrl_c_ends_it_cleanly(options: list[str]) -> None:
    closes: list[int | None] = []

    def hold(socket: ServerConnection) -> None:
        socket.send("hello")
        for _ in socket:
            pass
        closes.append(socket.close_code)

    with server(hold) as url, command("connect", url, *options) as running:
        running.wait_for("hello")
        running.interrupt()
        assert running.wait() == 0
        assert running.err == ""
    assert closes == [1000]


def test_ctrl_c_before_it_was_connected() -> None:
    started = threading.Event()
    over = threading.Event()

    def hang(socket: ServerConnection, request: Request) -> None:
        started.set()
        over.wait(PATIENCE_S)

    with server(echo, process_request=hang) as url, command("connect", url) as running:
        assert started.wait(PATIENCE_S)
        running.interrupt()
        assert running.wait() == 1
        assert running.err == "Error: interrupted before it was connected\n"
        over.set()


def test_the_command_explains_its_exit_codes() -> None:
    assert "Exit codes: 0 closed normally" in CliRunner().invoke(main, ["connect", "--help"]).output
