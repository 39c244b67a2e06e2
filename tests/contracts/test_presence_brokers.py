"""The contract of a broker that knows who is where, on each there is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import pytest

from broker_node import Node
from exchange import CLUSTERS, Exchange, carried
from hubbub import BrokerUnavailable, ClientInfo, MemoryBroker, PresenceStats, Publication
from hubbub.brokers.broker import Ability, PresenceBroker, PresenceTerms
from hubbub.testing import FakeClock
from hubbub.wire.presence import Told, read_told
from hubbub.wire.publication import Kind
from local_exchange import LocalExchange
from valkey_cluster import cluster_url
from valkey_exchange import ValkeyExchange
from valkey_server import several_url

pytestmark = pytest.mark.anyio

TERMS = PresenceTerms(lease_s=60.0, grace_s=10.0, told_up_to=100)
AT_ONCE = PresenceTerms(lease_s=60.0, grace_s=0.0, told_up_to=100)
ANN, BOB = ClientInfo("c1", "ann", {"n": 1}, "Ann"), ClientInfo("c2", "bob")


class Listener(Node):
    """A node that writes down what it is told, in order."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.now = clock
        self.told: list[Told | str] = []

    def deliver(self, publication: Publication) -> int:
        assert publication.position is None
        if publication.kind is Kind.MESSAGE:
            self.told.append(publication.data.decode())
        else:
            self.told.append(read_told(publication.frame, publication.kind))
        return 1

    @property
    def people(self) -> set[str]:
        """Who is there, by what was told."""
        found: set[str] = set()
        for each in self.told:
            if isinstance(each, Told):
                keys = {info.key for info in each.infos}
                found = found | keys if each.kind is Kind.JOIN else found - keys
        return found


class Place:
    """Brokers of one cluster (of one, with the broker of one process), with a node each."""

    def __init__(
        self, brokers: Sequence[PresenceBroker], exchange: Exchange | ValkeyExchange | None
    ) -> None:
        self.clock = FakeClock()
        self.brokers = brokers
        self.nodes = [Listener(self.clock) for _ in brokers]
        self.exchange = exchange

    async def start(self) -> None:
        if self.exchange is not None:
            self.exchange.clock = self.clock
        for broker, node in zip(self.brokers, self.nodes, strict=True):
            await broker.start(node)
            if not broker.receives_all and (done := broker.subscribe(["red"])) is not None:
                await done

    async def quiet(self) -> None:
        if self.exchange is not None:
            await carried(self.exchange)

    async def stop(self) -> None:
        for broker in self.brokers:
            await broker.stop()


def alone() -> Place:
    return Place([MemoryBroker()], None)


def joined(make: Callable[[], Exchange | ValkeyExchange]) -> Place:
    exchange = make()
    return Place([exchange.broker(), exchange.broker()], exchange)


PLACES: dict[str, Callable[[], Place]] = {
    "memory": alone,
    **{name: lambda make=make: joined(make) for name, make in CLUSTERS.items()},  # type: ignore[misc]
    "local": lambda: joined(LocalExchange),
    "several servers": lambda: joined(lambda: ValkeyExchange(several_url())),
    "cluster": lambda: joined(lambda: ValkeyExchange(cluster_url())),
}


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest) -> Place:
    return PLACES[request.param]()


async def test_who_enters_is_there_for_all_nodes_and_told_once(place: Place) -> None:
    await place.start()
    first, last = place.brokers[0], place.brokers[-1]
    assert Ability.PRESENCE in first.abilities
    assert list((await first.enter("red", {"a.1": ANN, "a.2": BOB}, TERMS)).infos) == [ANN, BOB]
    assert list((await last.enter("red", {"b.1": ClientInfo("c3", "ann")}, TERMS)).infos) == []
    assert list((await first.enter("red", {"a.1": ANN}, TERMS)).infos) == []
    await place.quiet()
    snapshot = await last.presence("red")
    assert {info.client: info for info in snapshot.infos}["c1"] == ANN
    assert sorted(info.client for info in snapshot.infos) == ["c1", "c2", "c3"]
    assert await last.presence_stats("red") == PresenceStats(clients=3, users=2)
    assert await last.presence_stats("blue") == PresenceStats(0, 0)
    for node in place.nodes:
        assert node.told == [Told(Kind.JOIN, (ANN, BOB), snapshot.at)]
    await place.stop()


async def test_a_list_that_is_longer_than_was_asked_for_has_nobody(place: Place) -> None:
    await place.start()
    first, last = place.brokers[0], place.brokers[-1]
    await first.enter("red", {"a.1": ANN, "a.2": BOB}, TERMS)
    await first.leave("red", ["a.2"], TERMS)  # it is listed still
    short, whole = await last.presence("red", 1), await last.presence("red", 2)
    assert (list(short.infos), short.is_too_long) == ([], True)
    assert (sorted(whole.infos, key=str), whole.is_too_long) == ([ANN, BOB], False)
    assert not (await last.presence("blue", 0)).is_too_long
    await place.stop()


