"""The portable transport against a scripted ASGI server: what servers do that sockets do not."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Mapping, MutableMapping
from typing import Any

import pytest

from hubbub import (
    BrokerUnavailable,
    Client,
    Close,
    Handshake,
    Hub,
    Identity,
    MemoryBroker,
)
from hubbub.brokers.broker import Node
from hubbub.hub.client import session_of
from hubbub.transports import asgi
from serving import PATIENCE_S, until

pytestmark = pytest.mark.anyio

SCOPE: dict[str, Any] = {
    "type": "websocket",
    "path": "/",
    "headers": [(b"host", b"x")],
    "query_string": b"",
    "subprotocols": [],
}


class Server:
    """An ASGI server with one connection, whose `send` can be held or broken."""

    def __init__(self, hub: Hub, scope: Mapping[str, Any] = SCOPE) -> None:
        self.sent: list[MutableMapping[str, Any]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self._events: asyncio.Queue[dict[str, Any] | BaseException] = asyncio.Queue()
        self.put({"type": "websocket.connect"})
        self.call = asyncio.ensure_future(hub(dict(scope), self._receive, self._send))

    def put(self, event: dict[str, Any] | BaseException) -> None:
        """Let the application receive an event, or an exception."""
        self._events.put_nowait(event)

    def refuse_to_receive(self) -> None:
        """Fail at the application's next `receive`, as a middleware may."""
        self.put(RuntimeError("a middleware that fails"))

    async def _receive(self) -> dict[str, Any]:
        event = await self._events.get()
        if isinstance(event, BaseException):
            raise event
        return event

    def text(self, text: str) -> None:
        """Let the application receive a text message."""
        self.put({"type": "websocket.receive", "text": text})

    async def _send(self, event: MutableMapping[str, Any]) -> None:
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.sent.append(event)

    async def until_over(self) -> None:
        """Wait for the end of the call, and do not bring it about: `wait_for` would cancel it."""
        await asyncio.wait({self.call}, timeout=PATIENCE_S)
        assert self.call.done()

    @property
    def texts(self) -> list[str]:
        """The text messages sent so far."""
        return [event["text"] for event in self.sent if "text" in event]


async def connected(hub: Hub) -> tuple[Server, Client]:
    """Connect to a hub that has no other client."""
    server = Server(hub)
    await until(lambda: len(hub) == 1)
    return server, next(iter(hub))


def heard_closes(hub: Hub) -> list[Close]:
    closes: list[Close] = []
    hub.on_disconnect(lambda client, close: closes.append(close))
    return closes


async def test_messages_pass_in_both_directions() -> None:
    hub = Hub()
    server, client = await connected(hub)
    server.text("text")
    server.put({"type": "websocket.receive", "bytes": b"binary", "text": None})
    await until(lambda: len(server.sent) == 3)
    assert server.sent[1:] == [
        {"type": "websocket.send", "text": "text"},
        {"type": "websocket.send", "bytes": b"binary"},
    ]
    assert session_of(client).transport.write_wire is None
    assert not session_of(client).transport.ping()
    server.put({"type": "websocket.disconnect", "code": 1001, "reason": "gone"})
    await server.call
    assert len(hub) == 0
    await hub.stop()


@pytest.mark.parametrize(
    "event",
    [
        OSError("the server's own"),
        asyncio.CancelledError(),
        {"type": "websocket.receive", "text": "no UTF-8: \ud800"},
    ],
    ids=["raises", "cancelled", "surrogate"],
)
async def test_fault_06_a_client_that_cannot_be_read_any_more_is_closed(
    event: dict[str, Any] | BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()
    closes = heard_closes(hub)
    server, client = await connected(hub)
    server.put(event)
    await asyncio.wait_for(server.call, PATIENCE_S)
    assert server.sent[-1] == {
        "type": "websocket.close",
        "code": 1011,
        "reason": "internal error",
    }
    assert closes == [Close(1011, "internal error", by_server=True)]
    assert len(hub) == 0
    lines = [record.getMessage() for record in caplog.records if record.name == "hubbub"]
    assert lines == [f"client {client.id} cannot be read any more; closed"]
    await hub.stop()


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"code": 4001, "reason": "tired"}, (4001, "tired")),
        ({"code": None}, (1005, "")),
        ({}, (1005, "")),
    ],
)
async def test_the_peers_code_and_reason_reach_the_handler(
    event: dict[str, Any], expected: tuple[int, str]
) -> None:
    hub = Hub()
    closes = heard_closes(hub)
    server, _ = await connected(hub)
    server.put({"type": "websocket.disconnect", **event})
    await server.call
    assert closes == [Close(*expected)]
    await hub.stop()


