"""`hubbub connect` on a terminal: a person who types and reads."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.server import ServerConnection

from cli.connecting import PATIENTLY, closing, echo, echo_times, server
from commands import PATIENCE_S, clean_environment

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
