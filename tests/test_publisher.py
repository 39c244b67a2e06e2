"""Publishing from processes that serve no clients, on the exchange double and on a real server."""

from __future__ import annotations

import asyncio
import gc
import inspect
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from commands import clean_environment
from exchange import Exchange, carried, cluster
from hubbub import (
    AsyncPublisher,
    BrokerUnavailable,
    CommandError,
    Hub,
    PublishedInPart,
    Publisher,
    Receipt,
    RoomRules,
    SettingsError,
)
from hubbub import publisher as publisher_module
from hubbub.hub import lifecycle as lifecycle_module
from hubbub.hub.core import core_of
from hubbub.testing import connect, settle
from hubbub.wire.publication import Publication
from local_exchange import local_name
from nats_server import nats_url
from serving import held_port
from started_hub import until
from valkey_server import fresh_prefix, server_url

pytestmark = pytest.mark.anyio

RULES = [
    RoomRules("chat:*", history=10, presence=True),
    RoomRules("text:*", stream=True, history=10),
]


@asynccontextmanager
async def publishing(exchange: Exchange) -> AsyncIterator[tuple[Hub, AsyncPublisher]]:
    async with (
        cluster(exchange, 1, room_rules=RULES) as (hub,),
        AsyncPublisher(exchange.broker()) as publisher,
    ):
        yield hub, publisher


async def test_it_goes_by_the_rules_of_the_hubs() -> None:
    exchange = Exchange()
    async with publishing(exchange) as (hub, publisher):
        ann = connect(hub, user="ann")
        await ann.client.subscribe("chat:1")
        receipt = await publisher.publish("chat:1", {"n": 1}, key="one")
        assert (receipt.delivered_to, receipt.is_repeated) == (0, False)
        assert receipt.position == await hub.cursor("chat:1")
        assert (await publisher.publish("chat:1", {"n": 1}, key="one")).is_repeated
        assert (await publisher.publish("plain", "nobody")).position is None
        receipts = await publisher.publish_many([("chat:1", "2"), ("chat:1", "3")])
        offsets = [each.position and each.position.offset for each in receipts]
        assert offsets == [2, 3]
        await carried(exchange)
        await settle(hub)
        assert ann.received == ['{"n":1}', "2", "3"]
        kept = await publisher.history("chat:1", limit=2, reverse=True)
        assert [each.data for each in kept] == [b"3", b"2"]
        assert await publisher.cursor("chat:1") == await hub.cursor("chat:1")
        with pytest.raises(CommandError):
            await publisher.publish("text:1", "no message")


async def test_a_user_without_a_name_in_utf_8_is_an_error() -> None:
    async with publishing(Exchange()) as (_, publisher):
        for verb in (publisher.to_user("\ud800", "x"), publisher.disconnect("\ud800")):
            with pytest.raises(ValueError, match="half of a surrogate pair"):
                await verb


async def test_it_reaches_everybody_and_users_and_closes_them() -> None:
    exchange = Exchange()
    async with publishing(exchange) as (hub, publisher):
        ann, bob = connect(hub, user="ann"), connect(hub, user="bob", client_id="tab")
        ann.client.join("chat:1")
        await carried(exchange)
        await publisher.to_user("ann", "for ann")
        await publisher.broadcast("for all")
        await until(lambda: ann.received == ["for ann", "for all"])
        await until(lambda: bob.received == ["for all"])
        assert {each.user for each in (await publisher.presence("chat:1")).values()} == {"ann"}
        assert (await publisher.presence_stats("chat:1")).clients == 1
        (node,) = await publisher.nodes(wait_s=0.05)
        assert (node.id, node.clients) == (core_of(hub).node_id, 2)
        await publisher.disconnect("ann", 4001, "away with you")
        await publisher.kick("tab")
        await until(lambda: ann.closed is not None and bob.closed is not None)
        assert ann.closed is not None
        assert (ann.closed.code, ann.closed.reason) == (4001, "away with you")
        with pytest.raises(ValueError, match="code"):
            await publisher.disconnect("ann", 1)


