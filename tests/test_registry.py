"""Registry: the life of a hub, its books, its verbs, and what other threads may do."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import tracemalloc
import warnings
from asyncio import Future
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, cast

import pytest

from hubbub import (
    BrokerError,
    BrokerUnavailable,
    Client,
    Close,
    CommandError,
    Handshake,
    Hub,
    HubNotRunning,
    Identity,
    MemoryBroker,
    Publication,
    Receipt,
    Refused,
    Settings,
    SettingsError,
)
from hubbub.admission import RETRY_AFTER_S
from hubbub.broker import Deliver
from hubbub.registry import Registry
from hubbub.settings import SlowPolicy
from hubbub.testing import FakeClock, MemoryClient, MemoryTransport, connect, let_pass, settle

pytestmark = pytest.mark.anyio

PATIENCE_S = 10.0


async def started(**settings: Any) -> Hub:
    hub = Hub(**settings)
    await hub.start()
    return hub


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.001)


def code_of(peer: MemoryClient) -> int | None:
    return None if peer.closed is None else peer.closed.code


# Making, starting, stopping


def test_settings_come_as_an_object_or_as_keywords() -> None:
    settings = Settings(max_clients=3)
    assert Registry(settings).settings is settings
    assert Registry(max_clients=3).settings.max_clients == 3
    with pytest.raises(TypeError, match="not both"):
        Registry(settings, max_clients=3)
    with pytest.raises(SettingsError):
        Registry(max_clients=0)


def test_before_it_runs_nobody_is_there() -> None:
    hub = Hub()
    assert (len(hub), bool(hub), list(hub), hub.is_running) == (0, True, [], False)
    assert hub.stats()["clients"] == 0
    assert (hub.rooms, hub.clients_of("ann"), hub.client("tab")) == ({}, [], None)
    with pytest.raises(TypeError, match="no JSON form"):
        hub.broadcast(object())


VERBS: dict[str, Callable[[Hub], object]] = {
    "broadcast": lambda hub: hub.broadcast("x"),
    "room.broadcast": lambda hub: hub.room("red").broadcast("x"),
    "everybody.broadcast": lambda hub: hub.everybody.broadcast("x"),
    "to_user.send": lambda hub: hub.to_user("ann").send("x"),
    "disconnect": lambda hub: hub.disconnect("ann"),
    "publish": lambda hub: run_to_end(hub.publish("red", "x")),
    "room.publish": lambda hub: run_to_end(hub.room("red").publish("x")),
    "to_user.publish": lambda hub: run_to_end(hub.to_user("ann").publish("x")),
}
"""Every verb that would find nobody in a hub that does not run."""


def run_to_end(coroutine: Coroutine[Any, Any, Receipt]) -> Receipt:
    """Run a coroutine that waits for nothing, in no event loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        receipt: Receipt = done.value
        return receipt
    finally:
        coroutine.close()
    raise AssertionError("it waits for something")


@pytest.mark.parametrize("verb", VERBS)
def test_fault_13_publishing_on_a_hub_that_nobody_started_is_an_error(verb: str) -> None:
    with pytest.raises(HubNotRunning, match=r"no event loop of this process.*hub\.start\(\)"):
        VERBS[verb](Hub())


@pytest.mark.parametrize("verb", VERBS)
async def test_fault_13_publishing_within_another_loop_is_no_exception(verb: str) -> None:
    """As a worker of a task queue does that is asyncio's too."""
    with pytest.raises(HubNotRunning, match="runs in no event loop of this process"):
        VERBS[verb](Hub())


@pytest.mark.parametrize("verb", VERBS)
async def test_fault_13_publishing_after_the_stop_is_an_error(verb: str) -> None:
    hub = await started()
    peer = connect(hub, user="ann")
    peer.client.join("red")
    await hub.stop()
    with pytest.raises(HubNotRunning, match="this hub has stopped"):
        VERBS[verb](hub)
    with pytest.raises(HubNotRunning, match="this hub has stopped"):
        await asyncio.to_thread(VERBS[verb], hub)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("has_client", [True, False])
def test_fault_13_publishing_after_the_end_of_the_loop_is_an_error(
    verb: str, has_client: bool
) -> None:
    """The loop ended, and nobody stopped the hub."""
    hub = Hub()

    async def dies() -> None:
        await hub.start()
        if has_client:
            connect(hub, user="ann").client.join("red")

    asyncio.run(dies())
    with pytest.raises(HubNotRunning, match="this hub has stopped"):
        VERBS[verb](hub)


@pytest.mark.parametrize("verb", [name for name in VERBS if name != "disconnect"])
def test_fault_13_a_thread_that_publishes_after_the_end_of_the_loop_is_told(verb: str) -> None:
    hub = Hub()
    asyncio.run(hub.start())

    def work() -> None:
        with pytest.raises(HubNotRunning):
            VERBS[verb](hub)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


