"""Two dialects in one room: plain clients and clients of a dialect with commands, on every transport."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from array_dialect import ArrayDialect, events_of
from hubbub import Client, CommandError, Handshake, Hub, Identity, Refused
from serving import DEFLATED_WAYS, PATIENCE_S, Venue, nothing, serve, until

pytestmark = pytest.mark.anyio


class ArrayClient:
    """A client of the array dialect, over a real socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._events: list[list[Any]] = []

    async def ask(self, *command: Any) -> list[Any]:
        """Send a command and return the next event."""
        await self.socket.send(json.dumps(command))
        return await self.next()

    async def next(self) -> list[Any]:
        """Return the next event."""
        while not self._events:
            message = await asyncio.wait_for(self.socket.recv(), PATIENCE_S)
            self._events = events_of([message])
        return self._events.pop(0)

    async def end(self) -> tuple[int, str]:
        """Return how the server closed the connection."""
        try:
            while True:
                await asyncio.wait_for(self.socket.recv(), PATIENCE_S)
        except ConnectionClosed as closed:
            return (1006, "") if closed.rcvd is None else (closed.rcvd.code, closed.rcvd.reason)


class Place:
    """A served hub with two routes: /ws is plain, /array has commands."""

    def __init__(self, venue: Venue, dialect: ArrayDialect, stack: AsyncExitStack) -> None:
        self.plain = venue.join
        self.dialect = dialect
        self._venue, self._stack = venue, stack

    async def open(self, **options: Any) -> ArrayClient:
        """Open a connection of the array dialect."""
        options.setdefault("compression", self._venue._compression)
        connection = self._venue.served.connect("/array", **options)
        return ArrayClient(await self._stack.enter_async_context(connection))

    async def connected(self, token: str | None = None) -> ArrayClient:
        """Open a connection, and connect it."""
        client = await self.open()
        answer = await client.ask("connect", 1, token)
        assert answer[:2] == ["connected", 1]
        return client


@asynccontextmanager
async def place(hub: Hub, way: str) -> AsyncIterator[Place]:
    dialect = ArrayDialect()
    app = hub.mount(hub.mount(nothing), "/array", dialect=dialect)
    native, _ = DEFLATED_WAYS[way]
    async with serve(app, native=native) as served, AsyncExitStack() as stack:
        yield Place(Venue(hub, served, stack, way), dialect, stack)


async def test_plain_clients_and_others_meet_in_a_room_and_each_hears_its_own_dialect(
    way: str,
) -> None:
    hub = Hub()
    hub.authorize(lambda client, action, room: True)

    @hub.on_message
    def heard(client: Client, message: str) -> None:
        if message == "join":
            client.join("red")
        else:
            hub.room("red").broadcast(f"{message}!")

    async with place(hub, way) as here:
        ann, bob = await here.plain(), await here.connected()
        await ann.send("join")
        assert await bob.ask("subscribe", 2, "red") == ["ok", 2]
        await until(lambda: hub.rooms == {"red": 2})
        await ann.send("hello")
        assert await asyncio.wait_for(ann.recv(), PATIENCE_S) == "hello!"
        assert await bob.next() == ["published", "red", "hello!"]
        assert await bob.ask("send", "good day") == ["published", "red", "good day!"]
        assert await asyncio.wait_for(ann.recv(), PATIENCE_S) == "good day!"
        await bob.socket.send(json.dumps(["publish", 3, "red", "mine"]))
        assert sorted([await bob.next(), await bob.next()]) == [
            ["ok", 3],
            ["published", "red", "mine"],
        ]
        assert await asyncio.wait_for(ann.recv(), PATIENCE_S) == "mine"
        hub.broadcast("to all")
        assert await bob.next() == ["message", "to all"]
        assert await asyncio.wait_for(ann.recv(), PATIENCE_S) == "to all"
        assert await bob.ask("unsubscribe", 4, "red") == ["ok", 4]
        assert hub.rooms == {"red": 1}


async def test_a_publication_is_encoded_once_for_all_and_not_at_all_for_none(way: str) -> None:
    hub = Hub()
    async with place(hub, way) as here:
        ann = await here.plain()
        many = [await here.connected() for _ in range(3)]
        for client in many[:2]:
            assert await client.ask("subscribe", 2, "red") == ["ok", 2]
        next(iter(hub)).join("red")
        next(iter(hub)).join("blue")
        hub.room("red").broadcast("x")
        hub.room("blue").broadcast("y")
        for client in many[:2]:
            assert await client.next() == ["published", "red", "x"]
        assert [await asyncio.wait_for(ann.recv(), PATIENCE_S) for _ in range(2)] == ["x", "y"]
        assert here.dialect.encoded["Published"] == 1


