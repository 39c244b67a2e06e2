"""A local server that all tests of a process share, and a cluster on it with the face of `exchange.Exchange`.

Its ways cannot be cut; ends of leases go by a clock, as in `valkey_exchange`.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from brokers.local_folder import PATIENCE_S, is_unlocked
from hubbub.brokers.local import LocalBroker
from hubbub.brokers.local_guard import GUARD
from hubbub.brokers.local_server import LocalServer
from hubbub.brokers.valkey_address import Address
from valkey_exchange import TimedBroker, ValkeyExchange
from valkey_server import fresh_prefix


@functools.cache
def _server() -> LocalServer:
    server = LocalServer(f"tests-{os.getpid()}")
    with ThreadPoolExecutor(1) as pool:  # a test may ask in its event loop
        pool.submit(asyncio.run, server.start()).result()
    atexit.register(_end, server)
    return server


def _end(server: LocalServer) -> None:
    server.stop()
    late = time.monotonic() + PATIENCE_S
    while not is_unlocked(server.folder / GUARD) and time.monotonic() < late:
        time.sleep(0.02)
    shutil.rmtree(server.folder, ignore_errors=True)


def local_name() -> str:
    """Return the name of the local server, which is there until this process of tests ends."""
    return _server().folder.name


def unix_url() -> str:
    """Return the URL of its socket, as of any server that listens on one."""
    return f"unix://{_server().socket}"


def local_broker() -> LocalBroker:
    """Return a broker on it that shares nothing with others."""
    return LocalBroker(local_name(), prefix=fresh_prefix())


class LocalNode(TimedBroker, LocalBroker):
    """One node's broker. Its way is always open."""

    def __init__(self, exchange: LocalExchange) -> None:
        self._exchange = exchange
        super().__init__(local_name(), prefix=exchange.prefix)

    def mend(self) -> None:
        """Nothing is ever cut."""


class LocalExchange(ValkeyExchange):
    """See the module."""

    brokers: Any

    def __init__(self) -> None:
        super().__init__(unix_url())

    def broker(self) -> Any:
        """Return the broker of one more node."""
        broker = LocalNode(self)
        self.brokers.append(broker)
        return broker

    def _addresses(self) -> list[Address]:
        return list(self.brokers[0]._addresses())
