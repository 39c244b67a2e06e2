"""Dispatcher: all that a connection, a message or a disconnect may cause, through clients in memory."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
import pydantic
import pytest

from hubbub import Client, Close, CommandError, Disconnected, Handshake, Hub
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.testing import FakeClock, MemoryClient, connect, set_clock, settle

pytestmark = pytest.mark.anyio


class Move(msgspec.Struct):
    x: int


class Login(pydantic.BaseModel):
    token: int


async def started(hub: Hub | None = None, **settings: Any) -> Hub:
    hub = hub or Hub(**settings)
    await hub.start()
    return hub


def code_of(peer: MemoryClient) -> int | None:
    return None if peer.closed is None else peer.closed.code


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


# Validation


def refuse_with_value_error(client: Client, message: Any) -> None:
    raise ValueError("too\nlong")


def refuse_without_words(client: Client, message: Any) -> None:
    raise ValueError


def refuse_with_command_error(client: Client, message: Any) -> None:
    raise CommandError("forbidden", "not for you", temporary=True)


async def refuse_async(client: Client, message: Any) -> bool:
    await asyncio.sleep(0)
    return False


async def refuse_async_with_error(client: Client, message: Any) -> bool:
    raise CommandError("late", "no")


def refuse_by_future(client: Client, message: Any) -> Awaitable[bool]:
    future = asyncio.get_running_loop().create_future()
    future.set_result(False)
    return future


@pytest.mark.parametrize(
    ("validate", "code", "text"),
    [
        (lambda client, message: False, "invalid_message", "the message was refused"),
        (refuse_with_value_error, "invalid_message", "too\ufffdlong"),
        (refuse_without_words, "invalid_message", "the message was refused"),
        (refuse_with_command_error, "forbidden", "not for you"),
        (refuse_async, "invalid_message", "the message was refused"),
        (refuse_async_with_error, "late", "no"),
        (refuse_by_future, "invalid_message", "the message was refused"),
    ],
)
@pytest.mark.parametrize("has_handler", [False, True])
async def test_s17_validate_refuses_and_the_socket_lives(
    validate: Callable[[Client, Any], Any], code: str, text: str, has_handler: bool
) -> None:
    hub = Hub()
    handled: list[str] = []
    hub.validate(validate)
    if has_handler:
        hub.on_message(lambda client, message: handled.append(message))
    await started(hub)
    peer, other = connect(hub), connect(hub)
    peer.send("x")
    await settle(hub)
    (reply,) = peer.json()
    assert (reply["type"], reply["code"], reply["message"]) == ("error", code, text)
    assert reply.get("temporary", False) is (code == "forbidden")
    assert handled == other.received == []
    assert hub.stats()["invalid"] == 1
    assert peer.client.is_connected
    await hub.stop()


async def allow_async(client: Client, message: Any) -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize("validate", [lambda client, message: None, allow_async])
@pytest.mark.parametrize("handler", ["none", "plain", "async"])
async def test_s17_what_validate_lets_pass_is_handled_in_order(
    validate: Callable[[Client, Any], Any], handler: str
) -> None:
    hub = Hub()
    seen: list[str] = []

    async def takes_later(client: Client, message: str) -> None:
        await asyncio.sleep(0)
        seen.append(message)

    hub.validate(validate)
    if handler == "plain":
        hub.on_message(lambda client, message: seen.append(message))
    elif handler == "async":
        hub.on_message(takes_later)
    await started(hub)
    peer = connect(hub)
    peer.send("1")
    peer.send("2")
    await settle(hub)
    await settle(hub)
    assert (peer.received if handler == "none" else seen) == ["1", "2"]
    assert hub.stats()["invalid"] == 0
    await hub.stop()


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_validate_that_fails_is_a_handler_that_fails(is_async: bool) -> None:
    hub = Hub()

    def broken(client: Client, message: Any) -> None:
        raise RuntimeError("broken")

    async def broken_later(client: Client, message: Any) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("broken")

    hub.validate(broken_later if is_async else broken)
    await started(hub)
    peer = connect(hub)
    peer.send("x")
    await settle(hub)
    assert code_of(peer) == 1011
    assert peer.received == []
    stats = hub.stats()
    assert (stats["handler_errors"], stats["invalid"]) == (1, 0)
    await hub.stop()


@pytest.mark.parametrize(
    ("on_invalid", "replies", "code"), [("reply", 1, None), ("ignore", 0, None), ("close", 0, 1008)]
)
async def test_s17_what_an_invalid_message_causes_is_a_setting(
    on_invalid: Literal["reply", "ignore", "close"], replies: int, code: int | None
) -> None:
    hub = Hub(on_invalid=on_invalid)

    @hub.on_message
    def moved(client: Client, message: Move) -> None: ...

    await started(hub)
    peer, other = connect(hub), connect(hub)
    peer.send("no json")
    await settle(hub)
    assert len(peer.received) == replies
    assert code_of(peer) == code
    assert hub.stats()["invalid"] == 1
    assert other.received == []
    await hub.stop()


# Handlers that fail


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("setting", "code"), [("close", 1011), ("stay", None)])
async def test_a_handler_that_raises_is_logged_and_closes_its_client_as_set(
    is_async: bool,
    setting: Literal["close", "stay"],
    code: int | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub(on_handler_error=setting)

    async def broken_later(client: Client, message: str) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("broken")

    def broken(client: Client, message: str) -> None:
        raise RuntimeError("broken")

    hub.on_message(broken_later if is_async else broken)
    await started(hub)
    peer, other = connect(hub, client_id="ann"), connect(hub)
    peer.send("x")
    await settle(hub)
    assert code_of(peer) == code
    assert peer.received == other.received == []
    assert other.client.is_connected
    assert hub.stats()["handler_errors"] == 1
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "client ann" in record.getMessage()
    assert record.exc_info is not None
    await hub.stop()


async def test_a_handler_may_answer_with_an_error_or_close_its_client() -> None:
    hub = Hub()

    @hub.on_message
    def decides(client: Client, message: str) -> None:
        if message == "close":
            raise Disconnected(4500, "enough")
        raise CommandError("no", "no such thing")

    await started(hub)
    peer = connect(hub)
    peer.send("x")
    peer.send("close")
    await settle(hub)
    assert peer.json() == [{"type": "error", "code": "no", "message": "no such thing"}]
    assert peer.closed == Close(4500, "enough", by_server=True)
    stats = hub.stats()
    assert (stats["handler_errors"], stats["invalid"]) == (0, 0)
    await hub.stop()


async def test_disconnect_handlers_that_fail_do_not_stop_the_others() -> None:
    hub = Hub()
    log: list[str] = []

    @hub.on_disconnect
    def broken(client: Client) -> None:
        raise RuntimeError("broken")

    @hub.on_disconnect
    async def broken_too(client: Client) -> None:
        raise CommandError("x", "nobody will read this")

    hub.on_disconnect(lambda client: log.append("left"))
    await started(hub)
    connect(hub).close()
    await settle(hub)
    assert log == ["left"]
    stats = hub.stats()
    assert (stats["handler_errors"], stats["sends_to_gone"]) == (1, 1)
    await hub.stop()


async def test_a_handler_whose_wait_was_cancelled_lets_its_client_go_on() -> None:
    hub = Hub()

    @hub.on_message
    async def waits(client: Client, message: str) -> None:
        if message == "cancelled":
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        client.send(message)

    await started(hub)
    peer = connect(hub)
    peer.send("cancelled")
    peer.send("next")
    await settle(hub)
    assert peer.received == ["next"]
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


async def test_who_sends_too_fast_is_closed() -> None:
    hub, clock = Hub(messages_per_second=5), FakeClock()
    set_clock(hub, clock)
    await started(hub)
    peer = connect(hub)
    for _ in range(10):
        peer.send("x")
    clock.advance(1.0)
    for _ in range(5):
        peer.send("x")
    assert peer.closed is None
    peer.send("too many")
    assert code_of(peer) == 3013
    stats = hub.stats()
    assert (stats["rate_limited"], stats["messages_in"]) == (1, 16)
    assert len(peer.received) == 15
    await hub.stop()


@pytest.mark.parametrize(("rate", "allowed"), [(3, 20), (50, 100)])
async def test_frames_that_are_no_messages_have_a_limit_of_their_own(
    rate: float, allowed: int
) -> None:
    """Never under ten a second: a slow talker's pings, and the pongs for ours, are no flood."""
    hub, clock = Hub(messages_per_second=rate), FakeClock()
    set_clock(hub, clock)
    await started(hub)
    peer = connect(hub)
    client = peer.client
    admitted = [
        core_of(hub).rates.charge_frame(session_of(client), droppable=True)
        for _ in range(allowed)
    ]
    assert all(admitted)
    peer.send("a message is counted apart")
    assert not core_of(hub).rates.charge_frame(session_of(client), droppable=True)
    assert code_of(peer) == 3013
    assert hub.stats()["rate_limited"] == 1
    await hub.stop()


