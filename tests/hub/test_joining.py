"""Joining: how many rooms a client may be in, what it is told as it connects, and a broker that is silent."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from array_dialect import ArrayDialect
from assigned_rooms import RULES, assigning, come, data_of, lines
from exchange import Exchange, carried, cluster
from hubbub import (
    BrokerUnavailable,
    Client,
    Close,
    CommandError,
    Hub,
    Identity,
    Position,
)
from hubbub.brokers.memory import MemoryBroker
from hubbub.hub import interest as interest_module
from hubbub.hub import joining as joining_module
from hubbub.hub import room_waits
from hubbub.hub.core import core_of
from hubbub.testing import connect, settle
from started_hub import code_of, started, until

pytestmark = pytest.mark.anyio


async def test_rooms_of_one_client_are_limited() -> None:
    hub = await started(max_rooms_per_client=2)
    client = connect(hub, user="ann").client
    client.join("red")
    client.join("blue")
    client.join("red")
    with pytest.raises(CommandError) as error:
        client.join("green")
    assert error.value.code == "too_many_rooms"
    client.leave("red")
    client.join("green")
    assert hub.rooms == {"blue": 1, "green": 1}
    await hub.stop()
    hub = await started(max_rooms_per_client=None)
    client = connect(hub).client
    for number in range(300):
        client.join(str(number))
    assert len(client.rooms) == hub.stats()["rooms"] == 300
    await hub.stop()


async def test_fault_24_joining_costs_the_same_however_many_rooms_there_are() -> None:
    """Bytes are counted and not seconds: a busy machine changes nothing."""
    hub = await started(max_rooms_per_client=5000)
    fresh, full = connect(hub, user="ann").client, connect(hub).client
    for number in range(4000):
        full.join(f"room {number}")
    few, many = allocated_by(lambda: fresh.join("new")), allocated_by(lambda: full.join("new"))
    assert many < few + 1000
    assert len(full.rooms) == 4001
    await hub.stop()


def allocated_by(work: Callable[[], None]) -> int:
    """Return how many bytes `work` had at most beyond those before it."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("user", [None, "ann"])
async def test_fault_24_rooms_that_nobody_joined_do_not_count(user: str | None) -> None:
    hub = await started(max_rooms_per_client=2)
    client = connect(hub, user=user).client
    for _ in range(3):
        client.join("a")
        client.join("b")
        with pytest.raises(CommandError, match="2 rooms at most"):
            client.join("c")
        client.leave("a")
        client.join("c")
        client.leave("c")
        client.leave("b")
    client.user = "bob"
    client.join("a")
    client.join("b")
    with pytest.raises(CommandError, match="max_rooms_per_client"):
        client.join("c")
    assert client.rooms == {"a", "b"}
    await hub.stop()


async def test_a_client_comes_into_the_rooms_of_its_identity_with_its_connect_answer() -> None:
    hub = await started(room_rules=RULES)
    assigning(hub, "log:1", "plain", "state:1", "quiet:1", "log:1")
    for room in ("log:1", "state:1", "quiet:1"):
        await hub.publish(room, "1")
    peer = await come(hub)
    await settle(hub)
    given = lines(peer)[0]["connect"]["subs"]
    assert list(given) == ["log:1", "plain", "state:1", "quiet:1"]
    assert (given["plain"], given["quiet:1"]) == ({}, {})
    assert {room: given[room]["offset"] for room in ("log:1", "state:1")} == {
        "log:1": 1,
        "state:1": 1,
    }
    assert (data_of(peer, "log:1"), data_of(peer, "state:1")) == ([], [1])
    await hub.stop()


async def test_who_comes_back_is_told_in_its_connect_answer_whether_it_has_all() -> None:
    hub = await started(room_rules=RULES)
    assigning(hub, "log:1", "log:2")
    await come(hub)
    place = await hub.cursor("log:1")
    await hub.publish("log:1", "1")
    peer = await come(hub, {"log:1": place, "log:2": Position(3, "another")})
    given = lines(peer)[0]["connect"]["subs"]
    told = {room: (each["was_recovering"], each["recovered"]) for room, each in given.items()}
    assert told == {"log:1": (True, True), "log:2": (True, False)}
    assert (data_of(peer, "log:1"), data_of(peer, "log:2")) == ([1], [])
    stats = hub.stats()
    assert (stats["recoveries"], stats["recoveries_refused"]) == (1, 1)
    await hub.stop()


async def test_a_text_so_far_follows_the_connect_answer() -> None:
    hub = await started(room_rules=RULES)
    assigning(hub, "text:1")
    async with hub.room("text:1").stream() as stream:
        await stream.append("so ")
        peer = await come(hub)
        await stream.append("far")
        await settle(hub)
    texts = [each["text"] for each in data_of(peer, "text:1") if "text" in each]
    assert "".join(texts) == "so far"
    await hub.stop()