@pytest.mark.parametrize("failure", [OSError("gone"), RuntimeError("after close")])
async def test_a_send_that_fails_ends_the_client(failure: Exception) -> None:
    hub = Hub()
    closes = heard_closes(hub)
    server, client = await connected(hub)
    server.failure = failure
    client.send("into the void")
    await asyncio.wait_for(server.call, 5)
    assert closes == [Close(1006)]
    await hub.stop()


async def test_a_client_that_is_closed_gets_its_messages_first() -> None:
    hub = Hub()
    server, client = await connected(hub)
    server.gate.clear()
    client.send("one")
    await asyncio.sleep(0)
    client.send("two")
    client.close(4000, "bye")
    assert len(hub) == 0
    server.text("too late")
    server.gate.set()
    await asyncio.wait_for(server.call, 5)
    assert server.texts == ["one", "two"]
    assert server.sent[-1] == {"type": "websocket.close", "code": 4000, "reason": "bye"}
    assert hub.stats()["messages_in"] == 0
    await hub.stop()


async def test_a_close_that_cannot_be_sent_ends_within_the_write_timeout() -> None:
    hub = Hub(write_timeout_s=0.1)
    server, client = await connected(hub)
    server.gate.clear()
    client.send("stuck")
    client.close(4000, "bye")
    await server.until_over()
    assert server.texts == []
    await hub.stop()


async def test_fault_03_a_close_that_waits_alone_ends_within_the_write_timeout_too() -> None:
    hub = Hub(write_timeout_s=0.1)
    server, client = await connected(hub)
    server.gate.clear()
    client.close(4000, "bye")
    await server.until_over()
    assert [event["type"] for event in server.sent] == ["websocket.accept"]
    await hub.stop()


@pytest.mark.parametrize("failure", ["the server's", "an event's"])
async def test_fault_06_a_receive_that_fails_closes_its_client(
    failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()
    closes = heard_closes(hub)
    server, client = await connected(hub)
    if failure == "the server's":
        server.refuse_to_receive()
    else:
        server.put({"type": "websocket.receive", "text": "half a pair \ud800"})
    await server.until_over()
    assert closes == [Close(1011, "internal error", by_server=True)]
    assert server.sent[-1]["code"] == 1011
    assert len(hub) == 0
    lines = [line for line in caplog.messages if client.id in line]
    assert lines == [f"client {client.id} cannot be read any more; closed"]
    await hub.stop()


async def test_a_client_that_was_closed_is_not_kept_for_the_write_timeout() -> None:
    hub = Hub(write_timeout_s=3600)
    server, client = await connected(hub)
    client.close(4000)
    await server.call
    kept = weakref.ref(client)
    del client
    await asyncio.sleep(0)
    gc.collect()
    assert kept() is None
    await hub.stop()


async def test_fault_02_a_write_that_fails_waits_for_the_code_of_the_close() -> None:
    hub = Hub()
    closes = heard_closes(hub)
    server, client = await connected(hub)
    server.failure = OSError("the peer is gone")
    client.send("more")
    for _ in range(10):
        await asyncio.sleep(0)
    assert closes == []
    server.put({"type": "websocket.disconnect", "code": 4007, "reason": "bye"})
    await server.until_over()
    assert closes == [Close(4007, "bye")]
    await hub.stop()


async def test_cancelling_the_call_is_a_restart_to_the_handlers() -> None:
    hub = Hub()
    closes = heard_closes(hub)
    server, _ = await connected(hub)
    server.call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server.call
    assert closes == [Close(1012)]
    assert not [task for task in asyncio.all_tasks() if "hubbub read" in task.get_name()]
    await hub.stop()


async def test_the_messages_of_a_busy_client_wait_for_its_handler() -> None:
    hub = Hub()
    gate = asyncio.Event()
    heard: list[str] = []

    @hub.on_message
    async def slow(client: Client, text: str) -> None:
        heard.append(text)
        await gate.wait()

    server, _ = await connected(hub)
    for text in ("one", "two", "three"):
        server.text(text)
    await until(lambda: heard == ["one"])
    for _ in range(10):
        await asyncio.sleep(0)
    assert heard == ["one"]
    gate.set()
    await until(lambda: heard == ["one", "two", "three"])
    server.put({"type": "websocket.disconnect"})
    await server.call
    await hub.stop()


@pytest.mark.parametrize(("size", "taken"), [(1, 5), (60, 3)])
async def test_fault_01_a_full_inbox_stops_the_reading(
    size: int, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "_LOOK_S", 3600)
    hub = Hub(inbox_max_messages=4, inbox_max_bytes=100)
    gate, heard = asyncio.Event(), list[str]()

    @hub.on_message
    async def slow(client: Client, text: str) -> None:
        await gate.wait()
        heard.append(text)

    server, _ = await connected(hub)
    texts = [str(number % 10) * size for number in range(30)]
    for text in texts:
        server.text(text)
    await until(lambda: hub.stats()["messages_in"] == taken)
    for _ in range(20):
        await asyncio.sleep(0)
    assert hub.stats()["messages_in"] == taken, "one is handled, the others wait"
    gate.set()
    await until(lambda: heard == texts)
    server.put({"type": "websocket.disconnect"})
    await server.until_over()
    await hub.stop()


async def test_fault_02_a_close_behind_more_messages_than_may_wait_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asgi, "_LOOK_S", 0.01)
    hub = Hub(inbox_max_messages=4, handler_grace_s=0)
    closes = heard_closes(hub)

    @hub.on_message
    async def endless(client: Client, text: str) -> None:
        await asyncio.Event().wait()

    server, _ = await connected(hub)
    for number in range(30):
        server.text(str(number))
    server.put({"type": "websocket.disconnect", "code": 1001})
    await server.until_over()
    await until(lambda: closes == [Close(1001)])
    stats = hub.stats()
    assert (stats["messages_in"], stats["unhandled"], stats["handlers_cancelled"]) == (30, 29, 1)
    await hub.stop()