async def test_what_is_said_in_one_turn_is_joined_in_order(way: str) -> None:
    hub = Hub()
    async with place(hub, way) as here:
        client = await here.connected()
        assert await client.ask("subscribe", 2, "red") == ["ok", 2]
        for number in range(5):
            hub.room("red").broadcast(str(number))
            hub.broadcast(f"all {number}")
        found = [await client.next() for _ in range(10)]
        assert found[::2] == [["published", "red", str(number)] for number in range(5)]
        assert found[1::2] == [["message", f"all {number}"] for number in range(5)]


async def test_who_it_is_is_asked_at_the_first_command_and_not_before(way: str) -> None:
    hub = Hub()
    asked: list[tuple[str | None, Any]] = []

    @hub.authenticate
    async def who(handshake: Handshake) -> Identity | None:
        asked.append((handshake.token, handshake.data))
        await asyncio.sleep(0)
        return Identity(user=handshake.token) if handshake.token != "bad" else None

    connected: list[str | None] = []
    hub.on_connect(lambda client: connected.append(client.user))
    async with place(hub, way) as here:
        client = await here.open()
        await until(lambda: hub.stats()["register"] == 1)
        assert (asked, connected, len(hub)) == ([], [], 0)
        answer = await client.ask("connect", 1, "ann")
        assert answer[:2] == ["connected", 1]
        assert hub.client(answer[2]) is next(iter(hub))
        assert (asked, connected, len(hub)) == ([("ann", None)], ["ann"], 1)
        assert hub.stats()["register"] == 0
        other = await here.open()
        assert await other.ask("connect", 7, "bad") == ["error", 7, "unauthorized", "Unauthorized"]
        assert (await other.end())[0] == 3500
        assert hub.stats()["refused"] == {"unauthorized": 1}
        assert len(hub) == 1


async def test_no_command_in_time_is_the_end_and_frees_the_place(way: str) -> None:
    hub = Hub(handshake_timeout_s=0.3, max_clients=1)
    gone: list[Client] = []
    hub.on_disconnect(lambda client: gone.append(client))
    async with place(hub, way) as here:
        client = await here.open()
        await until(lambda: hub.stats()["register"] == 1)
        with pytest.raises(Exception, match="503"):
            await here.open()
        code, reason = await client.end()
        assert code == 3502
        assert reason.endswith("a plain client needs a route without a dialect")
        await until(lambda: hub.stats()["register"] == 0)
        assert (hub.stats()["stale"], gone) == (1, [])
        await here.connected()
        assert len(hub) == 1


async def test_a_connection_that_leaves_before_it_is_connected_leaves_nothing(way: str) -> None:
    hub = Hub(max_clients=1, max_clients_per_address=1)
    begun = asyncio.Event()

    @hub.authenticate
    async def who(handshake: Handshake) -> str:
        begun.set()
        if handshake.token == "slow":
            await asyncio.sleep(PATIENCE_S)
        return "ann"

    async with place(hub, way) as here:
        for token in (None, "slow"):
            client = await here.open()
            if token is not None:
                begun.clear()
                await client.socket.send(json.dumps(["connect", 1, token]))
                await asyncio.wait_for(begun.wait(), PATIENCE_S)
            await client.socket.close()
            await until(lambda: hub.stats()["register"] == 0 and hub.stats()["handlers"] == 0)
        await here.connected()
        assert len(hub) == 1


@pytest.mark.parametrize(
    "command",
    [["subscribe", 1, "red"], ["send", "x"], ["publish", 1, "red", "x"], ["refresh", 1, "t"]],
    ids=lambda command: command[0],
)
async def test_any_other_command_first_is_the_end(way: str, command: list[Any]) -> None:
    hub = Hub()
    async with place(hub, way) as here:
        client = await here.open()
        await client.socket.send(json.dumps(command))
        assert await client.end() == (3501, "bad request")
        second = await here.connected()
        await second.socket.send(json.dumps(["connect", 2, "again"]))
        assert await second.end() == (3501, "bad request")
        assert hub.stats()["protocol_errors"] == 2


@pytest.mark.parametrize(
    ("data", "code"),
    [("no json", 1003), ("{}", 1003), (b"\xff", 1003)],
    ids=["text", "map", "bytes"],
)
async def test_what_is_no_command_at_all_closes(way: str, data: str | bytes, code: int) -> None:
    hub = Hub()
    async with place(hub, way) as here:
        client = await here.connected()
        await client.socket.send(data)
        assert (await client.end())[0] == code


