"""Hubs on a real server that is killed, frozen, emptied, full: what members, publishers and stats are told.

What is the same on Valkey and on NATS is here for both; what only NATS has is in `test_nats_away.py`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from functools import partial

import pytest

import nats_server
from array_dialect import ArrayDialect, events_of
from broker_hubs import GAP, RULES, hubs_on, member, rows, state, texts
from hubbub import AsyncPublisher, BrokerUnavailable, CommandError, Hub, Position
from hubbub.asgi.metrics import HubCollector
from hubbub.brokers import nats_format, reconnecting, unanswered, valkey_link
from hubbub.hub import interest as interest_module
from hubbub.hub import lifecycle as lifecycle_module
from hubbub.hub import presence as presence_module
from hubbub.hub import presence_roll
from hubbub.hub import rules as rules_module
from hubbub.testing import MemoryClient, connect
from nats_exchange import NatsExchange
from started_hub import until
from valkey_exchange import ValkeyExchange
from valkey_server import Server, hurry, mended_server, own_server

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

AnyServer = Server | nats_server.NatsServer

one_server, server = own_server, mended_server
nats = nats_server.own_server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    nats_server.hurry(monkeypatch)


@pytest.fixture(params=["server", "nats"])
def either(request: pytest.FixtureRequest) -> AnyServer:
    """A server of Valkey, and one of NATS."""
    found: AnyServer = request.getfixturevalue(request.param)
    return found


async def test_a_server_that_is_killed_and_comes_back(either: AnyServer) -> None:
    """Clients stay, publishers wait, rooms that remember are whole, members of others are told."""
    async with hubs_on(either.url) as (here, there):
        log, news = await member(here, "log"), await member(here, "news")
        other = await member(there, "log", "news")
        speaks = connect(there, dialect=ArrayDialect())
        speaks.send('["connect", 1]')
        speaks.send('["subscribe", 2, "news"]')
        await until(lambda: ["ok", 2] in events_of(speaks.received))
        await here.publish("log", "1")
        await until(lambda: texts(log) == texts(other) == ["1"])
        either.kill()
        await until(state(here, "away"))
        await until(state(there, "away"))
        waiting = [asyncio.create_task(hub.publish("log", "2")) for hub in (here, there)]
        here.room("log").broadcast("2")
        await until(lambda: here.stats()["broker_waiting"] == 2)
        await asyncio.to_thread(either.restart)
        receipts = await asyncio.gather(*waiting)
        await until(state(here, "up"))
        await until(state(there, "up"))
        assert sorted(each.position.offset for each in receipts if each.position) in (
            [2, 3],
            [2, 4],
            [3, 4],
        )
        await until(lambda: min(len(texts(log)), len(texts(other))) >= 4)
        assert texts(log) == texts(other) == ["1", "2", "2", "2"]
        await until(lambda: GAP in rows(news) and GAP in rows(other))
        await until(lambda: ["server_unsubscribed", "news", "gap"] in events_of(speaks.received))
        assert [peer.closed for peer in (log, news, other, speaks)] == [None] * 4
        assert here.stats()["broker_gaps"] == there.stats()["broker_gaps"] == 1
        await there.publish("news", "3")
        await until(lambda: texts(news) == ["3"])


async def test_a_server_that_has_forgotten_all_when_it_is_back_begins_one_epoch_and_no_more(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """One hub publishes, the other only reads: both must see that the server has started again."""
    server = Server(tmp_path_factory.mktemp("forgetful"), appendonly="no", save="")
    try:
        async with hubs_on(server.url) as (reads, writes):
            peer = await member(reads, "log")
            before = (await writes.publish("log", "1")).position
            await until(lambda: texts(peer) == ["1"])
            server.kill()
            await until(state(reads, "away"))
            await until(state(writes, "away"))
            await asyncio.to_thread(server.restart)
            await until(state(reads, "up"))
            await until(state(writes, "up"))
            first = (await writes.publish("log", "2")).position
            kept = await reads.history("log")
            second = (await writes.publish("log", "3")).position
            assert before is not None
            assert first is not None
            assert kept.position == first
            assert second == Position(2, first.epoch)
            assert first.epoch != before.epoch
            await until(lambda: texts(peer)[-1:] == ["3"])
            # What came before the hub knew where the new history stands is before the gap that it told.
            assert texts(peer) in (["1", "2", "3"], ["1", "3"])
            assert {"type": "gap", "room": "log"} in rows(peer)
    finally:
        server.stop()


async def test_a_server_that_does_not_come_back_in_time_is_told_to_who_publishes(
    either: AnyServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(unanswered, "WAIT_S", 0.1)
    async with hubs_on(either.url, 1) as (hub,):
        peer = await member(hub, "log")
        either.kill()
        await until(state(hub, "away"))
        for room in ("log", "news"):
            with pytest.raises(BrokerUnavailable, match="the broker is away"):
                await hub.publish(room, "lost")
        hub.broadcast("lost too")
        await until(lambda: "a broadcast failed: the broker is away" in caplog.text)
        assert hub.stats()["broker_waiting"] == 0
        monkeypatch.setattr(unanswered, "WAIT_S", 5.0)
        await asyncio.to_thread(either.restart)
        await until(state(hub, "up"))
        await hub.publish("log", "1")
        await until(lambda: texts(peer) == ["1"])


def measured(hub: Hub) -> dict[str, float]:
    """Return what a scrape says of a hub's broker, without the beginning of the names."""
    start = "hubbub_broker_"
    return {
        sample.name.removeprefix(start): sample.value
        for family in HubCollector({"": hub}).collect()
        for sample in family.samples
        if sample.name.startswith(start)
    }