async def test_fault_13_publishing_in_a_forked_process_is_an_error() -> None:
    """Its loop, its clients and their sockets are the parent's; nothing would ever be sent."""
    hub = await started()
    peer = connect(hub, user="ann")
    peer.client.join("red")
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        child = os.fork()
    if not child:
        answers = [_error_of(verb, hub) for verb in VERBS.values()]
        answers.append(f"client.send: {peer.client.send('x')}")
        os.write(writing, "\n".join(answers).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        *errors, sent = (await asyncio.to_thread(pipe.read)).splitlines()
    await asyncio.to_thread(os.waitpid, child, 0)
    assert len(errors) == len(VERBS)
    assert all("runs in no event loop of this process" in error for error in errors), errors
    assert sent == "client.send: False"
    hub.broadcast("the parent's goes on")
    await settle(hub)
    assert peer.received == ["the parent's goes on"]
    await hub.stop()


def _error_of(verb: Callable[[Hub], object], hub: Hub) -> str:
    try:
        return f"no error: {verb(hub)}"
    except HubNotRunning as error:
        return str(error)


async def test_fault_13_a_start_that_failed_leaves_no_hub_to_publish_on() -> None:
    hub = Hub(broker=Unreachable())
    with pytest.raises(BrokerUnavailable):
        await hub.start()
    with pytest.raises(HubNotRunning, match="runs in no event loop of this process"):
        hub.broadcast("x")


class Unreachable(MemoryBroker):
    """A broker that cannot be reached."""

    async def start(self, deliver: Deliver) -> None:
        raise BrokerUnavailable("no connection")


async def test_fault_13_handlers_may_publish_until_the_stop_has_ended() -> None:
    hub = await started()
    said: list[str] = []

    @hub.on_disconnect
    async def gone(client: Client) -> None:
        hub.broadcast(f"{client.id} left")
        said.append(client.id)

    connect(hub, client_id="ann")
    await hub.stop()
    assert said == ["ann"]


def test_what_a_client_is_sent_after_the_end_of_the_loop_counts_as_sent_to_one_who_is_gone() -> (
    None
):
    hub = Hub()

    async def dies() -> MemoryClient:
        await hub.start()
        return connect(hub)

    client = asyncio.run(dies()).client
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(client.send, "x").result() is False
    assert client.send("x") is False
    assert hub.stats()["sends_to_gone"] == 2


async def test_start_and_stop_and_start_again() -> None:
    hub = Hub()
    await hub.stop()
    for _ in range(2):
        await asyncio.gather(hub.start(), hub.start())
        await hub.start()
        assert hub.is_running
        peer = connect(hub)
        peer.client.join("red")
        hub.broadcast("hello")
        await settle(hub)
        assert peer.received == ["hello"]
        await asyncio.gather(hub.stop(), hub.stop())
        await hub.stop()
        assert not hub.is_running
        assert code_of(peer) == 1012
        assert (len(hub), hub.rooms) == (0, {})
    assert hub.stats()["total_clients"] == 2


def test_a_hub_belongs_to_one_loop_at_a_time() -> None:
    hub = Hub()
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(hub.start())
        second.run(hub.start())

        async def both() -> None:
            with pytest.raises(HubNotRunning, match="another event loop"):
                await asyncio.to_thread(asyncio.run, hub.start())

        second.run(both())
        second.run(hub.stop())


def test_a_hub_whose_loop_died_forgets_what_it_left_behind() -> None:
    hub = Hub()

    async def dies() -> MemoryClient:
        await hub.start()
        peer = connect(hub, client_id="ann")
        peer.client.join("red")
        return peer

    old = asyncio.run(dies())
    assert len(hub) == 1

    async def lives() -> None:
        await hub.start()
        stats = hub.stats()
        assert (stats["clients"], stats["rooms"], stats["broadcast"]) == (0, 0, 0)
        peer = connect(hub, client_id="ann")
        hub.broadcast("1")
        await settle(hub)
        assert peer.received == ["1"]
        assert old.received == []
        await hub.stop()

    asyncio.run(lives())


class SlowBroker(MemoryBroker):
    """A broker whose start takes as long as the test likes, and may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.error: Exception | None = None
        self.starts = 0

    async def start(self, deliver: Deliver) -> None:
        self.starts += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        await super().start(deliver)


async def test_all_who_start_wait_for_the_one_start() -> None:
    broker = SlowBroker()
    hub = Hub(broker=broker)
    starts = [asyncio.create_task(hub.start()) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert not any(start.done() for start in starts)
    broker.gate.set()
    await asyncio.gather(*starts)
    assert broker.starts == 1
    await hub.stop()


async def test_a_start_that_fails_fails_for_all_and_can_be_tried_again() -> None:
    broker = SlowBroker()
    broker.error = BrokerUnavailable("no route")
    broker.gate.set()
    hub = Hub(broker=broker)
    answers = await asyncio.gather(hub.start(), hub.start(), return_exceptions=True)
    assert [type(answer) for answer in answers] == [BrokerUnavailable] * 2
    assert not hub.is_running
    broker.error = None
    await hub.start()
    assert hub.is_running
    await hub.stop()


async def test_s10_tickers_run_while_the_hub_does_and_only_while_somebody_is_there_if_told_so() -> (
    None
):
    hub = Hub()
    ticks: list[str] = []
    hub.every(0.002)(lambda: ticks.append("always"))
    hub.every(0.002, while_connected=True)(lambda: ticks.append("connected"))
    await asyncio.sleep(0.01)
    assert ticks == []
    await hub.start()
    hub.every(0.002)(lambda: ticks.append("late"))
    await until(lambda: {"always", "late"} <= set(ticks))
    assert "connected" not in ticks
    peer = connect(hub)
    await until(lambda: "connected" in ticks)
    peer.close()
    await hub.stop()
    ticks.clear()
    await asyncio.sleep(0.01)
    assert ticks == []


# Shutdown


async def test_a_shutdown_says_1012_to_everybody_paced() -> None:
    hub = await started()
    peers = [connect(hub) for _ in range(45)]
    start = time.monotonic()
    await hub.stop()
    assert {peer.closed for peer in peers} == {Close(1012, "service restart", by_server=True)}
    assert 4 * 10 * 0.002 <= time.monotonic() - start < 5


class Hanging(MemoryTransport):
    """A transport whose goodbye never ends, until it is cut."""

    def close(self, code: int, reason: str) -> None:
        return

    def abort(self) -> None:
        self.closed = Close(1006)
        self._hub.gone(self)


async def test_a_shutdown_has_a_bound_and_cuts_who_hangs() -> None:
    hub = await started(shutdown_timeout_s=0.2)
    quick = [connect(hub) for _ in range(1000)]
    transport = Hanging(hub)
    hub.register(transport, "hanging", Identity(), Handshake("/ws", {}))
    start = time.monotonic()
    await hub.stop()
    assert 0.16 <= time.monotonic() - start < 2, "the rest of the time is the handlers'"
    assert transport.closed == Close(1006)
    assert {code_of(peer) for peer in quick} == {1012}


async def test_a_shutdown_without_time_cuts_at_once() -> None:
    hub = await started(shutdown_timeout_s=0)
    transport = Hanging(hub)
    hub.register(transport, "hanging", Identity(), Handshake("/ws", {}))
    start = time.monotonic()
    await hub.stop()
    assert time.monotonic() - start < 1
    assert transport.closed is not None


async def test_nobody_comes_in_while_it_closes_and_handlers_may_finish() -> None:
    hub = Hub()
    log: list[str] = []

    @hub.on_disconnect
    async def left(client: Client) -> None:
        with pytest.raises(Refused) as error:
            connect(hub)
        assert error.value.code == "shutting_down"
        assert error.value.headers == {"Retry-After": str(RETRY_AFTER_S)}
        await asyncio.sleep(0.01)
        log.append("left")

    await hub.start()
    connect(hub)
    await hub.stop()
    assert log == ["left"]


# Coming


async def test_ids_are_generated_and_unique() -> None:
    hub = await started()
    ids = {connect(hub).client.id for _ in range(500)}
    assert len(ids) == len(hub) == 500
    await hub.stop()


async def test_the_same_user_replaces_its_older_connection() -> None:
    hub = Hub()
    log: list[str] = []
    hub.on_connect(lambda client: log.append("joined"))
    hub.on_disconnect(lambda client: log.append("left"))
    await hub.start()
    old = connect(hub, user="ann", client_id="tab")
    old.client.join("red")
    new = connect(hub, user="ann", client_id="tab")
    assert old.closed == Close(3511, "replaced", by_server=True)
    assert hub.stats()["replaced"] == 1
    assert log == ["joined", "left", "joined"]
    assert hub.stats()["replaced"] == 1
    assert hub.client("tab") is new.client
    assert len(hub) == 1
    assert hub.rooms == {}
    hub.broadcast("x")
    await settle(hub)
    assert (old.received, new.received) == ([], ["x"])
    old.transport.cut()
    assert hub.client("tab") is new.client, "the old one's end does not strike out the new one"
    await hub.stop()


async def test_nobody_else_gets_an_id_in_use() -> None:
    hub = await started()
    connect(hub, user="ann", client_id="tab")
    connect(hub, client_id="anonymous")
    for user, wish in (("bob", "tab"), (None, "tab"), (None, "anonymous"), ("ann", "anonymous")):
        with pytest.raises(Refused) as error:
            connect(hub, user=user, client_id=wish)
        assert (error.value.status, error.value.code) == (409, "id_in_use")
    assert len(hub) == 2
    await hub.stop()


async def test_an_id_that_is_being_taken_is_in_use() -> None:
    """Two handshakes for one id at once: the second must not throw the first one out."""
    hub = await started()
    hub.admission.hold("tab")
    with pytest.raises(Refused) as error:
        connect(hub, user="bob", client_id="tab")
    assert error.value.code == "id_in_use"
    hub.admission.release("tab")
    connect(hub, user="bob", client_id="tab")
    await hub.stop()


async def test_an_id_from_the_query_counts_only_when_it_may() -> None:
    hub = await started(client_id_from_query=True)
    assert connect(hub, query={"id": "tab-1"}).client.id == "tab-1"
    with pytest.raises(Refused) as error:
        connect(hub, query={"id": "not an id"})
    assert error.value.status == 400
    await hub.stop()
    hub = await started()
    assert connect(hub, query={"id": "tab-1"}).client.id != "tab-1"
    await hub.stop()


async def test_places_are_limited_and_those_held_back_count() -> None:
    hub = await started(max_clients=2)
    first = connect(hub)
    hub.admission.hold("x")
    for attempt in (
        lambda: connect(hub),
        lambda: hub.admission.hold("y"),
        hub.admission.check_capacity,
    ):
        with pytest.raises(Refused) as error:
            attempt()
        assert (error.value.status, error.value.code) == (503, "too_many_clients")
        assert error.value.headers == {"Retry-After": "5"}
    hub.admission.release("x")
    connect(hub)
    first.close()
    connect(hub)
    assert len(hub) == 2
    await hub.stop()


async def test_s03_counting_finding_and_going_through_clients() -> None:
    hub = await started()
    ann, bob = connect(hub, user="ann"), connect(hub)
    assert len(hub) == hub.client_count == 2
    assert list(hub) == [ann.client, bob.client]
    for client in hub:
        client.close()
    assert len(hub) == 0
    assert hub.client(ann.client.id) is None
    await hub.stop()


# Leaving


async def test_disconnect_closes_a_client_or_all_of_a_user() -> None:
    hub = await started()
    phone, laptop, other = connect(hub, user="ann"), connect(hub, user="ann"), connect(hub)
    assert hub.disconnect("ann", reason="banned") == 2
    for peer in (phone, laptop):
        assert peer.closed == Close(3503, "banned", by_server=True)
    assert hub.disconnect("ann") == 0
    assert hub.disconnect(other.client, 4001) == 1
    assert code_of(other) == 4001
    with pytest.raises(ValueError, match="1006"):
        hub.disconnect(other.client, 1006)
    await hub.stop()


async def test_who_broke_the_protocol_is_counted_and_logged_on_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = await started()
    caplog.set_level(logging.INFO, "hubbub")
    peer = connect(hub, client_id="ann")
    hub.warden.broke_protocol(peer.client, 1002, "reserved\nbits")
    hub.warden.broke_protocol(peer.client, 1002, "again")
    assert not peer.client.is_connected
    assert hub.stats()["protocol_errors"] == 2
    assert caplog.records[0].getMessage() == "client ann closed with 1002: reserved\ufffdbits"
    await hub.stop()


async def test_rooms_of_one_client_are_limited() -> None:
    hub = await started(max_rooms_per_client=2)
    client = connect(hub, user="ann").client
    client.join("red")
    client.join("blue")
    client.join("red")
    with pytest.raises(CommandError) as error:
        client.join("green")
    assert error.value.code == "too_many_rooms"
    client.leave("red")
    client.join("green")
    assert hub.rooms == {"blue": 1, "green": 1}
    await hub.stop()
    hub = await started(max_rooms_per_client=None)
    client = connect(hub).client
    for number in range(300):
        client.join(str(number))
    assert len(client.rooms) == hub.stats()["rooms"] == 300
    await hub.stop()


# Verbs


async def test_s02_broadcast_takes_text_binary_and_anything_json() -> None:
    hub = await started()
    peer, other = connect(hub), connect(hub)
    hub.broadcast("text")
    hub.broadcast(b"binary")
    hub.broadcast({"n": 1}, exclude=other.client)
    await settle(hub)
    assert peer.received == ["text", b"binary", '{"n":1}']
    assert other.received == ["text", b"binary"]
    await hub.stop()


class Wrong(NamedTuple):
    """A call with a wrong argument, the error that is owed, and what it must say."""

    call: Callable[[Hub, Client], Any]
    error: type[Exception]
    words: str


def wrong(*arguments: Any, **keywords: Any) -> Any:
    """Return an argument that a type checker would refuse."""
    return cast(Any, arguments[0])


ID: Any = "an id"
NONE: Any = None
FIVE: Any = 5

WRONG = {
    "Hub(path)": Wrong(lambda h, c: Hub(ID), TypeError, 'hub.router("/ws")'),
    "Hub(dict)": Wrong(lambda h, c: Hub(wrong({})), TypeError, "a Settings object, not {}"),
    "Hub(broker=url)": Wrong(lambda h, c: Hub(broker=ID), TypeError, "such as MemoryBroker()"),
    "Hub(broker=class)": Wrong(
        lambda h, c: Hub(broker=wrong(MemoryBroker)), TypeError, "such as MemoryBroker()"
    ),
    "Hub(slow_policies=name)": Wrong(
        lambda h, c: Hub(slow_policies=ID), SettingsError, "a policy for each name"
    ),
    "Hub(slow_policies=number)": Wrong(
        lambda h, c: Hub(slow_policies={FIVE: "latest"}), SettingsError, "a name, or a prefix"
    ),
    "mount(path)": Wrong(lambda h, c: h.mount(ID), TypeError, "an ASGI application and a path"),
    "mount(path=5)": Wrong(lambda h, c: h.mount(h, FIVE), ValueError, "begins with a slash"),
    "router(5)": Wrong(lambda h, c: h.router(FIVE), ValueError, "begins with a slash"),
    "router(ws)": Wrong(lambda h, c: h.router("ws"), ValueError, "begins with a slash"),
    "routes(None)": Wrong(lambda h, c: h.routes(NONE), ValueError, "begins with a slash"),
    "broadcast(object)": Wrong(lambda h, c: h.broadcast(object()), TypeError, "cannot send a"),
    "broadcast(exclude=id)": Wrong(
        lambda h, c: h.broadcast("x", exclude=ID), TypeError, "exclude must be a Client or None"
    ),
    "broadcast(exclude=[])": Wrong(
        lambda h, c: h.broadcast("x", exclude=wrong([])), TypeError, "not list; hub.client(id)"
    ),
    "publish(None)": Wrong(lambda h, c: h.publish(NONE, "x"), CommandError, "not NoneType"),
    "publish(exclude=id)": Wrong(
        lambda h, c: h.publish("red", "x", exclude=ID), TypeError, "exclude must be a Client"
    ),
    "room(None)": Wrong(lambda h, c: h.room(NONE), CommandError, "a string, not NoneType"),
    "room.broadcast(exclude=id)": Wrong(
        lambda h, c: h.room("red").broadcast("x", exclude=ID), TypeError, "exclude must be"
    ),
    "room.publish(exclude=id)": Wrong(
        lambda h, c: h.room("red").publish("x", exclude=ID), TypeError, "exclude must be"
    ),
    "everybody.publish(exclude=id)": Wrong(
        lambda h, c: h.everybody.publish("x", exclude=ID), TypeError, "exclude must be"
    ),
    "user.broadcast(exclude=id)": Wrong(
        lambda h, c: h.to_user("ann").broadcast("x", exclude=ID), TypeError, "exclude must be"
    ),
    "user.send(object)": Wrong(
        lambda h, c: h.to_user("ann").send(object()), TypeError, "cannot send a object"
    ),
    "to_user(None)": Wrong(lambda h, c: h.to_user(NONE), TypeError, "a str, not NoneType"),
    "to_user(number)": Wrong(lambda h, c: h.to_user(FIVE), TypeError, "write str(key)"),
    "clients_of(None)": Wrong(lambda h, c: h.clients_of(NONE), TypeError, "a str, not NoneType"),
    "client(5)": Wrong(lambda h, c: h.client(FIVE), TypeError, "a client's id is a str, not int"),
    "client(None)": Wrong(lambda h, c: h.client(NONE), TypeError, "is a str, not NoneType"),
    "disconnect(None)": Wrong(lambda h, c: h.disconnect(NONE), TypeError, "not NoneType"),
    "disconnect(code=text)": Wrong(
        lambda h, c: h.disconnect("nobody", ID), TypeError, "a close code is a number"
    ),
    "disconnect(code=999)": Wrong(lambda h, c: h.disconnect("nobody", 999), ValueError, "6455"),
    "disconnect(reason=5)": Wrong(
        lambda h, c: h.disconnect("nobody", 4000, FIVE), TypeError, "the reason of a close is a str"
    ),
    "close(text)": Wrong(lambda h, c: c.close(ID), TypeError, "the reason is the argument after"),
    "close(reason=None)": Wrong(lambda h, c: c.close(4000, NONE), TypeError, "not NoneType"),
    "send(object)": Wrong(lambda h, c: c.send(object()), TypeError, "cannot send a object"),
    "join(None)": Wrong(lambda h, c: c.join(NONE), CommandError, "a string, not NoneType"),
    "join(Room)": Wrong(lambda h, c: c.join(wrong(h.room("red"))), CommandError, "not Room"),
    "leave(5)": Wrong(lambda h, c: c.leave(FIVE), CommandError, "a string, not int"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_fault_18_a_wrong_argument_is_told_by_its_name(name: str) -> None:
    hub = await started()
    peer = connect(hub)
    call, error, words = WRONG[name]

    async def try_it() -> None:
        result = call(hub, peer.client)
        if hasattr(result, "__await__"):
            await result

    with pytest.raises(error) as caught:
        await try_it()
    assert type(caught.value) is error
    assert words in str(caught.value)
    await settle(hub)
    assert (peer.received, peer.closed, hub.rooms) == ([], None, {})
    await hub.stop()


async def test_fault_18_a_wrong_argument_is_told_to_another_thread_that_gives_it() -> None:
    hub = await started()
    peer = connect(hub)
    calls: list[Callable[[], Any]] = [
        lambda: hub.broadcast("x", exclude=ID),
        lambda: hub.room("red").broadcast("x", exclude=ID),
        lambda: peer.client.close(ID),
        lambda: hub.disconnect("nobody", ID),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"exclude must be a Client|a close code is a number"):
            await asyncio.to_thread(call)
    await settle(hub)
    assert (peer.received, peer.closed) == ([], None)
    await hub.stop()


async def test_fault_24_joining_costs_the_same_however_many_rooms_there_are() -> None:
    """Bytes are counted and not seconds: a busy machine changes nothing."""
    hub = await started(max_rooms_per_client=5000)
    fresh, full = connect(hub, user="ann").client, connect(hub).client
    for number in range(4000):
        full.join(f"room {number}")
    few, many = allocated_by(lambda: fresh.join("new")), allocated_by(lambda: full.join("new"))
    assert many < few + 1000
    assert len(full.rooms) == 4001
    await hub.stop()


def allocated_by(work: Callable[[], None]) -> int:
    """Return how many bytes `work` had at most beyond those before it."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("user", [None, "ann"])
async def test_fault_24_rooms_that_nobody_joined_do_not_count(user: str | None) -> None:
    hub = await started(max_rooms_per_client=2)
    client = connect(hub, user=user).client
    for _ in range(3):
        client.join("a")
        client.join("b")
        with pytest.raises(CommandError, match="2 rooms at most"):
            client.join("c")
        client.leave("a")
        client.join("c")
        client.leave("c")
        client.leave("b")
    client.user = "bob"
    client.join("a")
    client.join("b")
    with pytest.raises(CommandError, match="max_rooms_per_client"):
        client.join("c")
    assert client.rooms == {"a", "b"}
    await hub.stop()


async def test_fault_24_everybody_s_room_says_what_it_is() -> None:
    hub = await started()
    assert repr(hub.everybody) == "<Room of everybody>"
    await hub.stop()


async def test_everybody_is_a_room_too() -> None:
    hub = await started()
    peers = [connect(hub) for _ in range(3)]
    assert list(hub.everybody) == [peer.client for peer in peers]
    assert await hub.everybody.publish("x", exclude=peers[0].client) == Receipt(2)
    await hub.stop()


async def test_publish_answers_with_a_receipt() -> None:
    hub = await started()
    peers = [connect(hub) for _ in range(3)]
    peers[0].client.join("red")
    assert await hub.publish("red", "x") == Receipt(1, None)
    assert await hub.publish("nobody here", "x") == Receipt(0)
    assert await hub.publish("red", "x", exclude=peers[0].client) == Receipt(0)
    await hub.stop()


class FutureBroker(MemoryBroker):
    """A broker that answers later, as one on the network does."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[tuple[Publication, Future[Receipt]]] = []

    def publish(self, publication: Publication) -> Future[Receipt]:  # type: ignore[override]
        future: Future[Receipt] = asyncio.get_running_loop().create_future()
        self.taken.append((publication, future))
        return future

    def confirm(self) -> None:
        for publication, future in self.taken:
            assert self._deliver is not None
            future.set_result(Receipt(self._deliver(publication)))
        self.taken.clear()


async def test_a_broker_may_answer_later() -> None:
    broker = FutureBroker()
    hub = Hub(broker=broker)
    await hub.start()
    peer, other = connect(hub), connect(hub)
    publishing = asyncio.create_task(hub.everybody.publish("1", exclude=other.client))
    await settle(hub)
    hub.broadcast("2")
    assert not publishing.done()
    assert peer.received == []
    broker.confirm()
    assert await publishing == Receipt(1)
    await settle(hub)
    assert (peer.received, other.received) == (["1", "2"], ["2"])
    await hub.stop()


async def test_a_broker_that_fails_fails_publish_and_is_logged_for_broadcast(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = FutureBroker()
    hub = Hub(broker=broker)
    await hub.start()
    publishing = asyncio.create_task(hub.publish("red", "x"))
    hub.broadcast("x")
    hub.broadcast("y")
    hub.broadcast("z")
    await settle(hub)
    errors = [BrokerUnavailable("no route"), RuntimeError("a bug"), BrokerError("refused")]
    broker.taken[0][1].cancel()
    for (_, future), error in zip(broker.taken[1:], errors, strict=False):
        future.set_exception(error)
    waiting = next(future for publication, future in broker.taken if publication.room == "red")
    if not waiting.done():
        waiting.set_exception(BrokerError("refused"))
    with pytest.raises(BrokerError):
        await publishing
    await settle(hub)
    assert "no route" in caplog.text
    assert "a bug" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.ERROR, logging.CRITICAL}
    await hub.stop()


async def test_who_was_excluded_and_has_gone_excludes_nobody() -> None:
    hub = await started()
    gone, there = connect(hub), connect(hub)
    gone.close()
    hub.broadcast("left", exclude=gone.client)
    await settle(hub)
    assert there.received == ["left"]
    await hub.stop()


# Slow clients


@pytest.mark.parametrize(
    ("policy", "received"),
    [
        ("drop_oldest", ["6", "7"]),
        ("drop_newest", ["0", "1"]),
        ("latest", ["7"]),
    ],
)
async def test_slow_clients_miss_messages_as_the_policy_says_and_others_none(
    policy: SlowPolicy, received: list[str]
) -> None:
    hub = Hub(outbox_max_entries=2, slow_policy=policy)
    missed: list[int] = []
    hub.on_drop(lambda client, count: missed.append(count))
    await hub.start()
    slow, quick = connect(hub), connect(hub)
    slow.transport.block()
    for number in range(8):
        hub.broadcast(str(number))
        await settle(hub)
    assert hub.stats()["slow"] == 1
    slow.transport.unblock()
    await settle(hub)
    assert slow.received == received
    assert quick.received == [str(number) for number in range(8)]
    assert missed == [8 - len(received)]
    stats = hub.stats()
    assert stats["dropped"] == slow.client.dropped == missed[0]
    assert stats["messages_out"] == 8 + len(received)
    assert stats["slow_disconnects"] == 0
    await hub.stop()


async def test_a_full_outbox_closes_with_3008_after_the_running_fan_out() -> None:
    hub = Hub(outbox_max_entries=2)
    left: list[Close] = []
    hub.on_disconnect(lambda client, close: left.append(close))
    await hub.start()
    slow, quick = connect(hub), connect(hub)
    slow.transport.block()
    for number in range(2):
        hub.broadcast(str(number))
        await settle(hub)
    hub.broadcast("too much")
    hub.fanout.flush()
    assert slow.client.is_connected
    assert quick.received == ["0", "1", "too much"]
    await settle(hub)
    assert left == [Close(3008, "slow consumer", by_server=True)]
    stats = hub.stats()
    assert (stats["slow_disconnects"], stats["dropped"], stats["clients"]) == (1, 3, 1)
    await hub.stop()


async def test_bytes_bound_an_outbox_too() -> None:
    hub = await started(outbox_max_bytes=1000)
    slow = connect(hub)
    slow.transport.block()
    for _ in range(9):
        hub.broadcast(b"x" * 98)
        await settle(hub)
    assert slow.client.is_connected
    hub.broadcast(b"x" * 101)
    await settle(hub)
    assert not slow.client.is_connected
    await hub.stop()


async def test_rooms_may_have_policies_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub(slow_policies={"cursor:*": "latest"}, outbox_max_entries=2)
    await hub.start()
    slow = connect(hub, client_id="ann")
    for room in ("cursor:1", "cursor:2"):
        slow.client.join(room)
    slow.transport.block()
    for number in range(10):
        for room in ("cursor:1", "cursor:2"):
            hub.room(room).broadcast(f"{room} {number}")
        await settle(hub)
    slow.transport.unblock()
    assert slow.received == ["cursor:1 9", "cursor:2 9"]
    assert hub.stats()["dropped"] == 18
    assert "client ann is slow" in caplog.text
    await hub.stop()


async def test_a_socket_that_takes_nothing_is_cut_after_the_write_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub(write_timeout_s=10)
    hub.clock = FakeClock()
    await hub.start()
    stuck = connect(hub, client_id="ann")
    stuck.transport.block()
    hub.broadcast("x")
    await settle(hub)
    let_pass(hub, 9.0)
    assert stuck.client.is_connected
    let_pass(hub, 2.0)
    assert code_of(stuck) == 3008
    assert "client ann is too slow: took nothing for 10 seconds" in caplog.text
    await hub.stop()


# Stats


async def test_s20_the_stats_and_their_names() -> None:
    hub = Hub()
    hub.on_message(lambda client, message: client.send(message))
    await hub.start()
    ann, bob = connect(hub), connect(hub)
    ann.client.join("red")
    ann.send("four")
    hub.admission.in_progress += 1
    hub.counters.refuse("unauthorized")
    before = hub.stats()
    assert (before["clients"], before["broadcast"], before["register"]) == (2, 1, 1)
    hub.admission.in_progress -= 1
    await settle(hub)
    bob.close()
    bob.client.send("gone")
    stats = hub.stats()
    assert stats.pop("uptime_s") >= 0
    assert stats.pop("loop_lag_s") >= 0
    for name in ("slow_handshakes", "refused_handshakes"):
        assert stats.pop(name) >= 0  # of the whole process
    assert "msgspec" in stats.pop("compiled")
    assert stats == {
        "server": None,
        "transport": None,
        "http": None,
        "loop": "asyncio",
        "broker": "memory",
        "workers": 1,
        "settings": {},
        "clients": 1,
        "broadcast": 0,
        "register": 0,
        "rooms": 1,
        "slow": 0,
        "handlers": 0,
        "total_clients": 2,
        "messages_in": 1,
        "messages_out": 1,
        "bytes_in": 4,
        "bytes_out": 6,
        "dropped": 0,
        "undelivered": 0,
        "slow_disconnects": 0,
        "dead": 0,
        "expired": 0,
        "replaced": 0,
        "invalid": 0,
        "protocol_errors": 0,
        "rate_limited": 0,
        "handler_errors": 0,
        "handlers_cancelled": 0,
        "stuck_handlers": 0,
        "unhandled": 0,
        "loop_stalls": 0,
        "sends_to_gone": 1,
        "refused": {"unauthorized": 1},
        "refused_gets": {},
    }
    await hub.stop()


# Threads


async def test_s02_threads_may_broadcast_and_each_ones_order_is_kept() -> None:
    hub = await started()
    peer = connect(hub, user="ann")
    peer.client.join("red")
    threads, each = 4, 200

    def work(name: int) -> None:
        for number in range(each):
            text = f"{name} {number}"
            way = number % 4
            if way == 0:
                hub.broadcast(text)
            elif way == 1:
                hub.room("red").broadcast(text)
            elif way == 2:
                hub.to_user("ann").send(text)
            else:
                assert peer.client.send(text)

    workers = [threading.Thread(target=work, args=(name,)) for name in range(threads)]
    for worker in workers:
        worker.start()
    await until(lambda: len(peer.received) == threads * each)
    for worker in workers:
        worker.join()
    for name in range(threads):
        mine = [text for text in peer.received if cast(str, text).startswith(f"{name} ")]
        assert mine == [f"{name} {number}" for number in range(each)]
    await hub.stop()


async def test_threads_may_close_and_get_their_mistakes_back_at_once() -> None:
    hub = await started()
    peer = connect(hub)

    def work() -> None:
        peer.client.send("last words")
        peer.client.close(4000, "from a thread")
        with pytest.raises(ValueError, match="1005"):
            peer.client.close(1005)
        with pytest.raises(TypeError):
            hub.broadcast(object())

    await asyncio.to_thread(work)
    await until(lambda: peer.closed is not None)
    assert peer.received == ["last words"]
    assert peer.closed == Close(4000, "from a thread", by_server=True)
    assert await asyncio.to_thread(peer.client.send, "x") is False
    await until(lambda: hub.stats()["sends_to_gone"] == 1)
    await hub.stop()


async def test_publish_is_for_the_hubs_own_loop() -> None:
    hub = await started()

    def work() -> None:
        with pytest.raises(HubNotRunning, match="own event loop"):
            asyncio.run(hub.publish("red", "x"))

    await asyncio.to_thread(work)
    assert await hub.publish("red", "x") == Receipt(0)
    await hub.stop()


async def test_who_connects_while_the_hub_shuts_down_is_sent_away() -> None:
    hub = Hub()
    await hub.start()
    transport = MemoryTransport(hub)
    hub.shut_down()
    client = hub.register(transport, "late", Identity(), Handshake("/", {}))
    assert client.close_info == Close(1012, "service restart", by_server=True)
    assert len(hub) == 0
    await hub.stop()


async def test_excluding_a_client_that_is_gone_excludes_nobody_who_has_its_id_now() -> None:
    hub = Hub()
    await hub.start()
    old = connect(hub, user="ann", client_id="tab")
    new = connect(hub, user="ann", client_id="tab")
    hub.broadcast("for the new one too", exclude=old.client)
    await settle(hub)
    assert new.received == ["for the new one too"]
    await hub.stop()


async def test_a_message_that_the_broker_refuses_hurts_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Refusing(MemoryBroker):
        def publish(self, publication: Publication) -> Receipt:
            raise BrokerUnavailable("no route")

    hub = Hub(broker=Refusing())
    await hub.start()
    peer = connect(hub)
    peer.send("passed on")
    await settle(hub)
    assert len(hub) == 1
    assert caplog.messages == ["a broadcast failed: no route"]
    await hub.stop()


@pytest.mark.parametrize("name", ["", "@ann", "a\nb"])
async def test_publish_takes_no_names_that_no_room_has(name: str) -> None:
    hub = Hub()
    await hub.start()
    peer = connect(hub, user="ann")
    with pytest.raises(CommandError):
        await hub.publish(name, "x")
    await settle(hub)
    assert peer.received == []
    await hub.stop()


async def test_disconnect_handlers_run_after_a_handler_that_had_to_be_cancelled() -> None:
    hub = Hub(shutdown_timeout_s=0)
    said: list[str] = []

    @hub.on_message
    async def endless(client: Client, text: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            said.append("cancelled")

    hub.on_disconnect(lambda client: said.append("left"))
    await hub.start()
    connect(hub).send("work")
    await asyncio.sleep(0)
    await hub.stop()
    assert said == ["cancelled", "left"]


async def test_fault_03_what_a_client_sent_before_it_left_does_not_outlive_the_hub() -> None:
    hub = Hub(shutdown_timeout_s=0.4)
    said: list[str] = []

    @hub.on_message
    async def slow(client: Client, text: str) -> None:
        await asyncio.sleep(0.01 if text == "quick" else 60)
        said.append(text)

    hub.on_disconnect(lambda client: said.append("left"))
    await hub.start()
    peer = connect(hub)
    for text in ("quick", "quick", "slow", "quick"):
        peer.send(text)
    peer.close()
    await hub.stop()
    assert said == ["quick", "quick", "left"]
    assert hub.stats()["unhandled"] == 1
    assert hub.stats()["handlers"] == 0


class StuckBroker(MemoryBroker):
    """A broker whose connection breaks at the end."""

    async def stop(self) -> None:
        raise OSError("gone")


async def test_a_broker_that_cannot_stop_leaves_a_hub_that_can_start_again() -> None:
    hub = Hub(broker=StuckBroker())
    await hub.start()
    with pytest.raises(OSError, match="gone"):
        await hub.stop()
    assert not hub.is_running
    with pytest.raises(HubNotRunning):
        hub.broadcast("nobody is there")
    await hub.start()
    peer = connect(hub)
    hub.broadcast("again")
    await settle(hub)
    assert peer.received == ["again"]
    with pytest.raises(OSError, match="gone"):
        await hub.stop()


# What a client was owed when its connection ended


async def test_what_this_turn_owed_a_lost_client_is_counted() -> None:
    hub = await started()
    ann, bob = connect(hub), connect(hub)
    ann.client.join("red")
    ann.client.join("blue")
    hub.room("red").broadcast("1")
    ann.client.leave("red")
    hub.room("red").broadcast("not for ann any more")
    hub.room("blue").broadcast("2")
    hub.broadcast("3", exclude=ann.client)
    hub.broadcast("4")
    ann.client.send("5")
    ann.transport.cut()
    await settle(hub)
    assert (ann.received, bob.received) == ([], ["3", "4"])
    assert (hub.stats()["undelivered"], hub.stats()["messages_out"]) == (4, 2)
    await hub.stop()


async def test_what_waited_in_the_outbox_of_a_lost_client_is_counted() -> None:
    hub = await started()
    slow = connect(hub)
    slow.transport.block()
    for number in range(3):
        hub.broadcast(str(number))
        await settle(hub)
    slow.transport.cut()
    await settle(hub)
    assert (slow.received, hub.stats()["undelivered"]) == ([], 3)
    assert (hub.stats()["dropped"], hub.stats()["messages_out"]) == (0, 0)
    await hub.stop()
