"""One run: a server on one core, the generator on another, and what the server's work has cost.

The server's cost is the CPU time of all its processes and threads, read while nothing is in flight:
the generator says "begin" and "end" and waits. Not here: which runs there are (`rows.py`), and what
is made of them (`report.py`). Called by `run.py`. Linux only.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stress.ports import free_port

from .servers import BENCH, BUILD, ServerSpec

START_TIMEOUT_S = 30.0
GENERATOR_TIMEOUT_S = 240.0
FULL = 0.95
"""A share of a core from which on it is called full."""

Run = dict[str, Any]


class ServerFailed(RuntimeError):
    """A server did not start, or died."""


@dataclass(frozen=True)
class Cores:
    """Which core each side is pinned to; None where there is only one core to have."""

    server: int | None
    generator: int | None

    @classmethod
    def choose(cls) -> Cores:
        """Take the first two cores that this process may use."""
        cores = sorted(os.sched_getaffinity(0))
        return cls(cores[0], cores[1]) if len(cores) > 1 else cls(None, None)


def pinned(core: int | None) -> Callable[[], None] | None:
    """Return what a new process has to call to stay on `core`."""
    return None if core is None else lambda: os.sched_setaffinity(0, {core})


def process_cpu_s(pid: int) -> float:
    """Return the CPU time of a process in seconds: all its threads, those that ended too.

    The clock's number is made as `clock_getcpuclockid(3)` of Linux makes it.
    """
    return time.clock_gettime((~pid << 3) | 2)


class Server:
    """A running server: all processes of its session."""

    def __init__(self, spec: ServerSpec, port: int, core: int | None, log: Path) -> None:
        self.port = port
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                spec.argv(port),
                cwd=BENCH / "peers",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=pinned(core),
            )

    def wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed(f"the server did not start: {self.last_log_line()}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)

    def last_log_line(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "its log is empty"

    def pids(self) -> Iterator[int]:
        """Yield the processes of the server's session."""
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[3]) == self._process.pid:
                yield int(entry)

    def cpu_s(self) -> float:
        """Return the CPU time of all processes and threads so far."""
        return sum(process_cpu_s(pid) for pid in self.pids())

    def memory_kib(self, field: str = "VmRSS") -> int:
        """Return a field of /proc/PID/status, added up: VmRSS now, VmHWM the most there was."""
        total = 0
        for pid in self.pids():
            for line in Path("/proc", str(pid), "status").read_text().splitlines():
                if line.startswith(field + ":"):
                    total += int(line.split()[1])
        return total

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def serving(spec: ServerSpec, core: int | None) -> Iterator[Server]:
    """Run a server on a free port until the block ends."""
    log = BUILD / f"{spec.name}.log"
    server = Server(spec, free_port(), core, log)
    try:
        server.wait_until_it_listens()
        yield server
    finally:
        server.stop()


@contextmanager
def generating(port: int, load: Sequence[str], core: int | None) -> Iterator[subprocess.Popen[str]]:
    generator = subprocess.Popen(
        [str(BUILD / "load"), "--port", str(port), *load],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=pinned(core),
    )
    alarm = time.monotonic() + GENERATOR_TIMEOUT_S
    try:
        yield generator
        generator.wait(max(1.0, alarm - time.monotonic()))
    finally:
        generator.kill()
        generator.wait()
        for stream in (generator.stdin, generator.stdout):
            if stream is not None:
                stream.close()


def answer(generator: subprocess.Popen[str]) -> None:
    assert generator.stdin is not None
    generator.stdin.write("\n")
    generator.stdin.flush()


def watch(server: Server, generator: subprocess.Popen[str]) -> Run:
    """Read the server's clock and memory at "begin" and "end"; return them with the result."""
    run: Run = {"connect_cpu_s": -server.cpu_s()}
    assert generator.stdout is not None
    for line in generator.stdout:
        event = json.loads(line)
        if event["event"] == "error":
            raise ServerFailed(
                f"{event['message']}; the last line of its log: {server.last_log_line()}"
            )
        if event["event"] == "begin":
            run["memory_begin_kib"] = server.memory_kib()
            run["cpu_s"] = -server.cpu_s()
            # When nothing comes between the last handshake and "begin": what the handshakes cost.
            run["connect_cpu_s"] -= run["cpu_s"]
        elif event["event"] == "end":
            run["cpu_s"] += server.cpu_s()
            run["memory_end_kib"] = server.memory_kib()
            run["memory_most_kib"] = server.memory_kib("VmHWM")
        else:
            return {**run, **event}
        answer(generator)
    raise ServerFailed("the generator ended without a result")


def measure(spec: ServerSpec, load: Sequence[str], cores: Cores) -> Run:
    """Do one run with a server of its own; return what came of it, an "error" for a failure."""
    try:
        with serving(spec, cores.server) as server:
            return measure_on(server, spec, load, cores)
    except (ServerFailed, OSError) as error:
        return {"error": str(error)}


def visit(
    spec: ServerSpec, loads: Sequence[Sequence[str]], cores: Cores
) -> Iterator[tuple[int, Run]]:
    """Do several runs with one server, in turn; yield the place of each and what came of it.

    A failed run may have hurt the server, so the next one gets a new one.
    """
    waiting = list(enumerate(loads))
    while waiting:
        try:
            with serving(spec, cores.server) as server:
                run: Run = {}
                while waiting and "error" not in run:
                    place, load = waiting.pop(0)
                    run = measure_on(server, spec, load, cores)
                    yield place, run
        except (ServerFailed, OSError) as error:
            while waiting:
                yield waiting.pop(0)[0], {"error": str(error)}


def measure_on(server: Server, spec: ServerSpec, load: Sequence[str], cores: Cores) -> Run:
    """Do one run with a server that is there."""
    words = [*load, *spec.load]
    try:
        if "idle" in load:
            warm_up(server, spec, cores)
        before = server.memory_kib()
        with generating(server.port, [*words, "--control"], cores.generator) as generator:
            run = watch(server, generator)
    except (ServerFailed, OSError, ValueError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    run["memory_before_kib"] = before
    run["server_share"] = run["cpu_s"] / run["wall_s"]
    run["limit"] = limit_of(run)
    return run


def warm_up(server: Server, spec: ServerSpec, cores: Cores) -> None:
    """Let some clients come and go, so that what a server loads once is not charged to a client."""
    words = ["--mode", "idle", "--clients", "50", "--warm", "0", "--seconds", "0.2"]
    with generating(server.port, [*words, *spec.load], cores.generator) as generator:
        assert generator.stdout is not None
        generator.stdout.read()


def limit_of(run: Run) -> str:
    """Say which side was the limit of the wall time."""
    if run["server_share"] >= FULL:
        return "server"
    return "generator" if run["generator_cpu_share"] >= FULL else "neither"
