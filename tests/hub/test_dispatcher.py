"""Dispatcher: handlers of messages, of connecting and of leaving, their order, and who waits for whom."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable

import pytest

from hub.dispatching import Move, started
from hubbub import Client, Close, Disconnected, Handshake, Hub, RoomRules
from hubbub.hub.client import session_of
from hubbub.testing import connect, settle
from started_hub import code_of

pytestmark = pytest.mark.anyio


# Messages


async def test_s06_without_handlers_everybody_gets_every_message_the_sender_too() -> None:
    hub = await started()
    ann, bob = connect(hub), connect(hub, fast=False)
    ann.send("hello")
    bob.send(b"\x00")
    await settle(hub)
    assert ann.received == bob.received == ["hello", b"\x00"]
    stats = hub.stats()
    assert (stats["messages_in"], stats["bytes_in"]) == (2, 6)
    await hub.stop()


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("validates", [False, True])
async def test_a_hub_with_room_rules_relays_nothing(validates: bool, is_late: bool) -> None:
    hub = Hub(room_rules=[] if is_late else [RoomRules("answer:*", stream=True, history=9)])
    if is_late:
        hub.room_rules("answer:*", stream=True, history=9)
    if validates:
        hub.validate(lambda client, message: True)
    await started(hub)
    ann, bob = connect(hub), connect(hub)
    sdk = connect(hub, dialect="centrifuge")
    sdk.send('{"id": 1, "connect": {}}')
    await settle(hub)
    bob.send('{"type": "stream", "room": "answer:1", "text": "mine", "offset": 1, "epoch": "e"}')
    bob.send(b"\x00")
    sdk.send('{"send": {"data": "hello"}}')
    await settle(hub)
    assert ann.received == []
    assert [reply["code"] for reply in bob.json()] == ["not_available"] * 2
    assert code_of(sdk) == 3508
    assert bob.closed is None
    assert hub.stats()["invalid"] == 3
    await hub.stop()


async def test_s04_a_plain_handler_runs_in_place() -> None:
    hub = Hub()
    seen: list[tuple[str, str]] = []
    hub.on_message(lambda client, message: seen.append((client.id, message)))
    await started(hub)
    peer = connect(hub, client_id="ann")
    peer.send("1")
    assert seen == [("ann", "1")]
    assert peer.transport.is_reading
    assert not session_of(peer.client).is_handling
    await hub.stop()


async def test_s04_async_handlers_of_one_client_run_one_at_a_time_those_of_others_beside_them() -> (
    None
):
    hub = Hub()
    log: list[str] = []
    gates = {"ann": asyncio.Event(), "bob": asyncio.Event()}

    @hub.on_message
    async def slow(client: Client, message: str) -> None:
        log.append(f"{client.id} begins {message}")
        await gates[client.id].wait()
        log.append(f"{client.id} ends {message}")

    await started(hub)
    ann, bob = connect(hub, client_id="ann"), connect(hub, client_id="bob")
    for message in ("1", "2", "3"):
        ann.send(message)
    bob.send("4")
    await settle(hub)
    assert log == ["ann begins 1", "bob begins 4"]
    assert session_of(ann.client).is_handling
    assert ann.transport.is_reading, "its pings and its end are taken meanwhile"
    assert hub.stats()["messages_in"] == 4
    gates["ann"].set()
    await settle(hub)
    assert log[2:] == [f"ann {verb} {n}" for n in "123" for verb in ("begins", "ends")][1:]
    assert session_of(bob.client).is_handling
    assert ann.transport.is_reading
    gates["bob"].set()
    await settle(hub)
    assert not session_of(bob.client).is_handling
    await hub.stop()


async def test_an_async_handler_that_never_waits_keeps_the_order_too() -> None:
    hub = Hub()

    @hub.on_message
    async def echo(client: Client, message: str) -> None:
        client.send(message)

    await started(hub)
    peer = connect(hub)
    for number in range(50):
        peer.send(str(number))
    await settle(hub)
    while not peer.transport.is_reading or len(peer.received) < 50:
        await settle(hub)
    assert peer.received == [str(number) for number in range(50)]
    await hub.stop()


async def test_a_plain_function_may_return_something_to_await() -> None:
    hub = Hub()
    done: list[str] = []

    async def work(message: str) -> None:
        await asyncio.sleep(0)
        done.append(message)

    @hub.on_message
    def starts(client: Client, message: str) -> Awaitable[None]:
        return asyncio.ensure_future(work(message))

    await started(hub)
    peer = connect(hub)
    peer.send("1")
    peer.send("2")
    await settle(hub)
    assert done == ["1", "2"]
    await hub.stop()


async def test_typed_handlers() -> None:
    hub = Hub()
    moves: list[object] = []

    @hub.on("move")
    def moved(client: Client, message: Move) -> None:
        moves.append(message)

    @hub.on("any")
    def anything(client: Client, message) -> None:  # type: ignore[no-untyped-def]
        moves.append(message)

    await started(hub)
    peer = connect(hub)
    peer.send({"type": "move", "x": 1})
    peer.send({"type": "any", "y": 2})
    peer.send({"type": "move", "x": "1"})
    peer.send({"type": "fly"})
    await settle(hub)
    assert moves == [Move(1), {"type": "any", "y": 2}]
    assert [reply["code"] for reply in peer.json()] == ["invalid_message", "unknown_type"]
    assert hub.stats()["invalid"] == 2
    await hub.stop()


# Connecting and leaving


async def test_s04_connect_handlers_run_one_after_another_and_before_the_first_message() -> None:
    hub = Hub()
    log: list[str] = []
    gate = asyncio.Event()

    @hub.on_connect
    def first(client: Client) -> None:
        log.append("first")

    @hub.on_connect
    async def second(client: Client, handshake: Handshake) -> None:
        await gate.wait()
        log.append(f"second {handshake.query['room']}")

    @hub.on_connect
    async def third(client: Client) -> None:
        log.append("third")

    @hub.on_connect
    def fourth(client: Client) -> None:
        log.append("fourth")

    hub.on_message(lambda client, message: log.append(message))
    await started(hub)
    peer = connect(hub, query={"room": "red"})
    peer.send("message")
    await settle(hub)
    assert log == ["first"]
    gate.set()
    await settle(hub)
    assert log == ["first", "second red", "third", "fourth", "message"]
    await hub.stop()


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_connect_handler_that_closes_is_the_last(is_async: bool) -> None:
    """Otherwise "joined" would be announced after "left"."""
    hub = Hub()
    log: list[str] = []

    def refuse(client: Client) -> None:
        raise Disconnected(4501, "not today")

    async def refuse_later(client: Client) -> None:
        await asyncio.sleep(0)
        refuse(client)

    hub.on_connect(refuse_later if is_async else refuse)
    hub.on_connect(lambda client: log.append("joined"))
    hub.on_disconnect(lambda client: log.append("left"))
    await started(hub)
    peer = connect(hub)
    await settle(hub)
    assert peer.closed == Close(4501, "not today", by_server=True)
    assert log == ["left"]
    await hub.stop()


@pytest.mark.parametrize("is_async", [False, True])
async def test_s04_disconnect_handlers_learn_how_it_ended(is_async: bool) -> None:
    hub = Hub()
    log: list[object] = []

    async def leaves_later(client: Client, close: Close) -> None:
        await asyncio.sleep(0)
        log.append(close)

    @hub.on_disconnect
    def leaves(client: Client) -> None:
        log.append(client.rooms)

    if is_async:
        hub.on_disconnect(leaves_later)
    hub.on_disconnect(lambda client: log.append("plain"))
    if is_async:
        hub.on_disconnect(functools.partial(leaves_later))
    await started(hub)
    peer = connect(hub)
    peer.client.join("red")
    peer.close(4000, "bye")
    await settle(hub)
    close = Close(4000, "bye")
    last: list[object] = [close, "plain", close] if is_async else ["plain"]
    assert log == [frozenset({"red"}), *last]
    await hub.stop()


async def test_disconnect_handlers_run_after_what_the_clients_handlers_still_do() -> None:
    hub = Hub()
    log: list[str] = []
    gate = asyncio.Event()

    @hub.on_message
    async def slow(client: Client, message: str) -> None:
        await gate.wait()
        log.append("handled")

    @hub.on_disconnect
    async def left(client: Client) -> None:
        log.append("left")

    await started(hub)
    peer = connect(hub)
    peer.send("1")
    peer.send("2")
    await settle(hub)
    peer.transport.drop_connection()
    await settle(hub)
    assert log == []
    assert len(hub) == 0
    gate.set()
    await settle(hub)
    assert log == ["handled", "handled", "left"]
    await hub.stop()


async def test_who_closes_in_a_handler_is_left_only_when_the_handler_has_ended() -> None:
    """Whether Python takes the first step of a task at once (3.12) or later (3.11)."""
    hub = Hub()
    log: list[str] = []

    @hub.on_message
    async def leaves(client: Client, message: str) -> None:
        client.close()
        log.append("closed")
        if message == "slow":
            await asyncio.sleep(0)
        log.append("end")

    hub.on_disconnect(lambda client: log.append("left"))
    await started(hub)
    for message in ("slow", "quick"):
        connect(hub).send(message)
        await settle(hub)
        assert log == ["closed", "end", "left"]
        log.clear()
    await hub.stop()


async def test_fault_02_who_closes_in_a_plain_handler_is_left_when_the_handler_has_ended() -> None:
    hub = Hub()
    log: list[str] = []

    @hub.on_connect
    def comes(client: Client) -> None:
        if client.user == "unwanted":
            closes(client, "")

    @hub.on_message
    def closes(client: Client, message: str) -> None:
        client.close()
        log.append("end")

    hub.on_disconnect(lambda client: log.append("left"))
    await started(hub)
    connect(hub, user="unwanted")
    assert log == ["end", "left"]
    log.clear()
    connect(hub).send("bye")
    assert log == ["end", "left"]
    await hub.stop()


# Drops, rates, logs


async def test_drop_handlers_are_told_plain_and_async() -> None:
    hub = Hub(outbox_max_entries=1, slow_policy="drop_oldest")
    told: list[tuple[str, int]] = []

    @hub.on_drop
    def plain(client: Client, count: int) -> None:
        told.append(("plain", count))

    @hub.on_drop
    async def later(client: Client, count: int) -> None:
        await asyncio.sleep(0)
        told.append(("later", count))

    await started(hub)
    peer = connect(hub)
    peer.transport.block()
    for number in range(3):
        hub.broadcast(str(number))
        await settle(hub)
    peer.transport.unblock()
    await settle(hub)
    assert told == [("plain", 2), ("later", 2)]
    assert peer.received == ["2"]
    await hub.stop()
