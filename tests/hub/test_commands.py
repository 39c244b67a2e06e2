"""Commands, through clients in memory: their order, and what goes on while one waits."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from array_dialect import ArrayDialect, events_of
from hubbub import Client, Close, CommandError, Handshake, Hub, Identity
from hubbub.testing import MemoryClient, connect, settle

pytestmark = pytest.mark.anyio


def ask(peer: MemoryClient, *command: Any) -> None:
    peer.send(msgspec.json.encode(command).decode())


async def connected(hub: Hub, token: str | None = None, **options: Any) -> MemoryClient:
    peer = connect(hub, dialect=ArrayDialect(), **options)
    ask(peer, "connect", 1, token)
    await settle(hub)
    return peer


async def test_several_commands_in_a_message_are_carried_out_in_order() -> None:
    hub = Hub()
    seen: list[str] = []

    @hub.on_message
    async def heard(client: Client, message: str) -> None:
        await asyncio.sleep(0)
        seen.append(message)
        client.send(f"heard {message}")

    await hub.start()
    peer = connect(hub, dialect=ArrayDialect())
    rows = [["connect", 1], ["send", "a"], ["subscribe", 2, "red"], ["send", "b"], ["pong"]]
    peer.send(msgspec.json.encode(rows).decode())
    await settle(hub)
    assert seen == ["a", "b"]
    assert events_of(peer.received) == [
        ["connected", 1, peer.client.id],
        ["message", "heard a"],
        ["ok", 2],
        ["message", "heard b"],
    ]
    await hub.stop()


async def test_messages_wait_while_a_command_does_and_stop_the_socket_when_they_are_many() -> None:
    hub = Hub(inbox_max_messages=4)
    gate = asyncio.Event()

    @hub.authorize
    async def may(client: Client, action: str, room: str) -> bool:
        await gate.wait()
        return True

    seen: list[str] = []
    hub.on_message(lambda client, message: seen.append(message))
    await hub.start()
    peer = await connected(hub)
    ask(peer, "subscribe", 2, "red")
    for number in range(6):
        ask(peer, "send", str(number))
    await settle(hub)
    assert (seen, peer.transport.is_reading) == ([], False)
    gate.set()
    for _ in range(5):  # each message is a task of its own before Python 3.12
        await settle(hub)
    assert (seen, peer.transport.is_reading) == ([str(n) for n in range(6)], True)
    await hub.stop()


async def test_connect_handlers_end_before_the_next_command_and_may_send_after_the_answer() -> None:
    hub = Hub()
    log: list[str] = []

    @hub.on_connect
    async def came(client: Client, handshake: Handshake) -> None:
        client.send("hello")
        await asyncio.sleep(0)
        log.append(f"came {handshake.token}")

    hub.on_message(lambda client, message: log.append(message))
    await hub.start()
    peer = connect(hub, dialect=ArrayDialect())
    ask(peer, "connect", 1, "ann")
    ask(peer, "send", "first")
    await settle(hub)
    assert log == ["came ann", "first"]
    assert events_of(peer.received) == [["connected", 1, peer.client.id], ["message", "hello"]]
    await hub.stop()


async def test_what_handlers_raise_is_answered_or_closes_as_in_the_plain_dialect() -> None:
    hub = Hub(on_handler_error="close")

    @hub.validate
    def check(client: Client, message: str) -> bool:
        return message != "bad"

    @hub.on_message
    def heard(client: Client, message: str) -> None:
        if message == "no":
            raise CommandError("nope", "not today")
        raise LookupError(message)

    await hub.start()
    peer = await connected(hub)
    ask(peer, "send", "bad")
    ask(peer, "send", "no")
    await settle(hub)
    assert [event[2] for event in events_of(peer.received)[1:]] == ["invalid_message", "nope"]
    ask(peer, "send", "broken")
    await settle(hub)
    assert peer.closed == Close(1011, "internal error", by_server=True)
    assert (hub.stats()["invalid"], hub.stats()["handler_errors"]) == (1, 1)
    await hub.stop()


async def test_a_user_takes_its_id_over_and_nobody_else_does() -> None:
    hub = Hub()
    hub.authenticate(lambda handshake: Identity(handshake.token, client_id="tab"))
    await hub.start()
    first = await connected(hub, "ann")
    assert events_of((await connected(hub, "bob")).received)[0][2] == "id_in_use"
    second = await connected(hub, "ann")
    assert first.closed == Close(3511, "replaced", by_server=True)
    assert second.client.id == "tab"
    assert (len(hub), hub.stats()["register"]) == (1, 0)
    await hub.stop()


async def test_the_token_of_a_client_that_was_connected_by_a_command_ends_too() -> None:
    from time import time

    from hubbub.testing import FakeClock, advance_time, set_clock

    hub = Hub(on_expiry="ask")
    set_clock(hub, FakeClock())
    hub.authenticate(lambda handshake: Identity("ann", expires_at=time() + 100))
    await hub.start()
    peer = await connected(hub, "token")
    advance_time(hub, 75)
    await settle(hub)
    assert events_of(peer.received)[-1][0] == "refresh"
    ask(peer, "refresh", 2, "token")
    await settle(hub)
    advance_time(hub, 50)
    assert peer.closed is None
    advance_time(hub, 60)
    assert peer.closed == Close(3005, "token expired", by_server=True)
    await hub.stop()


async def test_who_is_only_open_is_nobody_to_the_application() -> None:
    hub = Hub(max_clients=1)
    gone: list[Client] = []
    hub.on_disconnect(lambda client: gone.append(client))
    await hub.start()
    peer = connect(hub, dialect=ArrayDialect())
    hub.broadcast("to all")
    await settle(hub)
    assert (peer.received, len(hub), list(hub), hub.stats()["register"]) == ([], 0, [], 1)
    assert repr(peer) == "<MemoryClient from 127.0.0.1>"
    with pytest.raises(AttributeError):
        _ = peer.client
    peer.transport.drop_connection()
    assert (gone, hub.stats()["register"]) == ([], 0)
    await hub.stop()
