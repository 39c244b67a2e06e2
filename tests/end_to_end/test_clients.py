"""Who comes, is known and goes: handlers, ids, users, contexts, tokens, counters; on every transport."""

from __future__ import annotations

import asyncio
import contextvars
import json
import time
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

import hubbub
from hubbub import Client, Close, Handshake, Hub, Identity
from serving import DEFLATED_WAYS, PATIENCE_S, nothing, serve, take, until, venue

pytestmark = pytest.mark.anyio


async def test_s03_clients_are_counted_listed_and_found_by_user(way: str) -> None:
    hub = Hub()

    @hub.authenticate
    def who(handshake: Handshake) -> Identity:
        return Identity(user=handshake.query.get("user"))

    async with venue(hub, way) as here:
        await here.join("/ws?user=ann")
        await here.join("/ws?user=ann")
        bob = await here.join("/ws?user=bob")
        await here.join()
        assert len(hub) == hub.client_count == 4
        assert {client.user for client in hub} == {"ann", "bob", None}
        assert [client.user for client in hub.clients_of("ann")] == ["ann", "ann"]
        assert hub.clients_of("nobody") == []
        await bob.close()
        await until(lambda: len(hub) == 3)
        assert hub.clients_of("bob") == []


async def test_s04_handlers_run_for_coming_talking_and_going(way: str) -> None:
    hub = Hub()
    heard: list[object] = []

    @hub.on_connect
    def came(client: Client) -> None:
        heard.append("came")

    @hub.on_connect
    async def came_too(client: Client, handshake: Handshake) -> None:
        await asyncio.sleep(0.01)
        heard.append(handshake.query["room"])

    @hub.on_message
    async def said(client: Client, text: str) -> None:
        await asyncio.sleep(0)
        heard.append(text)

    @hub.on_disconnect
    async def left(client: Client, close: Close) -> None:
        await asyncio.sleep(0)
        heard.append(close.code)

    async with venue(hub, way) as here:
        socket = await here.join("/ws?room=red")
        await socket.send("hello")
        await socket.send("the end")
        await socket.close(4001, "tired")
        await until(lambda: len(heard) == 5)
    assert heard == ["came", "red", "hello", "the end", 4001]


async def test_s05_a_client_has_its_id_user_meta_and_rooms(way: str) -> None:
    hub = Hub(client_id_from_query=True)

    @hub.authenticate
    def who(handshake: Handshake) -> Identity:
        return Identity(user="ann", meta={"plan": "gold"})

    async with venue(hub, way) as here:
        socket = await here.join("/ws?id=phone-1")
        (client,) = hub
        assert (client.id, client.user, client.meta) == ("phone-1", "ann", {"plan": "gold"})
        assert client.address == "127.0.0.1"
        assert abs(client.connected_at - time.time()) < 10
        client.join("red")
        client.join("blue")
        client.join("blue")
        assert client.rooms == {"red", "blue"}
        client.leave("red")
        client.leave("never joined")
        assert client.rooms == {"blue"}
        assert client.send("to you alone")
        assert await take(socket, 1) == ["to you alone"]
        client.close(4002, "that is all")
        with pytest.raises(ConnectionClosed):
            await take(socket, 1)
        assert (socket.close_code, socket.close_reason) == (4002, "that is all")
        assert not client.is_connected
        assert not client.send("too late")
        assert hub.stats()["sends_to_gone"] == 1


async def test_s05_ids_are_generated_and_differ(way: str) -> None:
    hub = Hub()
    async with venue(hub, way) as here:
        await here.join("/ws?id=mine")
        await here.join("/ws?id=mine")
        ids = {client.id for client in hub}
        assert len(ids) == 2
        assert "mine" not in ids


async def test_s13_the_defaults_are_those_of_dmmvc() -> None:
    settings = Hub().settings
    assert settings.write_timeout_s == 10
    assert settings.pong_timeout_s == 60
    assert settings.ping_interval_s == 54
    assert settings.max_message_bytes == 512
    assert settings.outbox_max_entries == 256


async def test_s20_stats_has_the_three_gauges_and_the_counters(way: str) -> None:
    hub = Hub()
    entered = asyncio.Event()
    gate = asyncio.Event()

    @hub.authenticate
    async def who(handshake: Handshake) -> str | None:
        if "wait" in handshake.query:
            entered.set()
            await gate.wait()
        return handshake.query.get("user")

    async with venue(hub, way) as here:
        socket = await here.join("/ws?user=ann")
        hub.broadcast("one")
        hub.broadcast("two")
        stats = hub.stats()
        assert (stats["clients"], stats["broadcast"], stats["register"]) == (1, 2, 0)
        await take(socket, 2)
        joining = asyncio.create_task(here.join("/ws?user=bob&wait"))
        await entered.wait()
        assert hub.stats()["register"] == 1
        gate.set()
        await joining
        (client,) = hub.clients_of("ann")
        client.join("red")
        await socket.send("in")
        await take(socket, 1)
        for _ in range(2):
            with pytest.raises(Exception, match="401"):
                await here.join()
        stats = hub.stats()
        assert stats["register"] == 0
        assert stats["rooms"] == 1
        assert stats["messages_in"] == 1
        assert stats["bytes_in"] == 2
        assert stats["messages_out"] == 4
        assert stats["refused"] == {"unauthorized": 2}
        assert stats["dropped"] == stats["slow_disconnects"] == 0
        assert stats["total_clients"] == 2
        assert stats["uptime_s"] > 0
        json.dumps(stats)


