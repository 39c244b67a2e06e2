"""A Valkey cluster for tests: one that all tests of a process share, and such as have a replica and are hurt."""

from __future__ import annotations

import atexit
import functools
import tempfile
from pathlib import Path

import redis

from hubbub.brokers.valkey_connections import slot_of
from valkey_server import Server, wait_until

SLOTS = 16384
_CONFIG = {
    "cluster-enabled": "yes",
    "cluster-node-timeout": "1000",
    "cluster-replica-validity-factor": "0",
    "repl-diskless-sync-delay": "0",
}


class TestCluster:
    """Three primaries, and a replica of the first if that is wanted."""

    __test__ = False

    def __init__(self, path: Path, *, has_replica: bool = False) -> None:
        count = 4 if has_replica else 3
        self.servers = [Server(path / str(number), **_CONFIG) for number in range(count)]
        bounds = [0, 5461, 10923, SLOTS]
        for number, server in enumerate(self.servers):
            server.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < 3:
                last = bounds[number + 1] - 1
                server.command("CLUSTER", "ADDSLOTSRANGE", bounds[number], last)
        for server in self.servers[1:]:
            self.servers[0].command("CLUSTER", "MEET", "127.0.0.1", server.port)
        self.ids = [server.command("CLUSTER", "MYID") for server in self.servers]
        wait_until(lambda: all(self._knows_all(server) for server in self.servers))
        if has_replica:
            self.servers[3].command("CLUSTER", "REPLICATE", self.ids[0])
            wait_until(lambda: b"connected" in self.servers[3].command("ROLE"))
        wait_until(lambda: all(self._is_ok(server) for server in self.servers))

    def _knows_all(self, server: Server) -> bool:
        return _line_count(server.command("CLUSTER", "NODES")) == len(self.servers)

    def _is_ok(self, server: Server) -> bool:
        return "cluster_state:ok" in _text(server.command("CLUSTER", "INFO"))

    @property
    def url(self) -> str:
        """The URL of the cluster: two of its nodes, and one that is not there."""
        ports = [1, self.servers[1].port, self.servers[2].port]
        return "valkey+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports)

    def has(self, name: bytes) -> int:
        """Return which primary has the slot of a key or channel."""
        slot = slot_of(name)
        for number, server in enumerate(self.servers[:3]):
            try:
                server.command("CLUSTER", "COUNTKEYSINSLOT", slot)
                server.command("EXISTS", name)
            except redis.exceptions.MovedError:
                continue
            return number
        raise LookupError(name)

    def begin_move(self, name: bytes) -> tuple[int, int, int]:
        """Begin to move the slot of a key or channel to another primary; return the slot, from and to."""
        slot, old = slot_of(name), self.has(name)
        new = (old + 1) % 3
        self.servers[new].command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[old])
        self.servers[old].command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[new])
        return slot, old, new

    def move_keys(self, slot: int, old: int, new: int, count: int = 1000) -> int:
        """Move some keys of a slot; return how many."""
        keys = self.servers[old].command("CLUSTER", "GETKEYSINSLOT", slot, count)
        if keys:
            place = ("127.0.0.1", self.servers[new].port, "", 0, 5000)
            self.servers[old].command("MIGRATE", *place, "KEYS", *keys)
        return len(keys)

    def end_move(self, slot: int, old: int, new: int) -> None:
        """Move what keys there are still, and the slot."""
        while self.move_keys(slot, old, new):
            pass
        for number in (new, old, 3 - old - new):
            self.servers[number].command("CLUSTER", "SETSLOT", slot, "NODE", self.ids[new])

    def stop(self) -> None:
        """End all of it."""
        for server in self.servers:
            server.stop()


def _text(answer: object) -> str:
    if isinstance(answer, dict):
        return "\n".join(f"{name}:{text}" for name, text in answer.items())
    return answer.decode() if isinstance(answer, bytes) else str(answer)


def _line_count(answer: object) -> int:
    if isinstance(answer, dict):
        return len(answer)
    return len(_text(answer).strip().splitlines())


@functools.cache
def shared_cluster() -> TestCluster:
    """Start a cluster, once for each process of tests."""
    folder = tempfile.TemporaryDirectory(prefix="cluster-")
    made = TestCluster(Path(folder.name))
    atexit.register(folder.cleanup)
    atexit.register(made.stop)
    return made


def cluster_url() -> str:
    """Return the URL of the cluster that all tests share."""
    return shared_cluster().url
