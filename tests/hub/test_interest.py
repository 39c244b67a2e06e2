"""Interest: what a broker is asked for, through a hub on the exchange; see tests/contracts too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from exchange import Exchange, ExchangeBroker, carried
from hubbub import BrokerUnavailable, CommandError, Frame, Hub, Publication, Receipt
from hubbub.brokers.broker import Ability, Node, RoomsRefused
from hubbub.hub import interest as interest_module
from hubbub.hub.core import core_of
from hubbub.testing import connect, settle

pytestmark = pytest.mark.anyio


async def started() -> tuple[Hub, Exchange]:
    exchange = Exchange()
    (hub,) = exchange.hubs(1)
    await hub.start()
    await carried(exchange)
    return hub, exchange


async def test_a_broker_that_receives_all_is_asked_for_nothing() -> None:
    hub = Hub()
    await hub.start()
    client = connect(hub, user="ann").client
    await client.subscribe("red")
    assert len(core_of(hub).interest) == 0
    assert core_of(hub).interest.ready("red") is None
    await hub.stop()


async def test_a_room_is_ready_when_the_broker_has_said_so() -> None:
    hub, exchange = await started()
    interest = core_of(hub).interest
    exchange.hold()
    interest.add("red")
    interest.add("red")
    ready = interest.ready("red")
    assert ready is not None
    assert not ready.done()
    exchange.release()
    await asyncio.wait_for(ready, 5)
    assert interest.ready("red") is None
    assert exchange.brokers[0].calls[1:] == [("subscribe", ("red",))]
    await hub.stop()


async def test_a_room_that_is_left_before_it_is_ready_fails_for_who_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interest_module, "MOST_LINGERING", 0)
    hub, exchange = await started()
    interest = core_of(hub).interest
    exchange.hold()
    interest.add("red")
    await asyncio.sleep(0)
    ready = interest.ready("red")
    assert ready is not None
    interest.remove("red")
    with pytest.raises(BrokerUnavailable):
        await ready
    interest.remove("red")
    interest.remove("never wanted")
    exchange.release()
    await hub.stop()


async def test_a_refusal_is_told_in_the_log_and_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(interest_module, "RETRY_S", 0.01)
    hub, exchange = await started()
    (broker,) = exchange.brokers
    broker.cut()
    client = connect(hub).client
    client.join("red")
    await asyncio.sleep(0.05)
    assert "does not send what is published to 1 rooms (red first)" in caplog.text
    broker.mend()
    for _ in range(100):
        await asyncio.sleep(0.005)
        if "red" in broker.rooms:
            break
    assert broker.rooms == {"", "red"}
    await hub.stop()


async def test_a_room_that_was_refused_and_has_no_members_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker may have it all the same, or when its server is back."""
    monkeypatch.setattr(interest_module, "RETRY_S", 0.01)
    hub, exchange = await started()
    (broker,) = exchange.brokers
    subscribe = broker.subscribe

    def loses_the_answer(rooms: Sequence[str]) -> asyncio.Future[None]:
        subscribe(rooms)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_exception(BrokerUnavailable("the connection is gone"))
        return future

    monkeypatch.setattr(broker, "subscribe", loses_the_answer)
    with pytest.raises(CommandError, match="try again"):
        await connect(hub).client.subscribe("red")
    for _ in range(100):
        await asyncio.sleep(0.005)
        if "red" not in broker.rooms:
            break
    assert broker.rooms == {""}
    await hub.stop()


async def test_rooms_that_are_asked_for_with_one_that_is_refused_are_ready(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(interest_module, "RETRY_S", 0.01)
    hub, exchange = await started()
    (broker,) = exchange.brokers
    asked = []

    def refuses(rooms: Sequence[str]) -> asyncio.Future[None]:
        asked.append(tuple(rooms))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        bad = {room: BrokerUnavailable(f"no {room}") for room in rooms if room != "good"}
        future.set_exception(RoomsRefused(bad)) if bad else future.set_result(None)
        return future

    monkeypatch.setattr(broker, "subscribe", refuses)
    client = connect(hub).client
    for room in ("bad", "good", "worse"):
        client.join(room)
    interest = core_of(hub).interest
    futures = {room: interest._rooms[room] for room in ("bad", "good", "worse")}
    await asyncio.wait(futures.values())
    assert futures["good"].exception() is None
    assert [str(futures[room].exception()) for room in ("bad", "worse")] == ["no bad", "no worse"]
    assert "does not send what is published to 2 rooms (bad first): no bad" in caplog.text
    for _ in range(200):
        await asyncio.sleep(0.005)
        if len(asked) > 1:
            break
    assert asked[:2] == [("bad", "good", "worse"), ("bad", "worse")]
    await hub.stop()


async def test_after_the_stop_nothing_is_asked_whatever_was_to_be_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interest_module, "RETRY_S", 0.01)
    monkeypatch.setattr(interest_module, "LINGER_S", 0.01)
    hub, exchange = await started()
    (broker,) = exchange.brokers
    client = connect(hub).client
    client.join("blue")
    await carried(exchange)
    client.leave("blue")
    broker.cut()
    client.join("red")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    before = core_of(hub).interest
    await hub.stop()
    count = len(broker.calls)
    broker.mend()
    await hub.start()
    await carried(exchange)
    await asyncio.sleep(0.05)
    assert core_of(hub).interest is not before
    assert broker.calls[count:] == [("subscribe", ("",))]
    await hub.stop()