async def test_who_connects_while_a_broker_is_silent_comes_back_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room_waits, "BROKER_TIMEOUT_S", 0.01)
    async with cluster(Exchange(), room_rules=RULES) as (hub, _):
        await silent_history(hub)

        @hub.on_connect
        async def brings_in(client: Client) -> None:
            await client.subscribe("log:1")

        peer = connect(hub)
        await until(lambda: peer.closed is not None)
        assert peer.closed == Close(1013, "try again later", by_server=True)


async def test_who_joins_does_not_wait_for_ever_for_a_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room_waits, "BROKER_TIMEOUT_S", 0.01)
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (hub, _):
        await silent_history(hub)
        assigning(hub, "log:1")
        plain = connect(hub)
        with pytest.raises(CommandError, match="unavailable") as caught:
            await plain.client.subscribe("log:2")
        assert caught.value.temporary
        peer = await come(hub)
        assert lines(peer) == [
            {"id": 1, "error": {"code": 100, "message": "try again later", "temporary": True}}
        ]
        assert (len(hub), core_of(hub).recovery.joining_rooms) == (1, 0)
        exchange.hold()  # the broker does not say whether the room comes either
        with pytest.raises(CommandError, match="unavailable"):
            await plain.client.subscribe("not remembered")
        assert plain.client.rooms == frozenset()


async def silent_history(hub: Hub) -> None:
    """Have a hub's broker never answer what is asked of a history."""

    async def silent(*args: Any, **keywords: Any) -> Any:
        await asyncio.Event().wait()

    core_of(hub).broker.history = silent  # type: ignore[attr-defined]


async def test_one_who_goes_while_its_rooms_are_read_is_forgotten() -> None:
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (hub, _):
        await silent_history(hub)
        assigning(hub, "log:1")
        peer = connect(hub, dialect=ArrayDialect())
        peer.send('["connect",1]')
        await until(lambda: core_of(hub).recovery.joining_rooms == 1)
        peer.close()
        await until(lambda: core_of(hub).recovery.joining_rooms == 0)
        assert (len(hub), hub.stats()["register"]) == (0, 0)


async def test_what_is_published_as_it_connects_is_not_lost() -> None:
    """The one before it, of the same id, says goodbye to the rooms that it is about to enter."""
    hub = await started(room_rules=RULES)
    hub.authenticate(lambda handshake: Identity("ann", client_id="tab", rooms=("log:1", "log:2")))
    is_noisy = False

    @hub.on_disconnect
    def left(client: Client) -> None:
        if is_noisy:
            hub.room("log:1").broadcast("2")

    first = await come(hub)
    await hub.publish("log:1", "1")
    place = await hub.cursor("log:1")
    is_noisy = True
    second = await come(hub, {"log:1": place})
    await hub.publish("log:1", "3")
    await settle(hub)
    assert first.closed is not None
    assert data_of(second, "log:1") == [2, 3]
    await hub.stop()


async def test_one_who_waits_keeps_a_room_that_another_has_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interest_module, "LINGER_S", 0.01)
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (here, there):
        broker: Any = exchange.brokers[1]
        read, go_on = broker.history, asyncio.Event()

        async def history(room: str, **options: Any) -> Any:
            if room == "log:slow":
                await go_on.wait()
            return await read(room, **options)

        broker.history = history
        assigning(there, "log:1", "log:slow")
        waiting = asyncio.create_task(come(there))
        await until(lambda: "log:1" in broker.rooms)
        other = connect(there)
        await other.client.subscribe("log:1")
        other.client.leave("log:1")
        await asyncio.sleep(0.05)
        assert "log:1" in broker.rooms
        go_on.set()
        peer = await waiting
        await here.publish("log:1", "1")
        await until(lambda: data_of(peer, "log:1") == [1])


async def test_a_slow_broker_is_not_the_fault_of_who_connects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room_waits, "BROKER_TIMEOUT_S", 0.2)
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES, handshake_timeout_s=0.05) as (hub, _):
        await silent_history(hub)
        assigning(hub, "log:1")
        peer = await come(hub)
        assert lines(peer)[0]["error"]["code"] == 100
        assert code_of(peer) == 1013


async def test_a_plain_client_comes_into_a_stream_of_its_identity() -> None:
    hub = await started(room_rules=RULES)
    async with hub.room("text:1").stream() as stream:
        await stream.append("so ")
        peer = connect(hub, rooms=["red", "text:1"])
        await settle(hub)
        await stream.append("far")
        await settle(hub)
    assert peer.client.rooms == {"red", "text:1"}
    assert "".join(each.get("text", "") for each in peer.json()) == "so far"
    await hub.stop()


