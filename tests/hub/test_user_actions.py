"""User actions: what others do to a user's connections, on the node that is told and on all others."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from exchange import EXCHANGES, Exchange, carried, cluster
from hubbub import BrokerUnavailable, Hub, Position, RoomRules
from hubbub.brokers.broker import Control
from hubbub.errors import CommandError
from hubbub.hub import room_waits
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.hub.user_actions import Grant, UserActions, Whom
from hubbub.testing import FakeClock, MemoryClient, advance_time, connect, settle
from started_hub import PATIENCE_S, code_of, until

pytestmark = pytest.mark.anyio

RULES = (RoomRules("chat:*", history=10),)


def actions_of(hub: Hub) -> UserActions:
    return core_of(hub).user_actions


def people(*hubs: Hub) -> list[MemoryClient]:
    """Connect ann twice, bob, and one without a name to each of the hubs."""
    names = [("ann", "a1"), ("ann", "a2"), ("bob", "b"), (None, "x")]
    return [
        connect(hub, user=user, client_id=f"{name}.{number}")
        for number, hub in enumerate(hubs)
        for user, name in names
    ]


WHOM = [
    (Whom("ann"), {"a1.0", "a2.0", "a1.1", "a2.1"}),
    (Whom("ann", "a1.1"), {"a1.1"}),
    (Whom("ann", "b.0"), set()),
    (Whom("ann", None, ("a1.0", "a2.1")), {"a2.0", "a1.1"}),
    (Whom("ann", "a1.0", ("a1.0",)), set()),
    (Whom(""), {"x.0", "x.1"}),
    (Whom("nobody"), set()),
]


@pytest.mark.parametrize("travels", EXCHANGES)
@pytest.mark.parametrize(("whom", "meant"), WHOM)
async def test_who_is_meant_is_the_same_on_all_nodes(
    whom: Whom, meant: set[str], travels: str
) -> None:
    exchange = EXCHANGES[travels]()
    async with cluster(exchange, room_rules=RULES) as hubs:
        everybody = people(*hubs)
        here = actions_of(hubs[0])
        await here.subscribe(whom, Grant("chat:1"))
        await carried(exchange)
        assert {each.client.id for each in everybody if each.client.rooms} == meant
        await here.unsubscribe(whom, "chat:1")
        await carried(exchange)
        assert not [each for each in everybody if each.client.rooms]
        await here.close(whom, 4000, "gone")
        await carried(exchange)
        assert {each.client.id for each in everybody if code_of(each) == 4000} == meant


@pytest.mark.parametrize(("whom", "meant"), WHOM)
async def test_tokens_end_and_are_renewed_on_all_nodes(whom: Whom, meant: set[str]) -> None:
    exchange, clock = Exchange(), FakeClock()
    async with cluster(exchange, clock=clock) as hubs:
        everybody = people(*hubs)
        here = actions_of(hubs[0])
        for user in ("ann", "bob", ""):
            await here.refresh(Whom(user), time.time() + 30)
        await here.refresh(whom, None)
        await carried(exchange)
        for hub in hubs:  # they have one clock
            advance_time(hub, 10)
        assert not [each for each in everybody if each.closed]
        await here.expire(whom)
        await carried(exchange)
        assert {each.client.id for each in everybody if code_of(each) == 3005} == meant
        for hub in hubs:
            advance_time(hub, 20)
        assert len([each for each in everybody if code_of(each) == 3005]) == len(everybody)


async def test_on_both_nodes_members_get_what_came_since_and_are_told_the_rest() -> None:
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as hubs:
        here, _ = hubs
        members = [connect(hub, user="ann") for hub in hubs]
        sent = [await here.publish("chat:1", str(n)) for n in range(4)]
        assert sent[1].position is not None
        grant = Grant("chat:1", sent[1].position, '{"why": "invited"}')
        await actions_of(here).subscribe(Whom("ann"), grant)
        await carried(exchange)
        for hub in hubs:
            await settle(hub)
        assert [member.received for member in members] == [["2", "3"]] * 2


async def test_a_stay_that_has_an_end_gets_a_new_one_and_no_other_gets_any() -> None:
    clock = FakeClock()
    async with cluster(Exchange(), count=1, clock=clock) as (hub,):
        guest, member = connect(hub, user="ann"), connect(hub, user="ann")
        member.client.join("a")
        for seconds in (60, 300):
            await actions_of(hub).subscribe(
                Whom("ann"), Grant("a", expires_at=time.time() + seconds)
            )
        await actions_of(hub).subscribe(Whom("ann"), Grant("a"))
        advance_time(hub, 200)
        assert guest.client.rooms == member.client.rooms == {"a"}
        advance_time(hub, 200)
        assert guest.client.rooms == set()
        assert member.client.rooms == {"a"}


async def test_an_end_that_is_no_time_is_refused_before_anything_is_done() -> None:
    async with cluster(Exchange(), count=1) as (hub,):
        ann = connect(hub, user="ann")
        for ends_at in (1e30, 10**400, float("nan")):
            with pytest.raises(ValueError, match="must be a Unix time"):
                await actions_of(hub).subscribe(Whom("ann"), Grant("a", expires_at=ends_at))
        assert ann.client.rooms == set()


async def test_a_client_that_joins_by_itself_at_that_moment_is_no_error() -> None:
    async with cluster(Exchange(late_turns=3), count=1, room_rules=RULES) as (hub,):
        ann = connect(hub, user="ann")
        subscribing = core_of(hub).lifecycle.spawn(by_itself(ann), "by itself")
        await actions_of(hub).subscribe(Whom("ann"), Grant("chat:1"))
        await subscribing
        assert ann.client.rooms == {"chat:1"}


async def by_itself(client: MemoryClient) -> None:
    await client.client.subscribe("chat:1")


@pytest.mark.parametrize(
    ("meanwhile", "has_end"), [("may", True), ("may not", True), ("is put in for good", False)]
)
async def test_a_client_that_asks_for_the_room_at_that_moment_has_the_end_when_it_is_in(
    meanwhile: str, has_end: bool
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(client: object, action: str, room: str) -> bool:
        asked.set()
        await go_on.wait()
        return meanwhile != "may not"

    clock = FakeClock()
    async with cluster(Exchange(), count=1, room_rules=RULES, clock=clock) as (hub,):
        hub.authorize(slowly)
        ann = connect(hub, dialect="centrifuge")
        ann.send('{"id":1,"connect":{}}')
        await settle(hub)
        ann.send('{"id":2,"subscribe":{"channel":"chat:1"}}')
        await asked.wait()
        grant = Grant("chat:1", expires_at=time.time() + 300)
        putting = asyncio.create_task(actions_of(hub).subscribe(Whom(""), grant))
        await settle(hub)
        assert not putting.done(), "it is not in yet"
        if meanwhile == "is put in for good":
            ann.client.join("chat:1")
        go_on.set()
        await putting
        assert ann.client.rooms == {"chat:1"}
        advance_time(hub, 290)
        assert ann.client.rooms == {"chat:1"}
        advance_time(hub, 100)
        is_in = ann.closed is None and ann.client.rooms == {"chat:1"}
        assert is_in is not has_end


async def test_a_client_that_is_put_in_for_good_meanwhile_stays() -> None:
    exchange, clock = Exchange(), FakeClock()
    async with cluster(exchange, count=1, room_rules=RULES, clock=clock) as (hub,):
        ann = connect(hub, user="ann")
        exchange.hold()
        grant = Grant("chat:1", expires_at=time.time() + 60)
        putting = asyncio.create_task(actions_of(hub).subscribe(Whom("ann"), grant))
        await until(lambda: bool(session_of(ann.client).joining))
        ann.client.join("chat:1")
        exchange.release()
        await putting
        assert len(core_of(hub).subscriptions) == 0


@pytest.mark.parametrize("goes", [True, False])
async def test_one_that_does_not_come_in_for_long_is_an_error_unless_it_has_gone(
    goes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster(Exchange(), count=1, room_rules=RULES) as (hub,):
        go_on = asyncio.Event()

        async def slowly(client: object, action: str, room: str) -> bool:
            await go_on.wait()
            return False

        hub.authorize(slowly)
        ann = connect(hub, user="ann")
        asking = asyncio.create_task(ann.client.subscribe("chat:1"))
        await until(lambda: bool(session_of(ann.client).joining))
        monkeypatch.setattr(room_waits, "BROKER_TIMEOUT_S", 60 if goes else 0.01)
        putting = asyncio.create_task(actions_of(hub).subscribe(Whom("ann"), Grant("chat:1")))
        if goes:
            await settle(hub)
            ann.close()
            async with asyncio.timeout(PATIENCE_S):
                await putting
        else:
            with pytest.raises(CommandError, match="joining") as caught:
                await putting
            assert caught.value.temporary
        go_on.set()
        with pytest.raises(CommandError):
            await asking


async def test_a_client_that_goes_meanwhile_is_no_error() -> None:
    exchange = Exchange()
    async with cluster(exchange, count=1, room_rules=RULES) as (hub,):
        ann = connect(hub, user="ann")
        exchange.hold()
        core_of(hub).lifecycle.schedule(ann.close)
        core_of(hub).lifecycle.schedule(exchange.release)
        await actions_of(hub).subscribe(Whom("ann"), Grant("chat:1"))
        assert ann.closed is not None


async def test_a_node_that_cannot_put_clients_into_a_room_says_so_in_its_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exchange = Exchange()
    async with cluster(exchange, max_rooms_per_client=0) as (here, there):
        connect(there, user="ann")
        await actions_of(here).subscribe(Whom("ann"), Grant("a"))
        await carried(exchange)
        await settle(there)
        assert (
            "clients of 'ann' could not be put into a, as another node asked: too_" in caplog.text
        )
        connect(here, user="ann")
        with pytest.raises(CommandError, match="too_many_rooms"):
            await actions_of(here).subscribe(Whom("ann"), Grant("a"))


async def test_many_connections_of_one_user_are_all_put_in() -> None:
    hub = Hub()
    await hub.start()
    members = [connect(hub, user="ann", address=None) for _ in range(200)]
    await actions_of(hub).subscribe(Whom("ann"), Grant("a"))
    assert all(member.client.rooms == {"a"} for member in members)
    await hub.stop()


WHO: dict[str, Any] = {"user": "ann", "client": None, "spared": []}
GRANT = {"room": "a", "since": None, "data": None, "expires_at": None}


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("close", {**WHO, "code": 1005, "reason": ""}),
        ("close", {**WHO, "spared": 5, "code": 4000, "reason": ""}),
        ("close", {"user": "ann", "code": 4000, "reason": ""}),
        ("close", {**WHO, "client": 5, "code": 4000, "reason": ""}),
        ("refresh", {**WHO}),
        ("refresh", {**WHO, "expires_at": "soon"}),
        ("refresh", {**WHO, "expires_at": 1e300}),
        ("subscribe", {**WHO, **GRANT, "room": "@bob"}),
        ("subscribe", {**WHO, **GRANT, "data": 5}),
        ("subscribe", {**WHO, **GRANT, "since": {"offset": "1", "epoch": "x"}}),
        ("subscribe", {**WHO, **GRANT, "since": []}),
        ("subscribe", {**WHO, **GRANT, "expires_at": float("nan")}),
        ("unsubscribe", {**WHO, "room": ""}),
        ("unsubscribe", {**WHO}),
    ],
)
async def test_a_word_that_makes_no_sense_does_nothing_and_is_logged(
    verb: str, arguments: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster(Exchange(), count=1) as (hub,):
        ann = connect(hub, user="ann")
        ann.client.join("b")
        core_of(hub).control.handle_control(Control(verb, "other", arguments))
        await settle(hub)
        assert ann.closed is None
        assert ann.client.rooms == {"b"}
        assert f"a control message '{verb}' that makes no sense" in caplog.text


async def test_where_the_others_cannot_be_told_it_is_done_here_and_who_asked_is_told() -> None:
    exchange = Exchange()
    async with cluster(exchange) as (here, there):
        actions, whom = actions_of(here), Whom("ann")
        ann, other = connect(here, user="ann"), connect(there, user="ann")
        connect(here).client.join("a")
        await carried(exchange)
        exchange.brokers[0].cut()
        with pytest.raises(BrokerUnavailable):
            await actions.subscribe(whom, Grant("a"))
        assert [sorted(each.client.rooms) for each in (ann, other)] == [["a"], []]
        with pytest.raises(BrokerUnavailable):
            await actions.unsubscribe(whom, "a")
        assert ann.client.rooms == set()
        with pytest.raises(BrokerUnavailable):
            await actions.refresh(whom, time.time() + 60)
        for spared in ((), ("somebody",)):
            with pytest.raises(BrokerUnavailable):
                await actions.close(Whom("ann", None, spared), 4000, "gone")
        with pytest.raises(BrokerUnavailable):
            await actions.expire(whom)
        assert (code_of(ann), other.closed) == (4000, None)


async def test_that_the_others_could_not_be_told_is_not_lost_where_it_fails_here_too() -> None:
    exchange = Exchange()
    async with cluster(exchange, max_rooms_per_client=0) as (here, there):
        connect(here, user="ann")
        connect(there, user="ann")
        await carried(exchange)
        exchange.brokers[0].cut()
        with pytest.raises(BrokerUnavailable) as caught:
            await actions_of(here).subscribe(Whom("ann"), Grant("a"))
        assert "too_many_rooms" in str(caught.value.__context__)


def test_a_grant_says_all_of_itself() -> None:
    grant = Grant("a", Position(5, "e"), "1", 7.0)
    assert grant.as_arguments() == {
        "room": "a",
        "since": {"offset": 5, "epoch": "e"},
        "data": "1",
        "expires_at": 7.0,
    }
