"""The contract of a broker that keeps histories, on each there is: positions, bounds, what is lost, keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from broker_node import Node, message
from contracts.test_brokers import interested
from exchange import EXCHANGES
from hubbub import ClientInfo, MemoryBroker, Position, PositionLost, Receipt
from hubbub.brokers import history, nats, nats_history, valkey
from hubbub.brokers.broker import HistoryBroker, Keep
from hubbub.brokers.nats import NatsBroker
from hubbub.brokers.valkey import ValkeyBroker
from local_exchange import local_broker
from nats_server import nats_url
from serving import PATIENCE_S
from valkey_cluster import cluster_url
from valkey_server import fresh_prefix, server_url, several_url

pytestmark = pytest.mark.anyio

KEEP = Keep(5, 60.0, 1024**2)
BROKERS: dict[str, Callable[[], Any]] = {
    "memory": MemoryBroker,
    "local": local_broker,
    "valkey": lambda: ValkeyBroker(server_url(), prefix=fresh_prefix()),
    "nats": lambda: NatsBroker(nats_url(), prefix=fresh_prefix()),
    "several servers": lambda: ValkeyBroker(several_url(), prefix=fresh_prefix()),
    "cluster": lambda: ValkeyBroker(cluster_url(), prefix=fresh_prefix()),
    "late exchange": lambda: late_exchange().broker(),
}


def late_exchange() -> Any:
    exchange = EXCHANGES["late"]()
    exchange.clock = time.monotonic
    return exchange


@pytest.fixture(params=list(BROKERS))
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[HistoryBroker]:
    made = cast(HistoryBroker, BROKERS[request.param]())
    await made.start(Node())
    yield made
    await made.stop()


@pytest.fixture
def short_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have keys known for a second, which is the least that each server can."""
    for module in (history, nats, nats_history, valkey):
        monkeypatch.setattr(module, "KEY_TTL_S", 1.0)


async def once(broker: HistoryBroker, text: str, keep: Keep | None) -> Receipt:
    """Publish with the key "k"."""
    publication = message(text, "red" if keep else "plain", key="k")
    result = broker.publish_kept(publication, keep) if keep else broker.publish(publication)
    return result if isinstance(result, Receipt) else await asyncio.wait_for(result, PATIENCE_S)


async def keep(
    broker: HistoryBroker, room: str, *texts: str, keep: Keep = KEEP, **rest: Any
) -> Position:
    receipt = Receipt(0)
    for text in texts:
        result = broker.publish_kept(message(text, room, **rest), keep)
        receipt = result if isinstance(result, Receipt) else await asyncio.wait_for(result, 5)
    assert receipt.position is not None
    return receipt.position


def texts(publications: Any) -> list[str]:
    return [each.data.decode() for each in publications]


async def test_positions_count_from_one_within_an_epoch_of_the_room(broker: HistoryBroker) -> None:
    start = (await broker.history("red", limit=0)).position
    assert start.offset == 0
    first, third = await keep(broker, "red", "1"), await keep(broker, "red", "2", "3")
    assert (first, third) == (Position(1, start.epoch), Position(3, start.epoch))
    assert (await broker.history("red")).position == third
    assert (await broker.history("blue")).position.epoch != start.epoch


async def test_what_is_published_while_a_new_room_is_read_is_kept(broker: HistoryBroker) -> None:
    for number in range(10):
        room = f"red:{number}"
        await asyncio.gather(broker.history(room, limit=0), keep(broker, room, "1", "2"))
        assert texts((await broker.history(room)).publications) == ["1", "2"]