async def test_frames_are_dropped_instead_where_messages_are_but_a_fragment_cannot_be() -> None:
    hub, clock = Hub(messages_per_second=10, on_rate_limit="reply"), FakeClock()
    set_clock(hub, clock)
    await started(hub)
    peer = connect(hub)
    admitted = [
        core_of(hub).rates.charge_frame(session_of(peer.client), droppable=True)
        for _ in range(30)
    ]
    assert admitted == [True] * 20 + [False] * 10
    assert peer.closed is None
    assert not core_of(hub).rates.charge_frame(session_of(peer.client), droppable=False)
    assert code_of(peer) == 3013
    await hub.stop()


async def test_without_a_rate_no_frame_is_counted() -> None:
    hub = Hub()
    await started(hub)
    client = connect(hub).client
    assert all(
        core_of(hub).rates.charge_frame(session_of(client), droppable=False)
        for _ in range(1000)
    )
    assert session_of(client).frame_bucket is None
    await hub.stop()


async def test_who_sends_too_fast_may_be_told_instead_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub, clock = Hub(messages_per_second=5, on_rate_limit="reply"), FakeClock()
    set_clock(hub, clock)
    seen: list[str] = []
    hub.on_message(lambda client, message: seen.append(message))
    await started(hub)
    peer = connect(hub)
    for number in range(110):
        peer.send(str(number))
    await settle(hub)
    assert seen == [str(number) for number in range(10)]
    assert peer.closed is None
    told = {
        "type": "error",
        "code": "too_many_messages",
        "message": "more than 5 messages per second; the message was dropped",
        "temporary": True,
    }
    assert peer.json() == [told], "a hundred messages too many cause one answer"
    assert "sent more than 5 messages per second; they are dropped" in caplog.text
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert hub.stats()["rate_limited"] == 100
    clock.advance(1.0)
    for number in range(200, 210):
        peer.send(str(number))
    await settle(hub)
    assert seen[10:] == [str(number) for number in range(200, 205)]
    assert peer.json() == [told, told]
    assert hub.stats()["rate_limited"] == 105
    await hub.stop()