async def test_a_token_that_ends_is_fetched_anew(way: str) -> None:
    hub = Hub(ping_interval_s=0.5, pong_timeout_s=1.0)  # so that the hub looks often
    codes: list[int] = []
    hub.on_disconnect(lambda client, close: codes.append(close.code))

    @hub.authenticate
    def who(handshake: Handshake) -> Identity:
        lives_s = {"short": 0.3, "over": -1.0, "long": 3600.0}[handshake.token or ""]
        return Identity("ann", {"token": handshake.token}, expires_at=time.time() + lives_s)

    async with venue(hub, way) as here:
        tokens = iter(["short", "long"])

        def url() -> str:
            return here.served.ws(f"/ws?token={next(tokens)}")

        async with hubbub.connect(url, min_delay_s=0.01, max_delay_s=0.02) as connection:
            await until(lambda: hub.stats()["expired"] == 1)
            await until(lambda: len(hub) == 1)
            assert [client.meta["token"] for client in hub] == ["long"]
            await connection.send("here again")
            assert await asyncio.wait_for(anext(aiter(connection)), PATIENCE_S) == "here again"
        assert codes[0] == 3005
        with pytest.raises(InvalidStatus) as caught:
            await here.served.connect("/ws?token=over")
        assert caught.value.response.status_code == 401
        assert json.loads(caught.value.response.body or b"")["code"] == "token_expired"


SEEN: contextvars.ContextVar[str] = contextvars.ContextVar("SEEN", default="nothing")


async def test_fault_20_all_handlers_run_in_the_context_of_the_handshake(way: str) -> None:
    hub = Hub(pong_timeout_s=60)
    log: dict[str, list[str]] = {"ann": [], "bob": []}

    def note(client: Client, event: str) -> None:
        assert client.user is not None
        log[client.user].append(f"{event} {SEEN.get()}")

    @hub.authenticate
    def who(handshake: Handshake) -> str:
        return handshake.query["user"]

    hub.on_connect(lambda client: note(client, "connect"))
    hub.on_disconnect(lambda client: note(client, "disconnect"))

    @hub.on_disconnect
    async def later(client: Client) -> None:
        await asyncio.sleep(0)
        note(client, "later")

    @hub.on("plain")
    def plain(client: Client, message: dict[str, Any]) -> None:
        note(client, "plain")

    @hub.on("slow")
    async def slow(client: Client, message: dict[str, Any]) -> None:
        await asyncio.sleep(0.01)
        note(client, "slow")

    @hub.on("kick")
    def kick(client: Client, message: dict[str, Any]) -> None:
        hub.disconnect("bob")

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            SEEN.set(scope["query_string"].decode())
        await hub.mount(nothing)(scope, receive, send)

    native, _ = DEFLATED_WAYS[way]
    async with serve(middleware, native=native) as served:
        SEEN.set("the server's")
        async with served.connect("/ws?user=ann") as ann, served.connect("/ws?user=bob") as bob:
            for kind in ("plain", "slow", "plain", "slow"):
                await ann.send(json.dumps({"type": kind}))
                await bob.send(json.dumps({"type": kind}))
            await until(lambda: len(log["ann"]) == len(log["bob"]) == 5)
            await ann.send(json.dumps({"type": "kick"}))
            await until(lambda: len(log["bob"]) == 7)
        await until(lambda: len(log["ann"]) == 7)
    events = ("connect", "plain", "slow", "plain", "slow", "disconnect", "later")
    for user in ("ann", "bob"):
        assert log[user] == [f"{event} user={user}" for event in events]


@pytest.mark.parametrize("kind", ["plain", "async", "validated"])
async def test_fault_20_the_handler_of_all_messages_runs_in_the_context_of_the_handshake(
    way: str, kind: str
) -> None:
    """A hub with one handler calls it by a way of its own; a validator comes before it."""
    hub = Hub()
    log: list[str] = []
    hub.authenticate(lambda handshake: handshake.query["user"])

    def note(client: Client, text: str) -> None:
        log.append(f"{client.user} {text} {SEEN.get()}")

    async def note_late(client: Client, text: str) -> None:
        note(client, f"{text} begun")
        await asyncio.sleep(0.01)
        note(client, text)

    def check(client: Client, text: str) -> None:
        note(client, f"{text} checked")

    hub.on_message(note_late if kind == "async" else note)
    if kind == "validated":
        hub.validate(check)

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            SEEN.set(scope["query_string"].decode())
        await hub.mount(nothing)(scope, receive, send)

    native, _ = DEFLATED_WAYS[way]
    steps = {"plain": [""], "async": [" begun", ""], "validated": [" checked", ""]}[kind]
    expected = [
        f"{user} {n}{step} user={user}" for n in "12" for user in ("ann", "bob") for step in steps
    ]
    async with serve(middleware, native=native) as served:
        SEEN.set("the server's")
        async with served.connect("/ws?user=ann") as ann, served.connect("/ws?user=bob") as bob:
            for n in "12":
                for socket in (ann, bob):
                    count = len(log) + len(steps)
                    await socket.send(n)
                    await until(lambda count=count: len(log) == count)  # type: ignore[misc]
    assert log == expected


async def test_fault_20_what_belongs_to_no_client_has_no_client_s_context(way: str) -> None:
    """A server without a lifespan: the first handshake starts the hub, and is not its context."""
    SEEN.set("where the hub was made")
    hub = Hub()
    log: list[str] = []
    hub.every(0.01)(lambda: log.append(SEEN.get()))

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        SEEN.set("the request's")
        await hub(scope, receive, send)

    native, _ = DEFLATED_WAYS[way]
    async with serve(middleware, native=native, lifespan="off") as served, served.connect():
        await until(lambda: bool(log))
    await hub.stop()
    assert set(log) == {"where the hub was made"}
