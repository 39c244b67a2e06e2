"""The load generator and the kernel program: they compile cleanly, count right, and see every fault."""

from __future__ import annotations

import asyncio
import json
import runpy
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_sync

from benchmarks import install
from benchmarks.servers import BENCH
from serving import serve

Result = dict[str, Any]
PERFECT = ("lost", "duplicated", "reordered", "damaged", "stray", "foreign", "disconnected")
MESSAGES = 20
SWITCHING = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"


def command(build: Path, port: int, *words: object) -> list[str]:
    every = ("--port", port, "--warm", 0, "--seconds", 0.2, *words)
    return [str(build / "load"), *(str(word) for word in every)]


def load(build: Path, port: int, *words: object) -> Result:
    """Run the generator in its own process and return its result."""
    done = subprocess.run(
        command(build, port, *words), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout, done.stderr
    result: Result = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode == 0) == (result["event"] == "result")
    return result


def assert_perfect(result: Result) -> None:
    assert result["event"] == "result", result
    assert {name: result[name] for name in PERFECT} == dict.fromkeys(PERFECT, 0)
    assert result["unfinished"] == 0


@contextmanager
def kernel(build: Path, *words: str) -> Iterator[int]:
    """Run the kernel program on a free port."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    process = subprocess.Popen([build / "kernel", str(port), *words])
    try:
        while True:
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
        yield port
    finally:
        process.kill()
        process.wait()


WORK = [
    # what the generator is told; messages sent; deliveries
    (("--mode", "fanout"), 10, 200),
    (("--mode", "fanout", "--window", 64, "--messages", 128), 128, 2560),
    (("--mode", "fanout", "--publishers", 3), 30, 600),
    (("--mode", "fanout", "--processes", 3), 10, 200),
    (("--mode", "fanout", "--size", 16), 10, 200),
    (("--mode", "fanout", "--size", 60_000), 10, 200),
    (("--mode", "fanout", "--rate", 500), 10, 200),
    (("--mode", "burst", "--messages", 512), 512, 10_240),
    (("--mode", "rooms", "--room-size", 5), 200, 1000),
    (("--mode", "rooms", "--room-size", 5, "--publishers", 1, "--processes", 2), 40, 200),
    (("--mode", "echo", "--window", 4), 200, 200),
]
IDS = [" ".join(str(word) for word in words[1:]) for words, _, _ in WORK]


@pytest.mark.parametrize("how", [(), ("joined",)], ids=["each", "joined"])
@pytest.mark.parametrize(("words", "sent", "delivered"), WORK, ids=IDS)
def test_generator_and_kernel_agree(
    build: Path, words: tuple[object, ...], sent: int, delivered: int, how: tuple[str, ...]
) -> None:
    with kernel(build, *how) as port:
        result = load(build, port, "--clients", 20, "--messages", 10, *words)
    assert_perfect(result)
    assert (result["sent"], result["delivered"]) == (sent, delivered)
    assert result["latency_us"]["p50"] <= result["latency_us"]["max"]


@pytest.mark.anyio
@pytest.mark.parametrize(("words", "sent", "delivered"), WORK, ids=IDS)
async def test_generator_and_hub_agree(
    build: Path, words: tuple[object, ...], sent: int, delivered: int
) -> None:
    app = runpy.run_path(str(BENCH / "peers" / "hubbub_server.py"))["app"]
    async with serve(app) as served:
        every = ("--clients", 20, "--messages", 10, *words)
        result = await asyncio.to_thread(load, build, served.port, *every)
    assert_perfect(result)
    assert (result["sent"], result["delivered"]) == (sent, delivered)


def test_a_run_by_time_counts_every_message_that_it_sent(build: Path) -> None:
    with kernel(build) as port:
        result = load(build, port, "--mode", "fanout", "--clients", 20)
    assert_perfect(result)
    assert result["sent"] > 0
    assert result["delivered"] == 20 * result["sent"]
    assert result["bytes"] == 128 * result["delivered"]


def test_handshakes_are_counted(build: Path) -> None:
    with kernel(build) as port:
        result = load(build, port, "--mode", "handshakes", "--clients", 8)
    assert_perfect(result)
    assert result["handshakes"] > 0
    assert result["refused"] == 0


def test_clients_that_stall_are_no_losses(build: Path) -> None:
    with kernel(build) as port:
        words = ("--mode", "fanout", "--clients", 20, "--stall", 10, "--messages", 5)
        result = load(build, port, *words)
    assert_perfect(result)
    assert result["stalled"] == 2
    assert result["delivered"] == 5 * 18


def test_the_runner_is_asked_before_and_after_what_is_measured(build: Path) -> None:
    with kernel(build) as port:
        words = ("--mode", "echo", "--clients", 2, "--messages", 3, "--control")
        with subprocess.Popen(
            command(build, port, *words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            events = []
            for line in process.stdout:
                events.append(json.loads(line)["event"])
                if events[-1] != "result":
                    process.stdin.write("\n")
                    process.stdin.flush()
    assert events == ["begin", "end", "result"]


# Servers that do it wrong

Fault = Callable[[ServerConnection, int, str], None]


@contextmanager
def faulty(fault: Fault) -> Iterator[int]:
    """Run a server that answers message `number` of a phase (from 0) with `fault`."""

    def answer(connection: ServerConnection) -> None:
        try:
            for count, message in enumerate(connection):
                fault(connection, count % MESSAGES, str(message))
        except ConnectionClosed:
            pass

    with serve_sync(answer, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()


def echo_with(build: Path, fault: Fault, *words: object) -> Result:
    """Send 20 messages to warm up and 20 to measure, all in flight at once."""
    with faulty(fault) as port:
        every = ("--mode", "echo", "--clients", 1, "--messages", MESSAGES, "--window", MESSAGES)
        return load(build, port, *every, "--patience", 0.3, *words)


def faults(result: Result) -> dict[str, int]:
    return {name: result[name] for name in PERFECT if result[name]}


def test_a_server_without_fault_has_none(build: Path) -> None:
    result = echo_with(build, lambda connection, number, message: connection.send(message))
    assert faults(result) == {}
    assert result["delivered"] == MESSAGES


@pytest.mark.parametrize("lost", [0, 3, MESSAGES - 1])
def test_a_lost_message_is_seen_wherever_it_was(build: Path, lost: int) -> None:
    def drop(connection: ServerConnection, number: int, message: str) -> None:
        if number != lost:
            connection.send(message)

    result = echo_with(build, drop)
    assert faults(result) == {"lost": 2}, "one in each phase"
    assert result["delivered"] == MESSAGES - 1


def test_a_message_that_comes_twice_is_seen(build: Path) -> None:
    def double(connection: ServerConnection, number: int, message: str) -> None:
        connection.send(message)
        if number == 5:
            connection.send(message)

    result = echo_with(build, double)
    assert faults(result) == {"duplicated": 2}
    assert result["delivered"] == MESSAGES


def test_messages_out_of_order_are_seen_and_not_lost(build: Path) -> None:
    held: list[str] = []

    def swap(connection: ServerConnection, number: int, message: str) -> None:
        if number == 8:
            held.append(message)
            return
        connection.send(message)
        if number == 9:
            connection.send(held.pop())

    result = echo_with(build, swap)
    assert faults(result) == {"reordered": 2}
    assert result["delivered"] == MESSAGES


@pytest.mark.parametrize("place", [0, 12, 100])
def test_a_changed_byte_is_seen(build: Path, place: int) -> None:
    def spoil(connection: ServerConnection, number: int, message: str) -> None:
        changed = message if number != 4 else message[:place] + "~" + message[place + 1 :]
        connection.send(changed)

    result = echo_with(build, spoil)
    kind = "foreign" if place == 0 else "damaged"
    assert faults(result) == {kind: 2, "lost": 2}


def test_a_message_for_another_room_is_seen(build: Path) -> None:
    connections: list[ServerConnection] = []

    def mix_up(connection: ServerConnection, number: int, message: str) -> None:
        if connection not in connections:
            connections.append(connection)
        for one in connections:
            one.send(message)

    with faulty(mix_up) as port:
        words = ("--mode", "rooms", "--room-size", 1, "--clients", 2, "--messages", MESSAGES)
        result = load(build, port, *words, "--patience", 0.3)
    assert result["stray"] > 0
    assert result["lost"] == 0


def test_a_client_that_is_cut_is_seen_with_what_it_lost(build: Path) -> None:
    def cut(connection: ServerConnection, number: int, message: str) -> None:
        if number == 6:
            connection.socket.shutdown(socket.SHUT_RDWR)
        else:
            connection.send(message)

    result = echo_with(build, cut)
    assert result["disconnected"] == 1
    assert result["lost"] == MESSAGES - 6


def test_glued_messages_are_counted_one_by_one(build: Path) -> None:
    held: list[str] = []

    def glue(connection: ServerConnection, number: int, message: str) -> None:
        held.append(message)
        if number % 4 == 3:
            connection.send("\n".join(held))
            held.clear()

    result = echo_with(build, glue, "--dialect", "glued")
    assert faults(result) == {}
    assert result["delivered"] == MESSAGES


def test_fragments_and_pings_between_them_are_understood(build: Path) -> None:
    pongs: list[threading.Event] = []

    def parts(connection: ServerConnection, message: str) -> Iterator[str]:
        yield message[:10]
        pongs.append(connection.ping())
        yield message[10:]

    def fragment(connection: ServerConnection, number: int, message: str) -> None:
        connection.send(parts(connection, message))

    result = echo_with(build, fragment)
    assert faults(result) == {}
    assert (result["delivered"], result["pings"]) == (MESSAGES, 2 * MESSAGES)
    assert all(pong.is_set() for pong in pongs[:MESSAGES]), "the pings of the first phase"


def test_socketio_is_spoken_as_far_as_needed(build: Path) -> None:
    answers: list[str] = []

    def answer(connection: ServerConnection) -> None:
        connection.send('0{"sid":"a","pingInterval":25000}')
        for message in connection:
            answers.append(str(message))
            if message == "40":
                connection.send('40{"sid":"b"}')
                connection.send("2")
            elif str(message).startswith("42"):
                connection.send(message)

    with serve_sync(answer, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        words = ("--mode", "echo", "--clients", 1, "--messages", 4, "--dialect", "socketio")
        result = load(build, server.socket.getsockname()[1], *words)
        server.shutdown()
        thread.join()
    assert_perfect(result)
    assert result["delivered"] == 4
    assert answers[:2] == ["40", "3"]
    assert answers[2].startswith('42["m","')


def test_nobody_there_is_an_error_in_words(build: Path) -> None:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        result = load(build, probe.getsockname()[1], "--mode", "echo")
    assert result["event"] == "error"
    assert "refused" in result["message"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "403"),
        (f"{SWITCHING}Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n", "Accept"),
    ],
)
def test_a_wrong_answer_to_the_handshake_is_an_error(build: Path, answer: str, words: str) -> None:
    def respond(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer.encode())
            connection.recv(4096)

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=respond, args=(listener,))
        thread.start()
        result = load(build, listener.getsockname()[1], "--mode", "echo")
        thread.join()
    assert result["event"] == "error"
    assert words in result["message"]


def test_the_histogram_s_percentiles_are_within_its_precision(tmp_path: Path) -> None:
    source = tmp_path / "percentiles.c"
    source.write_text(
        """
        #include <stdio.h>
        #include "histogram.h"
        static struct histogram h;
        int main(void) {
            for (uint64_t v = 1; v <= 100000; v++) histogram_add(&h, v);
            printf("%lu %lu %lu %lu\\n", histogram_at(&h, .5), histogram_at(&h, .99),
                   histogram_at(&h, 1), histogram_at(&h, 0.0001));
        }
        """
    )
    target = tmp_path / "percentiles"
    install.run(["cc", *install.C_FLAGS, "-I", BENCH, "-o", target, source])
    middle, high, most, least = (int(word) for word in install.run([target]).split())
    assert middle == pytest.approx(50_000, rel=0.016)
    assert high == pytest.approx(99_000, rel=0.016)
    assert (most, least) == (100_000, 10)
