"""The Python client with rooms, against a hub: both transports, cuts in the middle, every command."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest

from answering import asynchronous, until
from centrifuge_app import do, make_app, make_hub
from hubbub import Client, Hub, Position
from hubbub.connection import RoomConnection, RoomMessage, Subscription, connect
from hubbub.connection.room_inbox import MAX_ROOM_MESSAGES
from hubbub.errors import CommandFailed, Disconnected, MessagesMissed, Unsubscribed
from hubbub.hub.core import core_of
from hubbub.model import ClientInfo
from hubbub.tokens.claims import SubscriptionToken
from serving import Served, serve

BOTH = pytest.mark.parametrize("native", [True, False], ids=["native", "portable"])
QUICK: dict[str, Any] = {"fixed_delay_s": 0.01, "proxy": None}


@contextlib.asynccontextmanager
async def serving(*, native: bool = True) -> AsyncIterator[tuple[Hub, Served]]:
    hub = make_hub()
    async with serve(make_app(hub), native=native) as served:
        yield hub, served


def client(served: Served, token: Any = "ann", **options: Any) -> RoomConnection:
    url = served.ws("/connection/websocket")
    return connect(url, dialect="centrifuge", token=token, **{**QUICK, **options})


async def taken(room: Subscription[Any], count: int) -> list[Any]:
    """Take so many messages out of a room; return what is in them."""
    return [message.data for message in await messages(room, count)]


async def messages(room: Subscription[Any], count: int) -> list[RoomMessage[Any]]:
    async with asyncio.timeout(10):
        return [await anext(room) for _ in range(count)]


def state_of(room: Subscription[Any]) -> str:
    return room.state


async def missed(room: Subscription[Any]) -> MessagesMissed:
    async with asyncio.timeout(10):
        with pytest.raises(MessagesMissed) as caught:
            await anext(room)
    return caught.value


# Coming back


@BOTH
def test_it_gets_what_it_missed(native: bool) -> None:
    @asynchronous
    async def scenario() -> None:
        async with (
            serving(native=native) as (hub, served),
            client(served) as connection,
            connection.subscribe("chat:1") as room,
        ):
            await do(hub, ["publish", "chat:1", 1, 2])
            assert await messages(room, 2) == [RoomMessage(1, 1), RoomMessage(2, 2)]
            await do(hub, ["cut"])
            await do(hub, ["publish", "chat:1", 3, 4])
            assert await messages(room, 2) == [RoomMessage(3, 3), RoomMessage(4, 4)]
            assert room.position is not None
            assert room.position.offset == 4
            assert hub.stats()["recoveries"] == 1

    scenario()


@BOTH
def test_two_hundred_messages_during_repeated_cuts_come_once_and_in_order(native: bool) -> None:
    @asynchronous
    async def scenario() -> None:
        chance = random.Random(7)

        async def publish(hub: Hub) -> None:
            for number in range(200):
                await hub.publish("chat:1", number)
                if number % 7 == 3:
                    await do(hub, ["cut"])
                await asyncio.sleep(chance.choice((0, 0, 0.001, 0.005)))

        async with (
            serving(native=native) as (hub, served),
            client(served) as connection,
            connection.subscribe("chat:1") as room,
        ):
            publishing = asyncio.create_task(publish(hub))
            assert await taken(room, 200) == list(range(200))
            await publishing
            assert hub.stats()["recoveries"] > 5
            assert hub.stats()["recoveries_refused"] == 0

    scenario()


@BOTH
def test_what_is_lost_is_told_and_the_same_object_goes_on(native: bool) -> None:
    @asynchronous
    async def scenario() -> None:
        async with (
            serving(native=native) as (hub, served),
            client(served) as connection,
            connection.subscribe("short:1") as room,
        ):
            await do(hub, ["publish", "short:1", 1])
            assert await taken(room, 1) == [1]
            await do(hub, ["cut"])
            await do(hub, ["publish", "short:1", 2, 3, 4, 5, 6])
            gap = await missed(room)
            assert gap.room == "short:1"
            assert gap.position is not None
            assert gap.position.offset == 6
            assert room.position == gap.position
            await do(hub, ["publish", "short:1", 7])
            assert await messages(room, 1) == [RoomMessage(7, 7)]

    scenario()


@asynchronous
async def test_a_room_without_a_history_says_that_it_may_have_missed_something() -> None:
    async with (
        serving() as (hub, served),
        client(served) as connection,
        connection.subscribe("plain") as room,
    ):
        await do(hub, ["publish", "plain", "a"])
        assert await messages(room, 1) == [RoomMessage("a", None)]
        assert room.position is None
        await do(hub, ["cut"])
        assert (await missed(room)).position is None
        await do(hub, ["publish", "plain", "b"])
        assert await taken(room, 1) == ["b"]


@asynchronous
async def test_a_program_comes_back_after_a_restart_with_the_position_it_has_stored() -> None:
    async with serving() as (hub, served):
        async with client(served) as connection, connection.subscribe("chat:1") as room:
            await do(hub, ["publish", "chat:1", 1, 2, 3])
            assert await taken(room, 2) == [1, 2]
            await until(lambda: len(room._state.inbox) == 1)
            stored = msgspec.json.encode(room.position)
        async with client(served) as connection:
            # The third was read, and not taken.
            async with connection.subscribe("chat:1", since=msgspec.json.decode(stored)) as room:
                assert await taken(room, 1) == [3]
                assert room.position is not None
                offset, epoch = room.position.offset, room.position.epoch
            since = {"offset": offset - 1, "epoch": epoch}
            async with connection.subscribe("chat:1", since=since) as room:
                assert await taken(room, 1) == [3]


@asynchronous
async def test_it_begins_where_the_page_of_the_server_ended() -> None:
    async with serving() as (hub, served), client(served) as connection:
        await do(hub, ["publish", "chat:1", 1])
        cursor = await hub.cursor("chat:1")
        await do(hub, ["publish", "chat:1", 2])
        async with connection.subscribe("chat:1", since=cursor) as room:
            assert await taken(room, 1) == [2]
        async with connection.subscribe("chat:1", since={}) as room:
            assert await taken(room, 2) == [1, 2]
        async with connection.subscribe("chat:1", since=Position(1, "another")) as room:
            assert (await missed(room)).position == room.position


@asynchronous
async def test_leaving_and_entering_again_misses_nothing() -> None:
    async with serving() as (hub, served), client(served) as connection:
        room = connection.subscribe("chat:1")
        with pytest.raises(RuntimeError, match="use it as"):
            await anext(room)
        async with room:
            await do(hub, ["publish", "chat:1", 1])
            assert await taken(room, 1) == [1]
        assert state_of(room) == "unsubscribed"
        assert [message async for message in room] == []
        await do(hub, ["publish", "chat:1", 2])
        async with room:
            assert state_of(room) == "subscribed"
            assert await taken(room, 1) == [2]
            with pytest.raises(RuntimeError, match="is in 'chat:1' already"):
                await connection.subscribe("chat:1").__aenter__()
            with pytest.raises(RuntimeError, match="is in 'chat:1' already"):
                await room.__aenter__()


@BOTH
def test_it_is_never_given_what_it_was_excluded_from(native: bool) -> None:
    """What the server calls it stands in the epoch of its position: it says so when it comes back."""

    @asynchronous
    async def scenario() -> None:
        async with serving(native=native) as (hub, served), client(served, "uma") as connection:
            room = connection.subscribe("chat:1")
            async with room:
                await do(hub, ["publish", "chat:1", 1])
                assert await messages(room, 1) == [RoomMessage(1, 1)]
                await do(hub, ["exclude", "uma", "chat:1", 2])
                await do(hub, ["miss", "uma", "chat:1", 3])
                assert await messages(room, 1) == [RoomMessage(3, 3)]
                await do(hub, ["cut and exclude", "uma", "chat:1", 4])
                await until(lambda: hub.stats()["recoveries"] == 2)
                await until(lambda: room.state == "subscribed")
            await until(lambda: hub.rooms.get("chat:1", 0) == 0)
            await do(hub, ["exclude", "uma", "chat:1", 5])
            await do(hub, ["publish", "chat:1", 6])
            async with room:
                assert await messages(room, 1) == [RoomMessage(6, 6)]
                await do(hub, ["cut"])
                await do(hub, ["publish", "chat:1", 7])
                assert await messages(room, 1) == [RoomMessage(7, 7)]
            stats = hub.stats()
        assert (stats["recoveries"], stats["recoveries_refused"]) == (4, 0)

    scenario()


@asynchronous
async def test_the_newest_of_a_state_is_no_position_before_it_is_taken() -> None:
    async with serving() as (hub, served), client(served) as connection:
        await do(hub, ["publish", "state:1", "old", "new"])
        async with connection.subscribe("state:1") as room:
            assert room.position is None
            assert await messages(room, 1) == [RoomMessage("new", 2)]
            assert room.position is not None
            await do(hub, ["cut"])
            await do(hub, ["publish", "state:1", "newer", "newest"])
            assert await taken(room, 1) == ["newest"]


@asynchronous
async def test_a_restart_of_the_hub_is_a_gap() -> None:
    async with serving() as (hub, served), serving() as (other, restarted):
        urls = [served.ws("/connection/websocket"), restarted.ws("/connection/websocket")]
        async with (
            connect(lambda: urls[0], dialect="centrifuge", token="ann", **QUICK) as connection,
            connection.subscribe("chat:1") as room,
        ):
            await do(hub, ["publish", "chat:1", 1])
            assert await taken(room, 1) == [1]
            urls.pop(0)
            served.stop()
            gap = await missed(room)
            assert gap.position is not None
            assert gap.position.offset == 0
            await do(other, ["publish", "chat:1", "anew"])
            assert await messages(room, 1) == [RoomMessage("anew", 1)]


# Refusals, and the end


@asynchronous
async def test_a_room_that_is_refused_for_good_raises() -> None:
    async with serving() as (_, served), client(served) as connection:
        room = connection.subscribe("chat:secret")
        with pytest.raises(Unsubscribed) as caught:
            await room.__aenter__()
        assert (caught.value.room, caught.value.code) == ("chat:secret", 103)
        with pytest.raises(Unsubscribed):
            await anext(room)
        assert connection.state == "open"


@asynchronous
async def test_who_is_taken_out_of_a_room_hears_of_it_behind_its_messages() -> None:
    async with (
        serving() as (hub, served),
        client(served) as connection,
        connection.subscribe("chat:1") as room,
    ):
        await do(hub, ["publish", "chat:1", 1])
        await do(hub, ["leave", "ann", "chat:1"])
        assert await taken(room, 1) == [1]
        with pytest.raises(Unsubscribed) as caught:
            await anext(room)
        assert caught.value.code == 2000
        assert state_of(room) == "unsubscribed"


@asynchronous
async def test_who_has_missed_something_comes_back_to_the_room() -> None:
    async with (
        serving() as (hub, served),
        client(served) as connection,
        connection.subscribe("chat:1") as room,
    ):
        await do(hub, ["gap", "ann", "chat:1"])
        await do(hub, ["publish", "chat:1", 1])
        assert await taken(room, 1) == [1]
        assert state_of(room) == "subscribed"


@pytest.mark.parametrize(("code", "comes_back"), [(3499, True), (3500, False), (4500, False)])
def test_codes_of_a_close(code: int, comes_back: bool) -> None:
    @asynchronous
    async def scenario() -> None:
        async with (
            serving() as (hub, served),
            client(served) as connection,
            connection.subscribe("chat:1") as room,
        ):
            await do(hub, ["publish", "chat:1", 1])
            await do(hub, ["close", "ann", code, "why"])
            assert await taken(room, 1) == [1]
            if comes_back:
                await do(hub, ["publish", "chat:1", 2])
                assert await taken(room, 1) == [2]
                return
            for each in (room, connection):
                with pytest.raises(Disconnected) as caught:
                    await anext(each)
                assert (caught.value.code, caught.value.reason) == (code, "why")

    scenario()


@asynchronous
async def test_a_close_of_the_program_ends_the_iterations_and_the_commands() -> None:
    async with (
        serving() as (_, served),
        client(served) as connection,
        connection.subscribe("chat:1") as room,
    ):
        reading = asyncio.create_task(taken(room, 1))
        await asyncio.sleep(0)
        calling = asyncio.create_task(connection.call("text"))
        await asyncio.sleep(0)
        await connection.close()
        with pytest.raises(StopAsyncIteration):
            await reading
        with pytest.raises(Disconnected, match="1000 closed"):
            await calling
        assert [message async for message in connection] == []
        assert [each async for each in connection.given_rooms()] == []
        with pytest.raises(Disconnected):
            await connection.call("text")
        with pytest.raises(Disconnected):
            await connection.subscribe("chat:2").__aenter__()


@asynchronous
async def test_a_wrong_token_is_the_end() -> None:
    async with serving() as (_, served), client(served, "ann:invalid") as connection:
        assert connection.state == "closed"
        with pytest.raises(Disconnected) as caught:
            await anext(connection)
        assert (caught.value.code, caught.value.reason) == (101, "the token is not valid")
        with pytest.raises(Disconnected):
            await connection.subscribe("chat:1").__aenter__()


# Tokens


@asynchronous
async def test_a_function_is_asked_for_another_token_when_one_has_expired() -> None:
    given = iter(["ann:expired", "ann"])

    async def token() -> str:
        return next(given)

    async with (
        serving() as (hub, served),
        client(served, token) as connection,
        connection.subscribe("chat:1") as room,
    ):
        assert connection.state == "open"
        assert connection.client
        await do(hub, ["publish", "chat:1", 1])
        assert await taken(room, 1) == [1]
        assert connection.last_close is not None
        assert connection.last_close.code == 109


@asynchronous
async def test_a_token_that_ends_is_replaced_over_the_same_connection() -> None:
    given = iter(["ann:3", "ann"])
    asked = []

    def token() -> str:
        asked.append(next(given))
        return asked[-1]

    async with serving() as (hub, served), client(served, token) as connection:
        first = connection.client
        await until(lambda: asked == ["ann:3", "ann"])
        await until(lambda: len(core_of(hub).liveness._deadlines) == 0)
        assert connection.client == first
        assert connection.last_close is None


@asynchronous
async def test_a_token_of_a_room_is_replaced_when_it_ends() -> None:
    async with serving() as (hub, served), client(served) as connection:
        asked = []

        async def token() -> str:
            asked.append(1)
            found = await do(hub, ["token", "ann", "chat:1", 2 if len(asked) == 1 else 600])
            assert isinstance(found, str)
            return found

        async with connection.subscribe("chat:1", token=token) as room:
            await until(lambda: len(asked) == 2)
            await do(hub, ["publish", "chat:1", 1])
            assert await taken(room, 1) == [1]
            await do(hub, ["cut"])
            await do(hub, ["publish", "chat:1", 2])
            assert await taken(room, 1) == [2]
            assert len(asked) == 2


# Commands


@asynchronous
async def test_commands() -> None:
    class Added(msgspec.Struct):
        sum: int

    async with (
        serving() as (hub, served),
        client(served, "eve", data={"from": "a test"}) as connection,
        connection.subscribe("chat:1", kind=str) as room,
    ):
        assert await do(hub, ["meta", "eve"]) == [{"from": "a test"}]
        await room.publish("é\n")
        await connection.publish("chat:1", "two")
        assert await taken(room, 2) == ["é\n", "two"]
        page = await room.history(limit=1)
        eve = ClientInfo(connection.client, "eve")
        assert page.messages == [RoomMessage("é\n", 1, eve)]
        assert page.position.offset == 2
        since = Position(1, page.position.epoch)
        assert [each.data for each in (await room.history(since=since)).messages] == ["two"]
        newest = await connection.history("chat:1", limit=1, reverse=True)
        assert [each.data for each in newest.messages] == ["two"]
        assert (await room.history(limit=0)).messages == []
        assert await connection.call("add", [1, 2, 3]) == {"sum": 6}
        assert await connection.send({"type": "hello", "name": "eve"})
        async with asyncio.timeout(10):
            assert await anext(connection) == {"type": "welcome", "to": "eve"}
        assert connection.dropped == 0


@asynchronous
async def test_presence() -> None:
    async with (
        serving() as (_, served),
        client(served) as connection,
        connection.subscribe("here:1") as room,
    ):
        assert await room.presence() == {connection.client: ClientInfo(connection.client, "ann")}
        assert await room.presence_stats() == (1, 1)


@asynchronous
async def test_it_is_told_who_published_and_what_tokens_say_of_clients() -> None:
    async with serving() as (hub, served):
        anns = await do(hub, ["sign", {"sub": "ann", "info": {"name": "Ann"}}])
        seat = await do(hub, ["sign", {"sub": "ann", "channel": "team:1", "info": ["guest"]}])
        async with (
            client(served, anns) as one,
            client(served, "bob") as other,
            other.subscribe("team:1") as theirs,
        ):
            async with one.subscribe("team:1", token=seat) as mine:
                await mine.publish(1)
                await theirs.publish(2)
            await do(hub, ["publish", "team:1", "3"])
            ann = ClientInfo(one.client, "ann", ["guest"], {"name": "Ann"})
            bob = ClientInfo(other.client, "bob")
            expected = [RoomMessage(1, 1, ann), RoomMessage(2, 2, bob), RoomMessage(3, 3)]
            assert await messages(theirs, 3) == expected
            assert (await theirs.history()).messages == expected
            found = await theirs.presence()
            assert found[other.client] == bob
            assert found[one.client] == ann, "it has left a moment ago, and may come back"


@asynchronous
async def test_commands_that_are_refused() -> None:
    async with serving() as (_, served), client(served) as connection:

        async def code_of(command: Any) -> int:
            with pytest.raises(CommandFailed) as caught:
                await command
            assert not caught.value.is_uncertain
            return caught.value.code

        assert await code_of(connection.publish("chat:1", {})) == 103
        assert await code_of(connection.call("add", "nonsense")) == 107
        assert await code_of(connection.call("nobody")) == 104
        assert await code_of(connection.call("fail")) == 450
        assert await code_of(connection.history("plain")) == 108
        assert await code_of(connection.history("chat:1", since=Position(1, "other"))) == 112
        assert await code_of(connection.presence("chat:1")) == 108
        with pytest.raises(TypeError):
            await connection.call("add", object())
        assert len(connection._session.commands) == 0


# Rooms of the server's


@BOTH
def test_rooms_that_the_server_gives(native: bool) -> None:
    @asynchronous
    async def scenario() -> None:
        async with (
            serving(native=native) as (hub, served),
            client(served, "server-side") as connection,
        ):
            async with asyncio.timeout(10):
                given = await anext(aiter(connection.given_rooms()))
            assert given.name == "chat:given"
            await do(hub, ["publish", "chat:given", 1])
            async with given as room:
                assert await taken(room, 1) == [1]
                await do(hub, ["cut"])
                await do(hub, ["publish", "chat:given", 2, 3])
                assert await taken(room, 2) == [2, 3]
                await do(hub, ["leave", "server-side", "chat:given"])
                with pytest.raises(Unsubscribed):
                    await anext(room)

    scenario()


@BOTH
def test_rooms_of_an_identity_say_whether_anything_was_missed(native: bool) -> None:
    @asynchronous
    async def scenario() -> None:
        async with (
            serving(native=native) as (hub, served),
            client(served, "assigned") as connection,
        ):
            async with asyncio.timeout(10):
                rooms = aiter(connection.given_rooms())
                given = {room.name: room for room in [await anext(rooms), await anext(rooms)]}
            async with given["chat:own"] as kept, given["short:own"] as short:
                await do(hub, ["publish", "chat:own", 1])
                await do(hub, ["publish", "short:own", "a"])
                assert (await taken(kept, 1), await taken(short, 1)) == ([1], ["a"])
                await do(hub, ["cut"])
                await do(hub, ["publish", "chat:own", 2, 3])
                await do(hub, ["publish", "short:own", *"bcdef"])
                assert await taken(kept, 2) == [2, 3]
                with pytest.raises(MessagesMissed) as missed:
                    await anext(short)
                assert missed.value.position is not None
                assert missed.value.position.offset == 6
                await do(hub, ["publish", "short:own", "g"])
                assert await taken(short, 1) == ["g"]

    scenario()


@asynchronous
async def test_a_room_that_the_server_gives_may_be_named_by_the_program() -> None:
    async with serving() as (hub, served), client(served, "server-side") as connection:
        await until(lambda: "chat:given" in connection._session.rooms)
        await do(hub, ["publish", "chat:given", 1, 2])
        cursor = await hub.cursor("chat:given")
        async with connection.subscribe("chat:given") as room:
            assert await taken(room, 2) == [1, 2]
        # With a position of its own it asks by itself, and so it does after a cut.
        since = Position(1, cursor.epoch)
        async with connection.subscribe("chat:given", since=since) as room:
            assert await taken(room, 1) == [2]
            await do(hub, ["cut"])
            await do(hub, ["publish", "chat:given", 3])
            assert await taken(room, 1) == [3]


@pytest.mark.parametrize("how", ["late", "never", "never, and wanted"])
def test_a_room_that_a_slow_connect_handler_gives_again_or_not(how: str) -> None:
    @asynchronous
    async def scenario() -> None:
        async with serving() as (hub, served):
            may_go_on, times = asyncio.Event(), itertools.count()

            @hub.on_connect
            async def give(client: Client) -> None:
                if next(times):
                    await may_go_on.wait()
                    if how != "late":
                        return
                await client.subscribe("chat:slow")

            async with client(served) as connection:
                async with asyncio.timeout(10):
                    given = await anext(aiter(connection.given_rooms()))
                wanted = connection.subscribe("chat:slow")
                async with wanted if how == "never, and wanted" else given as room:
                    await do(hub, ["cut"])
                    await do(hub, ["publish", "chat:slow", 1])
                    await until(lambda: state_of(room) == "subscribing")
                    await connection.wait_open()
                    may_go_on.set()
                    if how == "never":
                        with pytest.raises(Unsubscribed, match="2000 the server does not give it"):
                            await taken(room, 1)
                    else:
                        assert await taken(room, 1) == [1]

    scenario()


@asynchronous
async def test_a_room_that_the_server_gave_first_is_asked_for_with_the_programs_token() -> None:
    shown: list[str] = []

    class Verifier:
        async def subscription(self, token: str, **claims: Any) -> Any:
            shown.append(token)
            return SubscriptionToken("ann", "secret")

    async with serving() as (hub, served):
        times = itertools.count()

        @hub.on_connect
        def give(client: Client) -> None:
            if not next(times):
                client.join("secret")

        core_of(hub).access.verifier = cast(Any, Verifier())
        async with client(served) as connection:
            await until(lambda: "secret" in connection._session.rooms)
            async with connection.subscribe("secret", token=lambda: "good") as room:
                await do(hub, ["cut"])
                await until(lambda: shown == ["good"] and state_of(room) == "subscribed")
                await do(hub, ["publish", "secret", 1])
                with pytest.raises(MessagesMissed):  # it keeps nothing
                    await taken(room, 1)
                assert await taken(room, 1) == [1]


# Programs that are slow


@BOTH
def test_a_room_that_nobody_reads_blocks_nothing_and_is_read_on_later(native: bool) -> None:
    @asynchronous
    async def scenario() -> None:
        async with (
            serving(native=native) as (hub, served),
            client(served) as connection,
            connection.subscribe("chat:slow") as slow,
            connection.subscribe("chat:fast") as fast,
        ):
            count = MAX_ROOM_MESSAGES + 300
            for number in range(count):
                await hub.publish("chat:slow", number)
            await until(lambda: state_of(slow) == "paused")
            assert len(slow._state.inbox) == MAX_ROOM_MESSAGES
            await do(hub, ["publish", "chat:fast", "at once"])
            assert await taken(fast, 1) == ["at once"]
            assert await connection.call("text") == "42"
            await do(hub, ["cut"])
            await do(hub, ["publish", "chat:fast", "after a cut"])
            assert await taken(fast, 1) == ["after a cut"]
            assert state_of(slow) == "paused"
            assert await taken(slow, count) == list(range(count))
            assert state_of(slow) == "subscribed"

    scenario()


@asynchronous
async def test_a_slow_program_is_told_what_a_room_without_a_history_cannot_give_again() -> None:
    async with (
        serving() as (hub, served),
        client(served) as connection,
        connection.subscribe("plain") as slow,
    ):
        for number in range(MAX_ROOM_MESSAGES + 10):
            await hub.publish("plain", number)
        await connection.call("text")
        assert await taken(slow, MAX_ROOM_MESSAGES) == list(range(MAX_ROOM_MESSAGES))
        assert (await missed(slow)).position is None
        await do(hub, ["publish", "plain", "on"])
        assert await taken(slow, 1) == ["on"]
