"""What a hub promises, over real sockets, on both transports and both event loops.

The rows S1 to S24 are those of the table "Coming from DMMVC"; others stand where they belong.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import datetime
import gc
import json
import threading
import time
import uuid
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Literal

import msgspec
import pydantic
import pytest
import starlette.exceptions
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

import hubbub
from hubbub import (
    Client,
    Close,
    CommandError,
    Disconnected,
    Frame,
    Handshake,
    Hub,
    HubNotRunning,
    Identity,
)
from hubbub.client import session_of
from rawsocket import TEXT, frame, raw_connect
from serving import (
    DEFLATED,
    DEFLATED_ENVIRONMENT,
    DEFLATED_WAYS,
    PATIENCE_S,
    WAYS,
    nothing,
    serve,
    take,
    until,
    venue,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=DEFLATED_WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The transport and the event loop of a test, and whether messages are deflated."""
    if request.param == DEFLATED:
        for name, text in DEFLATED_ENVIRONMENT.items():
            monkeypatch.setenv(name, text)
    return str(request.param)


@pytest.fixture
def anyio_backend(way: str) -> tuple[str, dict[str, Any]]:
    """The event loop that goes with the way."""
    return "asyncio", {"use_uvloop": DEFLATED_WAYS[way][1]}


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Note(msgspec.Struct):
    text: str
    at: datetime.datetime


class Model(pydantic.BaseModel):
    name: str
    tags: set[str] = set()


async def test_s02_broadcast_takes_whatever_an_application_has(way: str) -> None:
    hub = Hub()
    moment = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.UTC)
    async with venue(hub, way) as here:
        one, two = await here.crowd(2)
        for data in ("text", b"\x00\xff", bytearray(b"ba"), memoryview(b"mv")):
            hub.broadcast(data)
        for value in ({"a": [1, None]}, [1, 2], 7, Point(1, 2), Note("n", moment), Model(name="m")):
            hub.broadcast(value)
        for socket in (one, two):
            got = await take(socket, 10)
            assert got[:4] == ["text", b"\x00\xff", b"ba", b"mv"]
            assert [json.loads(text) for text in got[4:]] == [
                {"a": [1, None]},
                [1, 2],
                7,
                {"x": 1, "y": 2},
                {"text": "n", "at": "2026-11-23T12:00:00Z"},
                {"name": "m", "tags": []},
            ]
    with pytest.raises(TypeError, match="object"):
        hub.broadcast(object())


