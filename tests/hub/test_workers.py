"""Workers: the processes of one address see one another, under every server that makes several."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any, cast

import httpx2
import pytest
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from brokers.local_folder import short_folder
from commands import clean_environment
from hubbub.hub import workers
from hubbub.hub.workers import Roll, WorkerWatch, _is_held, listeners
from places import TESTS
from serving import held_port

folder = short_folder

PATIENCE_S = 40.0
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Made once, without certificates: httpx would read all that the machine trusts at each request."""

FASTAPI_APP = """
from fastapi import FastAPI
from workers_app import hub, stats

app = FastAPI()
app.include_router(hub.router())
app.mount("/", stats)
"""
REFUSE = {
    "HUBBUB_BROKER": "memory://",
    "HUBBUB_WORKERS_OK": "refuse",
    "WORKERS_APP_FIRST_LOOK_S": "0.5",  # who is refused has ended before it counts as there for good
}
REFUSAL = "workers_ok = 'refuse' (environment, HUBBUB_WORKERS_OK): this is one of 2 workers"
ENDS = {
    "uvicorn-native": {0},
    "fastapi-run": {0},
    "gunicorn-native": {3},
    "hubbub-serve": {1},
    "granian": {1},
    "hypercorn": {0, 241},
}
"""With which status each server ends then: the guide to deployment says so. hypercorn's is that of its other worker,
which it ends by SIGTERM, so that it is -15 where that worker was only just starting."""
GUNICORN_WORKER = """
from uvicorn_worker import UvicornWorker


class Worker(UvicornWorker):
    CONFIG_KWARGS = {"ws": "hubbub:Protocol", "http": "hubbub:HttpProtocol"}
"""


def uvicorn(*options: str) -> Callable[[str, int], list[str]]:
    return lambda port, count: [
        *("uvicorn", "workers_app:app", "--port", port, "--workers", str(count), *options)
    ]


def gunicorn(worker: str) -> Callable[[str, int], list[str]]:
    return lambda port, count: [
        *("gunicorn", "workers_app:app", "-b", f"127.0.0.1:{port}", "-k", worker),
        *("--workers", str(count)),
    ]


SERVERS: dict[str, Callable[[str, int], list[str]]] = {
    "uvicorn-native": uvicorn("--ws", "hubbub:Protocol", "--http", "hubbub:HttpProtocol"),
    "uvicorn-portable": uvicorn(),
    "hubbub-serve": lambda port, count: [
        *("hubbub", "serve", "workers_app", "--port", port, "--workers", str(count))
    ],
    "fastapi-run": lambda port, count: [
        *("fastapi", "run", "workers_fastapi.py", "--port", port, "--workers", str(count))
    ],
    "gunicorn-native": gunicorn("workers_gunicorn.Worker"),
    "gunicorn-portable": gunicorn("uvicorn_worker.UvicornWorker"),
    "gunicorn-asgi": gunicorn("asgi"),
    "granian": lambda port, count: [
        *("granian", "--interface", "asgi", "--port", port, "--workers", str(count)),
        "workers_app:app",
    ],
    "hypercorn": lambda port, count: [
        *("hypercorn", "--bind", f"127.0.0.1:{port}", "--workers", str(count)),
        "workers_app:app",
    ],
}


@pytest.fixture
def port() -> Iterator[str]:
    """A port for the server of the test."""
    with held_port() as number:
        yield str(number)