async def test_without_a_hub_ever_it_says_so_and_rules_of_ones_own_are_taken() -> None:
    exchange = Exchange()
    publisher = AsyncPublisher(exchange.broker())
    with pytest.raises(BrokerUnavailable, match="no hub has been on this broker"):
        await publisher.publish("chat:1", "lost?")
    async with AsyncPublisher(exchange.broker(), room_rules=RULES) as other:
        assert (await other.publish("chat:1", "kept")).position is not None
    async with cluster(exchange, 1, room_rules=RULES) as (hub,):
        assert len((await hub.history("chat:1")).publications) == 1
        assert (await publisher.publish("chat:1", "kept too")).position is not None
    await publisher.close()
    await publisher.close()


async def test_while_the_broker_is_away_no_verb_does_as_if_it_had_been_asked() -> None:
    exchange = Exchange()
    async with publishing(exchange) as (_, publisher):
        exchange.brokers[1].cut()
        for verb in (
            publisher.nodes(wait_s=0.0),
            publisher.rooms(wait_s=0.0),
            publisher.disconnect("ann"),
            publisher.kick("tab"),
        ):
            with pytest.raises(BrokerUnavailable):
                await verb


async def test_rules_that_change_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = Exchange()
    async with cluster(exchange, 1), AsyncPublisher(exchange.broker()) as publisher:
        assert (await publisher.publish("chat:1", "1")).position is None
        async with cluster(exchange, 1, room_rules=RULES):
            assert (await publisher.publish("chat:1", "2")).position is None
            monkeypatch.setattr(publisher_module, "RULES_S", -1.0)
            assert (await publisher.publish("chat:1", "3")).position is not None


async def test_what_the_broker_has_forgotten_the_hubs_tell_it_again() -> None:
    exchange = Exchange()
    async with cluster(exchange, 1, room_rules=RULES) as (hub,):
        before = dict(exchange.notes)
        exchange.notes.clear()
        broker = exchange.brokers[0]
        broker.cut()
        broker.mend()
        await until(lambda: exchange.notes == before)
        assert hub.stats()["broker_gaps"] == 1


async def test_it_writes_no_rules_and_keeps_those_it_knows_when_they_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exchange = Exchange()
    async with publishing(exchange) as (_, publisher):
        before = dict(exchange.notes)
        async with AsyncPublisher(exchange.broker(), room_rules=[RoomRules("other")]) as own:
            await own.publish("other", "1")
        assert exchange.notes == before
        monkeypatch.setattr(publisher_module, "RULES_S", -1.0)
        for text in (b"[{}]", b"no JSON", b'[{"pattern": "chat:*", "newer": 1}]'):
            exchange.notes["room_rules"] = text
            assert (await publisher.publish("chat:1", "kept")).position is not None
            with pytest.raises(BrokerUnavailable, match="may be of a newer version"):
                await AsyncPublisher(exchange.broker()).publish("chat:1", "not known")


async def test_much_at_once_waits_for_room_and_what_never_fits_says_so() -> None:
    prefix, server = fresh_prefix(), server_url()
    async with AsyncPublisher(server, prefix=prefix, room_rules=[]) as publisher:
        many = [("all", "x" * 16_800)] * 1000  # more than may wait for the broker
        assert len(await publisher.publish_many(many)) == 1000
        each = await asyncio.gather(*(publisher.publish("all", data) for _, data in many))
        assert len(each) == 1000
        with pytest.raises(CommandError, match="and the broker takes 16777216"):
            await publisher.broadcast("z" * 17 * 1024**2)
        core_of(publisher._hub).publishing.broadcast("all", "z" * 17 * 1024**2)
        await publisher.publish("all", "after")


