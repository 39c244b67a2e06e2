"""Layout: each process chooses the same server for a room, and one more server moves few of them."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from broker_node import KEEP, Node, is_away, is_up, message, running
from hubbub import BrokerUnavailable, ClientInfo, Hub
from hubbub.brokers import unanswered
from hubbub.brokers.broker import Control, PresenceTerms, apart
from hubbub.brokers.valkey import ValkeyBroker
from hubbub.brokers.valkey_layout import chosen, condition_of, together
from hubbub.testing import connect
from started_hub import until
from valkey_server import Server, client_of, fresh_prefix, hurry, several_url

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

ROOMS = [f"room {number}" for number in range(60)]
TERMS = PresenceTerms(60.0, 0.0, 100)


def spread(names: list[bytes], places: int = 6000) -> list[bytes]:
    return [names[chosen(b"shop:r:%d" % place, names)] for place in range(places)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_one_more_server_takes_its_share_and_moves_nothing_between_the_others(count: int) -> None:
    names = [b"10.0.0.%d:6379/0" % number for number in range(count)]
    before, after = spread(names), spread([*names, b"10.0.0.99:6379/0"])
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {b"10.0.0.99:6379/0"}
    share = len(before) / (count + 1)
    assert 0.85 * share < len(moved) < 1.15 * share
    shares = Counter(after).values()
    assert len(shares) == count + 1
    assert max(shares) < 1.2 * min(shares)


def test_in_whatever_order_the_servers_are_named() -> None:
    names = [b"one:1/0", b"two:2/0", b"three:3/0"]
    assert spread(names, 500) == spread(names[::-1], 500)


async def test_what_is_done_together_is_done_with_the_first_error() -> None:
    loop = asyncio.get_running_loop()
    one: Future[None] = loop.create_future()
    two: Future[None] = loop.create_future()
    assert together([one]) is one
    both = together([one, two])
    one.set_exception(BrokerUnavailable("on purpose"))
    await asyncio.sleep(0)
    assert not both.done()
    two.set_result(None)
    with pytest.raises(BrokerUnavailable, match="on purpose"):
        await both
    left = together([loop.create_future(), loop.create_future()])
    left.cancel()
    await asyncio.sleep(0)
    assert left.cancelled()


def test_servers_are_together_as_the_worst_of_them() -> None:
    def link(is_up: bool, is_silent: bool, waiting: int) -> Any:
        lag_s = float(waiting) or None
        queue = SimpleNamespace(untaken=waiting, nbytes=10 * waiting, lag_s=lag_s)
        feed = SimpleNamespace(is_up=is_up, is_silent=is_silent)
        return SimpleNamespace(feed=feed, outgoing=queue)

    good, silent, away = link(True, False, 1), link(True, True, 0), link(False, True, 2)
    assert condition_of([good, good]) == ("up", 2, 20, 1.0)
    assert condition_of([good, silent])[:3] == ("silent", 1, 10)
    assert condition_of([away, silent, good]) == ("away", 3, 30, 2.0)


@asynccontextmanager
async def two_brokers(url: str) -> AsyncIterator[tuple[list[ValkeyBroker], list[Node]]]:
    prefix = fresh_prefix()
    brokers, nodes = [ValkeyBroker(url, prefix=prefix) for _ in range(2)], [Node(), Node()]
    nodes[1].id = "other"
    for broker, node in zip(brokers, nodes, strict=True):
        await broker.start(node)
        await asyncio.gather(*(broker.subscribe(part) for part in apart(broker, ROOMS)))
    try:
        yield brokers, nodes
    finally:
        for broker in brokers:
            await broker.stop()


async def test_two_processes_agree_about_all_rooms_whatever_the_order_of_the_servers() -> None:
    scheme, _, hosts = several_url().partition("://")
    turned = f"{scheme}://{','.join(reversed(hosts.split(',')))}"
    prefix = fresh_prefix()
    async with (
        running(ValkeyBroker(several_url(), prefix=prefix), *ROOMS) as (one, here),
        running(ValkeyBroker(turned, prefix=prefix), *ROOMS, name="other") as (two, there),
    ):
        receipts = await asyncio.gather(
            *(one.publish_kept(message(room, room), KEEP) for room in ROOMS)
        )
        assert {each.position and each.position.offset for each in receipts} == {1}
        await until(lambda: len(there.delivered) == len(ROOMS))
        assert sorted(there.delivered) == sorted((room, room) for room in ROOMS)
        for room in ROOMS:
            page = await two.history(room)
            assert [each.data.decode() for each in page.publications] == [room]
            await one.enter(room, {"a": ClientInfo("a")}, TERMS)
            assert [info.client for info in (await two.presence(room)).infos] == ["a"]
        await one.note("rules", b"text")
        assert await two.noted("rules") == b"text"
        await one.send_control(Control("kick", "node", {"a": 1}))
        await until(lambda: bool(there.heard))
        assert (there.heard, here.heard) == ([Control("kick", "node", {"a": 1})], [])
        found = [len(part) for part in apart(one, ROOMS)]
        assert (len(found), sum(found)) == (3, len(ROOMS)), "each server has some"


async def test_of_several_servers_one_is_killed_and_its_rooms_alone_are_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(unanswered, "WAIT_S", 0.3)
    servers = [Server(tmp_path / str(number)) for number in range(2)]
    try:
        url = "valkey://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)
        async with two_brokers(url) as ((one, two), (here, there)):
            links = one._running.layout.links  # type: ignore[union-attr]
            lost = next(part for part in apart(one, ROOMS) if links[0] is _link(one, part[0]))
            rest = [room for room in ROOMS if room not in lost]
            await asyncio.gather(*(one.publish_kept(message("1", room), KEEP) for room in ROOMS))
            servers[0].kill()
            await until(is_away(one))
            await until(is_away(two))
            await one.send_control(Control("kick", "node", {}))
            await until(lambda: bool(there.heard))
            for room in rest:
                assert (await one.publish_kept(message("2", room), KEEP)).delivered_to == 1
            with pytest.raises(BrokerUnavailable):
                await one.publish_kept(message("2", lost[0]), KEEP)
            with pytest.raises(BrokerUnavailable):
                await one.history(lost[0])
            await asyncio.to_thread(servers[0].restart)
            await until(is_up(one))
            await until(is_up(two))
            receipt = await one.publish_kept(message("3", lost[0]), KEEP)
            assert receipt.position is not None
            assert (receipt.position.offset, receipt.delivered_to) == (2, 1)
            assert (sorted(here.gap_rooms), here.gaps) == (sorted(lost), 1), "and no others"
    finally:
        for server in servers:
            server.stop()


def _link(broker: ValkeyBroker, room: str) -> Any:
    assert broker._running is not None
    return broker._running.layout.link(broker._names.channel(room))


async def test_who_joins_while_one_server_is_away_is_refused_in_its_rooms_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    servers = [Server(tmp_path / str(number)) for number in range(2)]
    url = "valkey://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)
    broker = ValkeyBroker(url)
    hub = Hub(broker=broker)
    await hub.start()
    try:
        links = broker._running.layout.links  # type: ignore[union-attr]
        servers[1].kill()
        await until(is_away(broker))
        client = connect(hub).client
        joins = await asyncio.gather(
            *(client.subscribe(room) for room in ROOMS), return_exceptions=True
        )
        for room, joined in zip(ROOMS, joins, strict=True):
            assert isinstance(joined, Exception) == (_link(broker, room) is links[1]), room
        assert any(isinstance(joined, Exception) for joined in joins)
    finally:
        await hub.stop()
        for server in servers:
            server.stop()


async def test_a_server_of_several_that_cannot_be_reached_is_named_at_the_start() -> None:
    url = f"{several_url()},127.0.0.1:1".replace("://", "://user:secret@")
    for wrong in (f"{several_url()},127.0.0.1:1", url):
        with pytest.raises(BrokerUnavailable, match="cannot be used") as caught:
            await ValkeyBroker(wrong).start(Node())
        assert "secret" not in f"{caught.value} {ValkeyBroker(wrong)!r}"
    with pytest.raises(BrokerUnavailable, match=r"valkey://127\.0\.0\.1:1: "):
        await ValkeyBroker(f"{several_url()},127.0.0.1:1").start(Node())


@pytest.mark.parametrize(
    "url",
    [
        "valkey://127.0.0.1:1",
        "valkey://127.0.0.1:1,127.0.0.1:2",
        "valkey+cluster://127.0.0.1:1,127.0.0.1:2",
        "valkey+sentinel://127.0.0.1:1,127.0.0.1:2/main",
    ],
)
async def test_where_nobody_listens_it_is_asked_whether_the_servers_run(url: str) -> None:
    with pytest.raises(BrokerUnavailable, match=r"does the server run, and listen there\?$"):
        await ValkeyBroker(url).start(Node())


async def test_one_of_several_that_has_forgotten_all_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    servers = [Server(tmp_path / str(number)) for number in range(2)]
    try:
        url = "valkey://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)
        async with two_brokers(url) as ((one, _), (here, _there)):
            await client_of(one).ping()
            link = one._running.layout.links[1]  # type: ignore[union-attr]
            await until(lambda: link._mark is not None)
            servers[1].command("FLUSHALL")
            await until(lambda: here.gaps == 1)
            assert here.gap_rooms == []
    finally:
        for server in servers:
            server.stop()
