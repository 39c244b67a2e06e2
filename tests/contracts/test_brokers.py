"""The contract of a broker, on each there is: order, interest, receipts, closing, and being away.

A new broker is a line in `BROKERS`. What a cluster does is shown with hubs on real servers and on the exchange of the tests,
which is prompt, late, or lets rooms overtake one another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import nats_server
from broker_hubs import state
from broker_node import Node, message
from exchange import EXCHANGES, Exchange, ExchangeBroker, carried, cluster
from hubbub import (
    BrokerUnavailable,
    Client,
    ClientInfo,
    Close,
    CommandError,
    Frame,
    Hub,
    MemoryBroker,
    Publication,
    Receipt,
    RoomRules,
)
from hubbub.brokers import unanswered
from hubbub.brokers.broker import Ability, Broker, Control, as_broker, unsupported
from hubbub.brokers.nats import NatsBroker
from hubbub.brokers.schemes import broker_at
from hubbub.brokers.valkey import ValkeyBroker
from hubbub.hub import interest as interest_module
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.hub.interest import MOST_LINGERING
from hubbub.testing import FakeClock, MemoryClient, connect, set_clock, settle
from local_exchange import LocalExchange, local_broker, unix_url
from nats_exchange import NatsExchange
from nats_server import nats_url
from started_hub import PATIENCE_S, until
from valkey_cluster import cluster_url
from valkey_exchange import ValkeyExchange
from valkey_server import fresh_prefix, hurry, server_url, several_url

pytestmark = pytest.mark.anyio

BROKERS: dict[str, Callable[[], Broker]] = {
    "memory": MemoryBroker,
    "local": local_broker,
    "valkey": lambda: ValkeyBroker(server_url(), prefix=fresh_prefix()),
    "redis://": lambda: broker_at(server_url().replace("valkey:", "redis:"), prefix=fresh_prefix()),
    "unix://": lambda: broker_at(unix_url(), prefix=fresh_prefix()),
    "nats": lambda: NatsBroker(nats_url(), prefix=fresh_prefix()),
    "several servers": lambda: ValkeyBroker(several_url(), prefix=fresh_prefix()),
    "cluster": lambda: ValkeyBroker(cluster_url(), prefix=fresh_prefix()),
    **{name: lambda make=make: make().broker() for name, make in EXCHANGES.items()},  # type: ignore[misc]
}


@pytest.fixture(params=list(BROKERS))
def broker(request: pytest.FixtureRequest) -> Broker:
    return BROKERS[request.param]()


async def interested(broker: Broker, *rooms: str) -> None:
    if not broker.receives_all:
        done = broker.subscribe(rooms)
        if done is not None:
            await done


async def receipt_of(broker: Broker, publication: Publication) -> Receipt:
    result = broker.publish(publication)
    return result if isinstance(result, Receipt) else await asyncio.wait_for(result, 5)


def test_it_has_all_that_is_owed_and_the_verbs_of_its_abilities(broker: Broker) -> None:
    assert as_broker(broker) is broker
    assert unsupported(broker) == []
    assert isinstance(broker.abilities, frozenset)


async def test_each_publication_comes_once_and_those_of_a_room_in_order(broker: Broker) -> None:
    node = Node(3)
    await broker.start(node)
    await interested(broker, "red", "blue")
    pending = [broker.publish(message(str(n), ["red", "blue"][n % 2])) for n in range(50)]
    receipts = [r if isinstance(r, Receipt) else await asyncio.wait_for(r, 5) for r in pending]
    assert {receipt.delivered_to for receipt in receipts} == {3}
    for room, first in (("red", 0), ("blue", 1)):
        expected = [str(number) for number in range(first, 50, 2)]
        assert [text for name, text in node.delivered if name == room] == expected
    await broker.stop()


async def test_what_a_publication_carries_arrives(broker: Broker) -> None:
    node = Node()
    await broker.start(node)
    await interested(broker, "red")
    ann = ClientInfo("c1", "ann", {"n": [1]}, "Ann")
    sent = Publication(
        "red",
        Frame(b"\x00\xff", False),
        "x.1",
        key="k",
        origin="n",
        time_ms=5,
        publisher=ann,
    )
    await receipt_of(broker, sent)
    (got,) = node.publications
    assert (got.room, got.data, got.is_text, got.exclude) == ("red", b"\x00\xff", False, "x.1")
    assert (got.key, got.kind, got.origin, got.time_ms) == ("k", sent.kind, "n", 5)
    assert got.publisher == ann
    await broker.stop()


async def test_who_published_what_arrives_where_many_leave_together(broker: Broker) -> None:
    node = Node()
    await broker.start(node)
    await interested(broker, "red")
    publishers = [ClientInfo(f"c{n}", info=n) if n % 3 else None for n in range(30)]
    pending = [broker.publish(message(str(n), publisher=each)) for n, each in enumerate(publishers)]
    for result in pending:
        if not isinstance(result, Receipt):
            await asyncio.wait_for(result, 5)
    assert [each.publisher for each in node.publications] == publishers
    await broker.stop()


async def test_rooms_that_nobody_wants_do_not_come_where_there_is_interest(broker: Broker) -> None:
    node = Node(3)
    await broker.start(node)
    await interested(broker, "red")
    await receipt_of(broker, message("no", "blue"))
    await receipt_of(broker, message("yes"))
    if not broker.receives_all:
        assert node.delivered == [("red", "yes")]
        broker.unsubscribe(["red"])
        await interested(broker, "green")  # one connection says both: the server knows of the first
        assert (await receipt_of(broker, message("late"))).delivered_to == 0
        await interested(broker, "red")
        await receipt_of(broker, message("again"))
        assert node.delivered == [("red", "yes"), ("red", "again")]
    await broker.stop()


async def test_nothing_comes_after_the_stop_and_nothing_is_left_undone(broker: Broker) -> None:
    node = Node(3)
    await broker.start(node)
    await interested(broker, "red")
    pending = [broker.publish(message(str(n))) for n in range(5)]
    await broker.stop()
    count = len(node.delivered)
    for result in pending:
        if not isinstance(result, Receipt):
            assert result.done()
            assert result.exception() is None or isinstance(result.exception(), BrokerUnavailable)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(node.delivered) == count
    await broker.stop()
    await broker.start(node)
    await interested(broker, "red")
    await receipt_of(broker, message("new"))
    assert node.delivered[count:] == [("red", "new")]
    await broker.stop()


# Hubs that are nodes of one cluster


@pytest.fixture(params=list(EXCHANGES))
def exchange(request: pytest.FixtureRequest) -> Exchange:
    return EXCHANGES[request.param]()


REAL: dict[str, Callable[[], ValkeyExchange]] = {
    "local": LocalExchange,
    "valkey": ValkeyExchange,
    "nats": NatsExchange,
}


@pytest.fixture(params=[*EXCHANGES, *REAL])
def anywhere(request: pytest.FixtureRequest) -> Exchange | ValkeyExchange:
    """The exchanges, and real servers."""
    return (EXCHANGES | REAL)[request.param]()


async def joined(hub: Hub, *rooms: str, **options: Any) -> MemoryClient:
    peer = connect(hub, **options)
    for room in rooms:
        await peer.client.subscribe(room)
    return peer


async def quiet(exchange: Exchange | ValkeyExchange, hubs: Sequence[Hub]) -> None:
    await carried(exchange)
    for hub in hubs:
        await settle(hub)


async def test_members_of_a_room_hear_it_on_every_node_in_one_order(
    anywhere: Exchange | ValkeyExchange,
) -> None:
    """In rooms that remember nothing NATS has an order for each publisher only, as the guide says."""
    rooms = ["kept"] if isinstance(anywhere, NatsExchange) else ["kept", "red"]
    async with cluster(anywhere, 3, room_rules=[RoomRules("kept", history=50)]) as hubs:
        peers = [await joined(hub, "kept", "red") for hub in hubs for _ in range(2)]
        stranger = connect(hubs[1])
        for number in range(30):
            for room in ("kept", "red"):
                hubs[number % 3].room(room).broadcast(f"{room} {number}")
            if number % 5 == 0:
                await asyncio.sleep(0)
        await until(lambda: all(len(peer.received) >= 60 for peer in peers))
        everything = {f"{room} {number}" for number in range(30) for room in ("kept", "red")}
        assert all(sorted(map(str, peer.received)) == sorted(everything) for peer in peers)
        for room in rooms:
            heard = [[text for text in peer.received if room in str(text)] for peer in peers]
            assert all(each == heard[0] for each in heard)
        await quiet(anywhere, hubs)
        assert stranger.received == []


async def test_everybody_and_users_are_reached_on_every_node(
    anywhere: Exchange | ValkeyExchange,
) -> None:
    async with cluster(anywhere) as (here, there):
        ann, bob = connect(here, user="ann"), connect(there, user="ann")
        other = connect(there, user="other")
        await quiet(anywhere, [here, there])
        here.to_user("ann").send("to ann")
        here.broadcast("to all")
        await quiet(anywhere, [here, there])
        await until(lambda: len(ann.received) == len(bob.received) == 2 and bool(other.received))
        assert sorted(ann.received) == sorted(bob.received) == ["to all", "to ann"]
        assert other.received == ["to all"]


async def test_fault_22_exclude_leaves_out_one_connection_and_no_stranger_of_that_id(
    anywhere: Exchange | ValkeyExchange,
) -> None:
    """Ids are unique in a process only, and may be chosen: both tabs have the id "tab" here."""
    async with cluster(anywhere) as (here, there):
        ann = await joined(here, "red", client_id="tab", user="ann")
        bob = await joined(there, "red", client_id="tab", user="bob")
        receipt = await here.publish("red", "not to ann", exclude=ann.client)
        await quiet(anywhere, [here, there])
        await until(lambda: bool(bob.received))
        assert (ann.received, bob.received) == ([], ["not to ann"])
        assert receipt.delivered_to == 0
        ann.close()
        again = await joined(here, "red", client_id="tab", user="ann")
        await here.publish("red", "to both", exclude=ann.client)
        await quiet(anywhere, [here, there])
        await until(lambda: bool(again.received and bob.received[1:]))
        assert (again.received, bob.received[1:]) == (["to both"], ["to both"])


async def test_a_receipt_says_where_and_how_many_here(
    anywhere: Exchange | ValkeyExchange,
) -> None:
    async with cluster(anywhere, room_rules=[RoomRules("red", history=2)]) as (here, there):
        await joined(here, "red")
        await joined(there, "red")
        first = await here.publish("red", "1")
        second = await there.publish("red", "2")
        assert (first.delivered_to, second.delivered_to) == (1, 1)
        assert first.position is not None
        assert second.position is not None
        assert second.position.offset == first.position.offset + 1


async def test_subscribe_is_done_when_nothing_that_follows_is_missed(exchange: Exchange) -> None:
    async with cluster(exchange) as (here, there):
        peer = connect(there)
        exchange.hold()
        joining = asyncio.create_task(peer.client.subscribe("red"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not joining.done()
        assert peer.client.rooms == frozenset()
        exchange.release()
        assert (await asyncio.wait_for(joining, 5)).room == "red"
        await here.publish("red", "after")
        await quiet(exchange, [here, there])
        assert peer.received == ["after"]


async def test_one_turn_asks_once_however_many_rooms_are_joined() -> None:
    exchange = Exchange()
    async with cluster(exchange, 1, max_rooms_per_client=None) as (hub,):
        (broker,) = exchange.brokers
        await quiet(exchange, [hub])
        assert broker.calls == [("subscribe", ("",))]
        client = connect(hub, user="ann").client
        for number in range(2500):
            client.join(f"room {number}")
        await quiet(exchange, [hub])
        assert [len(rooms) for _, rooms in broker.calls[1:]] == [1000, 1000, 501]
        assert len(broker.rooms) == 2502
        assert broker.calls[1][1][:2] == ("@ann", "room 0")


async def test_a_room_is_left_a_while_after_its_last_member_and_kept_if_one_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interest_module, "LINGER_S", 0.05)
    exchange, clock = Exchange(), FakeClock()
    async with cluster(exchange, 1, clock=clock) as (hub,):
        (broker,) = exchange.brokers
        client = connect(hub).client
        for _ in range(100):  # in and out, in one turn and in many
            client.join("red")
            client.leave("red")
            await asyncio.sleep(0)
        client.join("blue")
        client.leave("blue")
        client.join("green")
        await quiet(exchange, [hub])
        subscribed = [room for verb, rooms in broker.calls for room in rooms if verb == "subscribe"]
        assert sorted(subscribed) == ["", "blue", "green", "red"]
        client.join("red")
        clock.advance(1)
        for _ in range(100):
            await asyncio.sleep(0.005)
            if "blue" not in broker.rooms:
                break
        left = [room for verb, rooms in broker.calls for room in rooms if verb == "unsubscribe"]
        assert left == ["blue"]
        assert broker.rooms == {"", "red", "green"}


async def test_rooms_that_are_only_left_over_are_bounded() -> None:
    exchange = Exchange()
    async with cluster(exchange, 1) as (hub,):
        set_count = MOST_LINGERING + 50
        client = connect(hub).client
        for number in range(set_count):
            client.join(str(number))
            client.leave(str(number))
        await quiet(exchange, [hub])
        assert len(core_of(hub).interest) == MOST_LINGERING + 1


# Away


def gaps(*rooms: str) -> list[str]:
    """Return what a plain client is told where publications may have been lost; "" is everybody's room."""
    return [f'{{"type":"gap","room":"{room}"}}' for room in rooms]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for seconds."""
    hurry(monkeypatch)
    nats_server.hurry(monkeypatch)
    monkeypatch.setattr(interest_module, "RETRY_S", 0.02)


def is_asked_for(hub: Hub, room: str) -> bool:
    """Return whether the broker sends what is published to a room, as a hub sees it."""
    asked = core_of(hub).interest._rooms.get(room)
    return asked is not None and asked.done() and asked.exception() is None


@pytest.mark.usefixtures("quick")
async def test_while_the_broker_is_away_clients_stay_and_publishers_are_told(
    anywhere: Exchange | ValkeyExchange,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with cluster(anywhere) as (here, there):
        ann, bob = await joined(here, "red"), await joined(there, "red")
        anywhere.brokers[0].cut()
        await until(state(here, "away"))
        with monkeypatch.context() as soon:
            soon.setattr(unanswered, "WAIT_S", 0.1)
            with pytest.raises(BrokerUnavailable):
                await here.publish("red", "lost")
            here.broadcast("lost too")
            await until(lambda: "a broadcast failed" in caplog.text)
        assert here.stats()["broker_waiting"] == 0
        await there.publish("red", "not heard by ann")
        with pytest.raises(CommandError, match="try again later"):
            await ann.client.subscribe("blue")
        await until(lambda: bob.received == ["not heard by ann"])
        await quiet(anywhere, [here, there])
        assert ann.closed is None
        assert ann.received == []
        anywhere.brokers[0].mend()
        await until(lambda: here.stats()["broker_gaps"] == 1)
        await there.publish("red", "back")
        await until(lambda: len(ann.received) >= 3 and len(bob.received) >= 2)
        await quiet(anywhere, [here, there])
        assert ann.received == [*gaps("", "red"), "back"]
        assert bob.received[1:] == ["back"]
        assert there.stats()["broker_gaps"] == 0


@pytest.mark.usefixtures("quick")
async def test_rooms_that_were_joined_while_it_was_away_are_asked_for_again(
    anywhere: Exchange | ValkeyExchange,
) -> None:
    async with cluster(anywhere) as (here, there):
        peer = connect(there)
        await quiet(anywhere, [here, there])
        anywhere.brokers[1].cut()
        await until(state(there, "away"))
        peer.client.join("red")
        peer.client.join("left meanwhile")
        for _ in range(5):
            await asyncio.sleep(0)
        peer.client.leave("left meanwhile")
        assert not is_asked_for(there, "red")
        anywhere.brokers[1].mend()
        await until(lambda: is_asked_for(there, "red"))
        assert not is_asked_for(there, "left meanwhile")
        await here.publish("red", "heard")
        await until(lambda: "heard" in peer.received)
        await quiet(anywhere, [here, there])
        assert peer.received == [*gaps("", "red"), "heard"]


@pytest.mark.usefixtures("quick")
async def test_a_hub_whose_broker_cannot_be_reached_does_not_start(
    anywhere: Exchange | ValkeyExchange,
) -> None:
    (hub,) = anywhere.hubs(1)
    anywhere.brokers[0].cut()
    with pytest.raises(BrokerUnavailable):
        await hub.start()
    assert not hub.is_running
    anywhere.brokers[0].mend()
    await hub.start()
    await hub.stop()


async def test_who_waits_for_a_room_when_the_hub_stops_is_told() -> None:
    exchange = Exchange()
    async with cluster(exchange, 1) as (hub,):
        client = connect(hub).client
        exchange.hold()
        joining = asyncio.create_task(client.subscribe("red"))
        await asyncio.sleep(0)
        await hub.stop()
        with pytest.raises(CommandError):
            await asyncio.wait_for(joining, 5)


# Control


async def test_a_user_is_disconnected_on_every_node(
    anywhere: Exchange | ValkeyExchange,
) -> None:
    async with cluster(anywhere, 3) as hubs:
        anns = [connect(hub, user="ann") for hub in hubs for _ in range(2)]
        bob = connect(hubs[2], user="bob")
        assert hubs[0].disconnect("ann", 4001, "go") == 2
        await quiet(anywhere, hubs)
        await until(lambda: all(ann.closed for ann in anns))
        assert {ann.closed for ann in anns} == {Close(4001, "go", by_server=True)}
        assert bob.closed is None


async def test_a_client_is_kicked_wherever_it_is(
    anywhere: Exchange | ValkeyExchange,
) -> None:
    async with cluster(anywhere) as (here, there):
        peers = [
            connect(hub, client_id=f"tab {n}".replace(" ", "-"))
            for n, hub in enumerate((here, there))
        ]
        assert here.kick("tab-1") is False
        assert here.kick("tab-0", 4002, "you too") is True
        await quiet(anywhere, [here, there])
        await until(lambda: all(peer.closed for peer in peers))
        assert [peer.closed and peer.closed.code for peer in peers] == [4002, 3503]
        assert here.kick("nobody") is False


async def test_each_node_says_what_it_has(
    anywhere: Exchange | ValkeyExchange,
) -> None:
    async with cluster(anywhere, 3) as hubs:
        for number, hub in enumerate(hubs):
            for _ in range(number):
                await joined(hub, "red")
        async with asyncio.timeout(PATIENCE_S):
            while len(found := await hubs[1].nodes(wait_s=0.1)) < 3:
                pass
        assert found[0].id == core_of(hubs[1]).node_id
        facts = [(each.clients, each.rooms, each.users, each.subscriptions) for each in found]
        assert facts[0] == (1, 1, 1, 1)
        assert sorted(facts) == [(0, 0, 0, 0), (1, 1, 1, 1), (2, 1, 2, 2)]
        assert len({info.id for info in found}) == 3


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("disconnect", {}),
        ("disconnect", {"user": None, "code": 4000, "reason": ""}),
        ("disconnect", {"user": "ann", "code": "4000", "reason": ""}),
        ("disconnect", {"user": "ann", "code": "x", "reason": ""}),
        ("disconnect", {"user": "ann", "code": 1006, "reason": ""}),
        ("kick", {"client": 5, "code": 4000, "reason": ""}),
        ("counted", {"question": "1", "clients": None, "rooms": 0}),
        ("dance", {"how": "well"}),
    ],
    ids=str,
)
async def test_a_word_that_makes_no_sense_hurts_nobody(
    verb: str, arguments: dict[str, Any]
) -> None:
    exchange = Exchange()
    async with cluster(exchange, 1) as (hub,):
        ann = connect(hub, user="ann")
        node = exchange.brokers[0].node
        assert node is not None
        node.handle_control(Control(verb, "another", arguments))
        node.handle_control(
            Control("disconnect", node.id, {"user": "ann", "code": 4000, "reason": ""})
        )
        node.handle_control(
            Control("disconnect", "a", {"user": "ann", "code": 4000, "reason": ""}, "third")
        )
        assert ann.closed is None


async def test_without_the_ability_control_is_this_processes_own() -> None:
    hub = Hub()
    await hub.start()
    ann = connect(hub, user="ann", client_id="tab")
    assert hub.kick("other") is False
    assert [(info.clients, info.rooms) for info in await hub.nodes()] == [(1, 0)]
    assert hub.kick("tab")
    assert ann.closed is not None
    await hub.stop()


def test_an_ability_without_its_verbs_is_found() -> None:
    class Boaster(MemoryBroker):
        abilities = frozenset({Ability.HISTORY, Ability.CONTROL, Ability.NOTES})
        publish_kept = history = remove_history = None  # type: ignore[assignment]

    assert unsupported(Boaster()) == [
        "control (send_control)",
        "history (publish_kept)",
        "history (history)",
        "history (remove_history)",
        "notes (note)",
        "notes (noted)",
    ]
    with pytest.raises(TypeError, match=r"Boaster claims control \(send_control\), history"):
        Hub(broker=Boaster())


async def test_the_clock_of_a_hub_may_stand_still() -> None:
    exchange = Exchange()
    (hub,) = exchange.hubs(1)
    set_clock(hub, FakeClock())
    await hub.start()
    peer = connect(hub)
    peer.client.join("red")
    peer.client.leave("red")
    await hub.stop()
    assert isinstance(peer.client, Client)
    assert session_of(peer.client).close is not None
    assert isinstance(exchange.brokers[0], ExchangeBroker)