async def test_hubs_leave_their_rules_there_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle_module, "SHARE_S", 0.01)
    exchange = Exchange()
    async with cluster(exchange, 1, room_rules=RULES):
        before = dict(exchange.notes)
        exchange.notes["room_rules"] = b""  # by a hub without rules that has gone
        await until(lambda: exchange.notes == before)


async def test_the_first_verbs_may_come_at_once_and_many_at_once() -> None:
    exchange = Exchange()
    async with cluster(exchange, 1, room_rules=[RoomRules("*", history=10_000)]):
        publisher = AsyncPublisher(exchange.broker())
        done = await asyncio.gather(*(publisher.publish("all", str(n)) for n in range(5)))
        assert all(each.position is not None for each in done)
        many = await publisher.publish_many(("all", str(n)) for n in range(2500))
        offsets = [each.position.offset for each in many if each.position]
        assert offsets == list(range(6, 2506))
        await publisher.close()


async def test_many_that_are_taken_in_part_say_which(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Exchange().broker()
    publish, calls = broker.publish, iter(range(2500))

    def fails_later(publication: Publication) -> asyncio.Future[Receipt]:
        if next(calls) in (1200, 1300):
            raise BrokerUnavailable("it has gone")
        return publish(publication)

    monkeypatch.setattr(broker, "publish", fails_later)
    publisher = AsyncPublisher(broker, room_rules=[])
    with pytest.raises(PublishedInPart, match=r"^it has gone \(1998 of 2000 that") as caught:
        await publisher.publish_many(("all", str(n)) for n in range(2500))
    missing = [n for n, each in enumerate(caught.value.receipts) if each is None]
    assert (missing, len(caught.value.receipts)) == ([1200, 1300], 2000)
    assert str(caught.value.__cause__) == "it has gone"
    with pytest.raises(TypeError) as wrong:
        await publisher.publish_many([("all", "1"), ("all", object())])
    assert wrong.value.__notes__ == ["1 of 2 messages that were tried are published"]
    await publisher.close()


def test_many_that_take_too_long_say_which_were_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Exchange().broker()
    publish, calls = broker.publish, iter(range(2000))

    def stays_away_later(publication: Publication) -> asyncio.Future[Receipt]:
        if next(calls) < 1000:
            return publish(publication)
        return asyncio.get_running_loop().create_future()

    monkeypatch.setattr(broker, "publish", stays_away_later)
    publisher = Publisher("valkey://localhost", timeout_s=2.0)
    publisher._make = lambda: AsyncPublisher(broker, room_rules=[])
    with publisher, pytest.raises(PublishedInPart, match="within 2 seconds") as caught:
        publisher.publish_many(("all", str(n)) for n in range(2500))
    receipts = caught.value.receipts
    assert [each is None for each in receipts] == [False] * 1000 + [True] * 1000


@pytest.mark.parametrize("make", [AsyncPublisher, Publisher])
def test_what_reaches_nobody_is_refused(make: type[Publisher] | type[AsyncPublisher]) -> None:
    for url in (None, "memory://"):
        with pytest.raises(ValueError, match="needs a broker that other processes share"):
            make(url)
    with pytest.raises(SettingsError, match="no scheme"):
        make("valky://:secret@host")
    assert "secret" not in repr(make("valkey://:secret@host"))


# Without an event loop


def verbs_of(publisher: type) -> dict[str, inspect.Signature]:
    """Return the verbs of a publisher, without that which only a program with an event loop needs."""
    named = {name: each for name, each in vars(publisher).items() if not name.startswith("_")}
    return {name: inspect.signature(each) for name, each in named.items() if name != "connect"}


def test_both_have_the_same_verbs_with_the_same_arguments() -> None:
    assert verbs_of(Publisher) == verbs_of(AsyncPublisher)


SHARED: dict[str, Callable[[], str]] = {
    "valkey": server_url,
    "nats": nats_url,
    "local": lambda: f"local://{local_name()}",
}


@pytest.mark.parametrize("name", SHARED)
async def test_each_verb_does_its_work_on_each_broker_that_is_shared(name: str) -> None:
    url, prefix = SHARED[name](), fresh_prefix()
    hub = Hub(broker=url, broker_prefix=prefix, room_rules=RULES)
    await hub.start()
    ann, bob = connect(hub, user="ann"), connect(hub, user="bob", client_id="tab")
    await ann.client.subscribe("chat:1")

    def publish(publisher: Publisher) -> None:
        first = publisher.publish("chat:1", "1", key="one")
        assert not first.is_repeated
        assert publisher.publish("chat:1", "1", key="one").is_repeated
        many = publisher.publish_many([("chat:1", "2"), ("chat:1", "3")])
        assert first.position is not None
        assert [each.position and each.position.offset for each in many] == [2, 3]
        assert publisher.cursor("chat:1") == many[1].position
        newer = publisher.history("chat:1", since=first.position, limit=1)
        assert [each.data for each in newer] == [b"2"]
        publisher.to_user("ann", "for ann")
        publisher.broadcast("for all")

    def ask(publisher: Publisher) -> None:
        assert [each.user for each in publisher.presence("chat:1").values()] == ["ann"]
        stats = publisher.presence_stats("chat:1")
        assert (stats.clients, stats.users) == (1, 1)
        answered(lambda: publisher.rooms("chat:*", wait_s=0.2) == {"chat:1": 1})
        answered(lambda: [n.clients for n in publisher.nodes(wait_s=0.2)] == [2])
        publisher.disconnect("ann", 4001, "away with you")
        publisher.kick("tab", 4002)

    with Publisher(url, prefix=prefix) as publisher:
        await asyncio.to_thread(publish, publisher)
        await until(lambda: len(ann.received) == 5 and bob.received == ["for all"])
        assert sorted(map(str, ann.received)) == ["1", "2", "3", "for all", "for ann"]
        async with asyncio.timeout(10):
            while not await hub.presence("chat:1"):
                await asyncio.sleep(0.01)
        await asyncio.to_thread(ask, publisher)
        await until(lambda: ann.closed is not None and bob.closed is not None)
        await asyncio.to_thread(publisher.close)
    closed = [peer.closed and (peer.closed.code, peer.closed.reason) for peer in (ann, bob)]
    assert closed == [(4001, "away with you"), (4002, "")]
    await hub.stop()


def answered(holds: Callable[[], bool]) -> None:
    """Ask again where a hub that has much to do has answered too late."""
    assert any(holds() for _ in range(50))


async def test_a_thread_in_which_an_event_loop_runs_may_call_it() -> None:
    """So does a cell of a notebook."""
    rules = [RoomRules("*", history=10)]
    with Publisher(server_url(), prefix=fresh_prefix(), room_rules=rules) as publisher:
        later = asyncio.create_task(asyncio.sleep(0, "later"))
        positions = [publisher.publish("all", text).position for text in ("1", "2")]
        assert [each and each.offset for each in positions] == [1, 2]
        assert [each.data for each in publisher.history("all")] == [b"1", b"2"]
        with pytest.raises(CommandError):
            publisher.presence("all")
        assert not later.done()
    assert await later == "later"


async def test_threads_and_event_loops_publish_in_the_order_of_each() -> None:
    """One publisher for all: threads, threads whose own event loop runs, and this thread with its tasks beside it."""
    url = f"{server_url()}?prefix={fresh_prefix()}"
    hub = Hub(broker=url, room_rules=[RoomRules("*", history=1000)])
    await hub.start()

    def work(publisher: Publisher, name: str) -> None:
        for number in range(20):
            publisher.publish("all", f"{name} {number}")

    async def cell(publisher: Publisher, name: str) -> None:
        """As in a notebook: the verb waits, and the loop that runs does with it."""
        work(publisher, name)

    def works() -> None:
        with Publisher(url) as publisher:
            threads = [
                threading.Thread(target=work, args=(publisher, "a")),
                threading.Thread(target=work, args=(publisher, "b")),
                *(
                    threading.Thread(target=asyncio.run, args=(cell(publisher, name),))
                    for name in ("c", "d")
                ),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            publisher.close()
            assert publisher.publish("all", "after the end").position is not None

    async def tasks() -> None:
        async with AsyncPublisher(url) as publisher:
            for number in range(20):
                await publisher.publish("all", f"e {number}")

    await asyncio.gather(asyncio.to_thread(works), tasks())
    kept = [each.data.decode() for each in (await hub.history("all")).publications]
    assert len(kept) == 5 * 20 + 1
    for name in "abcde":
        own = [text for text in kept if text.startswith(f"{name} ")]
        assert own == [f"{name} {number}" for number in range(20)]
    assert "after the end" in kept
    await hub.stop()


FORKED = """
import os, sys
from hubbub import Publisher

publisher = Publisher(sys.argv[1], room_rules=[])
publisher.publish("all", "parent")
child = os.fork()
publisher.publish("all", "child" if child == 0 else "parent again")
if child == 0:
    os._exit(0)
_, status = os.waitpid(child, 0)
publisher.publish("all", "parent at last")
sys.exit(status)
"""


async def test_a_fork_connects_by_itself_and_hurts_its_parent_nothing() -> None:
    url = f"{server_url()}?prefix={fresh_prefix()}"
    hub = Hub(broker=url)
    await hub.start()
    peer = connect(hub)
    await peer.client.subscribe("all")
    command = [sys.executable, "-W", "error", "-c", FORKED, url]
    done = await asyncio.to_thread(
        subprocess.run, command, env=clean_environment(), capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stderr) == (0, "")
    await until(lambda: len(peer.received) == 4)
    assert sorted(map(str, peer.received)) == ["child", "parent", "parent again", "parent at last"]
    await hub.stop()


def test_a_server_that_is_not_there_or_does_not_answer_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"valkey://127.0.0.1:{silent.getsockname()[1]}"
        publisher = Publisher(url, room_rules=[], timeout_s=0.3)
        with pytest.raises(BrokerUnavailable, match=r"not answered within 0\.3 seconds"):
            publisher.publish("all", "hello")
        publisher.close()
    with held_port() as port:
        publisher = Publisher(f"valkey://127.0.0.1:{port}", room_rules=[])
        with pytest.raises(BrokerUnavailable, match="cannot be used"):
            publisher.publish("all", "hello")
        publisher.close()


async def test_one_that_is_dropped_or_closed_leaves_nothing_and_nobody_waiting() -> None:
    url = f"{server_url()}?prefix={fresh_prefix()}"

    def drop() -> None:
        for _ in range(3):
            Publisher(url, room_rules=[]).publish("all", "hello")
        gc.collect()
        names = [thread.name for thread in threading.enumerate()]
        assert "hubbub publisher" not in names

    await asyncio.to_thread(drop)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slow = Publisher(
            f"valkey://127.0.0.1:{silent.getsockname()[1]}", room_rules=[], timeout_s=30
        )
        verb = asyncio.create_task(asyncio.to_thread(slow.publish, "all", "hello"))
        while slow._worker is None or not any(
            task.get_name() == publisher_module.VERB
            for task in asyncio.all_tasks(slow._worker._loop)
        ):
            await asyncio.sleep(0.01)
        await asyncio.to_thread(slow.close)
        with pytest.raises(BrokerUnavailable, match="was closed meanwhile"):
            await verb


def test_the_end_of_a_program_is_quiet() -> None:
    url = f"{server_url()}?prefix={fresh_prefix()}"
    text = "import sys; from hubbub import Publisher; p = Publisher(sys.argv[1], room_rules=[]); p.publish('a', 'b')"
    command = [sys.executable, "-W", "error", "-c", text, url]
    done = subprocess.run(
        command, env=clean_environment(), capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stderr) == (0, "")