async def test_names_that_somebody_invents_cost_no_room_its_position(
    broker: HistoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MOST_BARE", 3)
    top = await keep(broker, "red", "not kept", keep=Keep(5, 60.0, 1))
    await asyncio.gather(*(broker.history(f"invented {number}") for number in range(20)))
    page = await broker.history("red", since=top)
    assert (page.publications, page.position) == ([], top)


async def test_it_is_kept_who_published_what(broker: HistoryBroker) -> None:
    ann, bob = ClientInfo("c1", "ann", {"n": [1]}, "Ann"), ClientInfo("c2")
    publishers = [ann, None, bob, ann]
    results = [
        broker.publish_kept(message(str(number), publisher=each), KEEP)
        for number, each in enumerate(publishers)
    ]
    for result in results:
        if not isinstance(result, Receipt):
            await asyncio.wait_for(result, PATIENCE_S)
    page = await broker.history("red")
    assert [each.publisher for each in page.publications] == publishers
    newest = await broker.history("red", limit=2, reverse=True)
    assert [each.publisher for each in newest.publications] == [ann, bob]


async def test_a_part_of_a_history(broker: HistoryBroker) -> None:
    top = await keep(broker, "red", *"abcdefg")
    read = broker.history
    assert texts((await read("red")).publications) == list("cdefg")
    assert texts((await read("red", limit=2)).publications) == list("cd")
    assert texts((await read("red", limit=2**70)).publications) == texts(
        (await read("red")).publications
    )
    assert texts((await read("red", limit=2, reverse=True)).publications) == list("gf")
    since = Position(4, top.epoch)
    assert texts((await read("red", since=since)).publications) == list("efg")
    assert texts((await read("red", since=since, limit=1)).publications) == ["e"]
    assert texts((await read("red", since=since, reverse=True)).publications) == ["c"]
    assert texts((await read("red", since=top)).publications) == []
    assert (await read("red", limit=0)).publications == []
    page = await read("red", since=since)
    assert [each.position for each in page.publications] == [
        Position(offset, top.epoch) for offset in (5, 6, 7)
    ]
    assert page.position == top


@pytest.mark.parametrize(("offset", "is_other_epoch"), [(1, False), (8, True), (None, True)])
async def test_what_is_lost_is_told(
    broker: HistoryBroker, offset: int | None, is_other_epoch: bool
) -> None:
    top = await keep(broker, "red", *"abcdefg")
    since = Position(3, "another") if offset is None else Position(offset, top.epoch)
    with pytest.raises(PositionLost) as lost:
        await broker.history("red", since=since)
    assert lost.value.is_other_epoch == is_other_epoch
    if offset == 1:
        assert texts((await broker.history("red", since=since, reverse=True)).publications) == []


async def test_bytes_bound_a_room(broker: HistoryBroker) -> None:
    small = Keep(100, 60.0, 1000)
    await keep(broker, "red", *["x" * 300 for _ in range(6)], keep=small)
    found = (await broker.history("red")).publications
    assert 1 <= len(found) <= 3
    assert found[-1].position is not None
    assert found[-1].position.offset == 6
    await keep(broker, "red", "x" * 2000, keep=small)
    page = await broker.history("red")
    assert (page.publications, page.position.offset) == ([], 7)


async def test_a_publisher_whose_clock_is_slow_makes_no_hole(
    broker: HistoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await keep(broker, "red", "1")
    await keep(broker, "red", "2")
    with monkeypatch.context() as patch:
        real = time.time
        patch.setattr(time, "time", lambda: real() - 7200)
        await keep(broker, "red", "3")
    await keep(broker, "red", "4")
    assert texts((await broker.history("red")).publications) == ["1", "2", "3", "4"]
    assert texts((await broker.history("red", since=first)).publications) == ["2", "3", "4"]


async def test_what_a_publication_carries_is_kept(broker: HistoryBroker) -> None:
    await keep(broker, "red", "a", exclude="x.1")
    (found,) = (await broker.history("red")).publications
    assert (found.room, found.data, found.is_text, found.exclude) == ("red", b"a", True, "x.1")


async def test_what_is_kept_is_delivered_with_its_position(broker: HistoryBroker) -> None:
    node = Node()
    await broker.stop()
    await broker.start(node)
    await interested(broker, "red")
    top = await keep(broker, "red", "1", "2")
    assert [each.position for each in node.publications] == [Position(1, top.epoch), top]


async def test_a_key_publishes_once(broker: HistoryBroker) -> None:
    node = Node()
    await broker.stop()
    await broker.start(node)
    await interested(broker, "red", "blue")

    async def publish(room: str, text: str) -> Receipt:
        result = broker.publish_kept(message(text, room, key="k"), KEEP)
        return result if isinstance(result, Receipt) else await asyncio.wait_for(result, 5)

    first, second = await publish("red", "1"), await publish("red", "2")
    assert (first.is_repeated, second.is_repeated) == (False, True)
    assert first.position == second.position
    assert not (await publish("blue", "1")).is_repeated
    plain = [broker.publish(message("1", "green", key="k")) for _ in range(2)]
    receipts = [r if isinstance(r, Receipt) else await asyncio.wait_for(r, 5) for r in plain]
    assert [receipt.is_repeated for receipt in receipts] == [False, True]
    assert node.delivered == [("red", "1"), ("blue", "1")] + (
        [("green", "1")] if broker.receives_all else []
    )


@pytest.mark.parametrize("second", ["1", "2"], ids=["the same", "another"])
async def test_a_key_is_one_entry_whatever_comes_with_it_again(
    broker: HistoryBroker, second: str
) -> None:
    first = await once(broker, "1", KEEP)
    again = await once(broker, second, KEEP)
    assert (first.is_repeated, again.is_repeated) == (False, True)
    page = await broker.history("red")
    assert (texts(page.publications), page.position) == (["1"], first.position)
    assert again.position == first.position
    plain = [await once(broker, text, None) for text in ("1", second)]
    assert [each.is_repeated for each in plain] == [False, True]


@pytest.mark.parametrize("keep", [KEEP, None], ids=["kept", "not kept"])
async def test_after_its_time_a_key_is_a_new_one(
    short_keys: None, broker: HistoryBroker, keep: Keep | None
) -> None:
    """How long that takes is the server's affair: it is asked until it has forgotten."""
    await broker.stop()
    node = Node()
    node.now = time.monotonic
    await broker.start(node)
    receipts = [await once(broker, "1", keep)]
    async with asyncio.timeout(PATIENCE_S):
        while (last := await once(broker, "2", keep)).is_repeated:
            receipts.append(last)
            await asyncio.sleep(0.02)
    assert {each.position for each in receipts} == {receipts[0].position}
    if keep is not None:
        page = await broker.history("red")
        assert texts(page.publications) == ["1", "2"]
        assert last.position == page.position


async def test_a_key_is_known_again_whether_its_first_was_kept_or_not(
    broker: HistoryBroker,
) -> None:
    async def publish(key: str, *, is_kept: bool) -> Receipt:
        publication = message(key, key=key)
        result = broker.publish_kept(publication, KEEP) if is_kept else broker.publish(publication)
        return result if isinstance(result, Receipt) else await asyncio.wait_for(result, 5)

    top = await keep(broker, "red", "1", "2")
    for is_kept, position in ((True, Position(3, top.epoch)), (False, None)):
        key = f"k{is_kept}"
        receipt = await publish(key, is_kept=is_kept)
        assert (receipt.position, receipt.is_repeated) == (position, False)
        for is_kept_again in (True, False):
            receipt = await publish(key, is_kept=is_kept_again)
            assert (receipt.position, receipt.is_repeated) == (position, True)
    assert texts((await broker.history("red")).publications) == ["1", "2", "kTrue"]


async def test_a_room_that_is_removed_begins_a_new_epoch(broker: HistoryBroker) -> None:
    top = await keep(broker, "red", "1", "2")
    await broker.remove_history("red")
    page = await broker.history("red")
    assert (page.publications, page.position.offset) == ([], 0)
    assert page.position.epoch != top.epoch
    assert (await keep(broker, "red", "3")) == Position(1, page.position.epoch)


@pytest.mark.parametrize(
    "room", ["", "@ann", "a{b}c", "}{", "{}", "%", "a b", "ä€𝄞", "x" * 256, "a:s", "*"]
)
async def test_any_name_is_a_room_of_its_own(broker: HistoryBroker, room: str) -> None:
    other = room + "2"
    await interested(broker, room, other)
    top = await keep(broker, room, "1")
    await keep(broker, other, "2", "3")
    page = await broker.history(room)
    assert (texts(page.publications), page.position) == (["1"], top)
