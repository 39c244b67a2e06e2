"""Recovery: who comes back gets all, once and in order, on the memory broker and across two hubs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from array_dialect import events_of
from broker_hubs import state
from exchange import CLUSTERS, Exchange, carried, cluster
from hubbub import (
    BrokerUnavailable,
    Client,
    CommandError,
    Hub,
    Position,
    PositionLost,
    RoomRules,
    SettingsError,
)
from hubbub.brokers import reconnecting
from hubbub.hub import recovery as recovery_module
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.hub.recovery import MOST_HELD_BACK
from hubbub.testing import FakeClock, MemoryClient, connect, follow, set_clock, settle
from recovering import DIALECT, Recovering, read_all
from remembering_rooms import RULES, publish, remembering, said, texts
from started_hub import started, until
from valkey_exchange import ValkeyExchange

pytestmark = pytest.mark.anyio

GAP = '{"type":"gap","room":"red"}'


async def test_a_plain_client_that_comes_back_is_sent_what_it_missed_before_all_else() -> None:
    hub = await remembering()
    peer = connect(hub)
    joined = await peer.client.subscribe("red")
    assert (joined.recovered, joined.publications) == (False, ())
    await publish(hub, "1")
    await settle(hub)
    peer.close()
    await publish(hub, "2", "3")
    again = connect(hub)
    answer = await again.client.subscribe("red", since=Position(1, joined.position.epoch))  # type: ignore[union-attr]
    await publish(hub, "4")
    await settle(hub)
    assert answer.recovered
    assert [each.data for each in answer.publications] == [b"2", b"3"]
    assert answer.position is not None
    assert answer.position.offset == 3
    assert again.received == ["2", "3", "4"]
    await hub.stop()


async def test_who_was_away_too_long_is_told_so_and_given_nothing() -> None:
    hub = await remembering()
    old = await publish(hub, "1")
    await publish(hub, *"234567")
    peer = connect(hub)
    answer = await peer.client.subscribe("red", since=old)
    assert (answer.recovered, answer.publications) == (False, ())
    assert answer.position is not None
    assert answer.position.offset == 7
    other = connect(hub)
    answer = await other.client.subscribe("red", since=Position(7, "another epoch"))
    assert not answer.recovered
    await settle(hub)
    assert peer.received == other.received == []
    assert hub.stats()["recoveries_refused"] == 2
    assert hub.stats()["recoveries"] == 0
    await hub.stop()


async def test_age_ends_what_can_be_recovered() -> None:
    hub = Hub(room_rules=RULES)
    clock = FakeClock()
    set_clock(hub, clock)
    await hub.start()
    start = await hub.cursor("red")
    await publish(hub, "1")
    clock.advance(59.0)
    assert (await connect(hub).client.subscribe("red", since=start)).recovered
    clock.advance(2.0)
    assert not (await connect(hub).client.subscribe("red", since=start)).recovered
    await hub.stop()


async def test_a_room_of_which_only_the_newest_counts_gives_that_to_whoever_joins() -> None:
    hub = await remembering()
    peer = connect(hub)
    empty = await peer.client.subscribe("state:1")
    assert empty.publications == ()
    position = await publish(hub, "old", "new", room="state:1")
    fresh, same, late = (connect(hub) for _ in range(3))
    answer = await fresh.client.subscribe("state:1")
    assert [each.data for each in answer.publications] == [b"new"]
    assert (await same.client.subscribe("state:1", since=position)).publications == ()
    assert (await late.client.subscribe("state:1", since=empty.position)).recovered
    await settle(hub)
    assert (peer.received, fresh.received) == (["old", "new"], ["new"])
    assert (same.received, late.received) == ([], ["new"])
    await hub.stop()


@pytest.mark.parametrize("ttl_s", [3600.0, 600.0], ids=["one age", "two ages"])
async def test_all_histories_together_are_bounded_and_the_most_silent_room_loses_its_oldest(
    ttl_s: float,
) -> None:
    """`history_max_bytes` counts 200 bytes for each message and 1200 for each room beside the messages."""
    size, count = 10_000, 8
    bound = 2 * 1200 + count * (200 + size)
    hub = Hub(
        room_rules=[
            RoomRules("silent", history=50, history_ttl_s=ttl_s),
            RoomRules("*", history=50),
        ],
        history_max_bytes=bound,
    )
    clock = FakeClock()
    set_clock(hub, clock)
    await hub.start()
    start = await hub.cursor("silent")

    async def kept(room: str) -> list[int]:
        page = await hub.history(room)
        return [each.position.offset for each in page.publications if each.position]

    async def say(room: str, times: int) -> None:
        for _ in range(times):
            clock.advance(1)
            await hub.publish(room, "x" * size)
            assert hub.stats()["history_bytes"] <= bound

    await say("busy", 1)
    await say("silent", 5)
    await say("busy", 2)
    stats = hub.stats()
    assert (stats["history_bytes"], stats["history_entries"]) == (bound, count), "it is full"
    for left in range(4, -1, -1):
        await say("busy", 1)
        assert await kept("silent") == list(range(6 - left, 6))
        assert hub.stats()["history_entries"] == count
    assert await kept("busy") == list(range(1, 9))
    assert (await hub.cursor("silent")) == Position(5, start.epoch), (
        "where it stands is known still"
    )
    peer = connect(hub)
    assert not (await peer.client.subscribe("silent", since=start)).recovered
    await say("busy", 3)
    assert await kept("busy") == list(range(4, 12)), "alone it loses its own oldest"
    await hub.publish("huge", "x" * bound)
    assert await kept("huge") == []
    assert hub.stats()["history_bytes"] <= bound
    await hub.stop()


async def test_a_room_may_have_a_history_from_which_nobody_recovers() -> None:
    hub = await remembering()
    start = await hub.cursor("quiet:1")
    await publish(hub, "1", room="quiet:1")
    answer = await connect(hub).client.subscribe("quiet:1", since=start)
    assert (answer.recovered, answer.publications) == (False, ())
    assert len((await hub.history("quiet:1")).publications) == 1
    await hub.stop()


async def test_nobody_is_served_later_what_it_was_excluded_from() -> None:
    hub = await remembering()
    peer = connect(hub)
    first = await peer.client.subscribe("red")
    await publish(hub, "not to it", exclude=peer.client)
    peer.close()
    await publish(hub, "to all")
    second = connect(hub)
    answer = await second.client.subscribe("red", since=first.position)
    assert [each.data for each in answer.publications] == [b"to all"]
    await publish(hub, "not to it either", exclude=second.client)
    second.close()
    third = connect(hub)  # which has seen no more than the first had
    assert answer.position is not None
    answer = await third.client.subscribe("red", since=Position(0, answer.position.epoch))
    assert [each.data for each in answer.publications] == [b"to all"]
    start = Position(0, (await hub.cursor("red")).epoch)
    stranger = await connect(hub).client.subscribe("red", since=start)
    assert len(stranger.publications) == 3
    await hub.stop()


@pytest.mark.parametrize("by_server", [False, True])
async def test_exclusion_holds_however_often_a_client_comes_back_to_a_quiet_room(
    by_server: bool,
) -> None:
    hub = await remembering()

    @hub.on_connect
    async def put_in(client: Client) -> None:
        if by_server:
            await client.subscribe("red")

    client = await follow(hub, "red")
    await publish(hub, "to all")
    sent = 1
    for turn in range(12):
        excluded = client.memory.client
        if turn % 3 == 0:
            await publish(hub, f"before the cut {turn}", exclude=excluded)
        client.cut()
        if turn % 3 == 1:
            await publish(hub, f"of one that is gone {turn}", exclude=excluded)
        if turn == 6:
            await publish(hub, "missed")
            sent += 1
        await client.heal()
        if turn % 3 == 2:
            await publish(hub, f"on its way while it came back {turn}", exclude=excluded)
        assert (client.recovered, client.gaps) == (True, 0)
        assert len(client.messages) == sent
    assert client.messages == ["to all", "missed"]
    history = (await hub.history("red")).publications
    assert len(history) == 5, "what it was excluded from is there for others"
    await hub.stop()


async def test_a_page_of_the_history_is_without_what_its_client_was_excluded_from_before() -> None:
    hub = await remembering()
    peer = connect(hub)
    position = (await peer.client.subscribe("server:1")).position
    await publish(hub, "not to it", exclude=peer.client)
    await publish(hub, "to all")
    peer.close()
    back = connect(hub)
    session = session_of(back.client)
    recovery = core_of(hub).recovery

    async def page() -> list[bytes]:
        found = await recovery.page_for(session, "red", since=None, limit=10, reverse=False)
        return [each.data for each in found.publications]

    assert await page() == [b"not to it", b"to all"]  # nobody knows yet who it was
    await back.client.subscribe("server:1", since=position)
    assert await page() == [b"to all"]
    cursor = Position(0, (await hub.cursor("red")).epoch)
    answer = await back.client.subscribe("red", since=cursor)
    assert [each.data for each in answer.publications] == [b"to all"]
    await hub.stop()


async def test_what_a_connection_was_called_before_is_bounded_and_forgotten_with_it() -> None:
    hub = await remembering()
    registry = core_of(hub).registry
    first, second = connect(hub), connect(hub)
    name = session_of(first.client).connection_id
    one, other = session_of(second.client), session_of(connect(hub).client)
    registry.note_former_names(one, [name, "x.1"])
    assert set(registry.sessions_named(name)) == {session_of(first.client), one}
    registry.note_former_names(other, ["x.1"])
    assert set(registry.sessions_named("x.1")) == {one, other}
    registry.note_former_names(one, [f"y.{number}" for number in range(100)])
    assert one.former_names == tuple(f"y.{number}" for number in range(84, 100))
    assert registry.sessions_named(name) == (session_of(first.client),)
    assert registry.sessions_named("x.1") == (other,)
    first.close()
    second.close()
    await settle(hub)
    assert registry.sessions_named(name) == ()
    assert not any(registry.sessions_named(f"y.{number}") for number in range(100))
    assert registry._formerly == {"x.1": {other}}
    await hub.stop()


async def test_exclusion_holds_while_the_connection_of_before_is_still_there() -> None:
    """As where a network has changed, and nobody knows yet that the old way is dead."""
    hub = await remembering()
    old = connect(hub)
    position = (await old.client.subscribe("red")).position
    new, stranger = connect(hub), connect(hub)
    await new.client.subscribe("red", since=position)
    await stranger.client.subscribe("red")
    receipt = await hub.publish("red", "its own words", exclude=old.client)
    assert receipt.delivered_to == 1
    await settle(hub)
    assert [said(peer) for peer in (old, new, stranger)] == [[], [], ["its own words"]]
    await hub.stop()


async def test_a_cursor_joins_a_page_and_what_follows() -> None:
    hub = await remembering()
    await publish(hub, "in the page")
    cursor = await hub.cursor("red")
    await publish(hub, "between")
    peer = connect(hub)
    await peer.client.subscribe("red", since=cursor)
    await publish(hub, "live")
    await settle(hub)
    assert peer.received == ["between", "live"]
    await hub.stop()


@pytest.mark.parametrize("has_member", [False, True])
async def test_who_asks_for_all_that_is_kept_is_given_that_and_told_whether_it_is_all(
    has_member: bool,
) -> None:
    hub = Hub(room_rules=[RoomRules("red", history=3)])
    await hub.start()
    if has_member:
        await follow(hub, "red")
    first = await follow(hub, "red", since=Position(0, ""))
    assert (first.messages, first.recovered, first.gaps) == ([], True, 0)
    for number in range(3):
        await hub.publish("red", number)
    whole = await follow(hub, "red", since=Position(0, ""))
    assert (whole.messages, whole.recovered, whole.gaps) == ([0, 1, 2], True, 0)
    for number in range(3, 5):
        await hub.publish("red", number)
    part = await follow(hub, "red", since=Position(0, ""))
    assert (part.messages, part.recovered, part.gaps) == ([2, 3, 4], False, 1)
    assert part.position is not None
    assert part.position.offset == 5
    part.cut()
    await hub.publish("red", 5)
    await part.heal()
    assert (part.messages, part.recovered, part.gaps) == ([2, 3, 4, 5], True, 1)
    for each in (first, whole):
        assert each.messages == [0, 1, 2, 3, 4, 5]
    seen_nothing = Position(0, (await hub.cursor("red")).epoch)
    other = await follow(hub, "red", since=seen_nothing)
    assert (other.messages, other.recovered) == ([], False), (
        "who has seen the room empty has missed 0"
    )
    await hub.stop()


@pytest.mark.parametrize("has_member", [False, True])
async def test_a_position_that_the_room_has_not_reached_is_not_recovered(has_member: bool) -> None:
    hub = await remembering()
    top = await publish(hub, "1", "2", "3")
    if has_member:
        await follow(hub, "red")
    one = await follow(hub, "red", since=Position(top.offset + 6, top.epoch))
    assert (one.messages, one.recovered) == ([], False)
    assert one.position is not None
    assert one.position.offset == top.offset
    await hub.stop()


async def test_a_page_is_empty_only_where_the_history_ends() -> None:
    hub = await remembering()
    peer = connect(hub)
    own = session_of(peer.client)
    for number in range(4):
        await hub.publish("red", f"own {number}", exclude=peer.client)
    await publish(hub, "a", "b")
    await hub.publish("red", "own", exclude=peer.client)
    recovery, epoch = core_of(hub).recovery, (await hub.cursor("red")).epoch

    async def page(offset: int | None, limit: int, *, reverse: bool = False) -> list[str]:
        since = None if offset is None else Position(offset, epoch)
        found = await recovery.page_for(own, "red", since=since, limit=limit, reverse=reverse)
        assert found.position == Position(7, epoch)
        return [each.data.decode() for each in found.publications]

    assert await page(3, 1) == ["a"]
    assert await page(5, 1) == ["b"]
    assert await page(6, 1) == []
    assert await page(None, 1, reverse=True) == ["b"]
    assert await page(7, 3, reverse=True) == ["b", "a"]
    assert await page(3, 0) == []
    await hub.stop()


@pytest.mark.parametrize("reverse", [True, False])
async def test_a_page_behind_much_that_is_left_out_takes_few_questions(reverse: bool) -> None:
    hub = await started(room_rules=[RoomRules("red", history=10_000)])
    peer, reads = connect(hub), 0
    if reverse:
        await publish(hub, "a")
    for number in range(5000):
        await hub.publish("red", f"own {number}", exclude=peer.client)
    if not reverse:
        await publish(hub, "a")
    broker: Any = core_of(hub).broker
    read = broker.history

    async def history(*args: Any, **keywords: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(*args, **keywords)

    broker.history = history
    session, recovery = session_of(peer.client), core_of(hub).recovery
    page = await recovery.page_for(session, "red", since=None, limit=1, reverse=reverse)
    assert [each.data for each in page.publications] == [b"a"]
    assert reads <= 8
    await hub.stop()


@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize("has_position", [True, False])
async def test_a_page_of_a_history_that_begins_anew_meanwhile(
    reverse: bool, has_position: bool
) -> None:
    hub = await remembering()
    peer = connect(hub)
    await publish(hub, "1", "2", "3", exclude=peer.client)
    epoch = (await hub.cursor("red")).epoch
    since = Position(4 if reverse else 0, epoch) if has_position else None
    if reverse and has_position:
        await publish(hub, "4")
    broker: Any = core_of(hub).broker
    read = broker.history

    async def history(*args: Any, **keywords: Any) -> Any:
        page = await read(*args, **keywords)
        broker.history = read
        await broker.remove_history("red")
        await publish(hub, "new")
        return page

    broker.history = history
    session, recovery = session_of(peer.client), core_of(hub).recovery
    reading = recovery.page_for(session, "red", since=since, limit=1, reverse=reverse)
    if has_position:
        with pytest.raises(PositionLost):
            await reading
    else:
        page = await reading
        assert [each.data for each in page.publications] == [b"new"]
        assert page.position.epoch != epoch
    await hub.stop()


async def test_a_history_is_read_in_parts() -> None:
    hub = await remembering()
    top = await publish(hub, *"abcdefg")
    page = await hub.history("red", since=Position(3, top.epoch), limit=2)
    assert ([each.data for each in page.publications], page.position) == ([b"d", b"e"], top)
    newest = await hub.history("red", limit=2, reverse=True)
    assert [each.data for each in newest.publications] == [b"g", b"f"]
    with pytest.raises(PositionLost):
        await hub.history("red", since=Position(1, top.epoch))
    with pytest.raises(CommandError, match="keeps no history; RoomRules"):
        await hub.history("blue")
    with pytest.raises(CommandError, match="bad_room"):
        await hub.cursor("")
    await hub.stop()


async def test_a_key_publishes_once() -> None:
    hub = await remembering()
    peer = connect(hub)
    for room in ("red", "blue"):
        await peer.client.subscribe(room)
        first = await hub.publish(room, "paid", key="order 7")
        second = await hub.room(room).publish("paid", key="order 7")
        assert (first.is_repeated, second.is_repeated) == (False, True)
        assert second.position == first.position
        assert (first.delivered_to, second.delivered_to) == (1, 0)
    await settle(hub)
    assert peer.received == ["paid", "paid"]
    for wrong in ("", "x" * 257, 5):
        with pytest.raises(TypeError, match="key must be a str of 1 to 256"):
            await hub.publish("red", "x", key=wrong)  # type: ignore[arg-type]
    await hub.stop()


@pytest.mark.parametrize(
    ("room", "is_member", "handler", "allowed"),
    [
        ("members:1", True, None, True),
        ("members:1", False, None, False),
        ("members:1", True, False, False),
        ("members:1", True, True, True),
        ("members:1", False, True, False),
        ("server:1", True, True, False),
        ("server:1", True, None, False),
        ("blue", True, None, False),
        ("blue", False, True, True),
    ],
)
async def test_rules_say_who_may_publish(
    room: str, is_member: bool, handler: bool | None, allowed: bool
) -> None:
    hub = await remembering()
    if handler is not None:
        hub.authorize(lambda client, action, room: action != "publish" or bool(handler))
    peer = connect(hub, dialect=DIALECT)
    peer.send('["connect", 1]')
    if is_member:
        peer.send(f'["subscribe", 2, "{room}"]')
    peer.send(f'["publish", 3, "{room}", "hello"]')
    await settle(hub)
    answer = [row for row in events_of(peer.received) if row[:2] in (["ok", 3], ["error", 3])]
    assert answer[0][:3] == (["ok", 3] if allowed else ["error", 3, "forbidden"])
    await hub.stop()


async def test_a_broker_without_history_is_an_error_at_the_start() -> None:
    broker = Exchange().broker()
    broker.abilities = frozenset()
    hub = Hub(broker=broker, room_rules=RULES)
    with pytest.raises(
        SettingsError, match=r"state:.*keeps a history, and ExchangeBroker has none"
    ):
        await hub.start()
    only_publishing = Hub(broker=broker, room_rules=[RoomRules("a", publish="server")])
    await only_publishing.start()
    await only_publishing.stop()


async def test_rules_are_added_before_the_start() -> None:
    hub = Hub()
    rule = hub.room_rules("chat:*", history=3)
    assert rule == RoomRules("chat:*", history=3)
    with pytest.raises(SettingsError, match="is never used"):
        hub.room_rules("chat:1")
    with pytest.raises(TypeError, match="histori"):
        hub.room_rules("x", histori=3)  # type: ignore[call-arg]
    await hub.start()
    assert (await publish(hub, "1", room="chat:1")).offset == 1
    with pytest.raises(RuntimeError, match="before the hub starts"):
        hub.room_rules("late:*")
    await hub.stop()


async def test_a_user_and_everybody_have_no_rule() -> None:
    hub = await started(room_rules=[RoomRules("*", history=3)])
    assert (await hub.everybody.publish("1")).position is None
    assert (await hub.to_user("ann").publish("1")).position is None
    assert (await hub.publish("any", "1")).position is not None
    await hub.stop()


@pytest.mark.parametrize("fast", [True, False])
async def test_a_client_of_commands_recovers_in_its_answer(fast: bool) -> None:
    hub = await remembering()
    client = Recovering("red", fast=fast)
    client.come_back(hub)
    await read_all([client], [hub])
    await publish(hub, "1", "2")
    await read_all([client], [hub])
    client.cut()
    await publish(hub, "3", "4")
    client.come_back(hub)
    await publish(hub, "5")
    await read_all([client], [hub])
    assert texts(client) == list("12345")
    assert (client.recovered, client.began_anew) == (1, 0)
    await hub.stop()


async def test_a_client_of_commands_reads_history() -> None:
    hub = await remembering()
    client = Recovering("red")
    client.come_back(hub)
    top = await publish(hub, "1", "2", "3")
    await settle(hub)
    for number, command, expected in [
        (
            3,
            ["history", 3, "red"],
            ["page", 3, [["1", 1], ["2", 2], ["3", 3]], [top.offset, top.epoch]],
        ),
        (
            4,
            ["history", 4, "red", 1, 1, top.epoch, False],
            ["page", 4, [["2", 2]], [top.offset, top.epoch]],
        ),
        (
            5,
            ["history", 5, "red", 1, None, None, True],
            ["page", 5, [["3", 3]], [top.offset, top.epoch]],
        ),
        (6, ["history", 6, "red", 1, 1, "old", False], ["error", 6, "position_lost"]),
        (7, ["history", 7, "blue"], ["error", 7, "not_available"]),
    ]:
        client._say(*command)
        await settle(hub)
        answers = [row for row in events_of(client.peer.received) if row[1] == number]
        assert answers[0][: len(expected)] == expected
    await hub.stop()


# What is lost on its way to a process


@pytest.fixture(params=["prompt", "valkey", "nats"])
def exchange(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Exchange | ValkeyExchange:
    monkeypatch.setattr(reconnecting, "LONGEST_DELAY_S", 0.05)
    return CLUSTERS[request.param]()


class Member:
    """A member of the red room: a plain client, or one of a dialect with commands."""

    def __init__(self, *, is_plain: bool) -> None:
        self.recovering = Recovering("red")
        self._is_plain = is_plain
        self._peer: MemoryClient | None = None

    async def come(self, hub: Hub) -> None:
        if self._is_plain:
            self._peer = connect(hub)
            await self._peer.client.subscribe("red")
        else:
            self.recovering.come_back(hub)
            await until(self.is_there)

    def is_there(self) -> bool:
        self.recovering.read()
        return self._peer is not None or self.recovering.is_at_rest

    def got(self) -> list[object]:
        """Return what it got: texts, and marks that something is missing."""
        if self._peer is not None:
            return said(self._peer)
        self.recovering.read()
        return [*[GAP] * self.recovering.gaps, *texts(self.recovering)]


@pytest.mark.parametrize("is_plain", [True, False])
async def test_what_was_lost_on_its_way_is_brought_up_when_the_broker_is_back(
    exchange: Exchange | ValkeyExchange, is_plain: bool
) -> None:
    async with cluster(exchange, room_rules=RULES) as (here, there):
        member = Member(is_plain=is_plain)
        await member.come(there)
        await publish(here, "1")
        await until(lambda: member.got() == ["1"])
        exchange.brokers[1].cut()
        await until(state(there, "away"))
        await publish(here, "2", "3")
        exchange.brokers[1].mend()
        await publish(here, "4")
        await until(lambda: member.got()[-1:] == ["4"])
        await carried(exchange)
        await settle(there)
        assert member.got() == list("1234")
        assert member.recovering.began_anew == 0


async def test_a_loss_that_nobody_reports_is_found_by_the_next_publication() -> None:
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (here, there):
        peer = connect(there)
        await peer.client.subscribe("red")
        await publish(here, "1")
        await carried(exchange)
        with exchange.losing(1):
            await asyncio.gather(*(asyncio.create_task(quick(here, text)) for text in "23"))
        await publish(here, "4")
        await carried(exchange)
        await settle(there)
        assert peer.received == list("1234")


async def quick(hub: Hub, text: str) -> None:
    hub.room("red").broadcast(text)


@pytest.mark.parametrize("is_plain", [True, False])
async def test_members_are_told_of_a_loss_that_is_not_kept_any_more(
    exchange: Exchange | ValkeyExchange, is_plain: bool
) -> None:
    async with cluster(exchange, room_rules=RULES) as (here, there):
        member = Member(is_plain=is_plain)
        await member.come(there)
        await publish(here, "1")
        await until(lambda: member.got() == ["1"])
        exchange.brokers[1].cut()
        await until(state(there, "away"))
        await publish(here, *"2345678")
        exchange.brokers[1].mend()
        await until(lambda: GAP in member.got() and member.is_there())
        await publish(here, "9")
        await until(lambda: member.got()[-1:] == ["9"])
        assert member.got() == (["1", GAP, "9"] if is_plain else [GAP, "9"])
        assert member.recovering.began_anew == (0 if is_plain else 1)


async def test_a_history_that_cannot_be_read_is_read_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recovery_module, "RETRY_S", 0.001)
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (here, there):
        peer = connect(there)
        await peer.client.subscribe("red")
        await publish(here, "1")
        await carried(exchange)
        broker, failures = exchange.brokers[1], [OSError("reset"), BrokerUnavailable("away")]
        read = broker.history

        async def failing(*args: Any, **keywords: Any) -> Any:
            if failures:
                raise failures.pop()
            return await read(*args, **keywords)

        monkeypatch.setattr(broker, "history", failing)
        broker.cut()
        await publish(here, "2")
        broker.mend()
        await until(lambda: said(peer) == ["1", "2"])
        assert "the history of red could not be read: away; asked again" in caplog.text


async def test_who_joins_while_the_broker_is_away_may_try_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (here, there):
        await publish(here, "1")

        async def away(*args: Any, **keywords: Any) -> Any:
            raise BrokerUnavailable("away")

        monkeypatch.setattr(exchange.brokers[1], "history", away)
        peer = connect(there)
        with pytest.raises(CommandError, match="unavailable") as caught:
            await peer.client.subscribe("red")
        assert caught.value.temporary
        assert peer.client.rooms == frozenset()
        assert core_of(there).recovery.joining_rooms == 0


async def test_joining_brings_the_others_up_to_date_first() -> None:
    """Its history may be ahead of what has come here: the room's members must not see that twice."""
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (here, there):
        member = connect(there)
        await member.client.subscribe("red")
        await publish(here, "1")
        await carried(exchange)
        exchange.hold()
        for text in "23":
            here.room("red").broadcast(text)
        newcomer, other = connect(there), connect(there)
        start = Position(0, (await there.cursor("red")).epoch)
        answers = await asyncio.gather(
            newcomer.client.subscribe("red", since=start), other.client.subscribe("red")
        )
        exchange.release()
        await publish(here, "4")
        await carried(exchange)
        await settle(there)
        assert [answer.recovered for answer in answers] == [True, False]
        assert member.received == newcomer.received == list("1234")
        assert other.received == ["4"]