async def test_who_is_in_a_room_is_told_a_position_that_is_its_own() -> None:
    hub = await started(room_rules=RULES)
    peer = connect(hub)
    first = await peer.client.subscribe("log:1")
    await hub.publish("log:1", "not for it", exclude=peer.client)
    again = await peer.client.subscribe("log:1")
    peer.close()
    assert again.position is not None
    assert first.position is not None
    back = await connect(hub).client.subscribe("log:1", since=first.position)
    assert (back.recovered, back.publications) == (True, ())
    assert again.position.epoch == first.position.epoch
    await hub.stop()


async def test_a_position_that_a_client_brought_is_kept_until_it_was_used() -> None:
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (hub, _):
        place = await hub.cursor("log:1")
        await hub.publish("log:1", "1")
        await carried(exchange)
        peer = await come(hub, {"log:1": place})
        exchange.brokers[0].cut()
        with pytest.raises(CommandError, match="unavailable"):
            await peer.client.subscribe("log:1")
        exchange.brokers[0].mend()
        await carried(exchange)
        answer = await peer.client.subscribe("log:1")
        assert (answer.recovered, [each.data for each in answer.publications]) == (True, [b"1"])


class Failing(MemoryBroker):
    """Gives no history as long as `fails`."""

    fails: Callable[[], BaseException] | None = None

    async def history(self, room: str, **keywords: Any) -> Any:
        if self.fails is not None:
            raise self.fails()
        return await super().history(room, **keywords)


FAILURES = [
    pytest.param(lambda: BrokerUnavailable("away"), id="away"),
    pytest.param(lambda: RuntimeError("a fault"), id="fault"),
    pytest.param(asyncio.CancelledError, id="given up"),
]


@pytest.mark.parametrize("failure", FAILURES)
async def test_who_cannot_be_told_what_it_missed_of_its_rooms_holds_no_place(
    failure: Callable[[], BaseException],
) -> None:
    broker = Failing()
    hub = Hub(broker=broker, room_rules=RULES, max_clients=1, on_handler_error="stay")
    assigning(hub, "log:a")
    await hub.start()
    broker.fails = failure
    peer = await come(hub)
    await until(lambda: peer.closed is not None)
    broker.fails = None
    other = await come(hub)
    assert other.client.rooms == {"log:a"}
    await hub.stop()


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("is_given", [True, False])
async def test_who_belongs_into_a_stream_comes_in_when_its_text_can_be_had(
    failure: Callable[[], BaseException], is_given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining_module, "RETRY_S", 0.01)
    broker = Failing()
    hub = await started(broker=broker, room_rules=RULES)
    async with hub.room("text:a").stream() as stream:
        await stream.append("so far")
        if is_given:
            broker.fails = failure
            peer = connect(hub, rooms=("text:a",))
        else:
            peer = connect(hub)
            await peer.client.subscribe("text:a")
            broker.fails = failure
            core_of(hub).gaps.tell(peer.client._session, "text:a")
        await settle(hub)
        assert peer.client.rooms == frozenset()
        broker.fails = None
        await until(lambda: peer.client.rooms == {"text:a"})
        await stream.append(", and on")
        await settle(hub)
    told = [each for each in peer.json() if "text" in each]
    begun = max(number for number, each in enumerate(told) if each["type"] == "stream")
    assert "".join(each["text"] for each in told[begun:]) == "so far, and on"
    await hub.stop()


async def test_who_is_being_brought_into_a_stream_counts_and_can_leave() -> None:
    hub = await started(room_rules=RULES, max_rooms_per_client=2)
    refused: list[str] = []

    @hub.on_connect
    def begin(client: Client) -> None:
        if client.user == "leaver":
            client.leave("text:a")
            return
        client.join("a")
        try:
            client.join("b")
        except CommandError as error:
            refused.append(error.code)

    leaver = connect(hub, user="leaver", rooms=("text:a",))
    other = connect(hub, user="other", rooms=("text:a",))
    await settle(hub)
    assert leaver.client.rooms == frozenset()
    assert other.client.rooms == {"a", "text:a"}
    assert refused == ["too_many_rooms"]
    await hub.stop()


