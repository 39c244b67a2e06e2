"""The feed: what is wanted comes, again when the way was lost, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from hubbub import BrokerUnavailable
from hubbub.brokers.broker import RoomsRefused
from hubbub.brokers.nats_address import read_address
from hubbub.brokers.nats_connection import Connection
from hubbub.brokers.nats_feed import NatsFeed
from hubbub.brokers.nats_names import NatsNames
from nats_server import hurry, nats_url, server_with
from started_hub import until
from tcp_proxy import Proxy
from valkey_server import fresh_prefix

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


class Owner:
    """Whoever has a feed: it writes down what it is told."""

    def __init__(self) -> None:
        self.names = NatsNames(fresh_prefix())
        self.proxy = Proxy("127.0.0.1", int(nats_url().rpartition(":")[2]))
        self.taken: list[tuple[str | None, bytes]] = []
        self.told: list[str] = []
        self.refuses = False
        address = read_address(f"nats://127.0.0.1:{self.proxy.port}")
        self.feed = NatsFeed(
            address,
            self.names,
            self.take,
            self.check,
            lambda: self.told.append("lost"),
            lambda: self.told.append("back"),
        )

    def take(self, room: str | None, data: bytes, headers: Mapping[str, str]) -> None:
        self.taken.append((room, data))

    async def check(self, connection: Connection) -> None:
        self.told.append("checked")
        if self.refuses:
            raise BrokerUnavailable("none of ours")

    async def publish(self, room: str, text: bytes) -> None:
        self.feed.connection.publish(self.names.room(room), text)
        await self.feed.connection.ping()


@asynccontextmanager
async def feeding() -> AsyncIterator[Owner]:
    owner = Owner()
    await owner.proxy.start()
    await owner.feed.start()
    yield owner
    await owner.feed.stop()
    await owner.proxy.stop()


async def test_what_is_wanted_comes_and_nothing_else() -> None:
    async with feeding() as owner:
        feed = owner.feed
        await feed.subscribe(["red", "blue", ""])
        assert (feed.is_subscribed("red"), feed.is_subscribed("green")) == (True, False)
        for room in ("red", "green", "", "blue"):
            await owner.publish(room, room.encode())
        feed.unsubscribe(["red", "never"])
        await owner.publish("red", b"no")
        await feed.subscribe(["red"])
        await owner.publish("red", b"again")
        feed.connection.publish(owner.names.control, b"word")
        await feed.connection.ping()
        assert owner.taken == [
            ("red", b"red"),
            ("", b""),
            ("blue", b"blue"),
            ("red", b"again"),
            (None, b"word"),
        ]


async def test_when_the_way_was_lost_all_that_is_wanted_comes_again() -> None:
    async with feeding() as owner:
        feed = owner.feed
        await feed.subscribe([f"r{n}" for n in range(2500)])
        owner.proxy.cut()
        await until(lambda: not feed.is_up)
        with pytest.raises(BrokerUnavailable, match="the broker is away"):
            feed.subscribe(["late"])
        feed.unsubscribe(["r0"])
        assert not feed.is_subscribed("r1")
        owner.proxy.mend()
        await until(lambda: feed.is_up)
        for room in ("r0", "r1", "r2499", "late"):
            await owner.publish(room, room.encode())
        assert owner.taken == [("r1", b"r1"), ("r2499", b"r2499")]
        assert owner.told == ["checked", "lost", "checked", "back"]
        assert feed.connections == 2


async def test_who_waits_for_a_room_when_the_way_is_lost_is_told() -> None:
    async with feeding() as owner:
        asked = owner.feed.subscribe(["red"])
        owner.proxy.cut()
        with pytest.raises(BrokerUnavailable, match="away"):
            await asyncio.wait_for(asked, 10)
        await until(lambda: not owner.feed.is_up)
        owner.proxy.mend()
        await until(lambda: owner.feed.is_up)
        await owner.feed.subscribe(["red"])
        await owner.publish("red", b"1")
        assert owner.taken == [("red", b"1")], "asked for twice, it comes once"


async def test_a_refusal_leaves_a_room_alone_that_was_asked_for_again_meanwhile() -> None:
    def users(denied: str) -> str:
        rights = f'publish: ">", subscribe: {{ allow: ">", deny: "{denied}" }}'
        user = f"user: shop, password: word, permissions {{ {rights} }}"
        return f"authorization {{ users: [{{ {user} }}] }}"

    async def check(connection: Connection) -> None:
        """Refuse no connection."""

    names = NatsNames("t")
    taken: list[tuple[str | None, bytes]] = []
    async with server_with(users(names.room("red"))) as server:
        address = read_address(f"nats://shop:word@127.0.0.1:{server.port}")
        feed = NatsFeed(
            address,
            names,
            lambda room, data, _: taken.append((room, data)),
            check,
            lambda: None,
            lambda: None,
        )
        await feed.start()
        first = feed.subscribe(["red"])
        await asyncio.sleep(0)
        # Nothing is awaited until the server goes by other rights: so its refusal is read after that.
        server.wait_for_log("Subscription Violation")
        server.configure(users("elsewhere"))
        feed.unsubscribe(["red"])
        second = feed.subscribe(["red"])
        with pytest.raises(RoomsRefused):
            await first
        await second
        assert feed.is_subscribed("red")
        feed.connection.publish(names.room("red"), b"1")
        await feed.connection.ping()
        assert taken == [("red", b"1")]
        await feed.stop()


async def test_a_connection_that_is_refused_is_tried_again() -> None:
    async with feeding() as owner:
        owner.refuses = True
        owner.proxy.cut()
        await until(lambda: not owner.feed.is_up)
        owner.proxy.mend()
        await until(lambda: owner.told.count("checked") >= 3)
        assert not owner.feed.is_up
        owner.refuses = False
        await owner.feed.until_up()
        await until(lambda: owner.told[-1] == "back")


async def test_a_feed_that_cannot_begin_leaves_nothing() -> None:
    owner = Owner()
    await owner.proxy.start()
    owner.refuses = True
    with pytest.raises(BrokerUnavailable, match="none of ours"):
        await owner.feed.start()
    await owner.feed.stop()
    with pytest.raises(BrokerUnavailable):
        owner.feed.subscribe(["red"])
    await owner.proxy.stop()


async def test_who_waits_when_it_stops_is_told() -> None:
    async with feeding() as owner:
        asked = owner.feed.subscribe(["red"])
        await owner.feed.stop()
        with pytest.raises(BrokerUnavailable):
            await asked


async def test_it_stops_though_a_cancel_is_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the client library does when a wait is done at the same moment."""
    async with feeding() as owner:
        is_connecting = asyncio.Event()
        swallowed: list[bool] = []

        async def check(connection: Connection) -> None:
            is_connecting.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed.append(True)

        monkeypatch.setattr(owner.feed, "_check", check)
        owner.proxy.cut()
        await until(lambda: not owner.feed.is_up)
        owner.proxy.mend()
        await is_connecting.wait()
        await asyncio.wait_for(owner.feed.stop(), 20)
        assert swallowed == [True]