async def test_who_joins_is_given_what_is_kept_though_what_the_others_lack_is_not() -> None:
    """It has seen more than has come here, where something was lost that nobody has reported."""
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (here, there):
        member = connect(there)
        await member.client.subscribe("red")
        await publish(here, "1")
        await until(lambda: said(member) == ["1"])
        with exchange.losing(1):
            await asyncio.gather(*(asyncio.create_task(quick(here, text)) for text in "2345678"))
        newcomer = connect(there)
        since = Position(3, (await there.cursor("red")).epoch)
        answer = await newcomer.client.subscribe("red", since=since)
        assert (answer.recovered, len(answer.publications)) == (True, 5)
        await publish(here, "9")
        await until(lambda: said(newcomer)[-1:] == ["9"])
        assert member.received == ["1", GAP, "9"]
        assert said(newcomer) == list("456789")


async def test_what_comes_while_a_history_is_read_is_held_back_within_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery_module, "MOST_HELD_BACK", 3)
    assert MOST_HELD_BACK == 1000
    exchange = Exchange(late_turns=3)
    rules = [RoomRules("red", history=100)]
    hubs = exchange.hubs(2, room_rules=rules)
    for hub in hubs:
        await hub.start()
    here, there = hubs
    peer = connect(there)
    joining = asyncio.create_task(peer.client.subscribe("red"))
    await carried(exchange)
    await joining
    await publish(here, "0")
    await carried(exchange)
    exchange.brokers[1].cut()
    await publish(here, "1")
    exchange.brokers[1].mend()
    for number in range(2, 20):
        await publish(here, str(number))
    await carried(exchange)
    await until(lambda: len(said(peer)) == 20)
    assert said(peer) == [str(number) for number in range(20)]
    for hub in hubs:
        await hub.stop()