@pytest.mark.parametrize("how", ["join", "identity", "subscribe"])
async def test_a_member_loses_nothing_when_another_reads_the_history_before_it_arrives(
    how: str,
) -> None:
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (hub, _):
        ann = connect(hub, user="ann", rooms=("log:a",) if how == "identity" else ())
        if how == "join":
            ann.client.join("log:a")
        elif how == "subscribe":
            await ann.client.subscribe("log:a")
        await carried(exchange)
        await settle(hub)
        exchange.hold()
        first = asyncio.ensure_future(hub.publish("log:a", "first"))  # kept, and on its way
        await settle(hub)
        bob = connect(hub, user="bob")
        await bob.client.subscribe("log:a")
        exchange.release()
        await first
        await hub.publish("log:a", "second")
        await carried(exchange)
        await settle(hub)
        assert ann.received == ["first", "second"]
        assert bob.received == ["second"]


async def test_a_connect_handler_may_turn_a_client_away() -> None:
    hub = await started()
    gone: list[int] = []

    @hub.on_connect
    def turn_away(client: Client) -> None:
        client.close(4400, "no")

    @hub.on_disconnect
    def note(client: Client, close: Close) -> None:
        gone.append(close.code)

    peer = connect(hub, dialect="centrifuge")
    peer.send('{"id": 1, "connect": {}}')
    await until(lambda: bool(gone))
    assert (code_of(peer), gone) == (4400, [4400])
    assert hub.stats()["handler_errors"] == 0
    await hub.stop()


async def test_a_room_whose_first_member_reloads_while_it_is_read_takes_others() -> None:
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (hub, _):
        broker: Any = exchange.brokers[0]
        read, go_on = broker.history, asyncio.Event()

        async def slow(*args: Any, **keywords: Any) -> Any:
            await go_on.wait()
            return await read(*args, **keywords)

        broker.history = slow
        ann = connect(hub, user="ann")
        for _ in range(2):
            ann.client.join("log:a")
            await settle(hub)
            ann.client.leave("log:a")
        ann.client.join("log:a")
        go_on.set()
        await carried(exchange)
        bob = connect(hub, user="bob")
        await bob.client.subscribe("log:a")
        assert bob.client.rooms == {"log:a"}


async def test_who_has_just_joined_is_answered_when_the_place_is_known() -> None:
    hub = await started(room_rules=RULES)
    await hub.publish("log:1", "before")
    peer = connect(hub)
    peer.client.join("log:1")
    answer = await peer.client.subscribe("log:1")
    assert answer.position is not None
    assert answer.position.offset == 1
    await hub.stop()


@pytest.mark.parametrize("is_silent", [True, False])
async def test_who_waits_for_the_place_may_leave_and_does_not_wait_for_ever(
    is_silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker: Any = MemoryBroker()
    hub = await started(room_rules=RULES, broker=broker)
    read, go_on = broker.history, asyncio.Event()

    async def slow(*args: Any, **keywords: Any) -> Any:
        await go_on.wait()
        return await read(*args, **keywords)

    monkeypatch.setattr(broker, "history", slow)
    if is_silent:
        monkeypatch.setattr(room_waits, "BROKER_TIMEOUT_S", 0.01)
    peer = connect(hub)
    peer.client.join("log:1")
    waiting = asyncio.create_task(peer.client.subscribe("log:1"))
    await asyncio.sleep(0)
    if not is_silent:
        peer.client.leave("log:1")
        go_on.set()
    with pytest.raises(CommandError) as raised:
        await waiting
    assert raised.value.code == ("unavailable" if is_silent else "left")
    go_on.set()
    await hub.stop()


async def test_who_is_put_in_while_it_asks_for_a_room_is_given_what_it_has_missed_by_its_answer() -> (
    None
):
    """An SDK takes what comes from that answer on, and needs a position to come back with."""
    hub = await started(room_rules=RULES)
    may_join = asyncio.Event()

    @hub.authorize
    async def authorize(client: Client, action: str, room: str) -> bool:
        await may_join.wait()
        return True

    start = await hub.cursor("log:1")
    await hub.publish("log:1", "missed")
    peer = connect(hub, dialect="centrifuge")
    peer.send('{"id":1,"connect":{}}')
    place = f'"recover":true,"offset":{start.offset},"epoch":"{start.epoch}"'
    peer.send(f'{{"id":2,"subscribe":{{"channel":"log:1",{place}}}}}')
    await settle(hub)
    peer.client.join("log:1")
    await settle(hub)
    await hub.publish("log:1", "not taken before the answer")
    may_join.set()
    await settle(hub)
    await hub.publish("log:1", "later")
    await settle(hub)
    answer, later = lines(peer)[-2:]
    found = answer["subscribe"]
    texts = [each["data"] for each in found["publications"]]
    assert texts == ["missed", "not taken before the answer"]
    assert (found["recoverable"], found["recovered"], found["offset"]) == (True, True, start.offset)
    assert later["push"]["pub"] == {"data": "later", "offset": 3}
    await hub.stop()