async def test_a_question_that_is_open_at_the_stop_is_not_told_as_a_refusal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub, exchange = await started()
    exchange.hold()
    connect(hub).client.join("red")
    await asyncio.sleep(0)
    await hub.stop()
    await asyncio.sleep(0)
    assert "does not send" not in caplog.text


async def test_a_broker_that_raises_when_it_should_leave_keeps_no_client(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: ExchangeBroker, rooms: Sequence[str]) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(ExchangeBroker, "unsubscribe", fail)
    monkeypatch.setattr(interest_module, "MOST_LINGERING", 0)
    hub, exchange = await started()
    gone: list[str] = []
    hub.on_disconnect(lambda client: gone.append(client.id))
    peer = connect(hub, client_id="c")
    peer.client.join("red")
    await carried(exchange)
    peer.close()
    await asyncio.sleep(0)
    assert (gone, len(hub)) == (["c"], 0)
    await asyncio.sleep(0)
    assert "the broker could not leave 1 rooms" in caplog.text
    await hub.stop()


async def test_who_gives_up_does_not_take_the_room_from_who_waits_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interest_module, "LINGER_S", 0.01)
    hub, exchange = await started()
    impatient, patient = connect(hub).client, connect(hub).client
    exchange.hold()
    tasks = [asyncio.create_task(each.subscribe("red")) for each in (impatient, patient)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0.05)
    exchange.release()
    assert (await asyncio.wait_for(tasks[1], 5)).room == "red"
    assert exchange.brokers[0].rooms == {"", "red"}
    await hub.stop()


async def test_many_rooms_that_come_and_go_in_a_turn_cost_few_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interest_module, "MOST_LINGERING", 3)
    hub, exchange = await started()
    (broker,) = exchange.brokers
    broker.calls.clear()
    client = connect(hub).client
    for number in range(10):
        client.join(f"r{number}")
        client.leave(f"r{number}")
    client.join("r0")
    await carried(exchange)
    assert broker.calls == [("subscribe", ("r0", "r7", "r8", "r9"))]
    for number in range(6):
        client.join(f"s{number}")
    await carried(exchange)
    for number in range(6):
        client.leave(f"s{number}")
    await asyncio.sleep(0)
    assert broker.calls[2:] == [("unsubscribe", ("r7", "r8", "r9", "s0", "s1", "s2"))]
    assert broker.rooms == {"", "r0", "s3", "s4", "s5"}
    await hub.stop()


async def test_a_thousand_clients_that_come_and_go_turn_by_turn_ask_once_for_a_room() -> None:
    hub, exchange = await started()
    clients = [connect(hub).client for _ in range(1000)]
    for _ in range(3):
        for number, client in enumerate(clients):
            client.join(f"room {number}")
            client.join("all")
        await asyncio.sleep(0)
        for number, client in enumerate(clients):
            client.leave(f"room {number}")
            client.leave("all")
        await asyncio.sleep(0)
    await carried(exchange)
    calls = exchange.brokers[0].calls
    asked = [room for verb, rooms in calls for room in rooms if verb == "subscribe"]
    assert len(asked) == len(set(asked)) == 1002
    await hub.stop()


@pytest.mark.parametrize("turns", range(12))
async def test_a_subscribe_that_is_given_up_at_any_moment_leaves_nothing(turns: int) -> None:
    hub, exchange = await started()
    exchange.late_turns = 3

    @hub.authorize
    async def may(client: object, action: str, room: str) -> bool:
        for _ in range(3):
            await asyncio.sleep(0)
        return True

    client = connect(hub).client
    task = asyncio.create_task(client.subscribe("red"))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    client.leave("red")
    await carried(exchange)
    await client.subscribe("red")
    assert client.rooms == {"red"}
    assert exchange.brokers[0].rooms == {"", "red"}
    await hub.stop()


async def test_who_is_allowed_after_the_stop_is_told_that_it_was_gone() -> None:
    hub, _ = await started()
    gate = asyncio.Event()

    @hub.authorize
    async def may(client: object, action: str, room: str) -> bool:
        await gate.wait()
        return True

    client = connect(hub).client
    task = asyncio.create_task(client.subscribe("red"))
    await asyncio.sleep(0)
    await hub.stop()
    gate.set()
    with pytest.raises(CommandError, match="left"):
        await task


class TalkativeBroker:
    """Calls its node from within everything that it is asked."""

    abilities: frozenset[Ability] = frozenset()
    receives_all = False
    node: Node

    def __init__(self) -> None:
        self.rooms: set[str] = set()

    def _talk(self) -> None:
        for room in ("", "red", "blue"):
            self.node.deliver(Publication(room, Frame(b"x", True)))
        self.node.note_gap(["red"])
        self.node.note_gap(None)

    async def start(self, node: Node) -> None:
        self.node = node
        self._talk()

    async def stop(self) -> None:
        self.rooms.clear()
        self._talk()

    def publish(self, publication: Publication) -> Receipt:
        self._talk()
        return Receipt(self.node.deliver(publication))

    def subscribe(self, rooms: Sequence[str]) -> None:
        self._talk()
        assert self.rooms.isdisjoint(rooms)
        self.rooms.update(rooms)

    def unsubscribe(self, rooms: Sequence[str]) -> None:
        self._talk()
        self.rooms.difference_update(rooms)


async def test_a_broker_may_call_its_node_from_within_each_of_its_verbs() -> None:
    hub = Hub(broker=TalkativeBroker())
    for _ in range(3):
        await hub.start()
        peer = connect(hub)
        await peer.client.subscribe("red")
        hub.broadcast("y")
        peer.client.leave("red")
        peer.client.join("blue")
        await settle(hub)
        assert "y" in peer.received
        await hub.stop()
