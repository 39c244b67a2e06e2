"""HandlerErrors: what becomes of what handlers raise and return, and which lines the log gets."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import pydantic
import pytest

from hub.dispatching import code_of, started
from hubbub import (
    BrokerError,
    BrokerUnavailable,
    Client,
    Close,
    CommandError,
    Disconnected,
    Hub,
)
from hubbub.errors import should_come_back
from hubbub.testing import FakeClock, MemoryClient, connect, set_clock, settle

pytestmark = pytest.mark.anyio


class Login(pydantic.BaseModel):
    token: int


def lines_of(peer: MemoryClient) -> list[Any]:
    """Return what a client of the dialect centrifuge was sent."""
    texts = [text for text in peer.received if isinstance(text, str)]
    return [json.loads(line) for text in texts for line in text.split("\n")]


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


LATER = {"type": "error", "code": "unavailable", "message": "try again later", "temporary": True}
BROKER_ERRORS = [BrokerUnavailable("the server does not answer"), BrokerError("the server is full")]


@pytest.mark.parametrize("error", BROKER_ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["sync", "async", "typed", "validate", "validate later"])
async def test_what_the_broker_could_not_do_is_answered_and_the_client_stays(
    where: str, error: BrokerError, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()

    def broken(client: Client, message: dict[str, Any]) -> None:
        raise error

    async def broken_later(client: Client, message: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        raise error

    match where:
        case "sync":
            hub.on_message(broken)
        case "async":
            hub.on_message(broken_later)
        case "typed":
            hub.on("say")(broken_later)
        case "validate":
            hub.validate(broken)
        case _:
            hub.validate(broken_later)
    await started(hub)
    peer = connect(hub, client_id="ann")
    for _ in range(20):
        peer.send({"type": "say"})
        await settle(hub)
    assert peer.closed is None
    assert peer.json() == [LATER] * 20
    assert hub.stats()["handler_errors"] == 20
    assert 1 <= len(caplog.records) <= 10, "at most one a second, after five at once"
    for record in caplog.records:
        assert (record.levelno, record.exc_info) == (logging.WARNING, None)
    assert f"client ann: a handler asked the broker in vain: {error}" in caplog.text
    await hub.stop()


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_that_clients_call_answers_the_same(
    is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()

    def broken(client: Client, data: Any) -> Any:
        raise BrokerUnavailable("the server does not answer")

    async def broken_later(client: Client, data: Any) -> Any:
        await asyncio.sleep(0)
        broken(client, data)

    hub.rpc("add")(broken_later if is_async else broken)
    hub.on_message(broken)
    await started(hub)
    peer = connect(hub, dialect="centrifuge")
    peer.send('{"id":1,"connect":{}}\n{"id":2,"rpc":{"method":"add"}}\n{"send":{"data":1}}')
    await settle(hub)
    errors = [reply["error"] for reply in lines_of(peer) if "error" in reply]
    assert [error["code"] for error in errors] == [100] * len(errors)
    assert (errors[0]["temporary"], peer.closed) == (True, None)
    assert hub.stats()["handler_errors"] == 2
    assert {record.exc_info for record in caplog.records} == {None}
    await hub.stop()


@pytest.mark.parametrize("error", [CommandError("later", "soon", temporary=True), *BROKER_ERRORS])
@pytest.mark.parametrize("dialect", ["plain", "centrifuge"])
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_connect_handler_that_could_do_nothing_now_has_its_client_come_back(
    is_async: bool, dialect: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()
    seen: list[str] = []

    def broken(client: Client) -> None:
        raise error

    async def broken_later(client: Client) -> None:
        await asyncio.sleep(0)
        raise error

    hub.on_connect(broken_later if is_async else broken)
    hub.on_connect(lambda client: seen.append("the handler after it"))
    hub.on_message(lambda client, message: seen.append("a message"))
    await started(hub)
    reason = "soon" if isinstance(error, CommandError) else "try again later"
    peer = connect(hub, dialect=dialect)
    if peer.closed is None:
        peer.send('{"id":1,"connect":{}}' if dialect == "centrifuge" else "x")
        await settle(hub)
    assert peer.closed == Close(1013, reason, by_server=True)
    assert should_come_back(1013)
    assert (seen, len(hub), hub.stats()["handler_errors"]) == ([], 0, 1)
    [record] = caplog.records
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)
    assert f"could not be brought in by a connect handler: {error}; closed" in record.getMessage()
    await hub.stop()


async def test_a_connect_handler_that_refuses_for_good_is_answered_and_the_client_stays() -> None:
    hub = Hub()

    @hub.on_connect
    def refuses(client: Client) -> None:
        raise CommandError("no", "no such room")

    await started(hub)
    peer = connect(hub)
    await settle(hub)
    assert peer.json() == [{"type": "error", "code": "no", "message": "no such room"}]
    assert peer.closed is None
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
    name = f"{function.__name__} (test_handler_errors.py:{function.__code__.co_firstlineno})"
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
