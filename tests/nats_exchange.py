"""A cluster on a real NATS server, with the face of `exchange.Exchange`: ways to be cut, and a clock to be set.

Each broker has a way of its own to the server, a `Proxy`; ends of leases go by the clock.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

from hubbub.brokers.nats import NatsBroker
from nats_server import nats_url
from tcp_proxy import Proxy
from valkey_exchange import ValkeyExchange


class CutNatsBroker(NatsBroker):
    """One node's broker, whose way to the server can be cut."""

    def __init__(self, exchange: NatsExchange) -> None:
        self._proxy = Proxy("127.0.0.1", urlsplit(nats_url()).port or 0)
        self._exchange = exchange
        super().__init__(f"nats://127.0.0.1:{self._proxy.port}", prefix=exchange.prefix)

    async def start(self, node: Any) -> None:
        """Open the way, and connect."""
        await self._proxy.start()
        try:
            await super().start(node)
        except BaseException:
            await self._proxy.stop()
            raise

    async def stop(self) -> None:
        """Disconnect, and close the way."""
        await super().stop()
        await self._proxy.stop()

    def cut(self) -> None:
        """Lose the way to the server, and what is on it."""
        self._proxy.cut()

    def mend(self) -> None:
        """Find the way again."""
        self._proxy.mend()

    async def arrived(self) -> None:
        """Wait until the way is open, nothing waits to leave, and all has come that was published before."""
        running = self._running
        if running is None or self._proxy.is_cut:
            return
        while self.condition.state != "up" or self.condition.waiting:
            await asyncio.sleep(0.002)
        await running.feed.connection.ping()

    def _now(self) -> float:
        return self._exchange.began + self._exchange.clock()


class NatsExchange(ValkeyExchange):
    """See the module. The server is that of all tests; a prefix keeps exchanges apart."""

    brokers: Any

    def __init__(self) -> None:
        super().__init__()
        self.began = time.time()

    def broker(self) -> Any:
        """Return the broker of one more node."""
        broker = CutNatsBroker(self)
        self.brokers.append(broker)
        return broker