@pytest.mark.parametrize("how", ["leaves", "goes"])
async def test_who_leaves_while_its_right_is_asked_for_publishes_nothing(how: str) -> None:
    hub = await remembering()
    may_answer = asyncio.Event()

    @hub.authorize
    async def slowly(client: Client, action: str, room: str) -> bool:
        if action == "publish":
            await may_answer.wait()
        return True

    peer, member = connect(hub, dialect=DIALECT), connect(hub)
    member.client.join("members:1")
    peer.send('["connect", 1]')
    peer.send('["subscribe", 2, "members:1"]')
    await settle(hub)
    peer.send('["publish", 3, "members:1", "too late"]')
    await settle(hub)
    if how == "leaves":
        peer.client.leave("members:1")
    else:
        peer.client.close(3500, "banned")
    may_answer.set()
    await settle(hub)
    assert member.received == []
    await hub.stop()


async def test_a_hub_that_starts_again_knows_nothing_of_who_was_joining(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = await remembering()
    broker, may_answer = core_of(hub).broker, asyncio.Event()
    read = broker.history  # type: ignore[attr-defined]

    async def slowly(*args: Any, **keywords: Any) -> Any:
        page = await read(*args, **keywords)
        await may_answer.wait()
        return page

    monkeypatch.setattr(broker, "history", slowly)
    before = asyncio.create_task(connect(hub).client.subscribe("red"))
    await asyncio.sleep(0)
    await hub.stop()
    await hub.start()
    after = asyncio.create_task(connect(hub).client.subscribe("red"))
    await asyncio.sleep(0)
    may_answer.set()
    with pytest.raises(CommandError, match="left"):
        await before
    assert (await after).room == "red"
    assert core_of(hub).recovery.joining_rooms == 0
    await hub.stop()


@pytest.mark.parametrize(
    "settings", [{"slow_policy": "latest"}, {"slow_policies": {"log": "latest"}}]
)
@pytest.mark.parametrize(
    "rule", [RoomRules("log", history=100), RoomRules("log", history=9, cache=True, delta=True)]
)
async def test_a_policy_that_drops_in_silence_is_not_for_rooms_that_promise_each(
    settings: dict[str, Any], rule: RoomRules
) -> None:
    hub = await started(room_rules=[rule], **settings)
    peer = connect(hub)
    await peer.client.subscribe("log")
    members = core_of(hub).registry.room_of("log")
    assert members is not None
    assert members.policy == "drop_oldest"
    await hub.stop()


async def test_what_a_broker_has_cancelled_does_not_silence_a_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery_module, "RETRY_S", 0.001)
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (here, there):
        peer = connect(there)
        await peer.client.subscribe("red")
        broker, failures = exchange.brokers[1], 2
        read = broker.history

        async def failing(*args: Any, **keywords: Any) -> Any:
            nonlocal failures
            if failures:
                failures -= 1
                raise asyncio.CancelledError
            return await read(*args, **keywords)

        monkeypatch.setattr(broker, "history", failing)
        broker.cut()
        await publish(here, "1")
        broker.mend()
        await until(lambda: said(peer) == ["1"])