async def test_a_room_that_is_too_large_is_told_of_no_more_until_it_is_smaller(
    place: Place,
) -> None:
    terms = PresenceTerms(lease_s=60.0, grace_s=0.0, told_up_to=4)
    await place.start()
    first, last = place.brokers[0], place.brokers[-1]
    people = {f"a.{n}": ClientInfo(f"c{n}", f"u{n}") for n in range(6)}
    names = list(people)
    await first.enter("red", {name: people[name] for name in names[:4]}, terms)
    assert len((await last.enter("red", {names[4]: people[names[4]]}, terms)).infos) == 1
    await first.enter("red", {names[5]: people[names[5]]}, terms)
    assert len(await first.leave("red", names[:2], terms)) == 2
    await last.leave("red", [names[2]], terms)
    await first.leave("red", [names[3]], terms)
    await place.quiet()
    for node in place.nodes:
        rows = [(each.kind, len(each.infos), each.is_paused) for each in node.told]  # type: ignore[union-attr]
        assert rows == [
            (Kind.JOIN, 4, None),
            (Kind.JOIN, 0, True),
            (Kind.LEAVE, 0, False),
            (Kind.LEAVE, 1, None),
        ]
    await place.stop()


async def test_who_enters_a_room_that_is_told_of_no_more_is_said_to(place: Place) -> None:
    terms = PresenceTerms(lease_s=60.0, grace_s=0.0, told_up_to=4)
    await place.start()
    first, last = place.brokers[0], place.brokers[-1]
    people = [ClientInfo(f"c{n}", f"u{n}") for n in range(8)]
    quiet = []
    for n, broker in enumerate([first, last, first, last, last, first, last]):
        quiet.append((await broker.enter("red", {f"a.{n}": people[n]}, terms)).is_quiet)
    assert quiet == [False] * 5 + [True] * 2, "the fifth was told with the others"
    second = await first.enter("red", {"b.1": people[0]}, terms)
    assert not second.infos
    assert second.is_quiet, "who comes with a second device has to know too"
    assert (await first.enter("red", {"a.1": people[1]}, terms)).is_quiet
    await last.leave("red", ["a.2", "a.3", "a.4", "a.5"], terms)
    assert not (await first.enter("red", {"a.7": people[7]}, terms)).is_quiet
    await place.quiet()
    for node in place.nodes:
        pauses = [each.is_paused for each in node.told]  # type: ignore[union-attr]
        assert pauses == [None] * 4 + [True, False, None]
    await place.stop()


async def test_nothing_is_quiet_where_nothing_is_ever_told(place: Place) -> None:
    terms = PresenceTerms(lease_s=60.0, grace_s=0.0, told_up_to=0)
    await place.start()
    for n in range(3):
        entered = await place.brokers[-1].enter("red", {f"a.{n}": ClientInfo(f"c{n}")}, terms)
        assert not entered.is_quiet
    await place.stop()


async def test_who_enters_while_nobody_is_told_is_there(place: Place) -> None:
    terms = PresenceTerms(lease_s=60.0, grace_s=0.0, told_up_to=0)
    await place.start()
    assert list((await place.brokers[0].enter("red", {"a.1": ANN}, terms)).infos) == [ANN]
    assert list(await place.brokers[-1].leave("red", ["a.1"], terms)) == [ANN]
    await place.quiet()
    assert [node.told for node in place.nodes] == [[] for _ in place.nodes]
    assert list((await place.brokers[0].presence("red")).infos) == []
    await place.stop()


@pytest.mark.parametrize("user", ["", "a:b", "5:x", "ä€𝄞", "a\nb", "x" * 500, "{}"])
async def test_any_text_may_name_a_user(place: Place, user: str) -> None:
    await place.start()
    infos = [ClientInfo("c1", user, {"text": 'a "quoted"\n€'}), ClientInfo(f"@{user}")]
    first = place.brokers[0]
    assert (
        list((await first.enter("red", {"a.1": infos[0], "a.2": infos[1]}, AT_ONCE)).infos) == infos
    )
    assert list((await place.brokers[-1].presence("red")).infos) == infos
    assert list(await first.leave("red", ["a.2", "a.1"], AT_ONCE)) == infos[::-1]
    await place.stop()