async def test_metrics_say_how_the_broker_is_and_what_waits_for_it(either: AnyServer) -> None:
    async with hubs_on(either.url, 1) as (hub,):
        await member(hub, "log")
        await hub.publish("log", "1")
        await until(lambda: measured(hub).get("lag_seconds", 0) > 0)
        up = measured(hub)
        assert (up["up"], up["waiting_messages"], up["waiting_bytes"]) == (1, 0, 0)
        either.kill()
        await until(state(hub, "away"))
        waiting = [asyncio.create_task(hub.publish("log", "x" * 1000)) for _ in range(3)]
        await until(lambda: measured(hub)["waiting_messages"] == 3)
        away = measured(hub)
        assert (away["up"], away["gaps_total"]) == (0, 0)
        assert 3000 < away["waiting_bytes"] < 6000
        await asyncio.to_thread(either.restart)
        await asyncio.gather(*waiting)
        await until(state(hub, "up"))
        back = measured(hub)
        assert (back["up"], back["waiting_messages"], back["waiting_bytes"]) == (1, 0, 0)
        assert back["gaps_total"] == 1


async def test_a_server_that_is_away_is_tried_without_end(
    either: AnyServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The library of NATS has a limit of its own, sixty tries for each server, which must not hold here."""
    monkeypatch.setattr(reconnecting, "LONGEST_DELAY_S", 0.002)
    caplog.set_level(logging.DEBUG, "hubbub")
    async with hubs_on(either.url, 1) as (hub,):
        peer = await member(hub, "log")
        either.kill()
        await until(lambda: caplog.text.count("the broker cannot be reached") > 70)
        await asyncio.to_thread(either.restart)
        await until(state(hub, "up"))
        await hub.publish("log", "1")
        await until(lambda: texts(peer) == ["1"])
        assert peer.closed is None


def ask_for(server: AnyServer, password: str, before: str | None) -> None:
    """Have a server ask for a password from now on, who is connected by another (None: by none) too."""
    if isinstance(server, nats_server.NatsServer):
        server.configure(f'authorization {{ user: default, password: "{password}" }}')
        return
    server.command("CONFIG", "SET", "requirepass", password, password=before)
    for kind in ("normal", "pubsub"):
        server.command("CLIENT", "KILL", "TYPE", kind, password=password)


async def test_no_log_and_no_error_has_what_a_hub_logs_in_with(
    either: AnyServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its password is wrong for a while, and then its server is gone; the logs of libraries are looked at too."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(unanswered, "WAIT_S", 0.3)
    own, other = "held-by-the-hub", "changed-meanwhile"
    url = either.url.replace("://", f"://default:{own}@")
    said = []
    ask_for(either, own, None)
    async with hubs_on(url, 1) as (hub,):
        peer = await member(hub, "log")
        ask_for(either, other, own)
        await until(state(hub, "away"))
        await until(lambda: caplog.text.count("the broker cannot be reached") >= 3)
        assert "the server refuses the user" in caplog.text
        for verb in (Hub(broker=url).start, partial(hub.publish, "log", "refused")):
            with pytest.raises(BrokerUnavailable) as caught:
                await verb()
            said += [str(caught.value), repr(caught.value.__cause__)]
        ask_for(either, own, other)
        await until(state(hub, "up"))
        monkeypatch.setattr(unanswered, "WAIT_S", 5.0)
        await hub.publish("log", "1")
        await until(lambda: texts(peer) == ["1"])
        either.kill()
        await until(state(hub, "away"))
        with pytest.raises(BrokerUnavailable, match="cannot be used") as caught:
            await Hub(broker=url).start()
        said += [str(caught.value), str(hub.stats()), repr(hub), caplog.text]
    assert [word for word in (own, other) for text in said if word in text] == []


async def test_a_server_that_is_frozen_for_a_moment_loses_nothing(either: AnyServer) -> None:
    async with hubs_on(either.url) as (here, there):
        peer = await member(there, "log", "news")
        either.freeze()
        await until(state(here, "silent"))
        await until(state(there, "silent"))
        waiting = asyncio.create_task(here.publish("log", "1"))
        either.thaw()
        assert (await waiting).position is not None
        await until(lambda: texts(peer) == ["1"])
        await until(state(here, "up"))
        assert here.stats()["broker_gaps"] == 0
        assert len(peer.received) == 1


async def test_a_server_that_was_emptied_begins_a_new_epoch_and_everybody_is_told(
    server: Server,
) -> None:
    async with hubs_on(server.url) as hubs:
        peers = [
            await member(hub, "log", "news", "who", user=f"u{n}") for n, hub in enumerate(hubs)
        ]
        first = (await hubs[0].publish("log", "1")).position
        await until(lambda: all(texts(peer) == ["1"] for peer in peers))
        server.command("FLUSHALL")
        gaps = [{"type": "gap", "room": room} for room in ("log", "news", "")]
        await until(lambda: all(gap in rows(peer) for peer in peers for gap in gaps))
        second = (await hubs[1].publish("log", "2")).position
        assert first is not None
        assert second is not None
        assert (second.offset, second.epoch != first.epoch) == (1, True)
        await until(lambda: all(texts(peer) == ["1", "2"] for peer in peers))
        assert [peer.closed for peer in peers] == [None, None]


async def test_a_server_without_memory_is_told_to_who_publishes(server: Server) -> None:
    async with hubs_on(server.url, 1) as (hub,):
        peer = await member(hub, "log", "news")
        server.command("CONFIG", "SET", "maxmemory", "1mb")
        with pytest.raises(BrokerUnavailable, match="no memory left"):
            await hub.publish("log", "refused")
        await hub.publish("news", "1")
        server.command("CONFIG", "SET", "maxmemory", "0")
        await hub.publish("log", "2")
        await until(lambda: texts(peer) == ["1", "2"])
        assert hub.stats()["broker_gaps"] == 0


async def test_a_hub_starts_on_a_server_without_memory_and_leaves_its_rules_there_later(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lifecycle_module, "SHARE_S", 0.02)
    server.command("CONFIG", "SET", "maxmemory", "1mb")
    async with hubs_on(server.url, 1) as (hub,):
        peer = await member(hub, "news")
        await hub.publish("news", "1")
        with pytest.raises(CommandError, match="try again later"):
            await peer.client.subscribe("log")
        tried = server.refusals()
        await until(lambda: server.refusals() >= tried + 3)
        warnings = [row for row in caplog.messages if "rules of rooms could not be shared" in row]
        assert len(warnings) == 1
        assert "no memory left" in warnings[0]
        server.command("CONFIG", "SET", "maxmemory", "0")
        await peer.client.subscribe("log")
        async with AsyncPublisher(server.url, room_rules=RULES) as own:
            await own.publish("log", "2")
        await until(lambda: server.command("EXISTS", "hubbub:note:room_rules") == 1)
        async with AsyncPublisher(server.url) as publisher:
            assert (await publisher.publish("log", "3")).position is not None
        await until(lambda: texts(peer) == ["1", "2", "3"])


async def test_a_server_that_has_become_a_replica_takes_nothing_and_is_left(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    primary = Server(tmp_path_factory.mktemp("primary"))
    try:
        async with hubs_on(server.url, 1) as (hub,):
            peer = await member(hub, "news")
            server.command("REPLICAOF", "127.0.0.1", primary.port)
            await until(state(hub, "away"))
            server.command("REPLICAOF", "NO", "ONE")
            await until(state(hub, "up"))
            await hub.publish("news", "1")
            await until(lambda: texts(peer) == ["1"])
            assert hub.stats()["broker_gaps"] >= 1
    finally:
        primary.stop()


async def test_a_worker_of_a_version_that_writes_another_form_is_refused_and_told_why(
    either: AnyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hubs_on(either.url, 1) as (hub,):
        peer = await member(hub, "log")
        with monkeypatch.context() as newer:
            for module in (valkey_link, nats_format):
                newer.setattr(module, "FORMAT", "2")
            late = Hub(broker=either.url, room_rules=RULES)
            with pytest.raises(BrokerUnavailable, match="writes format 1, and this one writes 2"):
                await late.start()
        await hub.publish("log", "1")
        await until(lambda: texts(peer) == ["1"])
        if isinstance(either, Server):
            assert 0 < either.command("PTTL", "hubbub:format") <= 15_000


async def test_a_worker_that_finds_another_form_on_its_server_leaves_it_until_that_has_gone(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with hubs_on(server.url, 1) as (hub,):
        peer = await member(hub, "log")
        caplog.set_level(logging.DEBUG, "hubbub")
        server.command("SET", "hubbub:format", "2")
        await until(lambda: caplog.text.count("cannot be reached: other processes") >= 3)
        assert caplog.text.count("is lost: other processes there have a version") == 1
        assert "writes format 2, and this one writes 1" in caplog.text
        assert "the connection to the broker is there again" not in caplog.text
        assert state(hub, "away")()
        server.command("DEL", "hubbub:format")
        await until(state(hub, "up"))
        await hub.publish("log", "1")
        await until(lambda: texts(peer) == ["1"])
        assert peer.closed is None


@pytest.mark.parametrize("make", [ValkeyExchange, NatsExchange])
async def test_one_worker_whose_way_to_the_server_is_cut_is_brought_up_to_date(
    make: type[ValkeyExchange], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interest_module, "RETRY_S", 0.05)
    exchange = make()
    here, there = hubs = exchange.hubs(2, room_rules=RULES)
    for hub in hubs:
        await hub.start()
    log, news = await member(here, "log"), await member(here, "news")
    other = await member(there, "log", "news")
    exchange.brokers[0].cut()
    await until(state(here, "away"))
    with pytest.raises(CommandError, match="try again later"):
        await news.client.subscribe("late")
    news.client.join("late")
    for number in range(50):
        await there.publish("log", str(number))
        await there.publish("news", "not heard here")
    assert texts(log) == texts(news) == []
    exchange.brokers[0].mend()
    await until(state(here, "up"))
    await until(lambda: texts(log) == [str(number) for number in range(50)])
    await until(lambda: GAP in rows(news))
    assert texts(news) == rows(other) == []
    await until(lambda: there.stats()["broker_gaps"] == 0 and here.stats()["broker_gaps"] == 1)
    while (await there.publish("late", "1")) and not texts(news):
        await asyncio.sleep(0.01)
    assert texts(other) == [each for n in range(50) for each in (str(n), "not heard here")]
    assert [peer.closed for peer in (log, news, other)] == [None] * 3
    for hub in hubs:
        await hub.stop()


class Worker:
    """A hub in a thread of its own, whose event loop can be stopped for a while."""

    def __init__(self, url: str) -> None:
        self.hub = Hub(broker=url, room_rules=RULES)
        self.peer: MemoryClient | None = None
        self._goes_on = threading.Event()
        self._is_there = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._ends = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    async def _run(self) -> None:
        await self.hub.start()
        self.peer = await member(self.hub, "log", "who", user="ann")
        self._is_there.set()
        await self._ends.wait()
        await self.hub.stop()

    def start(self) -> None:
        """Have a client named ann there."""
        self._thread.start()
        assert self._is_there.wait(10)

    def stand_still(self) -> None:
        """Stop the loop, until `go_on`."""
        self._loop.call_soon_threadsafe(self._goes_on.wait)

    def go_on(self) -> None:
        """Let the loop turn again."""
        self._goes_on.set()

    def stop(self) -> None:
        """Stop the hub, and the thread."""
        self.go_on()
        self._loop.call_soon_threadsafe(self._ends.set)
        self._thread.join(10)
        self._loop.close()


async def test_a_worker_whose_loop_stood_still_for_longer_than_its_lease_comes_back_right(
    either: AnyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules_module, "LEASE_S", 0.6)
    monkeypatch.setattr(presence_roll, "RENEW_S", 0.2)
    monkeypatch.setattr(presence_module, "LOOK_S", 0.05)
    worker = Worker(either.url)
    async with hubs_on(either.url, 1) as (hub,):
        bob = await member(hub, "who", user="bob")
        await asyncio.to_thread(worker.start)
        try:
            await shown(hub, {"ann", "bob"})
            worker.stand_still()
            await shown(hub, {"bob"})
            for number in range(50):
                await hub.publish("log", str(number))
            worker.go_on()
            await shown(hub, {"ann", "bob"})
            assert worker.peer is not None
            peer = worker.peer
            await until(lambda: texts(peer) == [str(number) for number in range(50)])
            assert peer.closed is None
            await until(lambda: changes(bob, "ann") == ["joined", "left", "joined"])
        finally:
            await asyncio.to_thread(worker.stop)


def changes(peer: MemoryClient, user: str) -> list[str]:
    """Return what a plain client was told of a user: "joined" or "left"."""
    return [
        kind
        for row in rows(peer)
        for kind in ("joined", "left")
        if any(info["user"] == user for info in row.get(kind, ()))
    ]


async def shown(hub: Hub, users: set[str]) -> None:
    """Wait until these are in the room of whom it is known who is there."""
    async with asyncio.timeout(10):
        while {info.user for info in (await hub.presence("who")).values()} != users:
            await asyncio.sleep(0.01)
