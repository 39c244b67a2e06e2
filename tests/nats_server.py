"""NATS servers for tests: one that all tests of a process share, and such as are killed, frozen and started again."""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hubbub.brokers import nats as nats_module
from hubbub.brokers import nats_connection, nats_format, reconnecting
from stress.ports import free_port

START_S = 20.0

_HAS_READ = "Reloaded server configuration"


def _program() -> str:
    """Return where the server is, which a wheel has brought."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found is not None, "nats-server is missing: pip install -r requirements/dev.txt"
    return found


class NatsServer:
    """A server on a port that it keeps, with its streams in `folder` (None: it has no JetStream).

    `config` is what else its file says.
    """

    def __init__(self, folder: Path | None, config: str = "", port: int | None = None) -> None:
        self.port = port or free_port()
        self._home = Path(tempfile.mkdtemp(prefix="nats"))
        self._file = self._home / "server.conf"
        store = "" if folder is None else f'jetstream {{ store_dir: "{folder}" }}\n'
        if "jetstream" in config:
            store = ""
        self._begin = f"listen: 127.0.0.1:{self.port}\n{store}"
        self._file.write_text(f"{self._begin}{config}")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is, without a password."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; wait until it listens."""
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program(), "-c", str(self._file)], stdout=log, stderr=log
            )
        ends_at = time.monotonic() + START_S
        while time.monotonic() < ends_at and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as there:
                    if there.recv(4) == b"INFO":
                        return
            except OSError:
                time.sleep(0.01)
        raise RuntimeError(f"no NATS server: {self._log()[-2000:]}")

    def ask(self, subject: str, told: Mapping[str, Any]) -> Any:
        """Ask by a connection of one's own. Raises `OSError` where nobody answers."""
        data, to = json.dumps(told).encode(), ("127.0.0.1", self.port)
        with socket.create_connection(to, 1) as there, there.makefile("rb") as lines:
            question = f"PUB {subject} _INBOX.1 {len(data)}\r\n".encode() + data
            there.sendall(b"CONNECT {}\r\nSUB _INBOX.1 1\r\n" + question + b"\r\n")
            while line := lines.readline():
                if line.startswith(b"MSG "):
                    return json.loads(lines.read(int(line.split()[-1])))
        raise ConnectionError("no answer")

    def restart(self) -> None:
        """Start it again, with what its folder has."""
        self.start()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _log(self) -> str:
        return (self._home / "log").read_text()

    def configure(self, config: str) -> None:
        """Have something else in its file, and read that while it runs; it goes by it from when this returns."""
        read = self._log().count(_HAS_READ)
        self._file.write_text(f"{self._begin}{config}")
        self._signal(signal.SIGHUP)
        self.wait_for_log(_HAS_READ, read)

    def wait_for_log(self, text: str, beyond: int = 0) -> None:
        """Wait, with the whole process, until it has logged a text more often than `beyond` times."""
        ends_at = time.monotonic() + START_S
        while self._log().count(text) <= beyond:
            assert time.monotonic() < ends_at, f"not logged: {self._log()[-2000:]}"
            time.sleep(0.002)

    def freeze(self) -> None:
        """Have it answer nothing, from when this returns."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        os.waitpid(self._process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it, whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self._home, ignore_errors=True)


class NatsCluster:
    """Three servers with JetStream, which run: `url` is that of the first, with streams that are on all of them."""

    def __init__(self, folder: Path) -> None:
        routes = [free_port() for _ in range(3)]
        told = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
        self.servers = [
            NatsServer(
                None,
                f'server_name: s{number}\njetstream {{ store_dir: "{folder / str(number)}" }}\n'
                f"cluster {{ name: test, listen: 127.0.0.1:{route}, routes: [{told}] }}\n",
            )
            for number, route in enumerate(routes)
        ]
        self.first, *self.others = self.servers
        try:
            for server in self.servers:
                server.start()
            self._wait_for_agreement()
        except BaseException:
            self.stop()
            raise

    def _wait_for_agreement(self) -> None:
        """Wait until they have agreed on who leads, and a stream can be on all of them."""
        probe = {"name": "probe", "subjects": ["probe"], "num_replicas": len(self.servers)}
        ends_at = time.monotonic() + START_S
        while not self._makes(probe):
            if time.monotonic() > ends_at:
                raise RuntimeError("the NATS servers have not agreed on who leads")
            time.sleep(0.05)
        self.first.ask("$JS.API.STREAM.DELETE.probe", {})

    def _makes(self, stream: Mapping[str, Any]) -> bool:
        try:
            answer = self.first.ask(f"$JS.API.STREAM.CREATE.{stream['name']}", stream)
        except OSError:
            return False
        return "error" not in answer

    @property
    def url(self) -> str:
        """Where the first is."""
        return f"{self.first.url}?replicas={len(self.servers)}"

    def stop(self) -> None:
        """End them."""
        for server in self.servers:
            server.stop()


@functools.cache
def nats_url() -> str:
    """Start a server with JetStream, once for each process of tests; return its URL."""
    folder = Path(tempfile.mkdtemp(prefix="jetstream"))
    server = NatsServer(folder)
    server.start()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.stop)
    return server.url


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A server of a test's own, with JetStream: `server = own_server`."""
    made = NatsServer(tmp_path / "streams")
    made.start()
    yield made
    made.stop()


@asynccontextmanager
async def server_with(config: str = "", folder: Path | None = None) -> AsyncIterator[NatsServer]:
    """Run a server until the block ends."""
    made = NatsServer(folder, config)
    await asyncio.to_thread(made.start)
    try:
        yield made
    finally:
        made.stop()


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing wait for seconds that a server answers in milliseconds."""
    monkeypatch.setattr(reconnecting, "LONGEST_DELAY_S", 0.1)
    monkeypatch.setattr(nats_connection, "TIMEOUT_S", 2.0)
    monkeypatch.setattr(nats_format, "ANSWER_S", 1.0)
    monkeypatch.setattr(nats_module, "WATCH_S", 0.05)