async def test_who_leaves_has_its_time_of_grace_on_any_node(place: Place) -> None:
    await place.start()
    first, last = place.brokers[0], place.brokers[-1]
    await first.enter("red", {"a.1": ANN, "a.2": BOB}, TERMS)
    assert list(await first.leave("red", ["a.1", "a.2", "a.9"], TERMS)) == []
    place.clock.advance(1)
    assert list((await last.enter("red", {"b.1": ClientInfo("c3", "ann")}, TERMS)).infos) == []
    assert list(await last.expire("red", TERMS)) == []
    place.clock.advance(10)
    gone = [await broker.expire("red", TERMS) for broker in (last, first)]
    assert [list(each) for each in gone] == [[BOB], []]
    await place.quiet()
    for node in place.nodes:
        assert [each.kind for each in node.told if isinstance(each, Told)] == [
            Kind.JOIN,
            Kind.LEAVE,
        ]
        assert node.people == {"@ann"}
    await place.stop()


async def test_a_crowd_of_which_much_is_said_comes_and_goes_at_once(place: Place) -> None:
    """What is told of it is longer than one message of some servers may have."""
    await place.start()
    first, last = place.brokers[0], place.brokers[-1]
    rng = random.Random(5)
    people = {
        f"a.{n}": ClientInfo(f"p{n}", f"u{n}", {"picture": rng.randbytes(1500).hex()})
        for n in range(40)
    }
    names, infos = list(people), list(people.values())
    assert list((await first.enter("red", {"b.1": BOB}, AT_ONCE)).infos) == [BOB]
    assert list((await first.enter("red", people, AT_ONCE)).infos) == infos
    assert list((await first.enter("red", people, AT_ONCE)).infos) == []
    there = {info.client: info for info in (await last.presence("red")).infos}
    assert there == {info.client: info for info in [BOB, *infos]}
    assert list(await last.leave("red", names[:25], AT_ONCE)) == infos[:25]
    await first.leave("red", names[25:30], TERMS)
    place.clock.advance(61)
    rest = {info.client for info in [BOB, *infos[25:]]}
    assert {info.client for info in await last.expire("red", TERMS)} == rest
    await place.quiet()
    for node in place.nodes:
        assert node.people == set()
        told = [each for each in node.told if isinstance(each, Told)]
        numbers = [each.at or 0 for each in told]
        assert numbers == sorted(set(numbers))
        for kind in (Kind.JOIN, Kind.LEAVE):
            named = [info.client for each in told if each.kind is kind for info in each.infos]
            assert sorted(named) == sorted(info.client for info in [BOB, *infos])
    await place.stop()


async def test_a_lease_that_nobody_renews_ends_and_is_told_by_one(place: Place) -> None:
    await place.start()
    first, last = place.brokers[0], place.brokers[-1]
    await first.enter("red", {"a.1": ANN}, TERMS)
    await last.enter("red", {"b.1": BOB}, TERMS)
    place.clock.advance(50)
    await last.enter("red", {"b.1": BOB}, TERMS)
    place.clock.advance(20)
    found = await asyncio.gather(*(broker.expire("red", TERMS) for broker in place.brokers))
    assert [info for left in found for info in left] == [ANN]
    await place.quiet()
    assert [node.people for node in place.nodes] == [{"@bob"}] * len(place.nodes)
    await place.stop()


async def test_joins_leaves_and_messages_come_to_all_in_one_order(place: Place) -> None:
    """One person goes on one node and comes on another all the time: nobody ends with a ghost."""
    await place.start()
    rng = random.Random(3)

    async def come_and_go(number: int) -> None:
        broker = place.brokers[number % len(place.brokers)]
        for turn in range(20):
            info = ClientInfo(f"c{number}", rng.choice(["ann", "bob"]))
            name = f"{number}.{turn}"
            await broker.enter("red", {name: info}, AT_ONCE)
            if turn < 19 or number % 2:
                await broker.leave("red", [name], AT_ONCE)

    await asyncio.gather(*(come_and_go(number) for number in range(4)))
    await place.quiet()
    told = place.nodes[0].told
    assert all(node.told == told for node in place.nodes)
    snapshot = await place.brokers[0].presence("red")
    assert place.nodes[0].people == {info.key for info in snapshot.infos}
    numbers = [each.at or 0 for each in told if isinstance(each, Told)]
    assert numbers == sorted(set(numbers))
    await place.stop()


@pytest.mark.parametrize("name", list(CLUSTERS))
async def test_who_is_cut_off_is_told_so(name: str) -> None:
    place = joined(CLUSTERS[name])
    await place.start()
    assert place.exchange is not None
    place.exchange.brokers[0].cut()
    first = place.brokers[0]
    for call in (
        first.enter("red", {"a.1": ANN}, TERMS),
        first.leave("red", ["a.1"], TERMS),
        first.expire("red", TERMS),
        first.presence("red"),
        first.presence_stats("red"),
    ):
        with pytest.raises(BrokerUnavailable):
            await call
    assert list((await place.brokers[1].presence("red")).infos) == []
    await place.stop()
