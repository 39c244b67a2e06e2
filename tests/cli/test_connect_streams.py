"""`hubbub connect`: inputs and outputs of all kinds, and what a server can say."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from cli.connecting import echo, echo_times, greet, refusing, server
from commands import PATIENCE_S, clean_environment, command, run

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


@pytest.mark.parametrize(
    ("arguments", "code"),
    [("connect ws://127.0.0.1:1/ws", 1), ("serve nowhere:app", 1), ("connect --nonsense", 2)],
)
def test_fault_25_an_error_is_never_among_the_data(arguments: str, code: int) -> None:
    assert run_in_a_shell(f"exec $HUBBUB {arguments} </dev/null 2>&-") == (code, b"", b"")


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
