"""Commands, through clients in memory: their order, and what goes on while one waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from array_dialect import ArrayDialect, events_of
from hub.test_variant import FailingDialect
from hubbub import Client, Close, CommandError, Frame, Hub, ProtocolError
from hubbub.dialects.dialect import Command
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
