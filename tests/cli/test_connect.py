"""`hubbub connect` in a pipe and on a terminal, against real servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import select
import signal
import socket as sockets
import ssl
import subprocess
import sys
import termios
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.headers import build_authorization_basic
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from commands import PATIENCE_S, Command, clean_environment, command, run
from hubbub import Client, Frame, Hub
from hubbub.cli import main
from hubbub.cli.connect import MAX_WINDOW_LINES, LineTracker
from refusing import ThreadServer, accept_handshake, key_of, read_head
from serving import WAYS, held_port, venue

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


# Every line is sent or reported.


def lines_of(count: int) -> str:
    return "".join(f"line {number}\n" for number in range(count))


def unsent_in(err: str) -> int:
    """Return how many lines have not arrived, for certain or not, as the last line of stderr says."""
    _, _, sentence = f"\n{err}".rpartition("\nError: ")
    told = r"(\d+) (?:lines? (?:was|were) not sent|(?:lines?|more) may not have arrived)"
    counts = re.findall(told, sentence)
    assert counts, err
    return sum(map(int, counts))


def cut(socket: ServerConnection) -> None:
    """Break the wire, as a power cut would."""
    socket.socket.shutdown(sockets.SHUT_RDWR)


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
async def test_a_thousand_lines_arrive_on_every_transport(way: str) -> None:
    hub = Hub()

    @hub.on_message
    def echo(client: Client, message: Frame) -> None:
        client.send(message)
        if message.payload == b"line 999":
            client.close()

    async with venue(hub, way) as room:
        arguments = ("connect", room.served.ws(), *PATIENTLY)
        code, out, err = await asyncio.to_thread(run, *arguments, stdin=lines_of(1000))
    assert (code, err) == (0, "")
    assert out == lines_of(1000)


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
async def test_fault_10_what_a_hub_that_closes_did_not_read_is_told(way: str) -> None:
    hub = Hub()
    seen: list[str] = []
    count = 300 + 3 * MAX_WINDOW_LINES  # more than can be on their way when the hub closes

    @hub.on_message
    def take(client: Client, message: Frame) -> None:
        seen.append(message.payload.decode())
        if len(seen) == 300:
            hub.disconnect(client, 1012, "restart")

    async with venue(hub, way) as room:
        arguments = ("connect", room.served.ws(), "--linger", "0")
        code, out, err = await asyncio.to_thread(run, *arguments, stdin=lines_of(count))
    assert (code, out) == (1, "")
    assert len(seen) == len(set(seen)), "nothing is sent twice"
    assert seen[-1] == f"line {count - 1}"
    assert count - len(seen) <= unsent_in(err) <= 2 * MAX_WINDOW_LINES


def test_fault_10_lines_wait_for_a_lost_connection_however_many_they_are() -> None:
    handlers = iter([closing(1012, "restart"), echo])

    def handle(socket: ServerConnection) -> None:
        next(handlers)(socket)

    with server(handle) as url, command("connect", url) as running:
        running.wait_for("connection lost", "err")
        running.send(lines_of(1000))
        running.wait_for("^line 999$")
        running.end_input()
        assert running.wait() == 0
        assert running.out == lines_of(1000)


@pytest.mark.parametrize("as_json", [False, True])
def test_fault_10_a_wire_cut_in_the_middle_is_told(as_json: bool) -> None:
    seen: list[str] = []

    def handle(socket: ServerConnection) -> None:
        for message in socket:
            seen.append(str(message))
            if len(seen) == 300:
                cut(socket)

    options = ["--no-reconnect", *(["--json"] if as_json else [])]
    with server(handle) as url:
        code, out, err = run("connect", url, *options, stdin=lines_of(1000))
    assert code == 1
    assert seen[:300] == lines_of(300).splitlines()
    unsent = unsent_in(err)
    # What was on its way may have arrived: the number is never too small.
    assert 1000 - len(seen) <= unsent <= 1000 - 300 + 2 * MAX_WINDOW_LINES
    assert re.search(r"^Error: closed: 1006 .*; \d+ lines (were|may) not ", err, re.MULTILINE)
    events = [json.loads(line) for line in out.splitlines()] if as_json else []
    assert [event["event"] for event in events] == (
        ["open", "close", "not_sent"] if as_json else []
    )
    if as_json:
        assert events[-1]["lines"] == unsent
        assert 0 <= events[-1]["uncertain"] <= min(unsent, 2 * MAX_WINDOW_LINES)


def test_fault_10_a_wire_cut_that_comes_back_loses_what_was_on_its_way_and_says_so() -> None:
    seen: list[str] = []
    has_cut = threading.Event()

    def handle(socket: ServerConnection) -> None:
        for message in socket:
            seen.append(str(message))
            if len(seen) == 300 and not has_cut.is_set():
                has_cut.set()
                cut(socket)

    with server(handle) as url:
        code, _, err = run("connect", url, stdin=lines_of(1000))
    assert code == 1
    assert len(seen) == len(set(seen)), "nothing is sent twice"
    assert seen[-1] == "line 999"
    unsent = unsent_in(err)
    assert 1000 - len(seen) <= unsent <= 2 * MAX_WINDOW_LINES
    assert unsent > 0
    assert f"* {unsent} line" in err
    assert "* connected again" in err


@contextmanager
def orphan(*options: str) -> Iterator[Command]:
    """Run the command until its server has closed the connection and is gone for good."""
    with held_port() as port, contextlib.ExitStack() as stack:
        with server(closing(1012, "restart"), port) as url:
            running = stack.enter_context(command("connect", url, *options))
            running.wait_for("connection lost", "err")
        yield running


def test_fault_10_the_input_is_not_read_faster_than_it_can_be_sent() -> None:
    with orphan() as running:
        assert running.process.stdin is not None
        descriptor = running.process.stdin.fileno()
        os.set_blocking(descriptor, False)
        taken = 0
        while taken < 2**22 and select.select([], [descriptor], [], 2)[1]:
            taken += os.write(descriptor, b"a line of thirty-two characters\n" * 128)
    assert taken < 2**20


def test_fault_10_lines_for_a_server_that_stays_away_are_given_up_and_told() -> None:
    with orphan("--retry-for", "0.2") as running:
        running.send(lines_of(5))
        running.wait_for(r"^Error: no connection for 0.2 s; 5 lines were not sent", "err")
        assert running.wait() == 1


def test_a_server_that_takes_its_time_gets_all_lines() -> None:
    seen: list[str] = []

    def slowly(socket: ServerConnection) -> None:
        for message in socket:
            time.sleep(0.03)
            seen.append(str(message))

    with server(slowly) as url:
        code, _, err = run("connect", url, "--linger", "0", stdin=lines_of(60))
    assert (code, err) == (0, "")
    assert seen == lines_of(60).splitlines()


def test_a_server_that_ends_it_well_after_the_last_line_has_had_them_all() -> None:
    with server(echo_times(1)) as url:
        assert run("connect", url, *PATIENTLY, stdin="quit\n") == (0, "quit\n", "")


def test_fault_10_a_server_that_ends_it_well_before_the_last_line_has_not() -> None:
    with server(echo_times(3)) as url:
        code, _, err = run("connect", url, stdin=lines_of(1000))
    assert code == 1
    # Its WebSocket may have read, and answered for, a few lines more than its handler took.
    assert 500 <= unsent_in(err) <= 1000


def test_fault_10_a_server_that_sends_the_client_away_has_not() -> None:
    def handle(socket: ServerConnection) -> None:
        socket.recv()
        socket.close(3503, "not you")

    with server(handle) as url:
        code, _, err = run("connect", url, "--json", stdin=lines_of(1000))
    assert code == 1
    assert err.startswith("Error: closed: 3503 not you; ")
    assert 500 <= unsent_in(err) <= 1000


class DeafServer(ThreadServer):
    """Shakes hands and then reads nothing; `has_come` is set when something came."""

    def __init__(self) -> None:
        super().__init__()
        self.has_come = threading.Event()
        self._is_over = threading.Event()

    def serve(self, peer: sockets.socket) -> None:
        key = key_of(read_head(peer))
        assert key is not None
        accept_handshake(peer, key)
        if peer.recv(1, sockets.MSG_PEEK):
            self.has_come.set()
        self._is_over.wait(PATIENCE_S)

    def __exit__(self, *error: Any) -> None:
        self._is_over.set()
        super().__exit__(*error)


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_fault_10_a_line_without_a_sign_that_it_arrived_counts_as_not_sent(
    signal_name: str,
) -> None:
    with DeafServer() as deaf, command("connect", deaf.url, "--json") as running:
        running.send("one\ntwo\n")
        assert deaf.has_come.wait(PATIENCE_S)
        running.process.send_signal(getattr(signal, signal_name))
        assert running.wait() == 1
    assert '"event": "not_sent"' in running.out
    assert running.err.startswith("Error: 1 line was not sent, and 1 more may not have arrived")


def test_a_second_ctrl_c_does_not_wait_and_tells_all_the_same() -> None:
    with DeafServer() as deaf, command("connect", deaf.url, "--linger", "inf") as running:
        running.send("one\n")
        assert deaf.has_come.wait(PATIENCE_S)
        for _ in range(2):
            running.interrupt()
            time.sleep(0.2)
        assert running.wait() == 1
    assert running.err.startswith("Error: 1 line may not have arrived")


def test_a_signal_after_the_lines_have_arrived_is_a_good_end() -> None:
    with server(echo) as url, command("connect", url) as running:
        running.send("one\n")
        running.wait_for("^one$")
        running.process.send_signal(signal.SIGTERM)
        assert running.wait() == 0
        assert running.err == ""


def test_a_line_has_arrived_when_two_pings_behind_it_were_answered() -> None:
    tracker = LineTracker()
    tracker.written = 1
    assert (tracker.in_flight, tracker.can_write) == (1, False)
    tracker.note_pong(1, 0.1)
    assert (tracker.in_flight, tracker.arrived, tracker.can_write) == (1, 0, True)
    tracker.written = 3
    tracker.note_pong(2, 0.1)
    assert (tracker.in_flight, tracker.arrived) == (2, 1)
    tracker.note_pong(3, 0.1)
    assert (tracker.in_flight, tracker.arrived) == (1, 2)
    tracker.note_pong(3, 0.1)
    assert (tracker.in_flight, tracker.arrived) == (0, 3)


def test_what_is_given_up_never_arrives() -> None:
    tracker = LineTracker()
    tracker.written = 3
    tracker.note_pong(1, 0.1)
    tracker.note_pong(1, 0.1)
    assert (tracker.give_up(), tracker.given_up, tracker.arrived) == (2, 2, 1)
    assert (tracker.in_flight, tracker.can_write, tracker.give_up()) == (0, True, 0)
    tracker.written = 4
    tracker.note_pong(4, 0.1)
    tracker.note_pong(4, 0.1)
    assert (tracker.in_flight, tracker.given_up, tracker.arrived) == (0, 2, 2)
    tracker.written = 6
    tracker.confirm_all()
    assert (tracker.in_flight, tracker.given_up, tracker.arrived) == (0, 2, 4)


def test_the_window_follows_the_pongs() -> None:
    tracker = LineTracker()
    tracker.note_pong(0, 0.1)
    tracker.note_pong(0, 0.1)
    assert tracker.window == 4
    tracker.note_pong(0, 5.0)
    assert tracker.window == 2
    for _ in range(20):
        tracker.note_pong(0, 0.1)
    assert tracker.window == MAX_WINDOW_LINES
    for _ in range(20):
        tracker.note_pong(0, 5.0)
    assert tracker.window == 1


# Input and output of all kinds.


def run_in_a_shell(line: str, **environment: str) -> tuple[int, bytes, bytes]:
    """Run a line of shell, in which $HUBBUB is the command; return exit code, stdout, stderr."""
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        capture_output=True,
        env=clean_environment({"HUBBUB": f"{sys.executable} -W default -m hubbub", **environment}),
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def say_hello(socket: ServerConnection) -> None:
    socket.send("hello")


def greet(socket: ServerConnection) -> None:
    socket.send("hello")
    for message in socket:
        socket.send(message)


@pytest.mark.parametrize("options", ["", "--json"])
def test_fault_25_a_closed_input_is_like_dev_null(options: str) -> None:
    line = f"exec $HUBBUB connect {options}"
    with server(say_hello) as talking, server(echo) as silent:
        for stdin in ("<&-", "</dev/null"):
            code, out, err = run_in_a_shell(f"{line} --linger 30 {talking} {stdin}")
            assert (code, err) == (0, b"")
            assert b"hello" in out
            code, _, err = run_in_a_shell(f"{line} --linger 0 {silent} {stdin}")
            assert (code, err) == (0, b""), "the end of the input ends it, too"


def test_a_closed_output_is_like_dev_null() -> None:
    with server(echo_times(1)) as url:
        line = f"echo x | $HUBBUB connect --linger 30 {url}"
        assert run_in_a_shell(f"{line} >&-") == (0, b"", b"")
        assert run_in_a_shell(f"{line} 2>&-") == (0, b"x\n", b"")


def test_an_output_that_fails_is_an_error_with_a_reason(tmp_path: Path) -> None:
    with server(greet) as url:
        line = f"ulimit -f 0; $HUBBUB connect --linger 30 {url} </dev/null >{tmp_path}/out"
        code, _, err = run_in_a_shell(line)
    assert (code, err) == (1, b"Error: cannot write the output: File too large\n")


@contextmanager
def unread(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `hubbub connect` with pipes that nobody but the test reads."""
    with subprocess.Popen(
        [sys.executable, "-m", "hubbub", "connect", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_fault_25_a_reader_that_has_gone_ends_it_even_when_nothing_more_comes() -> None:
    with server(greet) as url, unread(url) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"hello\n"
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 1
        assert process.stderr.read() == b""


def test_fault_25_ctrl_c_ends_it_while_nobody_reads_the_output() -> None:
    def flood(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(1000):
                socket.send("x" * 10_000)

    read_end, write_end = os.pipe()
    with open(read_end, "rb"), open(write_end, "wb") as output, server(flood) as url:
        process = subprocess.Popen(
            [sys.executable, "-m", "hubbub", "connect", url],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.PIPE,
            env=clean_environment(),
        )
        with process:
            wait_until_full(write_end)
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 1


def wait_until_full(pipe: int) -> None:
    """Wait until the pipe, of which this is the end to write to, takes nothing more."""
    end = time.monotonic() + PATIENCE_S
    while select.select([], [pipe], [], 0)[1]:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("cp1252", "gr\xfc\xdfe \\u65e5 \x80".encode("latin-1")),
        ("ascii", b"gr\\xfc\\xdfe \\u65e5 \\u20ac"),
    ],
)
def test_fault_25_an_output_that_lacks_a_character(encoding: str, expected: bytes) -> None:
    line = "printf 'grüße 日 €\\n' | $HUBBUB connect --linger 30"
    with server(echo_times(1)) as url:
        code, out, err = run_in_a_shell(f"{line} {url}", PYTHONIOENCODING=encoding)
        assert (code, out, err) == (0, expected + b"\n", b"")
        code, out, err = run_in_a_shell(f"{line} --json {url}", PYTHONIOENCODING=encoding)
    assert (code, err) == (0, b"")
    assert json.loads(out.decode(encoding).splitlines()[1])["data"] == "grüße 日 €"


def test_input_that_is_not_utf_8_is_told() -> None:
    with server(echo_times(3)) as url:
        code, out, err = run_in_a_shell(
            f"printf 'a\\n\\377b\\nc\\377\\n' | $HUBBUB connect --linger 30 {url}"
        )
    assert (code, out.decode()) == (0, "a\n\ufffdb\nc\ufffd\n")
    assert err == b"* line 2 is not UTF-8; it goes out with U+FFFD in it\n"


# What a server can say.

OBEYED = "".join(
    char
    for char in map(chr, range(0x10000))
    if unicodedata.category(char) in ("Cc", "Zl", "Zp")
    or unicodedata.bidirectional(char)
    in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
)


def liar(socket: ServerConnection) -> None:
    socket.send(f"a{OBEYED}b")
    socket.send("hello\n* connected again")
    socket.close(1000, "bye\x9b31m\n* connected")


def test_fault_25_nothing_that_a_terminal_obeys_is_printed() -> None:
    with server(liar) as url, command("connect", url) as running:
        assert running.wait() == 0
    first, second = running.out.removesuffix("\n").split("\n")
    assert not set(OBEYED) & set(first + second)
    assert first == f"a{''.join(ascii(char)[1:-1] for char in OBEYED)}b"
    assert second == "hello\\n* connected again"
    assert running.err == ""


def test_fault_25_nor_is_it_in_json() -> None:
    with server(liar) as url, command("connect", url, "--json") as running:
        assert running.wait() == 0
    assert not set(OBEYED) & set(running.out.replace("\n", ""))
    events = [json.loads(line) for line in running.out.removesuffix("\n").split("\n")]
    assert [event.get("data", event.get("reason")) for event in events] == [
        *(None, f"a{OBEYED}b", "hello\n* connected again", "bye\x9b31m\n* connected"),
    ]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_fault_25_nor_is_the_reason_of_a_refusal(options: list[str]) -> None:
    body = {"error": f"no{OBEYED}\nError: yes"}
    with server(echo, process_request=refusing(403, body)) as url:
        code, out, err = run("connect", url, *options)
    assert (code, out) == (1, "")
    assert not set(OBEYED) & set(err.removesuffix("\n"))


# TLS and proxies.


def secure(certificate: tuple[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def test_fault_25_a_certificate_of_ones_own(certificate: tuple[str, str]) -> None:
    with server(echo_times(1), ssl=secure(certificate)) as url:
        url = url.replace("ws://", "wss://")
        arguments = ("connect", url, *PATIENTLY)
        assert run(*arguments, "--ca", certificate[0], stdin="x\n") == (0, "x\n", "")
        assert run(*arguments, "--insecure", stdin="x\n") == (0, "x\n", "")
        code, out, err = run("connect", url, stdin="x\n")
    assert (code, out) == (1, "")
    assert "CERTIFICATE_VERIFY_FAILED" in err
    assert "--ca FILE says whom to trust" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["ws://localhost", "--insecure"], "only wss:// has a certificate"),
        (["wss://localhost", "--ca", "/nowhere.pem"], "does not exist"),
        (["wss://localhost", "--proxy", "ftp://x"], "scheme ftp isn't supported"),
        (["wss://localhost", "--proxy", "http://x", "--no-proxy"], "exclude one another"),
        (["ws://localhost", "--header", "A: b\nC: d"], "has characters that no header can have"),
        (["ws://localhost", "--linger", "nan"], "is not a number of seconds"),
    ],
)
def test_fault_25_options_that_cannot_be_meant(arguments: list[str], expected: str) -> None:
    code, out, err = run("connect", *arguments)
    assert (code, out) == (2, "")
    assert expected in err