async def test_who_joined_before_anything_was_published_misses_nothing_either() -> None:
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (here, there):
        peer = connect(there)
        peer.client.join("red")
        await carried(exchange)
        exchange.brokers[1].cut()
        await publish(here, "1")
        exchange.brokers[1].mend()
        await publish(here, "2")
        await carried(exchange)
        await settle(there)
        assert said(peer) == ["1", "2"]


async def test_a_new_history_that_cannot_be_read_at_once_is_told_when_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery_module, "RETRY_S", 0.01)
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (here, there):
        peer = connect(there)
        await peer.client.subscribe("red")
        await publish(here, "1")
        await carried(exchange)
        broker: Any = exchange.brokers[1]
        await exchange.brokers[0].remove_history("red")
        read, failures = broker.history, [None, BrokerUnavailable("away again")]

        async def failing(*args: Any, **keywords: Any) -> Any:
            error = failures.pop(0) if failures else None
            if error is not None:
                raise error
            return await read(*args, **keywords)

        broker.history = failing
        broker.node.note_gap(["red"])
        await until(lambda: not failures and len(peer.received) == 2)
        assert peer.received == ["1", GAP]


async def test_a_room_that_is_joined_anew_as_its_reading_ends_is_read_again() -> None:
    hub = await remembering()
    broker: Any = core_of(hub).broker
    read, gate = broker.history, asyncio.get_running_loop().create_future()
    gates = [gate]

    async def history(*args: Any, **keywords: Any) -> Any:
        if gates:
            await gates.pop()
        return await read(*args, **keywords)

    broker.history = history
    first, second = connect(hub), connect(hub)
    first.client.join("red")
    await until(lambda: not gates)
    first.client.leave("red")
    gate.set_result(None)
    # Behind the task that this wakes, and before what its end calls.
    asyncio.get_running_loop().call_soon(second.client.join, "red")
    recovery = core_of(hub).recovery
    await until(lambda: recovery.position_of("red") is not None)
    await until(lambda: not recovery._placing)
    answer = await connect(hub).client.subscribe("red")
    assert answer.position is not None
    await hub.stop()