SECRET = "hunter2"


@pytest.mark.parametrize("refusal", ["pydantic", "enum", "validate", "broken"])
async def test_no_log_line_quotes_a_message(refusal: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    hub = Hub()

    class Kind(msgspec.Struct, tag="kind"):
        n: int

    def takes_model(client: Client, message: Login) -> None: ...
    def takes_kind(client: Client, message: Any) -> None: ...
    def takes_text(client: Client, message: str) -> None: ...

    takes_kind.__annotations__["message"] = Kind

    def quotes(client: Client, message: object) -> None:
        raise ValueError(f"bad message {message!r}")

    if refusal == "validate":
        hub.validate(quotes)
    handlers = {"pydantic": takes_model, "enum": takes_kind}
    hub.on_message(handlers.get(refusal, takes_text if refusal == "validate" else takes_model))
    await started(hub)
    peer = connect(hub, client_id="ann")
    data = {"token": SECRET, "type": SECRET}
    peer.send(f"{SECRET}{{" if refusal == "broken" else msgspec.json.encode(data).decode())
    await settle(hub)
    assert peer.json()[0]["code"] == "invalid_message"
    assert "client ann sent an invalid message" in caplog.text
    assert SECRET not in caplog.text
    await hub.stop()


async def test_log_lines_of_invalid_messages_are_limited(caplog: pytest.LogCaptureFixture) -> None:
    hub, clock = Hub(), FakeClock()
    set_clock(hub, clock)
    hub.validate(lambda client, message: False)
    await started(hub)
    caplog.set_level(logging.INFO, "hubbub")
    peer = connect(hub)
    for _ in range(100):
        peer.send("x")
    assert 0 < len(caplog.records) < 10
    shown = len(caplog.records)
    clock.advance(60.0)
    peer.send("x")
    assert f"({100 - shown} more like it were not logged)" in caplog.records[-1].getMessage()
    assert hub.stats()["invalid"] == 101
    await hub.stop()


# A CancelledError that is nobody's cancellation


def ask_cancelled_future(client: Client, message: str) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    future.result()


async def await_cancelled_future(client: Client, message: str) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.cancel)
    await future