class Running:
    """A server with all its processes, and what their hubs have logged."""

    def __init__(self, folder: Path, port: str) -> None:
        self.folder = folder
        self.address = f"http://127.0.0.1:{port}/stats"
        self.log = folder / "core_of(hub).log"
        self.output = folder / "output.log"
        self.process: subprocess.Popen[bytes] | None = None

    def wait(self) -> int:
        """Wait for the server to end by itself; return its exit status."""
        assert self.process is not None
        return self.process.wait(PATIENCE_S)

    def stats(self) -> dict[str, Any]:
        response = httpx2.get(self.address, timeout=5, trust_env=False, verify=NO_TLS)
        answer: dict[str, Any] = response.json()
        return answer

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if condition():
                    return
            assert time.monotonic() < deadline, f"in vain: {what}\n{self.output.read_text()}"
            time.sleep(0.05)

    def until_it_has_looked(self, pid: int | None = None) -> None:
        """Wait until a worker, not that of `pid`, has looked several times at the others."""
        self.until(
            lambda: (stats := self.stats())["uptime_s"] > 1 and stats["pid"] != pid, "time passes"
        )

    def warned(self) -> list[int]:
        """Return the process of each warning about workers."""
        text = self.log.read_text() if self.log.exists() else ""
        return [int(pid) for pid in re.findall(r"^(\d+) WARNING this is one of", text, re.M)]


@contextlib.contextmanager
def running(
    command: list[str], folder: Path, port: str, env: dict[str, str] | None = None
) -> Iterator[Running]:
    """Run a server, and end it with all its processes, which are a group of their own."""
    shutil.copy(TESTS / "workers_app.py", folder)
    (folder / "workers_fastapi.py").write_text(FASTAPI_APP)
    (folder / "workers_gunicorn.py").write_text(GUNICORN_WORKER)
    server = Running(folder, port)
    (folder / "temporary").mkdir(exist_ok=True)
    environment = clean_environment(
        {"WORKERS_APP_LOG": str(server.log), "TMPDIR": str(folder / "temporary"), **(env or {})}
    )
    with server.output.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        server.process = process
        try:
            yield server
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


# Under real servers


@pytest.mark.parametrize("name", SERVERS)
def test_fault_13_each_of_two_workers_warns(name: str, port: str, tmp_path: Path) -> None:
    memory = {"HUBBUB_BROKER": "memory://"}  # else `hubbub serve` connects them by itself
    with running(python(*SERVERS[name](port, 2)), tmp_path, port, memory) as server:
        server.until(lambda: len(server.warned()) == 2, "two warnings")
        assert len(set(server.warned())) == 2, "each of the two, once"
        assert server.stats()["workers"] == 2
        assert "one worker only. Name a broker that connects them" in server.log.read_text()


@pytest.mark.parametrize("name", ["uvicorn-native", "gunicorn-portable", "granian", "hypercorn"])
def test_fault_13_one_worker_does_not_warn(name: str, port: str, tmp_path: Path) -> None:
    with running(python(*SERVERS[name](port, 1)), tmp_path, port) as server:
        server.until_it_has_looked()
        assert server.stats()["workers"] == 1
        assert server.warned() == []


def test_fault_13_who_means_it_is_not_warned(port: str, tmp_path: Path) -> None:
    command = python(*SERVERS["uvicorn-native"](port, 2))
    with running(command, tmp_path, port, {"HUBBUB_WORKERS_OK": "1"}) as server:
        server.until(lambda: server.stats()["workers"] == 2, "they see one another")
        server.until_it_has_looked()
        assert server.warned() == []


@pytest.mark.parametrize("name", ENDS)
def test_two_workers_do_not_both_start_where_that_is_refused(
    name: str, port: str, tmp_path: Path
) -> None:
    with running(python(*SERVERS[name](port, 2)), tmp_path, port, REFUSE) as server:
        server.until(lambda: REFUSAL in server.output.read_text(), "a refusal")
        assert server.wait() in ENDS[name], "the first ends too"
        assert server.log.read_text().count("the hub has started") <= 1
        assert server.warned() == [], server.log.read_text() + server.output.read_text()


def test_fault_13_two_servers_of_one_shell_are_no_workers(port: str, tmp_path: Path) -> None:
    with held_port() as other:
        make = SERVERS["uvicorn-native"]
        commands = [" ".join(python(*make(each, 1))) for each in (port, str(other))]
        shell = ["sh", "-c", f"{commands[0]} & {commands[1]} & wait"]
        with running(shell, tmp_path, port) as server:
            server.until_it_has_looked()
            server.address = server.address.replace(port, str(other))
            server.until_it_has_looked()
            assert server.stats()["workers"] == 1
            assert server.warned() == []


