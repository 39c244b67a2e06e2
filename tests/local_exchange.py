"""A local server that all tests of a process share, and a cluster on it with the face of `exchange.Exchange`.

Each broker has a way of its own to the server, which can be cut; ends of leases go by a clock, as in `valkey_exchange`.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import itertools
import os
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from brokers.local_folder import PATIENCE_S, is_unlocked
from hubbub.brokers.local import LocalBroker
from hubbub.brokers.local_guard import GUARD
from hubbub.brokers.local_server import LocalServer
from hubbub.brokers.valkey_address import Address
from tcp_proxy import Proxy
from valkey_exchange import TimedBroker, ValkeyExchange
from valkey_server import fresh_prefix

_numbers = itertools.count(1)


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


class Way(Proxy):
    """A way from one Unix socket, beside that of the server, to that."""

    def __init__(self, server: Path) -> None:
        self._server_path = server
        self.path: Path = server.with_name(f"way{next(_numbers)}")
        super().__init__("", 0)

    def _listen(self, port: object = None) -> socket.socket:
        self.path.unlink(missing_ok=True)
        return socket.create_server(str(self.path), family=socket.AF_UNIX)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self._server_path)


class LocalNode(TimedBroker, LocalBroker):
    """One node's broker, whose way to the server can be cut."""

    def __init__(self, exchange: LocalExchange) -> None:
        self._exchange = exchange
        super().__init__(local_name(), prefix=exchange.prefix)
        self._way = Way(self._server.socket)

    def _addresses(self) -> list[Address]:
        (address,) = super()._addresses()
        return [address._replace(options={**address.options, "path": str(self._way.path)})]

    async def start(self, node: Any) -> None:
        """Open the way, and connect."""
        await self._way.start()
        try:
            await super().start(node)
        except BaseException:
            await self._way.stop()
            raise

    async def stop(self) -> None:
        """Disconnect, and close the way."""
        await super().stop()
        await self._way.stop()

    def cut(self) -> None:
        """Lose the way to the server, and what is on it."""
        self._is_cut = True
        self._way.cut()

    def mend(self) -> None:
        """Find the way again."""
        self._is_cut = False
        self._way.mend()


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
