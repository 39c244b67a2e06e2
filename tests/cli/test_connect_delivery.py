"""`hubbub connect`: every line is sent or reported."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import signal
import socket as sockets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.sync.server import ServerConnection

from cli.connecting import PATIENTLY, closing, echo, echo_times, server
from commands import PATIENCE_S, Command, command, run
from hubbub import Client, Frame, Hub
from hubbub.cli.delivery import MAX_WINDOW_LINES
from refusing import ThreadServer, accept_handshake, key_of, read_head
from serving import WAYS, held_port, venue

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
    count = 300 + 3 * MAX_WINDOW_LINES  # more than can be on their way when the wire is cut

    def handle(socket: ServerConnection) -> None:
        for message in socket:
            seen.append(str(message))
            if len(seen) == 300 and not has_cut.is_set():
                has_cut.set()
                cut(socket)

    with server(handle) as url:
        code, _, err = run("connect", url, stdin=lines_of(count))
    assert code == 1
    assert len(seen) == len(set(seen)), "nothing is sent twice"
    # Not always as the last: the first connection is read to its end beside the second.
    assert f"line {count - 1}" in seen
    unsent = unsent_in(err)
    assert count - len(seen) <= unsent <= 2 * MAX_WINDOW_LINES
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