@pytest.mark.parametrize("name", ["uvicorn", "hubbub"])
def test_fault_13_a_reload_does_not_warn(name: str, port: str, tmp_path: Path) -> None:
    what = {"uvicorn": ("uvicorn", "workers_app:app"), "hubbub": ("hubbub", "serve", "workers_app")}
    with running(python(*what[name], "--port", port, "--reload"), tmp_path, port) as server:
        server.until_it_has_looked()
        before = server.stats()["pid"]
        with (tmp_path / "workers_app.py").open("a") as file:
            file.write("\nmore = 1\n")
        server.until_it_has_looked(before)
        assert server.stats()["workers"] == 1
        assert server.warned() == []


def test_fault_13_a_worker_that_is_replaced_does_not_warn_and_a_second_one_does(
    port: str, tmp_path: Path
) -> None:
    """gunicorn starts the new one while the old one still serves."""
    pid_file = tmp_path / "pid"
    command = [*python(*SERVERS["gunicorn-native"](port, 1)), "--pid", str(pid_file)]
    # Between two looks there is time for the old one to end, as in a server that is no test's.
    with running(command, tmp_path, port, {"WORKERS_APP_FIRST_LOOK_S": "0.5"}) as server:
        server.until_it_has_looked()
        first = server.stats()["pid"]
        os.kill(int(pid_file.read_text()), signal.SIGHUP)
        server.until_it_has_looked(first)
        server.until(lambda: server.stats()["workers"] == 1, "the old one has left")
        assert server.warned() == []
        os.kill(int(pid_file.read_text()), signal.SIGTTIN)
        server.until(lambda: len(set(server.warned())) == 2, "the one that was there warns too")