@pytest.mark.parametrize("handler", [ask_cancelled_future, await_cancelled_future])
async def test_a_cancelled_future_is_counted_and_its_client_goes_on(
    handler: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()
    hub.on_message(handler)
    await started(hub)
    peer = connect(hub, client_id="ann")
    peer.send("ask")
    peer.send("ask again")
    await settle(hub)
    assert (peer.closed, hub.stats()["handler_errors"]) == (None, 2)
    assert "client ann: a handler failed" in caplog.text
    await hub.stop()


async def test_a_cancelled_future_of_a_validator_is_counted_too() -> None:
    hub = Hub()
    hub.validate(ask_cancelled_future)
    await started(hub)
    peer = connect(hub)
    peer.send("ask")
    await settle(hub)
    assert (peer.closed, hub.stats()["handler_errors"]) == (None, 1)
    await hub.stop()


async def test_a_handler_that_somebody_cancels_is_over_and_its_client_stays() -> None:
    hub = Hub()
    seen: list[str] = []
    tasks: list[asyncio.Task[Any]] = []

    @hub.on_message
    async def wait(client: Client, message: str) -> None:
        seen.append(message)
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        await asyncio.Event().wait()

    await started(hub)
    peer = connect(hub)
    peer.send("first")
    peer.send("second")
    await settle(hub)
    assert (seen, hub.stats()["handlers"]) == (["first"], 1)
    tasks[0].cancel()
    await settle(hub)
    assert seen == ["first", "second"]
    assert (peer.closed, hub.stats()["handler_errors"]) == (None, 0)
    tasks[1].cancel()
    await settle(hub)
    assert hub.stats()["handlers"] == 0
    await hub.stop()


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", ["only", "typed", "connect"])
async def test_fault_14_a_returned_value_that_nobody_reads_is_logged_in_bounds(
    kind: str, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler without a return annotation: what it returns is seen when it returns it."""
    hub = Hub()

    def replies(client: Client, message: Any = None) -> Any:
        return {"got": message}

    async def replies_later(client: Client, message: Any = None) -> Any:
        await asyncio.sleep(0)
        return {"got": message}

    function = replies_later if is_async else replies
    register: dict[str, Any] = {
        "only": hub.on_message,
        "typed": hub.on("say"),
        "connect": hub.on_connect,
    }
    register[kind](function)
    await started(hub)
    peer = connect(hub)
    for _ in range(100 if kind != "connect" else 0):
        peer.send({"type": "say"})
        await settle(hub)
    await settle(hub)
    assert peer.received == []
    assert peer.closed is None
    lines = [record.getMessage() for record in caplog.records]
    name = f"{function.__name__} (test_dispatcher.py:{function.__code__.co_firstlineno})"
    said = f"{name} returned a value of the type dict, which nobody reads; to answer, call "
    assert lines[0] == said + "client.send(…)"
    assert len(lines) == (1 if kind == "connect" else 5)
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    await hub.stop()


@pytest.mark.parametrize("is_async", [False, True])
async def test_what_send_answers_may_be_returned(
    is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()

    async def echo_later(client: Client, message: str) -> bool:
        return client.send(message)

    async def work() -> list[int]:
        return [1]

    def starts_work(client: Client) -> Any:
        return asyncio.ensure_future(work())

    if is_async:
        hub.on_message(echo_later)
    else:
        hub.on_message(lambda client, message: client.send(message))
    hub.on_connect(starts_work)
    await started(hub)
    peer = connect(hub)
    await settle(hub)
    peer.send("hello")
    await settle(hub)
    assert peer.received == ["hello"]
    assert caplog.records == []
    await hub.stop()
