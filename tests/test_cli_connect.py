"""`hubbub connect` in a pipe and on a terminal, against real servers."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from commands import PATIENCE_S, clean_environment, command, run
from hubbub.cli import main
from hubbub.cli_connect import as_line, file_reader

Handler = Callable[[ServerConnection], None]


@contextmanager
def server(handler: Handler, **options: Any) -> Iterator[str]:
    """Run a server in threads, and give its address."""
    with serve(handler, "127.0.0.1", 0, **options) as running:
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
    """Echo so many messages, then end the conversation."""

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


# In a pipe.


def test_s18_lines_go_in_and_messages_come_out() -> None:
    with server(echo_times(4)) as url:
        code, out, err = run("connect", url, stdin="one\ngrüße\r\n\nlast without an end")
    assert (code, err) == (0, "")
    assert out == "one\ngrüße\n\nlast without an end\n"


def test_a_file_can_be_the_input(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"line {number}\n" for number in range(5000)))
    with server(echo_times(5000)) as url, path.open() as lines:
        done = subprocess.run(
            [sys.executable, "-m", "hubbub", "connect", url],
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
        arguments = ("connect", url, "--json", "--subprotocol", "chat")
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
        assert run("connect", url.removeprefix("ws://"), stdin="x\n")[:2] == (0, "x\n")


def test_a_refusal_is_exit_code_1_with_the_reason() -> None:
    body = {"error": "The token is not known", "code": "unauthorized"}
    with server(echo, process_request=refusing(401, body)) as url:
        code, out, err = run("connect", f"{url}?token=secret", stdin="x\n")
    assert (code, out) == (1, "")
    assert err == f"Error: {url} refused the connection: 401 The token is not known\n"


def test_nobody_there_is_exit_code_1() -> None:
    with server(echo) as url:
        pass
    code, out, err = run("connect", url)
    assert (code, out) == (1, "")
    assert err.startswith(f"Error: {url}: cannot connect: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["ftp://localhost"], 1, "is no WebSocket address"),
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
        assert "connected again" in running.err
        running.end_input()
        assert running.wait() == 0


def test_linger_waits_for_answers() -> None:
    def late(socket: ServerConnection) -> None:
        message = socket.recv(decode=True)
        time.sleep(0.3)
        socket.send(f"late {message}")
        socket.recv()

    with server(late) as url:
        code, out, _ = run("connect", url, "--linger", "2", stdin="x\n")
        assert (code, out) == (0, "late x\n")
        assert run("connect", url, "--linger", "0", stdin="x\n")[:2] == (0, "")


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


def test_how_messages_look() -> None:
    assert as_line(b"\x00\xff", is_terminal=True) == "(2 bytes) 00 ff"
    assert as_line(b"x" * 65, is_terminal=True).endswith(" …")
    assert as_line("\x1b[2Jgrüße\n\t\x07", is_terminal=True) == "\\x1b[2Jgrüße\n\t\\x07"
    assert as_line("\x1b[2J", is_terminal=False) == "\x1b[2J"


def test_lines_are_read_whole_whatever_the_pieces() -> None:
    read_end, write_end = os.pipe()
    try:
        read = file_reader(read_end)
        os.write(write_end, b"one\ntw")
        assert read() == "one"
        os.write(write_end, b"o\r\n\xff")
        assert read() == "two"
        os.close(write_end)
        assert [read(), read(), read()] == ["\ufffd", None, None]
    finally:
        os.close(read_end)


def test_the_command_explains_its_exit_codes() -> None:
    assert "Exit codes: 0 closed normally" in CliRunner().invoke(main, ["connect", "--help"]).output


# On a terminal.

TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal on stdin the one whose Ctrl-C reaches the program that follows."""


class Terminal:
    """`hubbub connect` on a pseudo-terminal, as a person sees it."""

    def __init__(self, *arguments: str) -> None:
        command = ("-W", "default", "-m", "hubbub", "connect")
        self.screen = ""
        self.master, self._slave = pty.openpty()
        self.before = termios.tcgetattr(self._slave)
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, sys.executable, *command, *arguments],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env=clean_environment({"TERM": "xterm"}),
            start_new_session=True,
        )

    @property
    def after(self) -> list[Any]:
        """How the terminal is set now."""
        return termios.tcgetattr(self._slave)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def wait_for(self, text: str) -> None:
        """Read the screen until the text is on it."""
        end = time.monotonic() + PATIENCE_S
        while text not in self.screen:
            assert time.monotonic() < end, self.screen
            if select.select([self.master], [], [], 0.1)[0]:
                self.screen += os.read(self.master, 65_536).decode("utf-8", "replace")

    def close(self) -> None:
        """Make sure that all is gone."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        os.close(self.master)
        os.close(self._slave)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    running = Terminal(*arguments)
    try:
        yield running
    finally:
        running.close()


def test_a_person_types_and_reads() -> None:
    def greet(socket: ServerConnection) -> None:
        for message in socket:
            socket.send(f"you said {message!s}\x1b[2J")

    with server(greet) as url, terminal(url) as person:
        person.wait_for("* connected; Ctrl-D ends it\r\n> ")
        person.type("hello\r")
        person.wait_for("< you said hello\\x1b[2J")
        person.type("again\r")
        person.wait_for("< you said again")
        person.type("\x04")
        assert person.process.wait(PATIENCE_S) == 0
        assert person.after == person.before


def test_a_half_typed_line_survives_a_message() -> None:
    go_on = threading.Event()

    def interrupt(socket: ServerConnection) -> None:
        assert go_on.wait(PATIENCE_S)
        socket.send("news")
        socket.send(f"got {socket.recv(decode=True)}")
        socket.recv()

    with server(interrupt) as url, terminal(url) as person:
        person.wait_for("* connected; Ctrl-D ends it\r\n> ")
        person.type("half")
        person.wait_for("half")
        go_on.set()
        person.wait_for("< news\r\n> half")
        person.type(" whole\r")
        person.wait_for("< got half whole")


def test_ctrl_c_on_a_terminal_gives_it_back() -> None:
    with server(echo) as url, terminal(url) as person:
        person.wait_for("> ")
        person.type("x\r")
        person.wait_for("< x")
        person.type("\x03")
        assert person.process.wait(PATIENCE_S) == 0
        assert "Traceback" not in person.screen
        assert person.after == person.before


def test_a_terminal_is_told_of_a_lost_connection_and_of_the_end() -> None:
    handlers = iter([closing(1012, "restart"), closing(3503, "not \x1byou")])

    def handle(socket: ServerConnection) -> None:
        next(handlers)(socket)

    with server(handle) as url, terminal(url) as person:
        person.wait_for("* connection lost (1012 restart); again in")
        person.wait_for("Error: closed: 3503 not \\x1byou")
        assert person.process.wait(PATIENCE_S) == 1
        assert person.after == person.before
        assert len(re.findall(r"\* connected", person.screen)) == 2
