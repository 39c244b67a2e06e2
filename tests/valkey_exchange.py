"""A cluster on real Valkey servers (one, several, or a cluster), with the face of `exchange.Exchange`: ways to
be cut, and a clock to be set.

Each broker has a way of its own to the server, a `Proxy`. Ends of leases are brought nearer whenever the clock has
gone on, before the server is asked anything about presence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hubbub import BrokerUnavailable, ClientInfo, Hub, PresenceStats
from hubbub.brokers.broker import Entered, PresenceTerms, Snapshot
from hubbub.brokers.valkey import ValkeyBroker
from hubbub.brokers.valkey_address import Address, read_address
from hubbub.brokers.valkey_cluster import Shard
from hubbub.brokers.valkey_connections import Connections
from hubbub.hub.core import core_of
from tcp_proxy import Proxy
from valkey_cluster import shared_cluster
from valkey_server import fresh_prefix, let_time_pass, server_url


class TimedBroker(ValkeyBroker):
    """One node's broker, whose presence goes by the clock of its exchange."""

    _exchange: ValkeyExchange
    _is_cut: bool = False

    async def arrived(self) -> None:
        """Wait until the way is open, nothing waits to leave, and all has come that was published before."""
        running = self._running
        if running is None or self._is_cut:
            return
        while self.condition.state != "up" or self.condition.waiting:
            await asyncio.sleep(0.002)
        feeds = [link.feed for link in running.layout.links]
        wanted = [feed.subscribe(list(feed._wanted)) for feed in feeds if feed._wanted]
        await asyncio.gather(*wanted)  # the answers come behind all that

    async def enter(
        self, room: str, members: Mapping[str, ClientInfo], terms: PresenceTerms
    ) -> Entered:
        """Set the time, and enter."""
        await self._exchange.set_time()
        return await super().enter(room, members, terms)

    async def leave(
        self, room: str, names: Sequence[str], terms: PresenceTerms
    ) -> Sequence[ClientInfo]:
        """Set the time, and leave."""
        await self._exchange.set_time()
        return await super().leave(room, names, terms)

    async def expire(self, room: str, terms: PresenceTerms) -> Sequence[ClientInfo]:
        """Set the time, and strike out whose time is over."""
        await self._exchange.set_time()
        return await super().expire(room, terms)

    async def presence_stats(self, room: str) -> PresenceStats:
        """Set the time, and count."""
        await self._exchange.set_time()
        return await super().presence_stats(room)


class CutBroker(TimedBroker):
    """One node's broker, whose way to each server can be cut."""

    def __init__(self, exchange: ValkeyExchange) -> None:
        self._exchange = exchange
        super().__init__(exchange.url, prefix=exchange.prefix)
        self._is_cut = False
        hosts = () if self._address.is_cluster else self._address.hosts
        self._proxies = [Proxy(*host) for host in hosts]

    def _addresses(self) -> list[Address]:
        return [
            address._replace(options={**address.options, "port": proxy.port})
            for address, proxy in zip(super()._addresses(), self._proxies, strict=True)
        ]

    async def start(self, node: Any) -> None:
        """Open the way, and connect."""
        for proxy in self._proxies:
            await proxy.start()
        try:
            await super().start(node)
        except BaseException:
            await self._close_ways()
            raise

    async def stop(self) -> None:
        """Disconnect, and close the way."""
        await super().stop()
        await self._close_ways()

    async def _close_ways(self) -> None:
        for proxy in self._proxies:
            await proxy.stop()

    def cut(self) -> None:
        """Lose the way to all servers, and what is on it. In a cluster, nobody says any more where they are."""
        self._is_cut = True
        for proxy in self._proxies:
            proxy.cut()
        for shard in self._shards():
            shard.find = self._find_nothing  # type: ignore[method-assign]
            shard.feed.fail(BrokerUnavailable("on purpose"))

    def _shards(self) -> list[Shard]:
        links = self._running.layout.links if self._running is not None else []
        return [link for link in links if isinstance(link, Shard)]

    async def _find_nothing(self) -> tuple[str, int]:
        raise BrokerUnavailable("on purpose")

    def mend(self) -> None:
        """Find the way again."""
        self._is_cut = False
        for proxy in self._proxies:
            proxy.mend()
        for shard in self._shards():
            del shard.find


class ValkeyExchange:
    """See the module. The servers are those of all tests; a prefix keeps exchanges apart."""

    def __init__(self, url: str | None = None) -> None:
        self.url = url or server_url()
        self.prefix = fresh_prefix()
        self.brokers: list[CutBroker] = []
        self.made: list[Hub] = []
        self.clock: Callable[[], float] = lambda: 0.0
        self._set_to: float | None = None
        self._setting = asyncio.Lock()

    def broker(self) -> CutBroker:
        """Return the broker of one more node."""
        broker = CutBroker(self)
        self.brokers.append(broker)
        return broker

    def hubs(self, count: int, **settings: Any) -> list[Hub]:
        """Return hubs that are nodes of this exchange."""
        self.made += [Hub(broker=self.broker(), **settings) for _ in range(count)]
        return self.made

    def release(self) -> None:
        """Nothing is ever held."""

    async def set_time(self) -> None:
        """Have the server's leases be as old as the clock says, before anybody asks for more of it."""
        async with self._setting:  # else what is entered meanwhile would be made older too
            now = self.clock()
            passed = 0.0 if self._set_to is None else now - self._set_to
            self._set_to = now
            if passed > 0:
                for address in self._addresses():
                    made = Connections(address)
                    is_cluster = "+cluster" in self.url
                    await let_time_pass(made.client, self.prefix, passed, is_cluster=is_cluster)
                    await made.close()

    def _addresses(self) -> list[Address]:
        address = read_address(self.url)
        if address.is_cluster:
            ports = [server.port for server in shared_cluster().servers]
            address = address._replace(hosts=tuple(("127.0.0.1", port) for port in ports))
            return address._replace(is_cluster=False).of_hosts()
        return address.of_each()

    async def snapshot(self, room: str) -> Snapshot:
        """Return who is in a room."""
        return await self.brokers[0].presence(room)

    async def carried(self) -> None:
        """Wait until nothing is on its way, nor being asked about presence."""
        for _ in range(3):
            for hub in self.made:
                presence = core_of(hub).presence
                while presence._changed or any(roll.is_busy for roll in presence._rolls.values()):
                    await asyncio.sleep(0.001)
            for broker in self.brokers:
                await broker.arrived()