async def test_s02_broadcast_may_be_called_from_any_thread(way: str) -> None:
    hub = Hub()
    async with venue(hub, way) as here:
        sockets = await here.crowd(3)

        def talk(name: str) -> None:
            for number in range(200):
                hub.broadcast(f"{name} {number}")

        threads = [threading.Thread(target=talk, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        await asyncio.to_thread(talk, "d")
        for socket in sockets:
            got = await take(socket, 800)
            for name in "abcd":
                mine = [text for text in got if str(text).startswith(name)]
                assert mine == [f"{name} {number}" for number in range(200)]
        for thread in threads:
            thread.join(PATIENCE_S)


async def test_s02_broadcast_without_clients_is_no_error_and_without_a_running_hub_is_one(
    way: str,
) -> None:
    hub = Hub()
    with pytest.raises(HubNotRunning, match="runs in no event loop of this process"):
        hub.broadcast("nobody")
    async with venue(hub, way):
        hub.broadcast("nobody")
    with pytest.raises(HubNotRunning, match="has stopped"):
        hub.broadcast("nobody")


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
        await socket.send("goodbye")
        await socket.close(4001, "tired")
        await until(lambda: len(heard) == 5)
    assert heard == ["came", "red", "hello", "goodbye", 4001]


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


async def test_s06_without_a_handler_messages_go_to_everybody(way: str) -> None:
    hub = Hub()
    async with venue(hub, way) as here:
        one, two = await here.crowd(2)
        await one.send("text")
        await one.send(b"\x00binary")
        assert await take(one, 2) == ["text", b"\x00binary"]
        assert await take(two, 2) == ["text", b"\x00binary"]


async def test_s10_tickers_run_and_never_overlap(way: str) -> None:
    hub = Hub()
    running = 0
    ticks: list[str] = []

    @hub.every(0.01)
    async def slow() -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.03)
        running -= 1
        ticks.append("slow")

    @hub.every(0.01)
    def broken() -> None:
        ticks.append("broken")
        raise RuntimeError("on purpose")

    @hub.every(0.01, while_connected=True)
    def wanted() -> None:
        ticks.append("wanted")
        hub.broadcast("tick")

    async with venue(hub, way) as here:
        await until(lambda: ticks.count("slow") > 2 and ticks.count("broken") > 2)
        assert "wanted" not in ticks
        socket = await here.join()
        assert await take(socket, 2) == ["tick", "tick"]
    count = len(ticks)
    await asyncio.sleep(0.05)
    assert len(ticks) == count


async def test_s13_the_defaults_are_those_of_dmmvc() -> None:
    settings = Hub().settings
    assert settings.write_timeout_s == 10
    assert settings.pong_timeout_s == 60
    assert settings.ping_interval_s == 54
    assert settings.max_message_bytes == 512
    assert settings.outbox_max_entries == 256


@pytest.mark.parametrize("pieces", [["x" * 101], ["x" * 60, "x" * 60]], ids=["whole", "pieces"])
async def test_fault_18_a_message_over_the_limit_is_told_which_setting_says_so(
    way: str, pieces: list[str]
) -> None:
    hub = Hub(max_message_bytes=100)
    async with venue(hub, way) as here:
        one = await here.join()
        await one.send(pieces if len(pieces) > 1 else pieces[0])
        with pytest.raises(ConnectionClosed) as caught:
            await take(one, 1)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (
            1009,
            "the message is larger than max_message_bytes, which is 100",
        )


async def test_fault_18_an_unknown_type_is_named(way: str) -> None:
    hub = Hub()
    hub.on("say")(lambda client, message: None)
    async with venue(hub, way) as here:
        one = await here.join()
        for message in ('{"type": "sya\\u202e\\n"}', '{"type": 5}', "sya"):
            await one.send(message)
        answers = [json.loads(text) for text in await take(one, 3)]
    assert {answer["code"] for answer in answers} == {"unknown_type"}
    assert [answer["message"] for answer in answers] == [
        "no handler takes messages of the type 'sya\ufffd\ufffd'",
        'a JSON object with a "type" was expected',
        'a JSON object with a "type" was expected',
    ]


async def test_fault_18_an_error_of_pydantic_is_one_line_without_the_value(way: str) -> None:
    hub = Hub()

    @hub.on("model")
    def take_model(client: Client, message: Model) -> None: ...

    @hub.validate
    def check(client: Client, message: object) -> None:
        Model.model_validate({"name": "hunter2", "tags": "hunter2"})

    async with venue(hub, way) as here:
        one = await here.join()
        await one.send('{"type": "model", "name": {"secret": "hunter2"}}')
        await one.send('{"type": "model", "name": "a"}')
        answers = [json.loads(text)["message"] for text in await take(one, 2)]
    assert answers == [
        "name: Input should be a valid string",
        "tags: Input should be a valid set",
    ]


async def test_s13_a_message_over_the_limit_closes_with_1009(way: str) -> None:
    hub = Hub(max_message_bytes=100)
    async with venue(hub, way) as here:
        one, two = await here.crowd(2)
        await one.send("x" * 100)
        await one.send("é" * 51)
        assert await take(one, 1) == ["x" * 100]
        with pytest.raises(ConnectionClosed):
            await take(one, 1)
        assert one.close_code == 1009
        reason = "the message is larger than max_message_bytes, which is 100"
        assert one.close_reason == reason
        await until(lambda: len(hub) == 1)
        hub.broadcast("after")
        assert await take(two, 2) == ["x" * 100, "after"]
        assert hub.stats()["protocol_errors"] == 1


async def test_s17_invalid_messages_are_counted_and_answered_and_the_socket_lives(way: str) -> None:
    class Say(msgspec.Struct, tag="say", tag_field="type"):
        text: str

    class Move(msgspec.Struct, tag="move", tag_field="type"):
        x: int

    hub = Hub()
    heard: list[object] = []

    async def took(client: Client, message: Any) -> None:
        heard.append(message)

    took.__annotations__["message"] = Say | Move
    hub.on_message(took)

    async with venue(hub, way) as here:
        socket = await here.join()
        for text in ('{"type":"say","text":"hi"}', "not json", '{"type":"say"}', '{"type":"x"}'):
            await socket.send(text)
        await socket.send(b"\xff\xff")
        await socket.send('{"type":"move","x":1}')
        await until(lambda: len(heard) == 2)
        assert heard == [Say("hi"), Move(1)]
        replies = [json.loads(text) for text in await take(socket, 4)]
        assert {reply["type"] for reply in replies} == {"error"}
        assert {reply["code"] for reply in replies} == {"invalid_message"}
        assert hub.stats()["invalid"] == 4
        assert len(hub) == 1


@pytest.mark.parametrize("action", ["reply", "ignore", "close"])
async def test_s17_validate_refuses_as_set(
    way: str, action: Literal["reply", "ignore", "close"]
) -> None:
    hub = Hub(on_invalid=action)

    @hub.validate
    async def polite(client: Client, message: str) -> bool:
        await asyncio.sleep(0)
        if "shout" in message:
            raise CommandError("shouting", "not so loud", temporary=True)
        return message.endswith("please")

    async with venue(hub, way) as here:
        socket = await here.join()
        await socket.send("tea please")
        await socket.send("tea")
        assert await take(socket, 1) == ["tea please"]
        if action == "close":
            with pytest.raises(ConnectionClosed):
                await take(socket, 1)
            assert socket.close_code == 1008
            return
        await socket.send("shout please")
        await socket.send("more please")
        got = await take(socket, 1 if action == "ignore" else 3)
        assert got[-1] == "more please"
        if action == "reply":
            assert json.loads(got[0])["code"] == "invalid_message"
            assert json.loads(got[1]) == {
                "type": "error",
                "code": "shouting",
                "message": "not so loud",
                "temporary": True,
            }
        assert hub.stats()["invalid"] == 2


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


async def test_s21_rooms_deliver_to_their_members_but_not_to_who_is_excluded(way: str) -> None:
    hub = Hub()

    @hub.on("join")
    def join(client: Client, message: dict[str, Any]) -> None:
        client.join(message["room"])
        hub.room(message["room"]).broadcast("somebody joined", exclude=client)
        client.send("welcome")

    async with venue(hub, way) as here:
        one, two, three = await here.crowd(3)
        await one.send('{"type":"join","room":"red"}')
        assert await take(one, 1) == ["welcome"]
        await two.send('{"type":"join","room":"red"}')
        assert await take(two, 1) == ["welcome"]
        assert await take(one, 1) == ["somebody joined"]
        assert len(hub.room("red")) == 2
        assert hub.rooms == {"red": 2}
        hub.room("red").broadcast("to red")
        hub.room("blue").broadcast("to nobody")
        receipt = await hub.publish("red", "to red again")
        assert receipt.delivered_to == 2
        hub.broadcast("to all")
        assert await take(one, 3) == await take(two, 3) == ["to red", "to red again", "to all"]
        assert await take(three, 1) == ["to all"]
        await one.close()
        await until(lambda: len(hub.room("red")) == 1)
        await two.close()
        await until(lambda: hub.rooms == {})


async def test_s21_to_user_reaches_all_of_a_users_clients(way: str) -> None:
    hub = Hub()
    hub.authenticate(lambda handshake: handshake.query["user"])
    async with venue(hub, way) as here:
        phone = await here.join("/ws?user=ann")
        laptop = await here.join("/ws?user=ann")
        bob = await here.join("/ws?user=bob")
        hub.to_user("ann").send("for ann")
        hub.to_user("nobody").send("for nobody")
        hub.broadcast("for all")
        assert await take(phone, 2) == await take(laptop, 2) == ["for ann", "for all"]
        assert await take(bob, 1) == ["for all"]
        assert hub.disconnect("ann", reason="out") == 2
        for socket in (phone, laptop):
            with pytest.raises(ConnectionClosed):
                await take(socket, 1)
            assert (socket.close_code, socket.close_reason) == (3503, "out")
        assert len(hub) == 1


async def test_s23_a_message_is_encoded_once_for_all_andnothing_is_left_behind(way: str) -> None:
    hub = Hub()
    encoded = 0

    class Counted:
        def model_dump(self, mode: str) -> str:
            nonlocal encoded
            encoded += 1
            return "counted"

    async with venue(hub, way) as here:
        sockets = await here.crowd(20)
        hub.broadcast(Counted())
        for socket in sockets:
            assert await take(socket, 1) == ['"counted"']
        assert encoded == 1
        clients = [weakref.ref(client) for client in hub]
        assert len(clients) == 20
    gc.collect()
    assert [client() for client in clients] == [None] * 20


async def test_order_is_the_order_of_publication_across_rooms_and_direct_sends(way: str) -> None:
    hub = Hub()
    async with venue(hub, way) as here:
        one, two = await here.crowd(2)
        first, second = hub
        first.join("a")
        for client in (first, second):
            client.join("b")
        expected: list[list[str | bytes]] = [[], []]
        for number in range(300):
            kind = number % 5
            text = f"{kind} {number}"
            if kind == 0:
                hub.broadcast(text)
            elif kind == 1:
                hub.room("a").broadcast(text)
            elif kind == 2:
                hub.room("b").broadcast(text, exclude=second)
            elif kind == 3:
                first.send(text)
            else:
                hub.room("b").broadcast(text)
            expected[0].append(text)
            if kind in (0, 4):
                expected[1].append(text)
        assert await take(one, 300) == expected[0]
        assert await take(two, 120) == expected[1]


async def test_a_burst_in_one_turn_disconnects_nobody(way: str) -> None:
    hub = Hub()
    async with venue(hub, way) as here:
        sockets = await here.crowd(10)
        payload = "x" * 128
        for _ in range(2000):
            hub.broadcast(payload)
        for socket in sockets:
            assert len(await take(socket, 2000)) == 2000
        assert hub.stats()["dropped"] == 0
        assert len(hub) == 10


@pytest.mark.parametrize("policy", ["close", "stay"])
async def test_a_handler_that_raises_hurts_its_own_client_at_most(
    way: str, policy: Literal["close", "stay"], caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub(on_handler_error=policy)

    @hub.on_message
    async def fail(client: Client, text: str) -> None:
        if text == "leave":
            raise Disconnected(4005, "as you wish")
        if text == "no":
            raise CommandError("no", "not now")
        if text == "boom":
            raise RuntimeError("on purpose")
        hub.broadcast(text)

    async with venue(hub, way) as here:
        one, two = await here.crowd(2)
        await two.send("no")
        assert json.loads((await take(two, 1))[0])["code"] == "no"
        await one.send("boom")
        if policy == "close":
            with pytest.raises(ConnectionClosed):
                await take(one, 1)
            assert one.close_code == 1011
        else:
            await one.send("still here")
            assert await take(one, 1) == ["still here"]
            assert await take(two, 1) == ["still here"]
        assert hub.stats()["handler_errors"] == 1
        (record,) = [record for record in caplog.records if record.exc_info]
        assert any(word in record.getMessage() for word in ("client",))
        await two.send("leave")
        with pytest.raises(ConnectionClosed):
            await take(two, 1)
        assert two.close_code == 4005


async def test_a_client_may_say_goodbye_to_itself_from_its_own_handlers(way: str) -> None:
    hub = Hub()

    @hub.on_connect
    def check(client: Client, handshake: Handshake) -> None:
        if "out" in handshake.query:
            client.send("not you")
            client.close(4500, "banned")

    async with venue(hub, way) as here:
        socket = await here.join("/ws?out")
        assert await take(socket, 1) == ["not you"]
        with pytest.raises(ConnectionClosed):
            await take(socket, 1)
        assert socket.close_code == 4500
        assert len(hub) == 0


async def test_too_many_messages_close_with_3013(way: str) -> None:
    hub = Hub(messages_per_second=5)
    async with venue(hub, way) as here:
        socket = await here.join()
        for number in range(11):
            await socket.send(str(number))
        assert len(await take(socket, 10)) == 10
        with pytest.raises(ConnectionClosed):
            await take(socket, 1)
        assert socket.close_code == 3013
        assert hub.stats()["rate_limited"] == 1


async def until_message(socket: ClientConnection, last: str) -> AsyncIterator[str | bytes]:
    """Yield what comes before the message `last`."""
    while (message := (await take(socket, 1))[0]) != last:
        yield message


async def test_too_many_messages_are_dropped_and_answered_once_if_so_set(way: str) -> None:
    hub = Hub(messages_per_second=0.01, on_rate_limit="reply")
    async with venue(hub, way) as here:
        socket = await here.join()
        for number in range(50):
            await socket.send(str(number))
        await until(lambda: hub.stats()["rate_limited"] == 49)
        hub.broadcast("still here")
        first, *told = [message async for message in until_message(socket, "still here")]
        assert first == "0"
        assert {json.loads(message)["code"] for message in told} == {"too_many_messages"}
        assert len(told) < 10, "at most one a second"


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


async def test_shutdown_says_1012_to_everybody(way: str) -> None:
    hub = Hub()
    gone: list[int] = []
    hub.on_disconnect(lambda client, close: gone.append(close.code))
    async with AsyncExitStack() as stack:
        async with serve(hub.mount(nothing), native=DEFLATED_WAYS[way][0]) as served:
            sockets = [await stack.enter_async_context(served.connect()) for _ in range(30)]
            await until(lambda: len(hub) == 30)
        for socket in sockets:
            with pytest.raises(ConnectionClosed):
                await take(socket, 1)
            assert socket.close_code == 1012
    assert gone == [1012] * 30
    assert len(hub) == 0


async def test_a_hub_can_be_served_again_after_its_end(way: str) -> None:
    hub = Hub()
    for _ in range(2):
        async with venue(hub, way) as here:
            socket = await here.join()
            hub.broadcast("again")
            assert await take(socket, 1) == ["again"]


async def test_a_frame_can_be_made_once_and_sent_often(way: str) -> None:
    hub = Hub()
    frame = Frame(str(uuid.uuid4()).encode(), True)
    async with venue(hub, way) as here:
        socket = await here.join()
        hub.broadcast(frame)
        hub.broadcast(frame)
        assert await take(socket, 2) == [frame.text, frame.text]


# Faults found in use, by their numbers


async def test_fault_01_pings_are_answered_while_a_handler_runs(way: str) -> None:
    hub, gate = Hub(), asyncio.Event()

    @hub.on_message
    async def slow(client: Client, text: str) -> None:
        client.send(f"begun {text}")
        await gate.wait()
        client.send(f"done {text}")

    async with venue(hub, way) as here:
        socket = await here.join()
        await socket.send("1")
        assert await take(socket, 1) == ["begun 1"]
        for text in "23":
            await socket.send(text)
            for _ in range(2):
                await asyncio.wait_for(await socket.ping(), PATIENCE_S)
        gate.set()
        assert await take(socket, 5) == ["done 1", "begun 2", "done 2", "begun 3", "done 3"]


async def test_fault_01_a_client_with_keepalive_outlives_a_long_handler(way: str) -> None:
    hub = Hub()

    @hub.on_message
    async def long(client: Client, text: str) -> None:
        for number in range(25):
            await asyncio.sleep(0.05)
            client.send(f"{number}")

    async with venue(hub, way) as here:
        socket = await here.join(ping_interval=0.2, ping_timeout=0.5)
        await socket.send("go")
        assert await take(socket, 25) == [f"{number}" for number in range(25)]


async def test_fault_01_messages_wait_in_a_bounded_queue_and_none_is_lost(way: str) -> None:
    hub = Hub(inbox_max_messages=8, inbox_max_bytes=512, max_message_bytes=None)
    heard: list[str] = []
    most = 0

    @hub.on_message
    async def slow(client: Client, text: str) -> None:
        nonlocal most
        await asyncio.sleep(0)
        most = max(most, len(session_of(client).inbox or ()))
        heard.append(text)

    async with venue(hub, way) as here:
        socket = await here.join()
        sent = [f"{number}" * (1 + number % 50) for number in range(2000)]
        for text in sent:
            await socket.send(text)
        await socket.close()
        assert socket.close_code == 1000
        await until(lambda: len(heard) == 2000)
        assert heard == sent
        assert 2 <= most <= 8
        assert hub.stats()["unhandled"] == 0


@pytest.mark.parametrize("where", ["message", "connect", "validate"])
async def test_fault_02_a_client_that_leaves_while_its_handler_runs_is_noticed(
    way: str, where: str
) -> None:
    hub, log = Hub(handler_grace_s=0.1), list[Any]()
    begun = asyncio.Event()

    async def endless(client: Client, _: str = "") -> None:
        log.append("begun")
        begun.set()
        try:
            while True:
                client.send("more")
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)  # once cancelled, it may finish what it must
            log.append("ended")
            raise

    if where == "connect":
        hub.on_connect(endless)
    elif where == "message":
        hub.on_message(endless)
    else:
        hub.on_message(lambda client, message: log.append(message))
        hub.validate(endless)

    @hub.on_disconnect
    def left(client: Client, close: Close) -> None:
        log.append(close)

    async with venue(hub, way) as here:
        socket = await here.join()
        await socket.send("go")
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        await socket.close(4007, "bye")
        assert (socket.close_code, socket.close_reason) == (4007, "bye")
        await until(lambda: len(hub) == 0)
        await until(lambda: len(log) >= 3)
        assert log == ["begun", "ended", Close(4007, "bye")]
        stats = hub.stats()
        assert (stats["handlers_cancelled"], stats["handler_errors"]) == (1, 0)
        assert stats["handlers"] == 0


async def test_fault_02_what_came_before_the_close_is_handled(way: str) -> None:
    hub, log = Hub(), list[Any]()

    @hub.on_message
    async def save(client: Client, text: str) -> None:
        await asyncio.sleep(0.02)
        log.append(text)

    hub.on_disconnect(lambda client, close: log.append(close.code))
    async with venue(hub, way) as here:
        socket = await here.join()
        for text in "12345":
            await socket.send(text)
        await socket.close()
        await until(lambda: len(log) == 6)
        assert log == [*"12345", 1000]
        stats = hub.stats()
        assert (stats["handlers_cancelled"], stats["unhandled"]) == (0, 0)


@pytest.mark.parametrize("is_quick", [True, False])
async def test_fault_03_what_a_client_left_behind_has_ended_when_the_hub_has_stopped(
    way: str, is_quick: bool
) -> None:
    hub = Hub(handler_grace_s=None, shutdown_timeout_s=2.0)
    log = list[Any]()

    @hub.on_message
    async def save(client: Client, text: str) -> None:
        await asyncio.sleep(0.05 if is_quick else 3600)
        hub.broadcast(text)
        log.append(text)

    @hub.on_disconnect
    async def left(client: Client, close: Close) -> None:
        await asyncio.sleep(0.01)
        log.append(close.code)

    async with venue(hub, way) as here:
        socket = await here.join()
        for text in "1234":
            await socket.send(text)
        await socket.close()
        await until(lambda: len(hub) == 0)
        assert hub.stats()["handlers"] == 1
    assert log == ([*"1234", 1000] if is_quick else [1000])
    stats = hub.stats()
    assert (stats["handlers"], stats["handler_errors"]) == (0, 0)
    assert stats["unhandled"] == (0 if is_quick else 3)


async def test_fault_02_who_is_sent_away_while_its_handler_runs_has_its_code(way: str) -> None:
    hub, log = Hub(handler_grace_s=0.05), list[Any]()

    @hub.on_message
    async def endless(client: Client, text: str) -> None:
        log.append(text)
        await asyncio.Event().wait()

    hub.on_disconnect(lambda client, close: log.append(close.code))
    async with venue(hub, way) as here:
        socket = await here.join()
        for text in "123":
            await socket.send(text)
        await until(lambda: hub.stats()["messages_in"] == 3)
        [client] = hub
        hub.disconnect(client, 4000, "away")
        with pytest.raises(ConnectionClosed):
            await take(socket, 1)
        assert socket.close_code == 4000
        await until(lambda: len(log) == 2)
        assert log == ["1", 4000]
        assert hub.stats()["unhandled"] == 2


@pytest.mark.parametrize("way", [way for way in WAYS if WAYS[way][0]], indirect=True)
async def test_fault_02_a_silent_peer_is_dead_though_its_handler_sends(way: str) -> None:
    """ASGI has no pings: on the portable transport the server's own decide, see deployment.md."""
    hub = Hub(pong_timeout_s=0.5, ping_interval_s=0.1, handler_grace_s=0.05)
    closes: list[Close] = []
    hub.on_disconnect(lambda client, close: closes.append(close))

    @hub.on_message
    async def endless(client: Client, text: str) -> None:
        while True:
            client.send("more")
            await asyncio.sleep(0.02)

    async with venue(hub, way) as here, raw_connect(here.served) as socket:
        await socket.send(frame(TEXT, b"go"))
        await until(lambda: len(hub) == 1)
        await until(lambda: len(hub) == 0)
        await until(lambda: bool(closes))
        assert closes == [Close(3012, "no pong", by_server=True)]


class Strict(msgspec.Struct):
    name: str

    def __post_init__(self) -> None:
        raise KeyError(self.name)


class Careless(pydantic.BaseModel):
    name: str

    @pydantic.field_validator("name")
    @classmethod
    def fail(cls, value: str) -> str:
        raise TypeError(value)


class Unhashable(msgspec.Struct):
    tags: set[Any]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Awkward:
    def __getattr__(self, name: str) -> Any:
        raise LookupError(name)


def raising(error: BaseException) -> Any:
    def handler(client: Client, message: str) -> None:
        raise error

    return handler


def raising_later(error: BaseException) -> Any:
    async def handler(client: Client, message: str) -> None:
        await asyncio.sleep(0)
        raise error

    return handler


def returning(value: Any) -> Any:
    def handler(client: Client, message: str) -> Any:
        return value

    return handler


def decoding(kind: Any) -> Any:
    def handler(client: Client, message: Any) -> None:
        raise AssertionError("it cannot be decoded")

    handler.__annotations__["message"] = kind
    return handler


FAILURES: dict[str, tuple[Any, str]] = {
    "struct": (decoding(Strict), '{"name": "x\\u001b[31m"}'),
    "pydantic": (decoding(Careless), '{"name": "x"}'),
    "unhashable": (decoding(Unhashable), '{"tags": [[]]}'),
    "unsendable code": (raising(Disconnected(999)), "x"),
    "abnormal code": (raising_later(Disconnected(1006)), "x"),
    "no text": (raising(Unprintable()), "x"),
    "no attributes": (returning(Awkward()), "x"),
    "deep": (decoding(dict[str, Any]), '{"a":' * 100_000),
}
"""Handlers that fail in an odd place, and a message for each."""


@pytest.mark.parametrize("failure", FAILURES)
async def test_fault_06_what_user_code_raises_while_decoding_is_a_failed_handler(
    way: str, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    function, message = FAILURES[failure]
    hub, closes = Hub(max_message_bytes=None), list[Close]()
    hub.on_message(function)
    hub.on_disconnect(lambda client, close: closes.append(close))
    async with venue(hub, way) as here:
        crowd = await here.crowd(40)
        for socket in crowd:
            await socket.send(message)
        if failure == "deep":  # the message is at fault, not the handler
            for socket in crowd:
                [reply] = await take(socket, 1)
                assert json.loads(reply)["code"] == "invalid_message"
            assert hub.stats()["invalid"] == 40
            return
        for socket in crowd:
            with pytest.raises(ConnectionClosed):
                await take(socket, 1)
            assert socket.close_code == 1011
        await until(lambda: len(closes) == 40)
        assert len(hub) == 0
        assert {close.code for close in closes} == {1011}
        assert hub.stats()["handler_errors"] == 40
    records = [record for record in caplog.records if record.name == "hubbub"]
    errors = [record for record in records if record.levelname == "ERROR"]
    assert 1 <= len(errors) <= 10, "of one kind only so many"
    assert all("a handler failed" in record.getMessage() for record in errors)
    assert "\x1b" not in caplog.text


async def test_fault_06_a_client_may_stay_after_a_failure_while_decoding(way: str) -> None:
    hub = Hub(on_handler_error="stay")
    hub.on("bad")(decoding(Strict))
    hub.on("good")(lambda client, message: client.send("good"))
    async with venue(hub, way) as here:
        socket = await here.join()
        await socket.send('{"type": "bad", "name": "x"}')
        await socket.send('{"type": "good"}')
        assert await take(socket, 1) == ["good"]
        assert hub.stats()["handler_errors"] == 1


async def test_fault_06_an_error_reply_can_carry_every_text(way: str) -> None:
    hub = Hub()
    hub.on_message(raising(CommandError("no_\ud800", "nobody is called \udfff \x00")))
    async with venue(hub, way) as here:
        socket = await here.join()
        await socket.send("x")
        [reply] = await take(socket, 1)
        assert json.loads(reply) == {
            "type": "error",
            "code": "no_?",
            "message": "nobody is called ? \x00",
        }


@pytest.mark.parametrize("arguments", [(5, "x"), ("x", {"a": 1}), ("x", None), (None, "x")])
def test_fault_06_an_error_that_no_reply_can_carry_cannot_be_made(arguments: Any) -> None:
    with pytest.raises(TypeError, match=r"CommandError: (code|message) must be a str, not"):
        CommandError(*arguments)


RAISED: dict[str, tuple[BaseException, int, str]] = {
    "starlette 403": (starlette.exceptions.HTTPException(403, "not yours"), 1008, "not yours"),
    "starlette 503": (starlette.exceptions.HTTPException(503), 1013, "Service Unavailable"),
    "starlette ws": (starlette.exceptions.WebSocketException(1008, "no"), 1008, "no"),
    "starlette 4000": (starlette.exceptions.WebSocketException(4001, "away"), 4001, "away"),
    "refused": (hubbub.Refused(403, message="go"), 1008, "go"),
    "disconnected": (Disconnected(4002, "é" * 100), 4002, "é" * 61),
}


@pytest.mark.parametrize("when", ["at once", "later", "connect"])
@pytest.mark.parametrize("raised", RAISED)
async def test_fault_19_what_frameworks_raise_closes_with_the_code_that_is_meant(
    way: str, raised: str, when: str
) -> None:
    error, code, reason = RAISED[raised]
    hub = Hub()
    if when == "connect":
        hub.on_connect(lambda client: raising(error)(client, ""))
    else:
        hub.on_message(raising(error) if when == "at once" else raising_later(error))
    async with venue(hub, way) as here:
        socket = await here.join()
        with contextlib.suppress(ConnectionClosed):
            await socket.send("x")
        with pytest.raises(ConnectionClosed):
            await take(socket, 1)
        assert (socket.close_code, socket.close_reason) == (code, reason)
        assert hub.stats()["handler_errors"] == 0


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


async def test_fault_21_disconnect_handlers_have_the_time_of_the_shutdown(way: str) -> None:
    hub, log = Hub(shutdown_timeout_s=8), list[str]()

    @hub.on_disconnect
    async def save(client: Client) -> None:
        log.append("begun")
        await asyncio.sleep(1.5)
        log.append("saved")

    async with venue(hub, way) as here:
        await here.join()
        here.served.stop()
        await until(lambda: log == ["begun", "saved"])
    assert log == ["begun", "saved"]


async def test_fault_21_a_disconnect_handler_that_is_cut_off_is_named_in_the_log(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub, log = Hub(shutdown_timeout_s=0.4), list[str]()

    @hub.on_disconnect
    async def save(client: Client) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cut off")

    async with venue(hub, way) as here:
        await here.join()
        [client] = hub
    assert log == ["cut off"]
    [line] = [record.getMessage() for record in caplog.records if "cancelled" in record.message]
    expected = (
        f"the hub stops: 1 tasks did not end in time and are cancelled: disconnect {client.id}"
    )
    assert line == expected
