"""Publishing: the verbs, from the hub's own thread and from others, and where no hub runs."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
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
    Hub,
    HubNotRunning,
    MemoryBroker,
    Publication,
    Receipt,
    RoomRules,
    SettingsError,
)
from hubbub.brokers.broker import Node
from hubbub.hub.core import core_of
from hubbub.hub.window import MOST_BYTES
from hubbub.testing import (
    MemoryClient,
    connect,
    settle,
)
from started_hub import started, until

pytestmark = pytest.mark.anyio


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

    async def start(self, node: Node) -> None:
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
    "Hub(broker=text)": Wrong(lambda h, c: Hub(broker=ID), SettingsError, "valkey://host:6379"),
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
            assert self._node is not None
            future.set_result(Receipt(self._node.deliver(publication)))
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
        peer.client.send("before the close")
        peer.client.close(4000, "from a thread")
        with pytest.raises(ValueError, match="1005"):
            peer.client.close(1005)
        with pytest.raises(TypeError):
            hub.broadcast(object())

    await asyncio.to_thread(work)
    await until(lambda: peer.closed is not None)
    assert peer.received == ["before the close"]
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


async def test_a_broker_that_returns_no_receipt_is_no_failure_of_who_broadcasts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = MemoryBroker()
    broker.publish = lambda publication: object()  # type: ignore[method-assign,assignment,return-value]
    hub = Hub(broker=broker)
    await hub.start()
    hub.broadcast("x")
    assert "a broadcast failed" in caplog.text
    await hub.stop()


async def test_a_client_of_another_hub_excludes_nobody_whatever_its_id() -> None:
    ours, theirs = Hub(), Hub()
    await ours.start()
    await theirs.start()
    peer, stranger = connect(ours, client_id="x"), connect(theirs, client_id="x").client
    assert (await ours.everybody.publish("1", exclude=stranger)).delivered_to == 1
    ours.broadcast("2", exclude=stranger)
    await theirs.stop()
    ours.broadcast("3", exclude=stranger)
    await settle(ours)
    assert peer.received == ["1", "2", "3"]
    await ours.stop()


async def test_what_can_never_be_published_is_refused_before_it_waits_its_turn() -> None:
    hub = await started(room_rules=[RoomRules("answer", stream=True, history=9)])
    core = core_of(hub)
    await core.window.enter(MOST_BYTES)  # nobody else fits
    with pytest.raises(TypeError, match="key must be"):
        run_to_end(core.publishing.publish_in_turn("red", "x", ""))
    with pytest.raises(CommandError, match="this room is a stream"):
        run_to_end(core.publishing.publish_in_turn("answer", "x"))
    with pytest.raises(AssertionError, match="it waits"):
        run_to_end(core.publishing.publish_in_turn("red", "x"))
    await hub.stop()