async def test_a_wrong_command_is_answered_and_the_client_stays(way: str) -> None:
    hub = Hub(max_rooms_per_client=1)
    async with place(hub, way) as here:
        client = await here.connected()
        assert (await client.ask("what"))[:3] == ["error", None, "unknown_command"]
        assert (await client.ask("subscribe", 2, "@ann"))[:3] == ["error", 2, "bad_room"]
        assert await client.ask("subscribe", 3, "red") == ["ok", 3]
        assert (await client.ask("subscribe", 4, "red"))[:3] == ["error", 4, "already_subscribed"]
        assert (await client.ask("subscribe", 5, "blue"))[:3] == ["error", 5, "too_many_rooms"]
        assert (await client.ask("publish", 6, "red", "x"))[:3] == ["error", 6, "forbidden"]
        assert (await client.ask("history", 7, "red"))[:3] == ["error", 7, "not_available"]
        assert (await client.ask("presence", 8, "red"))[:3] == ["error", 8, "not_available"]


async def test_the_application_says_what_a_client_may_do(way: str) -> None:
    hub = Hub()
    asked: list[tuple[str | None, str, str]] = []

    @hub.authenticate
    def who(handshake: Handshake) -> str | None:
        return handshake.token

    @hub.authorize
    async def may(client: Client, action: str, room: str) -> bool:
        asked.append((client.user, action, room))
        await asyncio.sleep(0)
        if room == "closed":
            raise CommandError("closed", "come back tomorrow")
        return room != "secret"

    async with place(hub, way) as here:
        ann = await here.connected("ann")
        assert (await ann.ask("subscribe", 2, "secret"))[:3] == ["error", 2, "forbidden"]
        assert await ann.ask("subscribe", 3, "closed") == [
            "error",
            3,
            "closed",
            "come back tomorrow",
        ]
        assert await ann.ask("subscribe", 4, "red") == ["ok", 4]
        assert (await ann.ask("history", 5, "secret"))[:3] == ["error", 5, "forbidden"]
        assert (await ann.ask("presence", 6, "secret"))[:3] == ["error", 6, "forbidden"]
        assert (await ann.ask("publish", 7, "secret", "x"))[:3] == ["error", 7, "forbidden"]
        assert [(action, room) for _, action, room in asked] == [
            ("join", "secret"),
            ("join", "closed"),
            ("join", "red"),
            ("history", "secret"),
            ("presence", "secret"),
            ("publish", "secret"),
        ]
        client = next(iter(hub))
        client.join("secret")
        assert await ann.next() == ["server_subscribed", "secret"]
        client.leave("secret")
        assert await ann.next() == ["server_unsubscribed", "secret"]
        assert len(asked) == 6, "what the application does itself needs no leave"


async def test_a_new_token_is_taken_if_it_is_the_same_users(way: str) -> None:
    hub = Hub()

    @hub.authenticate
    def who(handshake: Handshake) -> Identity:
        if handshake.token == "expired":
            raise Refused(401, "token_expired", "too late")
        if handshake.token == "wrong":
            raise Refused(401, "unauthorized", "whose?")
        return Identity(user=handshake.token)

    async with place(hub, way) as here:
        client = await here.connected("ann")
        assert await client.ask("refresh", 2, "ann") == ["ok", 2]
        await client.socket.send(json.dumps(["refresh", 4, "bob"]))
        assert (await client.end())[0] == 3500, "it stays away"
        wrong = await here.connected("ann")
        await wrong.socket.send(json.dumps(["refresh", 2, "wrong"]))
        assert (await wrong.end())[0] == 3500
        late = await here.connected("ann")
        await late.socket.send(json.dumps(["refresh", 2, "expired"]))
        assert (await late.end())[0] == 3005, "it comes back with a new one"


async def test_the_best_subprotocol_that_was_offered_is_chosen(way: str) -> None:
    hub = Hub()
    async with place(hub, way) as here:
        for offered, chosen in (
            (["array.v1", "array.v2"], "array.v2"),
            (["other", "array.v1"], "array.v1"),
            (["other"], None),
            (None, None),
        ):
            client = await here.open(subprotocols=offered)
            assert client.socket.subprotocol == chosen


async def test_a_shutdown_ends_those_that_are_only_open_too(way: str) -> None:
    hub = Hub()
    async with place(hub, way) as here:
        client = await here.open()
        await until(lambda: hub.stats()["register"] == 1)
        ends = asyncio.create_task(client.end())
        await asyncio.sleep(0)
        await hub.stop()
        assert (await ends)[0] == 1012
