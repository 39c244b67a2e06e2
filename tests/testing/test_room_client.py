"""RoomClient: a test of an application cuts a client, heals it, and asks what it has missed."""

from __future__ import annotations

from typing import Any

import pytest

from hubbub import Client, Hub, Identity, Position, Refused, RoomRules
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.testing import FakeClock, advance_time, follow, set_clock, settle

pytestmark = pytest.mark.anyio


async def running(**settings: Any) -> Hub:
    rules = [RoomRules("chat:*", history=100, history_ttl_s=60.0)]
    hub = Hub(room_rules=rules, **settings)
    set_clock(hub, FakeClock())
    await hub.start()
    return hub


async def test_nothing_is_missed_until_it_is_not_kept_any_more() -> None:
    hub = await running()
    ann = await follow(hub, "chat:1")
    await hub.publish("chat:1", {"text": "1"})
    ann.cut()
    await hub.publish("chat:1", {"text": "2"})
    await ann.heal()
    assert (ann.messages, ann.recovered) == ([{"text": "1"}, {"text": "2"}], True)
    ann.cut()
    await hub.publish("chat:1", {"text": "3"})
    advance_time(hub, 61)
    await ann.heal()
    assert (len(ann.messages), ann.recovered, ann.gaps) == (2, False, 1)
    await hub.publish("chat:1", {"text": "4"})
    await settle(hub)
    assert ann.messages[-1] == {"text": "4"}
    assert ann.position is not None
    assert ann.position.offset == 4
    await hub.stop()


async def test_it_begins_where_it_is_told_and_heals_once() -> None:
    hub = await running()
    start = await hub.cursor("chat:1")
    await hub.publish("chat:1", 1)
    ann = await follow(hub, "chat:1", since=start)
    peer = ann.memory
    await ann.heal()
    assert (ann.messages, ann.recovered, ann.memory is peer) == ([1], True, True)
    assert (await follow(hub, "chat:1")).recovered is None
    await hub.stop()


async def test_it_comes_back_by_itself_when_it_is_told_of_a_gap() -> None:
    hub = await running(slow_policy="drop_oldest", outbox_max_entries=3)
    ann = await follow(hub, "chat:1")
    ann.memory.transport.block()
    for number in range(50):
        await hub.publish("chat:1", number)
        await settle(hub)
    ann.memory.transport.unblock()
    await settle(hub)
    assert len(ann.messages) < 50
    await settle(hub)
    assert (ann.messages, ann.recovered) == (list(range(50)), True)
    await hub.stop()


async def test_a_room_that_keeps_nothing() -> None:
    hub = await running()
    ann = await follow(hub, "other")
    await hub.publish("other", "1")
    await settle(hub)
    ann.cut()
    await hub.publish("other", "2")
    await ann.heal()
    assert (ann.messages, ann.recovered, ann.position) == ([1], None, None)
    await hub.stop()


@pytest.mark.parametrize("giver", ["identity", "handler"])
async def test_a_room_that_the_server_gives(giver: str) -> None:
    rules = [RoomRules("chat:*", history=3)]
    hub = Hub(room_rules=rules)

    @hub.authenticate
    def who(handshake: object) -> Identity:
        return Identity(user="ann", rooms=("chat:1",) if giver == "identity" else ())

    @hub.on_connect
    async def begin(client: Client) -> None:
        if giver == "handler":
            await client.subscribe("chat:1")

    await hub.start()
    ann = await follow(hub, "chat:1")
    assert (ann.error, ann.recovered) == (None, None)
    assert ann.position is not None
    assert ann.position.offset == 0
    await hub.publish("chat:1", 1)
    await settle(hub)
    ann.cut()
    await hub.publish("chat:1", 2)
    await ann.heal()
    assert (ann.messages, ann.recovered, ann.gaps) == ([1, 2], True, 0)
    ann.cut()
    await ann.heal()
    assert (ann.messages, ann.recovered, ann.gaps) == ([1, 2], True, 0)
    ann.cut()
    for number in range(10):
        await hub.publish("chat:1", number)
    await ann.heal()
    assert (ann.messages, ann.recovered, ann.gaps, ann.error) == ([1, 2], False, 1, None)
    assert ann.position.offset == 12
    await hub.stop()


async def test_a_room_that_is_refused_later_is_read_when_it_is_asked_for() -> None:
    hub = await running()
    allowed = {"ann"}
    hub.authorize(lambda client, action, room: bool(allowed))
    ann = await follow(hub, "chat:1")
    allowed.clear()
    core_of(hub).gaps.tell(session_of(ann.memory.client), "chat:1")
    await settle(hub)
    assert ann.messages == []  # and asks again, having heard of the gap
    await settle(hub)
    assert ann.error == 103
    ann.cut()
    allowed.add("ann")
    await ann.heal()
    assert ann.error is None
    await hub.stop()


async def test_who_is_not_let_in() -> None:
    hub = await running()
    hub.authorize(lambda client, action, room: False)
    ann = await follow(hub, "chat:1")
    assert (ann.error, ann.messages) == (103, [])
    await hub.stop()
    hub = Hub()

    @hub.authenticate
    def who(handshake: object) -> Identity:
        token = getattr(handshake, "connect_token", None)
        if token != "secret":
            raise Refused(401, "unauthorized", "no")
        return Identity(user="ann")

    await hub.start()
    with pytest.raises(RuntimeError, match="was not let in"):
        await follow(hub, "chat:1")
    ann = await follow(hub, "chat:1", token="secret", since=Position(1, "x"))
    assert ann.memory.client.user == "ann"
    await hub.stop()


async def test_a_connection_that_ended_unheard_is_no_error_to_read() -> None:
    hub = await running()
    ann = await follow(hub, "chat:1")
    await hub.publish("chat:1", "one")
    core_of(hub).gaps.tell(session_of(ann.memory.client), "chat:1")
    ann.memory.client.close(3008, "slow")
    await settle(hub)
    assert ann.messages == ["one"]
    await ann.heal()
    await hub.publish("chat:1", "two")
    await settle(hub)
    assert ann.messages == ["one", "two"]
    await hub.stop()


@pytest.mark.parametrize("is_given_again", [True, False])
async def test_who_was_taken_out_stays_out_unless_the_server_puts_it_in(
    is_given_again: bool,
) -> None:
    hub = await running()
    puts: list[str] = []

    @hub.on_connect
    async def came(client: Client) -> None:
        for room in puts:
            await client.subscribe(room)

    ann = await follow(hub, "chat:1")
    ann.memory.client.leave("chat:1")
    await settle(hub)
    ann.cut()
    if is_given_again:
        puts.append("chat:1")
    await ann.heal()
    await hub.publish("chat:1", "news")
    await settle(hub)
    assert ann.messages == (["news"] if is_given_again else [])
    assert ann.memory.client.rooms == ({"chat:1"} if is_given_again else set())
    if is_given_again:
        ann.cut()
        puts.clear()
        await ann.heal()
        assert ann.memory.client.rooms == {"chat:1"}, "it was in when it was cut off"
    await hub.stop()