async def test_a_disconnect_during_the_handshake_is_no_client() -> None:
    hub = Hub()
    events: list[dict[str, Any]] = [{"type": "websocket.disconnect", "code": 1006}]

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    async def send(event: MutableMapping[str, Any]) -> None:
        raise AssertionError(event)

    await hub(dict(SCOPE), receive, send)
    assert len(hub) == 0
    assert hub.stats()["register"] == 0


async def test_an_accept_that_fails_leaves_nothing_behind() -> None:
    hub = Hub(max_clients=1)
    server = Server(hub)
    server.failure = OSError("gone")
    with pytest.raises(OSError, match="gone"):
        await server.call
    assert len(hub) == 0
    assert hub.stats()["register"] == 0
    # The place it had reserved is free again.
    server, _ = await connected(hub)
    server.put({"type": "websocket.disconnect"})
    await server.call
    await hub.stop()


async def test_an_id_is_held_while_its_handshake_is_being_accepted() -> None:
    hub = Hub(client_id_from_query=True)
    scope = {**SCOPE, "query_string": b"id=mine"}
    first = Server(hub, scope)
    first.gate.clear()
    await until(lambda: hub.stats()["register"] == 1)
    second = Server(hub, {**scope, "extensions": {"websocket.http.response": {}}})
    await second.call
    assert second.sent[0]["status"] == 409
    first.gate.set()
    await until(lambda: len(hub) == 1)
    first.put({"type": "websocket.disconnect"})
    await first.call
    await hub.stop()


async def test_a_handshake_that_waits_for_its_identity_counts_for_its_address() -> None:
    hub = Hub(max_clients_per_address=1)
    gate = asyncio.Event()

    @hub.authenticate
    async def who(handshake: Handshake) -> Identity:
        await gate.wait()
        return Identity()

    denial: dict[str, Any] = {"extensions": {"websocket.http.response": {}}}
    here = {**SCOPE, **denial, "client": ("192.0.2.1", 1)}
    first = Server(hub, here)
    await until(lambda: hub.stats()["register"] == 1)
    second = Server(hub, here)
    await second.call
    assert second.sent[0]["status"] == 503
    assert (b"retry-after", b"5") in second.sent[0]["headers"]
    assert json.loads(second.sent[1]["body"])["code"] == "too_many_from_address"
    assert hub.stats()["refused"] == {"too_many_from_address": 1}
    gate.set()
    await until(lambda: len(hub) == 1)
    third, elsewhere = Server(hub, here), Server(hub, {**here, "client": ("192.0.2.2", 1)})
    await third.call
    assert third.sent[0]["status"] == 503
    await until(lambda: len(hub) == 2)
    for server in (first, elsewhere):
        server.put({"type": "websocket.disconnect"})
        await server.call
    fourth = Server(hub, here)
    await until(lambda: len(hub) == 1)
    fourth.put({"type": "websocket.disconnect"})
    await fourth.call
    await hub.stop()


async def test_a_broker_that_cannot_start_is_a_503() -> None:
    class Down(MemoryBroker):
        async def start(self, node: Node) -> None:
            raise BrokerUnavailable("no connection")

    hub = Hub(broker=Down())
    server = Server(hub, {**SCOPE, "extensions": {"websocket.http.response": {}}})
    await server.call
    assert server.sent[0]["status"] == 503
    assert json.loads(server.sent[1]["body"])["code"] == "broker_unavailable"
    assert hub.stats()["register"] == 0


async def test_fault_03_who_gives_up_waiting_for_the_stop_does_not_keep_others_from_it() -> None:
    hub = Hub(shutdown_timeout_s=0.5)
    server, _ = await connected(hub)
    server.gate.clear()  # its close hangs
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await hub.stop()
    assert hub.is_running
    await hub.stop()
    assert not hub.is_running
    await asyncio.wait_for(server.call, PATIENCE_S)