def test_fault_13_without_a_folder_to_write_to_nothing_breaks(port: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = python(*SERVERS["uvicorn-native"](port, 1))
    with running(command, tmp_path, port, {"TMPDIR": str(tmp_path / "file" / "x")}) as server:
        server.until_it_has_looked()
        assert server.stats()["workers"] == 1


# Sharing a local server


class Met:
    """Clients of different workers, by the process that greeted them."""

    def __init__(self, port: str) -> None:
        self.clients: dict[str, ClientConnection] = {}
        self._address = f"ws://127.0.0.1:{port}/ws"
        self._open = contextlib.ExitStack()

    def meet(self) -> bool:
        """Connect once more; return whether there is a client of two workers now."""
        with contextlib.suppress(OSError, InvalidHandshake):
            client = self._open.enter_context(connect(self._address, proxy=None))
            self.clients.setdefault(str(client.recv(PATIENCE_S)), client)
        return len(self.clients) == 2

    def close(self) -> None:
        self._open.close()


@pytest.mark.parametrize("name", ["uvicorn-native", "gunicorn-native", "granian", "fastapi-run"])
def test_workers_that_name_one_local_server_hear_one_another(
    name: str, port: str, tmp_path: Path, folder: Path
) -> None:
    shared = {"HUBBUB_BROKER": "local://shop", "TMPDIR": str(folder)}
    with (
        running(python(*SERVERS[name](port, 2)), tmp_path, port, shared) as server,
        contextlib.closing(Met(port)) as met,
    ):
        server.until(met.meet, "a client of each worker")
        for number, speaker in enumerate(met.clients.values()):
            speaker.send(f"{number} says")
            heard = [client.recv(PATIENCE_S) for client in met.clients.values()]
            assert heard == [f"{number} says"] * 2
        server.until(lambda: server.stats()["workers"] == 2, "they see one another")
        server.until_it_has_looked()
        assert server.warned() == []


# The roll


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock


def rolls(folder: Path, count: int) -> list[Roll]:
    """Return as many rolls as if each were another process's: file locks know no processes."""
    made = [Roll(folder) for _ in range(count)]
    for roll in made:
        roll.enter(roll)
    return made


def test_bound_sockets_are_found_and_others_are_not(
    listening: socket.socket, tmp_path: Path
) -> None:
    path = str(tmp_path / "hub.sock")
    with (
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket() as unbound,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.create_connection(listening.getsockname()) as client,
        listening.accept()[0] as accepted,
    ):
        unix.bind(path)
        datagrams.bind(("127.0.0.1", 0))
        found = {one.descriptor: one.address for one in listeners()}
        assert found[listening.fileno()] == f"AF_INET 127.0.0.1 {listening.getsockname()[1]}"
        assert found[unix.fileno()] == f"unix {path}"
        others = {sock.fileno() for sock in (unbound, datagrams, client, accepted)}
        assert not others & found.keys()


def test_looking_does_not_end_the_blocking_of_others_sockets(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getdefaulttimeout", lambda: 1.0)
    assert listening.fileno() not in {one.descriptor for one in listeners()}
    listening.setblocking(False)
    assert listening.fileno() in {one.descriptor for one in listeners()}


def test_those_of_one_address_see_one_another(listening: socket.socket, tmp_path: Path) -> None:
    one, two, three = rolls(tmp_path, 3)
    assert [one.look(), two.look(), three.look(), one.look()] == [1, 2, 3, 3]
    three.leave(three)
    three.leave(three)
    assert [one.look(), three.look()] == [2, 1]
    two.leave(two)
    one.leave(one)
    assert list(tmp_path.iterdir()) == []


def test_another_address_is_another_server(listening: socket.socket, tmp_path: Path) -> None:
    one, two = rolls(tmp_path, 2)
    assert one.look() == 1
    listening.close()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        assert two.look() == 1
        assert one.look() == 2, "it listens elsewhere by now, and knows"


def test_what_a_dead_process_left_behind_counts_for_nothing(
    listening: socket.socket, tmp_path: Path
) -> None:
    one, two = rolls(tmp_path, 2)
    one.look()
    assert two.look() == 2
    [file] = two._files.values()
    os.close(file._descriptor)  # as the kernel does it
    assert one.look() == 1
    assert not file._path.exists()
    two._files.clear()


def test_what_dead_servers_of_other_addresses_left_behind_is_swept_away(
    listening: socket.socket, tmp_path: Path
) -> None:
    for name in ("0123.4567", "new.old", "new.young"):
        (tmp_path / name).touch()
    os.utime(tmp_path / "new.old", (0, 0))
    [one] = rolls(tmp_path, 1)
    assert one.look() == 1
    assert {path.name for path in tmp_path.iterdir()} == {
        "new.young",
        *(file._path.name for file in one._files.values()),
    }
    one.leave(one)


def test_a_roll_has_several_owners(listening: socket.socket, tmp_path: Path) -> None:
    one, two = rolls(tmp_path, 2)
    hub, other = object(), object()
    two.enter(hub)
    two.enter(other)
    two.leave(two)
    two.leave(hub)
    assert [one.look(), two.look(), one.look()] == [1, 2, 2]
    two.leave(other)
    assert one.look() == 1


def test_a_folder_of_somebody_else_is_not_used(
    listening: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"hubbub-workers-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    roll = Roll()
    roll.enter(roll)
    assert roll.look() == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_forked_process_removes_nothing_of_its_parent(
    listening: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = rolls(tmp_path, 2)
    one.look()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 0)
        assert len(list(tmp_path.iterdir())) == 1
        path = next(tmp_path.iterdir())
        copy = os.dup(next(iter(one._files.values()))._descriptor)
        one.leave(one)
    assert path.exists()
    assert two.look() == 2
    os.close(copy)


FORKING = """
import os, pathlib, socket, sys
from hubbub.hub.workers import Roll, roll

listening = socket.create_server(("127.0.0.1", 0))
folder = roll._folder = pathlib.Path(sys.argv[1])
roll.enter("parent")
assert roll.look() == 1
child = os.fork()
if not child:
    if int(sys.argv[2]):
        roll.enter("child")
        assert roll.look() == 2, "its parent and itself"
    print("ready", flush=True)
    sys.stdin.readline()
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize("serves", [0, 1])
def test_fault_13_a_forked_process_is_a_worker_if_it_serves_and_none_otherwise(
    serves: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", FORKING, str(tmp_path), str(serves)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()  # the parent alone; what it held must not be its child's
        process.wait()
        held = [path for path in tmp_path.iterdir() if _is_held(path)]
        assert len(held) == serves
        process.stdin.write("\n")
        process.stdin.flush()


# The watch


class Timers:
    """What a watch asks of an event loop; a test lets the time pass."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.is_cancelled = False
        self._call: Callable[[], object] = lambda: None

    def call_later(self, delay_s: float, function: Callable[..., object], *rest: object) -> Timers:
        self.pauses.append(delay_s)
        self._call = lambda: function(*rest)
        return self

    def cancel(self) -> None:
        self.is_cancelled = True

    def advance_time(self) -> None:
        self._call()


class Told(Roll):
    """A roll that sees what a test says."""

    def __init__(self, *counts: int) -> None:
        super().__init__()
        self.counts = list(counts)

    def look(self) -> int:
        return self.counts.pop(0)


def watched(*counts: int, looks: int = 2) -> tuple[WorkerWatch, Timers, list[int]]:
    """Return a watch that has looked once for each of `counts`, and what it told."""
    told: list[int] = []
    watch, timers = WorkerWatch(Told(*counts), told.append, looks), Timers()
    watch.start(cast(asyncio.AbstractEventLoop, timers))
    for _ in counts[1:]:
        timers.advance_time()
    assert watch.seen == counts[-1]
    return watch, timers, told


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ([1, 1, 1], []),
        ([1, 2, 1, 2, 1], []),
        ([2, 1, 1], []),
        ([2, 2], [2]),
        ([1, 2, 2, 2, 3], [2]),
        ([1, 1, 3, 4, 4], [4]),
    ],
)
def test_it_tells_once_and_of_what_two_looks_have_seen(counts: list[int], told: list[int]) -> None:
    assert watched(*counts)[2] == told


def test_who_is_refused_is_seen_for_a_while_and_not_told() -> None:
    assert watched(1, 2, 2, 2, 1, 2, 2, 2, looks=4)[2] == []
    assert watched(1, 2, 2, 2, 2, looks=4)[2] == [2]


def test_it_looks_less_and_less_often_as_long_as_nothing_changes() -> None:
    assert watched(*[1] * 8)[1].pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert watched(1, 1, 1, 2, 2, 2)[1].pauses == [1, 2, 4, 1, 2, 4]


def test_after_its_end_it_looks_no_more() -> None:
    watch, timers, _ = watched(1)
    watch.stop()
    watch.stop()
    assert timers.is_cancelled


def test_two_hubs_of_a_process_tell_once() -> None:
    roll = Told(2, 2, 2, 2)
    told: list[int] = []
    for _ in range(2):
        timers = Timers()
        WorkerWatch(roll, told.append).start(cast(asyncio.AbstractEventLoop, timers))
        timers.advance_time()
    assert told == [2]


@pytest.mark.parametrize(("counts", "settled"), [([1], 1), ([2, 3, 1], 1), ([2] * 1000, 2)])
def test_those_that_are_just_ending_have_time_for_it(
    counts: list[int], settled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "FIRST_LOOK_S", 0.02)
    roll = Told(*counts)
    watch = WorkerWatch(roll, lambda count: None)
    assert asyncio.run(watch.settled()) == settled
    assert roll._owners, "others see it from then on"
