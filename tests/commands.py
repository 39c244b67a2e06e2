"""Running the command `hubbub` as a stranger does: in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from places import SOURCE

PATIENCE_S = 30.0
HUBBUB = (sys.executable, "-W", "default", "-m", "hubbub")


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without settings, and with src to be imported from."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("HUBBUB_")}
    source = str(SOURCE.parent)
    return {**kept, "PYTHONPATH": source, "PYTHONUNBUFFERED": "1", **(extra or {})}


class Command:
    """A running command, `hubbub` unless another program is named; what it prints is collected, and can be waited for."""

    def __init__(
        self,
        *arguments: str,
        program: Sequence[str] = HUBBUB,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            [*program, *arguments],
            cwd=cwd,
            env=clean_environment(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self._change = threading.Condition()
        self._texts = {"out": "", "err": ""}
        self._threads = [
            threading.Thread(target=self._collect, args=(name, stream), daemon=True)
            for name, stream in (("out", self.process.stdout), ("err", self.process.stderr))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def out(self) -> str:
        """What it has printed on stdout so far."""
        return self._texts["out"]

    @property
    def err(self) -> str:
        """What it has printed on stderr so far."""
        return self._texts["err"]

    def _collect(self, name: str, stream: Iterator[str]) -> None:
        for line in stream:
            with self._change:
                self._texts[name] += line
                self._change.notify_all()
        with self._change:
            self._texts[f"{name} ended"] = ""
            self._change.notify_all()

    def wait_for(self, pattern: str, name: str = "out") -> re.Match[str]:
        """Wait until what it printed matches; fail when it ends without that."""
        found: re.Match[str] | None = None

        def is_there() -> bool:
            nonlocal found
            found = re.search(pattern, self._texts[name], re.MULTILINE)
            return found is not None or f"{name} ended" in self._texts

        with self._change:
            self._change.wait_for(is_there, PATIENCE_S)
        assert found, f"no {pattern!r} in {name}:\n{self.out}\n{self.err}"
        return found

    def send(self, text: str) -> None:
        """Write to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def end_input(self) -> None:
        """Close its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def interrupt(self) -> None:
        """Press Ctrl-C: like a terminal's, it goes to the process and to all that it started."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self) -> int:
        """Wait for its end and return the exit code."""
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            for thread in self._threads:
                thread.join(PATIENCE_S)

    def end(self) -> None:
        """Make sure that it and all that it started are gone, and that nothing is left open."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@contextmanager
def command(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Command]:
    """Run `hubbub` with these arguments beside the test."""
    running = Command(*arguments, cwd=cwd, env=env)
    try:
        yield running
    finally:
        running.end()


@contextmanager
def serving(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[tuple[Command, str]]:
    """Run a serving command on a free port; give it and its address without the scheme."""
    with command(*arguments, "--port", "0", cwd=cwd, env=env) as running:
        address = running.wait_for(r"Hubbub is at https?://(\S+)")[1]
        # The name may mean an IPv6 address first; the tests listen on 127.0.0.1.
        yield running, address.replace("localhost", "127.0.0.1")


def run(
    *arguments: str,
    stdin: str = "",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str, str]:
    """Run `hubbub` to its end; return exit code, stdout and stderr."""
    with command(*arguments, cwd=cwd, env=env) as running:
        running.send(stdin)
        running.end_input()
        code = running.wait()
        return code, running.out, running.err


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        yield busy.getsockname()[1]


def no_traceback(
    *arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None
) -> str:
    """Run a command that must fail with exit code 1; return its one sentence."""
    code, out, err = run(*arguments, cwd=cwd, env=env)
    assert (code, out) == (1, ""), err
    assert err.startswith("Error: ")
    assert err.count("\n") == 1, err
    return err
