"""Gaps: slow clients and others who have missed something are told so, and come back."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from array_dialect import events_of
from exchange import Exchange, carried, cluster
from hubbub import CommandError, Disconnected, Hub, Identity, Refused, RoomRules, Stream
from hubbub.hub.attempt import Attempt
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.hub.gaps import GAPS_WITHIN_S, MOST_GAPS
from hubbub.hub.user_actions import Grant, Whom
from hubbub.testing import FakeClock, MemoryClient, advance_time, connect, follow, set_clock, settle
from recovering import DIALECT, Recovering, read_all
from remembering_rooms import RULES, publish, said, texts
from started_hub import code_of, started, until

pytestmark = pytest.mark.anyio


LOSSY = [RoomRules("answer", stream=True, history=1000, slow_policy="drop_oldest")]


def slow_rules(policy: str) -> list[RoomRules]:
    return [RoomRules("red", history=100, slow_policy=policy)]  # type: ignore[arg-type]


async def out_for_a_gap(hub: Hub) -> Recovering:
    """Return a client that has missed something of five messages in "red", and cannot be told yet."""
    client = Recovering("red")
    client.come_back(hub)
    await read_all([client], [hub])
    client.peer.transport.block()
    for number in range(5):
        await publish(hub, str(number))
        await settle(hub)
    assert client.peer.client.rooms == set(), "it is out for the gap"
    return client


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
@pytest.mark.parametrize("fast", [True, False])
async def test_a_slow_client_recovers_what_was_dropped(policy: str, fast: bool) -> None:
    hub = await started(room_rules=slow_rules(policy), outbox_max_entries=3)
    client, bystander = Recovering("red", fast=fast), Recovering("red")
    for each in (client, bystander):
        each.come_back(hub)
    await read_all([client, bystander], [hub])
    client.peer.transport.block()
    for number in range(10):
        await publish(hub, str(number))
        await settle(hub)
    client.peer.transport.unblock()
    await read_all([client, bystander], [hub])
    await publish(hub, "last")
    await read_all([client, bystander], [hub])
    expected = [*map(str, range(10)), "last"]
    assert texts(client) == texts(bystander) == expected
    assert (client.gaps, client.began_anew, bystander.gaps) == (1, 0, 0)
    assert hub.stats()["dropped"] > 0
    await hub.stop()


async def test_a_plain_slow_client_is_told_of_the_gap() -> None:
    hub = await started(room_rules=slow_rules("drop_oldest"), outbox_max_entries=2)
    peer = connect(hub)
    await peer.client.subscribe("red")
    peer.transport.block()
    for number in range(5):
        await publish(hub, str(number))
        await settle(hub)
    peer.transport.unblock()
    await settle(hub)
    await publish(hub, "last")
    await settle(hub)
    assert said(peer) == ["3", "4", '{"type":"gap","room":"red"}', "last"]
    await hub.stop()


async def test_one_that_falls_behind_again_and_again_is_closed() -> None:
    hub = await started(room_rules=slow_rules("drop_newest"), outbox_max_entries=1)
    client = Recovering("red")
    client.come_back(hub)
    await read_all([client], [hub])
    for _ in range(MOST_GAPS + 1):
        assert client.is_connected
        await fall_behind(hub, client)
    assert code_of(client.peer) == 3008
    client.cut()
    client.come_back(hub)
    await read_all([client], [hub])
    assert len(client.got) == 3 * (MOST_GAPS + 1)
    await hub.stop()


async def fall_behind(hub: Hub, client: Recovering) -> None:
    """Have a client miss two messages of three, and take them later."""
    client.peer.transport.block()
    for number in range(3):
        await publish(hub, str(number))
        await settle(hub)
    client.peer.transport.unblock()
    await read_all([client], [hub])


@pytest.mark.parametrize("apart_s", [GAPS_WITHIN_S + 1, GAPS_WITHIN_S - 1])
async def test_gaps_count_for_a_minute(apart_s: float) -> None:
    hub = Hub(room_rules=slow_rules("drop_newest"), outbox_max_entries=1)
    set_clock(hub, FakeClock())
    await hub.start()
    client = Recovering("red")
    client.come_back(hub)
    await read_all([client], [hub])
    for _ in range(MOST_GAPS):
        await fall_behind(hub, client)
    advance_time(hub, apart_s)
    await fall_behind(hub, client)
    assert client.is_connected == (apart_s > GAPS_WITHIN_S)
    if client.is_connected:
        for _ in range(3):
            advance_time(hub, apart_s)
            await fall_behind(hub, client)
        assert len(client.got) == 3 * (MOST_GAPS + 4)
        for _ in range(MOST_GAPS):
            await fall_behind(hub, client)
    assert code_of(client.peer) == 3008
    await hub.stop()


def test_a_minute_is_a_minute() -> None:
    """The guides on slow clients and on rooms that remember say both numbers."""
    assert (MOST_GAPS, GAPS_WITHIN_S) == (5, 60)


async def test_one_that_comes_back_and_falls_behind_on_recovers_so_often_for_each_connection() -> (
    None
):
    """How soon it comes back is its own affair: SDKs wait, and this one does not."""
    hub = await started(room_rules=slow_rules("drop_newest"), outbox_max_entries=1)
    client, rounds = Recovering("red"), 4
    client.come_back(hub)
    await read_all([client], [hub])
    for _ in range(rounds):
        for _ in range(MOST_GAPS + 1):
            assert client.is_connected
            await fall_behind(hub, client)
        assert code_of(client.peer) == 3008
        client.cut()
        client.come_back(hub)
        await read_all([client], [hub])
    assert client.gaps == rounds * MOST_GAPS
    assert client.recovered == hub.stats()["recoveries"] == rounds * (MOST_GAPS + 1)
    assert hub.stats()["slow_disconnects"] == rounds
    assert len(client.got) == 3 * rounds * (MOST_GAPS + 1)
    await hub.stop()


async def test_who_leaves_meanwhile_is_not_told_of_its_gap() -> None:
    hub = await started(room_rules=slow_rules("drop_newest"), outbox_max_entries=1)
    client = Recovering("red")
    client.come_back(hub)
    await read_all([client], [hub])
    client.peer.transport.block()
    for number in range(3):
        await publish(hub, str(number))
        await settle(hub)
    client._say("unsubscribe", 9, "red")
    await settle(hub)
    client.peer.transport.unblock()
    await settle(hub)
    kinds = [row[0] for row in events_of(client.peer.received)]
    assert "server_unsubscribed" not in kinds
    assert kinds[-1] == "ok"
    await hub.stop()


@pytest.mark.parametrize("takes_more", [True, False])
async def test_who_is_put_out_while_it_is_out_for_a_gap_is_told_that_and_does_not_come_back(
    takes_more: bool,
) -> None:
    hub = await started(room_rules=slow_rules("drop_oldest"), outbox_max_entries=2)
    client = await out_for_a_gap(hub)
    hub.room("red").broadcast("more")
    if takes_more:
        client.peer.transport.unblock()
    client.peer.client.leave("red")
    client.peer.transport.unblock()
    await read_all([client], [hub])
    ends = [row for row in events_of(client.peer.received) if row[0] == "server_unsubscribed"]
    assert ends == [["server_unsubscribed", "red"]]
    assert client.is_out
    assert client.peer.client.rooms == set()
    client.come_back(hub)
    await read_all([client], [hub])
    assert texts(client) == ["0", "1", "2", "3", "4", "more"]
    await hub.stop()


@pytest.mark.parametrize("verb", ["join", "subscribe", "api"])
async def test_who_is_put_in_while_it_is_out_for_a_gap_comes_back_by_itself_and_misses_nothing(
    verb: str,
) -> None:
    hub = await started(room_rules=slow_rules("drop_oldest"), outbox_max_entries=2)
    hub.authenticate(lambda handshake: Identity(user="ann"))
    client = await out_for_a_gap(hub)
    if verb == "join":
        client.peer.client.join("red")
    elif verb == "subscribe":
        assert (await client.peer.client.subscribe("red")).room == "red"
    else:
        await core_of(hub).user_actions.subscribe(Whom("ann"), Grant("red"))
    await publish(hub, "later")
    client.peer.transport.unblock()
    await read_all([client], [hub])
    await publish(hub, "last")
    await read_all([client], [hub])
    kinds = [row[0] for row in events_of(client.peer.received)]
    assert "server_subscribed" not in kinds
    assert texts(client) == ["0", "1", "2", "3", "4", "later", "last"]
    assert (client.gaps, client.began_anew) == (1, 0)
    assert client.peer.client.rooms == {"red"}
    await hub.stop()


@pytest.mark.parametrize("returns", [True, False])
async def test_who_leaves_as_it_can_take_more_again_is_written_to_directly(returns: bool) -> None:
    hub = await started(room_rules=slow_rules("drop_oldest"), outbox_max_entries=2)
    peer = connect(hub)
    peer.client.join("red")
    peer.transport.block()
    for number in range(5):
        await publish(hub, str(number))
        await settle(hub)
    peer.transport.unblock()
    peer.client.leave("red")
    if returns:
        peer.client.join("red")
    await settle(hub)
    session = session_of(peer.client)
    assert (session.behind, session.writes_directly) == (None, True)
    assert '"gap"' not in str(said(peer))
    await hub.stop()


async def test_other_rooms_of_a_slow_client_are_not_touched() -> None:
    rules = [RoomRules("red", history=9, slow_policy="drop_oldest")]
    hub = await started(room_rules=rules, outbox_max_entries=4, slow_policy="drop_oldest")
    client = Recovering("red")
    client.come_back(hub)
    await read_all([client], [hub])
    client.peer.client.join("blue")
    client.peer.transport.block()
    for number in range(4):
        await publish(hub, str(number))
        hub.room("blue").broadcast("in blue")
        await settle(hub)
    assert client.peer.client.rooms == {"blue"}
    client.peer.transport.unblock()
    await settle(hub)
    assert sum("in blue" in str(row) for row in events_of(client.peer.received)) >= 3
    await hub.stop()


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
async def test_whenever_it_drains_a_slow_client_gets_the_next_or_is_told(policy: str) -> None:
    """Sockets stop and drain between any two publications, with and without a turn between them."""
    for seed in range(150):
        chance = random.Random(seed)
        hub = await started(room_rules=slow_rules(policy), outbox_max_entries=3)
        client = Recovering("red")
        client.come_back(hub)
        for number in range(60):
            match chance.choices(["publish", "block", "unblock", "turn", "again"], [6, 2, 2, 1, 1])[
                0
            ]:
                case "publish":
                    hub.room("red").broadcast(str(number))
                case "block":
                    client.peer.transport.block()
                case "unblock":
                    client.peer.transport.unblock()
                case "again" if client.is_subscribed and client.is_connected:
                    client.leave_and_return()
            if chance.random() < 0.5:
                await asyncio.sleep(0)
            client.read()
            if not client.is_connected:
                client.cut()
                client.come_back(hub)
        client.peer.transport.unblock()
        await read_all([client], [hub])
        if not client.is_connected:
            client.cut()
            client.come_back(hub)
            await read_all([client], [hub])
        assert client.began_anew == 0
        assert client.offset == (await hub.cursor("red")).offset
        await hub.stop()


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "latest"])
async def test_what_was_missed_and_answers_are_never_dropped(policy: Any) -> None:
    rules = [RoomRules("red", history=200)]
    hub = await started(room_rules=rules, slow_policy=policy, outbox_max_entries=4)
    start = await hub.cursor("red")
    await publish(hub, *map(str, range(100)))
    peer = connect(hub)
    peer.transport.block()
    assert (await peer.client.subscribe("red", since=start)).recovered
    await settle(hub)
    client = connect(hub, dialect=DIALECT)
    client.send('["connect", 1]')
    await settle(hub)
    client.transport.block()
    for number in range(4):
        client.send(f'["subscribe", {number + 2}, "room {number}"]')
        hub.broadcast("news")
        await settle(hub)
    for each in (peer, client):
        each.transport.unblock()
    await settle(hub)
    assert [text for text in peer.received if text != "news"] == [str(n) for n in range(100)]
    answers = [row for row in events_of(client.received) if row[0] == "ok"]
    assert answers == [["ok", number] for number in range(2, 6)]
    await hub.stop()


@pytest.mark.parametrize("is_slow", [True, False])
async def test_who_missed_something_of_a_room_that_the_server_gave_comes_back_to_the_hub(
    is_slow: bool,
) -> None:
    hub = await started(room_rules=slow_rules("drop_oldest"), outbox_max_entries=2)
    peer = connect(hub, dialect=DIALECT)
    peer.send('["connect", 1]')
    await settle(hub)
    await peer.client.subscribe("red")
    if is_slow:
        peer.transport.block()
        for number in range(5):
            await publish(hub, str(number))
            await settle(hub)
        peer.transport.unblock()
        await settle(hub)
    else:
        core_of(hub).gaps.tell(session_of(peer.client), "red")
    assert code_of(peer) == (3008 if is_slow else 3010)
    await hub.stop()


async def test_who_is_closed_for_a_gap_gets_nothing_behind_what_was_dropped_for_that() -> None:
    """It would come back from there, and miss what was dropped."""
    rules = [RoomRules(room, history=9, slow_policy="drop_newest") for room in ("red", "blue")]
    hub = await started(room_rules=rules, outbox_max_entries=2)
    peer = connect(hub, dialect=DIALECT)
    peer.send('["connect", 1]')
    await settle(hub)
    for rule in rules:
        await peer.client.subscribe(rule.pattern)
    await settle(hub)
    peer.transport.block()
    for text in ("waits", "waits too"):
        await publish(hub, text)
        await settle(hub)
    hub.room("blue").broadcast("too much")
    # When that was dropped, and before the client is closed for it.
    asyncio.get_running_loop().call_soon(hub.room("red").broadcast, "behind a gap")
    await until(lambda: not peer.client.is_connected)
    peer.transport.unblock()
    await settle(hub)
    assert code_of(peer) == 3008
    assert [row for row in events_of(peer.received) if row[0] == "published"] == []
    await hub.stop()


@pytest.mark.parametrize("plain", [True, False])
async def test_one_that_is_full_again_before_it_is_told_of_a_gap_is_told_later(plain: bool) -> None:
    rules = [RoomRules("red", history=100, slow_policy="drop_oldest")]
    hub = await started(room_rules=rules, outbox_max_entries=2)
    peer = connect(hub) if plain else connect(hub, dialect=DIALECT)
    if plain:
        await peer.client.subscribe("red")
    else:
        peer.send('[["connect",1],["subscribe",2,"red"]]')
        await settle(hub)
    peer.transport.block()
    for number in range(5):
        await publish(hub, str(number))
        await settle(hub)
    peer.transport.unblock()
    peer.client.send("direct")
    peer.transport.block()
    await settle(hub)
    peer.transport.unblock()
    await settle(hub)
    told = [str(each) for each in peer.received if "gap" in str(each)]
    assert len(told) == 1
    assert session_of(peer.client).behind is None
    await hub.stop()


async def test_who_is_in_a_stream_by_its_identity_is_not_asked_after_a_gap() -> None:
    rules = [RoomRules("answer", stream=True, history=1000, slow_policy="drop_oldest")]
    hub = Hub(room_rules=rules, outbox_max_entries=4)
    hub.authorize(lambda client, action, room: False)
    await hub.start()
    peer = connect(hub, rooms=("answer",))
    await settle(hub)
    async with hub.room("answer").stream() as stream:
        for _ in range(2):  # and not after the next either
            peer.transport.block()
            for number in range(10):
                await stream.append(f"{number} ")
                await settle(hub)
            peer.transport.unblock()
            await settle(hub)
            assert peer.client.rooms == {"answer"}
        await stream.append("end")
        await settle(hub)
    assert any("end" in str(each) for each in peer.received)
    assert not any('"gap"' in str(each) for each in peer.received)
    peer.client.leave("answer")
    assert session_of(peer.client).unasked == set()
    await hub.stop()


async def put_into_a_stream(hub: Hub, expires_at: float | None) -> MemoryClient:
    """Return a client that the server has put into a stream, and that nobody would let in."""
    hub.authorize(lambda client, action, room: False)
    await hub.start()
    peer = connect(hub, user="ann")
    await core_of(hub).user_actions.subscribe(Whom("ann"), Grant("answer", expires_at=expires_at))
    return peer


async def overfill(hub: Hub, stream: Stream, peer: MemoryClient) -> None:
    """Have a client fall behind in a stream that it is in."""
    peer.transport.block()
    for number in range(10):
        await stream.append(f"{number} ")
        await settle(hub)
    assert peer.client.rooms == set()


def held(read: Any, is_reading: asyncio.Event, go_on: asyncio.Event) -> Any:
    """Return a `history` of a broker that has read, and answers only when it may."""

    async def slow(*args: Any, **keywords: Any) -> Any:
        page = await read(*args, **keywords)
        is_reading.set()
        await go_on.wait()
        return page

    return slow


@pytest.mark.parametrize("ends_meanwhile", [True, False])
async def test_a_stay_with_an_end_has_it_after_a_gap_too(ends_meanwhile: bool) -> None:
    hub = Hub(room_rules=LOSSY, outbox_max_entries=4, write_timeout_s=600)
    set_clock(hub, FakeClock())
    peer = await put_into_a_stream(hub, time.time() + 60)
    async with hub.room("answer").stream() as stream:
        await overfill(hub, stream, peer)
        if ends_meanwhile:
            advance_time(hub, 90)
        peer.transport.unblock()
        await settle(hub)
        assert peer.client.rooms == (set() if ends_meanwhile else {"answer"})
        advance_time(hub, 90)
        await settle(hub)
        assert peer.client.rooms == set()
    assert session_of(peer.client).unasked == set()
    assert len(core_of(hub).subscriptions) == 0
    await hub.stop()


async def test_who_comes_in_anew_before_it_is_brought_back_has_the_stay_that_it_is_given_then() -> (
    None
):
    hub = Hub(room_rules=LOSSY, outbox_max_entries=4)
    peer = await put_into_a_stream(hub, time.time() + 60)
    session, core = session_of(peer.client), core_of(hub)
    async with hub.room("answer").stream() as stream:
        await overfill(hub, stream, peer)
        with pytest.raises(CommandError, match="forbidden"):
            await peer.client.subscribe("answer")
        assert core.subscriptions.has_end(session, "answer"), "it is still to be brought back"
        core.handlers.authorize = None
        await peer.client.subscribe("answer")
        assert (session.unasked, core.subscriptions.has_end(session, "answer")) == (
            frozenset(),
            False,
        )
        peer.transport.unblock()
        await settle(hub)
    assert peer.client.rooms == {"answer"}
    await hub.stop()


@pytest.mark.parametrize("had_end", [True, False])
async def test_a_new_end_that_is_named_while_a_client_is_brought_back_is_that_of_a_stay_with_one(
    had_end: bool,
) -> None:
    exchange, clock = Exchange(), FakeClock()
    settings: dict[str, Any] = {"outbox_max_entries": 4, "write_timeout_s": 600, "clock": clock}
    async with cluster(exchange, count=1, room_rules=LOSSY, **settings) as (hub,):
        peer, actions = connect(hub, user="ann"), core_of(hub).user_actions
        first = Grant("answer", expires_at=time.time() + 60 if had_end else None)
        await actions.subscribe(Whom("ann"), first)
        async with hub.room("answer").stream() as stream:
            await overfill(hub, stream, peer)
            is_reading, go_on = asyncio.Event(), asyncio.Event()
            broker: Any = exchange.brokers[0]
            broker.history = held(broker.history, is_reading, go_on)
            peer.transport.unblock()
            await is_reading.wait()
            later = Grant("answer", expires_at=time.time() + 300)
            putting = asyncio.create_task(actions.subscribe(Whom("ann"), later))
            await settle(hub)
            assert not putting.done(), "it is not in yet"
            go_on.set()
            await putting
            assert peer.client.rooms == {"answer"}
            advance_time(hub, 200)
            assert peer.client.rooms == {"answer"}
            advance_time(hub, 200)
            assert peer.client.rooms == (set() if had_end else {"answer"})


@pytest.mark.parametrize("answer", ["may", "may not", "leaves"])
async def test_who_subscribes_anew_while_it_can_take_more_again_is_brought_back_by_one_of_both(
    answer: str,
) -> None:
    hub = Hub(room_rules=LOSSY, outbox_max_entries=4)
    peer = await put_into_a_stream(hub, time.time() + 60)
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(client: object, action: str, room: str) -> bool:
        asked.set()
        await go_on.wait()
        return answer == "may"

    core_of(hub).handlers.authorize = slowly

    async with hub.room("answer").stream() as stream:
        await overfill(hub, stream, peer)
        subscribing = asyncio.create_task(peer.client.subscribe("answer"))
        await asked.wait()
        peer.transport.unblock()
        await settle(hub)
        assert session_of(peer.client).behind is None
        if answer == "leaves":
            peer.client.leave("answer")
        go_on.set()
        if answer == "may":
            await subscribing
        else:
            with pytest.raises(CommandError, match="forbidden"):
                await subscribing
        await settle(hub)
        assert peer.client.rooms == (set() if answer == "leaves" else {"answer"})
        has_end = core_of(hub).subscriptions.has_end(session_of(peer.client), "answer")
        assert has_end is (answer == "may not"), "it is the stay of before the gap"
    whole = "".join(f"{number} " for number in range(10))
    assert sum(whole in str(each) for each in peer.received) == (answer != "leaves")
    assert '"gap"' not in str(peer.received)
    await hub.stop()


async def test_one_that_is_in_too_many_rooms_to_be_brought_back_is_told_of_the_gap() -> None:
    hub = Hub(room_rules=LOSSY, outbox_max_entries=4, max_rooms_per_client=1)
    peer = await put_into_a_stream(hub, time.time() + 60)
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, what: errors.append(what))
    async with hub.room("answer").stream() as stream:
        await overfill(hub, stream, peer)
        peer.client.join("another")
        peer.transport.unblock()
        await settle(hub)
    session = session_of(peer.client)
    assert (errors, session.behind, session.unasked) == ([], None, frozenset())
    assert peer.received[-1] == '{"type":"gap","room":"answer"}'
    assert len(core_of(hub).subscriptions) == 0
    await hub.stop()


@pytest.mark.parametrize(
    ("error", "on_handler_error", "code"),
    [
        (Disconnected(4403, "banned"), "close", 4403),
        (Refused(403), "stay", 1008),
        (ZeroDivisionError(), "close", 1011),
        (ZeroDivisionError(), "stay", None),
        (asyncio.CancelledError(), "close", None),
    ],
)
async def test_what_authorize_raises_of_one_that_comes_back_to_a_stream_becomes_what_it_does_elsewhere(
    error: BaseException, on_handler_error: Any, code: int | None
) -> None:
    settings: dict[str, Any] = {"on_handler_error": on_handler_error}
    hub = Hub(room_rules=LOSSY, outbox_max_entries=4, **settings)
    await hub.start()
    asked: list[str] = []

    def refuse(client: object, action: str, room: str) -> bool:
        asked.append(room)
        raise error

    peer = connect(hub)
    await peer.client.subscribe("answer")
    core_of(hub).handlers.authorize = refuse
    async with hub.room("answer").stream() as stream:
        await overfill(hub, stream, peer)
        peer.transport.unblock()
        await settle(hub)
    assert asked == ["answer"]
    assert code_of(peer) == code
    assert not session_of(peer.client).joining, "it is not tried again"
    is_told = peer.received[-1] == '{"type":"gap","room":"answer"}'
    assert is_told is (code is None)
    await hub.stop()


@pytest.mark.parametrize("joins", [True, False])
async def test_a_gap_that_is_told_while_a_history_is_read_is_seen_to(joins: bool) -> None:
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (here, there):
        peer = connect(there)
        broker: Any = exchange.brokers[1]
        if not joins:
            await peer.client.subscribe("red")
        is_reading, go_on = asyncio.Event(), asyncio.Event()
        broker.history = held(broker.history, is_reading, go_on)
        if joins:
            joining = asyncio.create_task(peer.client.subscribe("red"))
        else:
            broker.node.note_gap(None)  # nothing was lost yet
        await is_reading.wait()
        rooms, broker.rooms = broker.rooms, set()
        await publish(here, "lost")
        await carried(exchange)
        broker.rooms = rooms
        broker.node.note_gap(None)
        go_on.set()
        if joins:
            answer = await joining
            assert answer.position is not None
            assert answer.position.offset == 1, "it comes in after what it would have missed"
        else:
            await until(lambda: said(peer) == ["lost"])


@pytest.mark.parametrize("policy", ["drop_oldest", "latest"])
@pytest.mark.parametrize("is_given", [True, False])
async def test_who_missed_a_join_gets_the_newest_of_a_room_that_keeps_nothing_and_then_comes_back(
    policy: Any, is_given: bool
) -> None:
    rules = [RoomRules("team", presence=True, join_leave=True, slow_policy=policy)]
    hub = Hub(room_rules=rules, outbox_max_entries=2)
    if is_given:
        hub.authenticate(lambda handshake: Identity(user="ann", rooms=("team",)))
    await hub.start()
    ann = await follow(hub, "team")
    for count in range(MOST_GAPS + 1):  # and nobody is closed for it
        await until(lambda: "team" in ann.memory.client.rooms)
        await settle(hub)  # it has the answer too, which else were in its outbox
        ann.memory.transport.block()
        bob = connect(hub, user=f"bob {count}")
        bob.client.join("team")
        await until(lambda: session_of(ann.memory.client).outbox is not None)
        if policy == "latest":
            ann.memory.client.send("one")  # the join waits no more
            ann.memory.client.send("two")
        for number in range(6):
            await hub.publish("team", f"m{count} {number}")
            await settle(hub)
        told = len(ann.memory.received)
        ann.memory.transport.unblock()
        await settle(hub)
        newest = [f"m{count} 5"] if policy == "latest" else [f"m{count} 4", f"m{count} 5"]
        assert ann.messages[-len(newest) :] == newest
        end = str(ann.memory.received[told:])
        if is_given:
            assert end.index(newest[-1]) < end.index('"subscribe":{}'), end
        else:
            assert end.index(newest[-1]) < end.index("insufficient state"), end
    assert ann.memory.closed is None
    await until(lambda: "team" in ann.memory.client.rooms)
    await hub.stop()


@pytest.mark.parametrize("join_leave", [True, False])
async def test_who_is_given_a_room_is_told_where_the_broker_may_have_lost_a_join_of_it(
    join_leave: bool,
) -> None:
    rules = [RoomRules("team", presence=True, join_leave=join_leave)]
    hub = await started(room_rules=rules)
    ann = connect(hub, dialect=DIALECT)
    ann.send('["connect", 1]')
    await settle(hub)
    for room in ("team", "another"):
        ann.client.join(room)
    await settle(hub)
    told = len(events_of(ann.received))
    for rooms in (None, ["team", "another"]):
        core_of(hub).recovery.note_gap(rooms)
    await settle(hub)
    expected = [["server_subscribed", "team"]] * 2 if join_leave else []
    assert events_of(ann.received)[told:] == expected
    assert ann.client.rooms == {"team", "another"}
    await hub.stop()


@pytest.mark.parametrize("kind", ["asks", "is given", "plain"])
@pytest.mark.parametrize("join_leave", [True, False])
async def test_who_may_have_missed_a_join_of_a_room_that_remembers_is_told_behind_what_was_said(
    kind: str, join_leave: bool
) -> None:
    exchange = Exchange()
    rules = [RoomRules("team", history=10, presence=True, join_leave=join_leave)]
    async with cluster(exchange, room_rules=rules) as (here, there):
        peer = connect(here, dialect="plain" if kind == "plain" else "centrifuge", user="ann")
        if kind != "plain":
            peer.send('{"id":1,"connect":{}}')
        if kind == "asks":
            peer.send('{"id":2,"subscribe":{"channel":"team"}}')
        await carried(exchange)
        await settle(here)
        if kind != "asks":
            await peer.client.subscribe("team")
        await carried(exchange)
        await settle(here)
        told = len(peer.received)
        exchange.brokers[0].cut()
        connect(there, user="bob").client.join("team")
        there.room("team").broadcast("said meanwhile")
        await carried(exchange)
        exchange.brokers[0].mend()
        await carried(exchange)
        await settle(here)
        end = str(peer.received[told:])
        marks = {
            "asks": "insufficient state",
            "is given": '"subscribe":',
            "plain": '"gap","room":"team"',
        }
        assert "said meanwhile" in end
        assert (marks[kind] in end) is join_leave
        assert not join_leave or end.index("said meanwhile") < end.index(marks[kind])
        assert peer.closed is None


async def test_a_plain_client_is_closed_for_no_joins_that_it_has_missed() -> None:
    rules = [RoomRules("team", presence=True, join_leave=True, slow_policy="drop_oldest")]
    hub = await started(room_rules=rules, outbox_max_entries=2)
    ann = connect(hub, user="ann")
    await ann.client.subscribe("team")
    for count in range(MOST_GAPS + 1):
        ann.transport.block()
        connect(hub, user=f"bob {count}").client.join("team")
        await until(lambda: session_of(ann.client).outbox is not None)
        for number in range(3):
            await hub.publish("team", str(number))
            await settle(hub)
        ann.transport.unblock()
        await settle(hub)
        assert said(ann)[-3:] == ["1", "2", '{"type":"gap","room":"team"}']
    assert ann.closed is None
    await hub.stop()


async def test_who_is_out_of_a_room_already_joins_anew_beside_its_gap() -> None:
    hub = await started(room_rules=slow_rules("drop_oldest"))
    client = Recovering("red")
    client.come_back(hub)
    await read_all([client], [hub])
    session = session_of(client.peer.client)
    client.peer.client.leave("red")
    session.behind, session.joining = {"red"}, {"red": (attempt := Attempt())}
    core_of(hub).gaps.take_out(session, ["red"])
    assert attempt.is_under_way(session, "red")
    await hub.stop()
