"""Commands, through clients in memory: their order, and what goes on while one waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from array_dialect import ArrayDialect, events_of
from hub.test_variant import FailingDialect
from hubbub import Client, Close, CommandError, Frame, Handshake, Hub, Identity, ProtocolError
from hubbub.dialects.dialect import Command
from hubbub.hub.commands import AUTHENTICATION_SHARE
from hubbub.hub.core import core_of
from hubbub.room_rules import RoomRules, SlowPolicy
from hubbub.testing import MemoryClient, connect, settle
from started_hub import code_of, started

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


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "latest"])
async def test_errors_that_an_open_connection_does_not_take_are_dropped_and_hurt_nobody(
    policy: SlowPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub(slow_policy=policy, outbox_max_entries=1)
    told: list[int] = []
    hub.on_drop(lambda client, count: told.append(count))
    await hub.start()
    peer, other = connect(hub, dialect=ArrayDialect()), connect(hub)
    peer.transport.block()
    for _ in range(3):
        ask(peer, "nonsense")
        other.client.send("x")
        await settle(hub)
    assert other.received == ["x"] * 3
    assert "client from 127.0.0.1 is slow" in caplog.text
    peer.transport.unblock()
    await settle(hub)
    assert (told, hub.stats()["dropped"], hub.stats()["handler_errors"]) == ([], 2, 0)
    await hub.stop()


@pytest.mark.parametrize("error", [LookupError("x"), ProtocolError(1005, "x"), RecursionError()])
async def test_a_dialect_that_fails_at_parsing_closes_its_client_as_a_handler_would(
    error: Exception,
) -> None:
    class Failing(ArrayDialect):
        def parse(self, frame: Frame) -> Sequence[Command]:
            if b"boom" in frame.payload:
                raise error
            return super().parse(frame)

    hub = Hub()
    gone: list[int] = []
    hub.on_disconnect(lambda client, close: gone.append(close.code))
    await hub.start()
    peer = connect(hub, dialect=Failing())
    ask(peer, "connect", 1)
    ask(peer, "boom")  # in the inbox: the one before may be a task
    await settle(hub)
    await settle(hub)
    assert (gone, hub.stats()["handler_errors"]) == ([1011], 1)
    only_open = connect(hub, dialect=Failing())
    ask(only_open, "boom")
    assert only_open.closed == Close(1011, "internal error", by_server=True)
    await hub.stop()


@pytest.mark.parametrize("what", ["Connected", "Reply", "ErrorReply"])
async def test_an_answer_that_a_dialect_cannot_say_is_a_failure_of_that_client_alone(
    what: str,
) -> None:
    hub = Hub()
    await hub.start()
    peer = connect(hub, dialect=FailingDialect(what))
    ask(peer, "connect", 1)
    await settle(hub)
    assert (peer.closed is not None) == (what == "Connected")
    if what != "Connected":
        ask(peer, "subscribe", 2, "red" if what == "Reply" else "")
        await settle(hub)
    assert peer.closed == Close(1011, "internal error", by_server=True)
    stats = hub.stats()
    assert (stats["handler_errors"], stats["register"], stats["clients"]) == (1, 0, 0)
    await hub.stop()


async def test_who_cannot_be_told_that_it_is_connected_is_closed_in_any_case() -> None:
    hub = Hub(on_handler_error="stay")
    seen: list[Client] = []
    hub.on_connect(seen.append)
    await hub.start()
    peer = connect(hub, dialect=FailingDialect("Connected"))
    ask(peer, "connect", 1)
    await settle(hub)
    assert code_of(peer) == 1011
    stats = hub.stats()
    assert (stats["handler_errors"], stats["register"], len(hub), seen) == (1, 0, 0, [])
    await hub.stop()


@pytest.mark.parametrize("error", [LookupError(), asyncio.CancelledError()])
async def test_a_command_that_fails_is_answered_if_its_client_stays(error: BaseException) -> None:
    hub = Hub(on_handler_error="stay")

    @hub.authorize
    async def may(client: Client, action: str, room: str) -> bool:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if isinstance(error, asyncio.CancelledError):
            future.cancel()
        else:
            future.set_exception(error)
        return await future

    await hub.start()
    peer = await connected(hub)
    ask(peer, "subscribe", 2, "red")
    await settle(hub)
    assert events_of(peer.received)[-1][:3] == ["error", 2, "internal_error"]
    assert (peer.client.rooms, hub.stats()["handler_errors"]) == (frozenset(), 1)
    await hub.stop()


async def test_what_was_sent_before_the_client_left_is_handled_in_order() -> None:
    hub = Hub()
    seen: list[str] = []

    @hub.on_message
    async def heard(client: Client, message: str) -> None:
        await asyncio.sleep(0)
        seen.append(message)

    hub.on_disconnect(lambda client: seen.append("gone"))
    await hub.start()
    peer = await connected(hub)
    peer.send('[["send", "a"], ["send", "b"]]')
    ask(peer, "send", "c")
    peer.close()
    for _ in range(5):
        await settle(hub)
    assert seen == ["a", "b", "c", "gone"]
    await hub.stop()


async def test_who_is_only_open_is_held_to_the_rate_too() -> None:
    hub = Hub(messages_per_second=2, on_rate_limit="close")
    await hub.start()
    peer = connect(hub, dialect=ArrayDialect())
    for _ in range(50):
        if peer.closed is None:
            ask(peer, "nonsense")
    assert hub.stats()["rate_limited"] == 1
    assert peer.closed is not None
    await hub.stop()


@pytest.mark.parametrize("swallows", [False, True])
@pytest.mark.parametrize("end", ["stop", "drop", "timeout"])
async def test_nothing_is_left_of_a_connection_that_ends_while_it_is_authenticated(
    end: str, swallows: bool
) -> None:
    limit_s = 0.1 if end == "timeout" else 5
    hub = Hub(max_clients_per_address=2, handshake_timeout_s=limit_s, inbox_max_messages=4)
    seen: list[object] = []
    hub.on_connect(lambda client: seen.append(client))
    hub.on_disconnect(lambda client: seen.append(client))

    @hub.authenticate
    async def who(handshake: Handshake) -> str:
        try:
            await asyncio.sleep(3)
        except asyncio.CancelledError:
            if not swallows:
                raise
        return "ann"

    await hub.start()
    peer = connect(hub, dialect=ArrayDialect())
    ask(peer, "connect", 1)
    for _ in range(20):
        ask(peer, "send", "x")
    await asyncio.sleep(0.01)
    core = core_of(hub)
    assert (hub.stats()["register"], core.admission.counted_networks()) == (1, 1)
    assert not peer.transport.is_reading
    if end == "stop":
        await hub.stop()
    elif end == "drop":
        peer.transport.drop_connection()
    else:
        await asyncio.sleep(0.15)
    await asyncio.sleep(0.05)
    assert (hub.stats()["register"], core.admission.counted_networks()) == (0, 0)
    assert (core.registry.opened, len(core.lifecycle.tasks), seen) == ({}, 0, [])
    await hub.stop()


def test_places_that_a_dead_loop_has_left_are_given_back() -> None:
    hub = Hub(max_clients=2)

    async def leave_behind() -> int:
        await hub.start()
        connect(hub, dialect=ArrayDialect())
        return int(hub.stats()["register"])

    assert [asyncio.run(leave_behind()) for _ in range(3)] == [1, 1, 1]


async def test_who_sent_its_connect_command_in_time_is_not_stale_while_it_is_authenticated() -> (
    None
):
    hub = Hub(handshake_timeout_s=60)
    may_answer = asyncio.Event()

    @hub.authenticate
    async def slow(handshake: Handshake) -> str:
        await may_answer.wait()
        return "ann"

    await hub.start()
    peer = connect(hub, dialect=ArrayDialect())
    (session,) = core_of(hub).registry.opened
    assert session.opening is not None
    first = session.opening.timer
    await asyncio.sleep(0.01)
    ask(peer, "connect", 1)
    await settle(hub)
    assert first.cancelled()
    longer_s = session.opening.timer.when() - first.when()
    assert longer_s > 60 * (AUTHENTICATION_SHARE - 1), "it has its time anew, and a little more"
    may_answer.set()
    await settle(hub)
    assert session.opening.timer.cancelled()
    assert events_of(peer.received)[0][:2] == ["connected", 1]
    await hub.stop()


class Enveloping(ArrayDialect):
    envelope_bytes = 100


async def test_a_dialect_with_more_in_a_message_has_longer_ones() -> None:
    hub = await started(max_message_bytes=10, room_rules=[RoomRules("red", publish="members")])
    peer = connect(hub, dialect=Enveloping())
    peer.send('["connect", 1]')
    peer.send('["subscribe", 2, "red"]')
    peer.send('["publish", 3, "red", "ten bytes."]')
    peer.send('["publish", 4, "red", "eleven byte"]')
    await settle(hub)
    assert peer.closed is None
    answers = [row for row in events_of(peer.received) if row[1] in (3, 4)]
    assert answers == [["ok", 3], ["error", 4, "too_large", "a message has at most 10 bytes"]]
    peer.send(" " * 111)
    assert code_of(peer) == 1009
    short, plain = connect(hub, dialect=ArrayDialect()), connect(hub)
    short.send('["connect", 1]')
    plain.send("eleven byte")
    assert (code_of(short), code_of(plain)) == (1009, 1009)
    await hub.stop()