class Proxy(ThreadServer):
    """An HTTP proxy that knows CONNECT, and takes every name for 127.0.0.1."""

    def __init__(self, status: str = "200 OK") -> None:
        super().__init__()
        self.heads: list[str] = []
        self._status = status

    def serve(self, client: sockets.socket) -> None:
        head = read_head(client)
        self.heads.append(head)
        client.sendall(f"HTTP/1.1 {self._status}\r\n\r\n".encode())
        if not self._status.startswith("200"):
            return
        port = int(head.split()[1].rpartition(":")[2])
        with sockets.create_connection(("127.0.0.1", port)) as server_side:
            back = threading.Thread(target=_pass_on, args=(server_side, client))
            back.start()
            _pass_on(client, server_side)
            back.join(PATIENCE_S)


def _pass_on(source: sockets.socket, target: sockets.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(sockets.SHUT_WR)


def test_fault_25_through_a_proxy() -> None:
    with server(echo_times(1)) as url, Proxy() as proxy:
        with_password = proxy.url.replace("://", "://me:secret@")
        assert run("connect", url, "--proxy", with_password, *PATIENTLY, stdin="x\n") == (
            0,
            "x\n",
            "",
        )
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT {url.split('/')[2]} HTTP/1.1\r\n")
    assert f"Proxy-Authorization: {build_authorization_basic('me', 'secret')}\r\n" in head


def test_fault_25_through_a_proxy_with_tls(certificate: tuple[str, str]) -> None:
    with server(echo_times(1), ssl=secure(certificate)) as url, Proxy() as proxy:
        url = url.replace("ws://127.0.0.1", "wss://localhost")
        arguments = ("connect", url, "--proxy", proxy.url, "--ca", certificate[0], *PATIENTLY)
        assert run(*arguments, stdin="x\n") == (0, "x\n", "")
    assert len(proxy.heads) == 1


def test_a_proxy_that_the_environment_names() -> None:
    with server(echo_times(1)) as url, Proxy() as proxy:
        url = url.replace("127.0.0.1", "hub.test")
        environment = {"http_proxy": proxy.url}
        code, out, err = run("connect", url, *PATIENTLY, stdin="x\n", env=environment)
        assert (code, out, err) == (0, "x\n", "")
    assert len(proxy.heads) == 1


def test_fault_25_a_proxy_that_refuses() -> None:
    with server(echo) as url, Proxy("407 No") as proxy:
        with_password = proxy.url.replace("://", "://me:secret@")
        code, out, err = run("connect", url, "--proxy", with_password, stdin="x\n")
    assert (code, out) == (1, "")
    assert "407" in err
    assert "secret" not in err
    assert err.count("\n") == 1


def test_fault_25_a_header_may_come_twice() -> None:
    seen: list[str] = []

    def look(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append(socket.request.headers["X-Room"])

    with server(look) as url:
        assert run("connect", url, "--header", "X-Room: a", "--header", "X-Room: b")[0] == 0
    assert seen == ["a, b"]


# On a terminal.

TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal on stdin the one whose Ctrl-C reaches the program that follows."""


def bold(text: str) -> str:
    """Return a line of the program's own as a terminal gets it."""
    return f"\x1b[1m{text}\x1b[0m"


class Terminal:
    """`hubbub connect` on a pseudo-terminal, as a person sees it."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        command = ("-W", "default", "-m", "hubbub", "connect")
        self.screen = ""
        self.master, self._slave = pty.openpty()
        self.before = termios.tcgetattr(self._slave)
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, sys.executable, *command, *arguments],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env=clean_environment({"TERM": "xterm", **environment}),
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
            self._read(0.1)

    def wait(self) -> int:
        """Wait for the end, and return the exit code; all that was printed is on the screen."""
        code = self.process.wait(PATIENCE_S)
        while self._read(0.0):
            pass
        return code

    def _read(self, timeout_s: float) -> bool:
        """Read what there is; return whether there was anything."""
        if not select.select([self.master], [], [], timeout_s)[0]:
            return False
        self.screen += os.read(self.master, 65_536).decode("utf-8", "replace")
        return True

    def close(self) -> None:
        """Make sure that all is gone."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        os.close(self.master)
        os.close(self._slave)


@contextmanager
def terminal(*arguments: str, **environment: str) -> Iterator[Terminal]:
    running = Terminal(*arguments, **environment)
    try:
        yield running
    finally:
        running.close()


def test_a_person_types_and_reads() -> None:
    def greet(socket: ServerConnection) -> None:
        for message in socket:
            socket.send(f"you said {message!s}\x1b[2J")

    with server(greet) as url, terminal(url) as person:
        person.wait_for(f"{bold('* connected; Ctrl-D ends it')}\r\n> ")
        person.type("hello\r")
        person.wait_for("< you said hello\\x1b[2J")
        person.type("again\r")
        # Not before the prompt is there again: a Ctrl-D between two prompts means nothing.
        person.wait_for("< you said again\\x1b[2J\r\n> ")
        person.type("\x04")
        assert person.wait() == 0
        assert person.after == person.before


def test_a_half_typed_line_survives_a_message() -> None:
    go_on = threading.Event()

    def interrupt(socket: ServerConnection) -> None:
        assert go_on.wait(PATIENCE_S)
        socket.send("news")
        socket.send(f"got {socket.recv(decode=True)}")
        socket.recv()

    with server(interrupt) as url, terminal(url) as person:
        person.wait_for(f"{bold('* connected; Ctrl-D ends it')}\r\n> ")
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
        assert person.wait() == 0
        assert "Traceback" not in person.screen
        assert person.after == person.before


SLOW_PROMPT = """
import atexit, builtins, time
shown = builtins.input
def late(prompt):
    time.sleep(0.3)
    return shown(prompt)
builtins.input = late
atexit.register(time.sleep, 0.5)
"""
"""Has prompts come late, and the program's end too, so that they can come after its last line."""


def test_ctrl_c_on_a_terminal_gives_it_back_though_a_prompt_was_about_to_come(
    tmp_path: Path,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_PROMPT)
    path = f"{tmp_path}{os.pathsep}{clean_environment()['PYTHONPATH']}"
    with server(echo) as url, terminal(url, PYTHONPATH=path) as person:
        person.wait_for("> ")
        person.type("x\r")
        person.wait_for("< x")
        person.type("\x03")
        assert person.wait() == 0
        assert person.after == person.before


def test_a_terminal_is_told_of_a_lost_connection_and_of_the_end() -> None:
    handlers = iter([closing(1012, "restart"), closing(3503, "not \x1byou")])

    def handle(socket: ServerConnection) -> None:
        next(handlers)(socket)

    with server(handle) as url, terminal(url) as person:
        person.wait_for("* connection lost (1012 restart); again in")
        person.wait_for("Error: closed: 3503 not \\x1byou")
        assert person.wait() == 1
        assert person.after == person.before
        assert len(re.findall(r"\* connected", person.screen)) == 2


def test_fault_25_no_message_looks_like_a_line_of_the_program() -> None:
    def lie(socket: ServerConnection) -> None:
        socket.send("hello\r\n* connection lost (1006); again in 0.5 s\x1b[2J")

    with server(lie) as url, terminal(url) as person:
        person.wait_for("< hello\\r\\n* connection lost (1006); again in 0.5 s\\x1b[2J\r\n")
        assert person.wait() == 0
    assert "\n* " not in person.screen


def test_fault_25_messages_on_a_terminal_are_marked_though_the_input_is_a_pipe() -> None:
    master, slave = pty.openpty()
    with server(echo_times(1)) as url:
        done = subprocess.run(
            [sys.executable, "-m", "hubbub", "connect", url, *PATIENTLY],
            input=b"* connected again\n",
            stdout=slave,
            stderr=slave,
            env=clean_environment(),
            timeout=PATIENCE_S,
            check=True,
        )
    os.close(slave)
    assert done.returncode == 0
    with open(master, "rb", buffering=0) as screen:
        assert screen.read(65_536) == b"< * connected again\r\n"


def test_lines_without_bold_for_those_who_want_no_colours() -> None:
    with server(echo) as url, terminal(url, NO_COLOR="1") as person:
        person.wait_for("* connected; Ctrl-D ends it\r\n> ")
        person.type("\x04")
        assert person.wait() == 0
