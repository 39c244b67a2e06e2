"""What is said over a connection with rooms, against a server that does what a hub rarely does."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

from answering import asynchronous, until
from connection.peers import echo, server
from connection.scripted import meeting, scripted
from hubbub.connection import connect
from hubbub.connection.client_socket import ClientSocket
from hubbub.connection.commands import LOST, TIMEOUT
from hubbub.connection.room_session import MAX_DIRECT_MESSAGES
from hubbub.errors import CommandFailed, Disconnected
from hubbub.model import Close


@asynchronous
async def test_it_says_who_comes_and_all_rooms_in_one_message() -> None:
    async with meeting(token="t", data={"a": 1}) as (script, connection, peer):
        assert peer.frames == [
            [{"id": 1, "connect": {"name": "hubbub", "token": "t", "data": {"a": 1}}}]
        ]
        rooms = [connection.subscribe(name) for name in ("one", "two")]
        answers = [
            {"recoverable": True, "epoch": "e", "offset": 5},
            {},
        ]
        for room, answer in zip(rooms, answers, strict=True):
            entering = asyncio.create_task(room.__aenter__())
            await peer.answer("subscribe", answer)
            await entering
        peer.cut()
        again = await script.peer()
        await again.hear()
        [[connect_, one, two]] = again.frames
        assert connect_["connect"] == {"name": "hubbub", "token": "t", "data": {"a": 1}}
        since = {"recover": True, "offset": 5, "epoch": "e"}
        assert one["subscribe"] == {"channel": "one", **since}
        assert two["subscribe"] == {"channel": "two"}
        assert connection.state == "connecting"
        assert connection.client == ""


@asynchronous
async def test_commands_wait_until_the_server_has_said_yes() -> None:
    async with scripted() as script:
        connection = script.connect()
        entering = asyncio.create_task(connection.__aenter__())
        peer = await script.peer()
        calling = asyncio.create_task(connection.call("now"))
        number, _ = await peer.take("connect")
        assert connection.queued == 1
        assert await connection.send("nowhere") is False
        await peer.say({"id": number, "connect": {"client": "c1"}})
        assert await peer.answer("rpc", {"data": 7}) == {"method": "now", "data": None}
        assert await calling == 7
        await entering
        assert connection.client == "c1"
        await connection.close()


@asynchronous
async def test_pings_are_answered_if_the_server_wants_that() -> None:
    async with scripted() as script:
        for wants in (True, False):
            connection = script.connect()
            entering = asyncio.create_task(connection.__aenter__())
            peer = await script.welcomed(ping=25, pong=wants)
            await entering
            await peer.say({}, {"push": {"message": {"data": "after it"}}})
            assert await anext(connection) == "after it"
            assert await connection.send("so")
            heard = [await peer.hear() for _ in range(1 + wants)]
            assert {"send": {"data": "so"}} in heard
            assert ({} in heard) is wants
            await connection.close()


@asynchronous
async def test_a_ping_that_is_too_late_is_a_lost_connection() -> None:
    async with scripted() as script:
        connection = script.connect(max_ping_delay_s=0)
        entering = asyncio.create_task(connection.__aenter__())
        await script.welcomed(ping=1)
        await entering
        await script.welcomed()
        await connection.wait_open()
        assert connection.last_close == Close(1006, "no ping")
        await connection.close()


@asynchronous
async def test_without_an_answer_to_connect_it_comes_back() -> None:
    async with scripted() as script, script.connect(timeout_s=0.05) as connection:
        assert connection.state == "waiting"
        assert connection.last_close == Close(1006, "no answer to connect")


@pytest.mark.parametrize(
    ("code", "temporary", "comes_back"), [(100, True, True), (101, False, False)]
)
def test_a_connect_command_that_is_refused(code: int, temporary: bool, comes_back: bool) -> None:
    @asynchronous
    async def scenario() -> None:
        async with scripted() as script:
            connection = script.connect(token="t")
            entering = asyncio.create_task(connection.__aenter__())
            peer = await script.peer()
            await peer.refuse("connect", code, temporary=temporary)
            await entering
            assert connection.last_close == Close(code, "no", by_server=True)
            if comes_back:
                await script.welcomed()
                await connection.wait_open()
            else:
                with pytest.raises(Disconnected, match=f"{code} no"):
                    await anext(connection)
            await connection.close()

    scenario()


@pytest.mark.parametrize("how", ["109", "3005"])
def test_an_expired_token_is_asked_for_again_and_only_then(how: str) -> None:
    @asynchronous
    async def scenario() -> None:
        numbers = iter(range(10))
        async with scripted() as script:
            connection = script.connect(token=lambda: f"t{next(numbers)}")
            entering = asyncio.create_task(connection.__aenter__())
            peer = await script.peer()
            if how == "109":
                assert (await peer.refuse("connect", 109))["token"] == "t0"
            else:
                await peer.answer("connect", {"client": "c1"})
                await entering
                await peer.close(3005, "expired")
            peer = await script.peer()
            assert (await peer.answer("connect", {"client": "c1"}))["token"] == "t1"
            await connection.wait_open()
            peer.cut()
            peer = await script.peer()
            assert (await peer.answer("connect", {"client": "c1"}))["token"] == "t1"
            await connection.close()

    scenario()


@asynchronous
async def test_an_expired_token_that_nobody_can_replace_is_the_end() -> None:
    async with scripted() as script:
        connection = script.connect(token="t")
        entering = asyncio.create_task(connection.__aenter__())
        await (await script.peer()).refuse("connect", 109)
        await entering
        with pytest.raises(Disconnected, match="109 no"):
            await connection.wait_open()


@asynchronous
async def test_what_becomes_of_a_command_when_the_connection_is_lost() -> None:
    async with meeting() as (script, connection, peer):
        sent = asyncio.create_task(connection.call("sent"))
        await peer.take("rpc")
        peer.cut()
        with pytest.raises(CommandFailed) as caught:
            await sent
        assert (caught.value.code, caught.value.is_uncertain) == (LOST, True)
        waiting = asyncio.create_task(connection.call("waiting"))
        peer = await script.welcomed()
        await peer.answer("rpc", {"data": "later"})
        assert await waiting == "later"


@asynchronous
async def test_a_command_that_is_not_answered_in_time() -> None:
    async with meeting(timeout_s=0.05) as (_, connection, peer):
        with pytest.raises(CommandFailed) as caught:
            await connection.call("slow")
        assert (caught.value.code, caught.value.is_uncertain) == (TIMEOUT, True)
        number, _ = await peer.take("rpc")
        await peer.say({"id": number, "rpc": {"data": 1}})  # too late, and no harm
        calling = asyncio.create_task(connection.call("quick"))
        await peer.answer("rpc", {"data": 2})
        assert await calling == 2


@asynchronous
async def test_several_answers_in_one_message_and_out_of_order() -> None:
    async with meeting() as (_, connection, peer):
        calls = [asyncio.create_task(connection.call(name)) for name in ("a", "b")]
        numbers = [(await peer.take("rpc"))[0] for _ in calls]
        assert len(peer.frames[-1]) == 2
        replies = [{"id": number, "rpc": {"data": number}} for number in reversed(numbers)]
        await peer.say(*replies[:1], {}, {"push": {"message": {"data": "hi"}}}, *replies[1:])
        assert [await each for each in calls] == numbers
        assert await anext(connection) == "hi"


@asynchronous
async def test_messages_that_nobody_takes_are_bounded_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with meeting() as (_, connection, peer):
        count = MAX_DIRECT_MESSAGES + 5
        await peer.say(*({"push": {"message": {"data": n}}} for n in range(count)))
        await until(lambda: connection.dropped == 5)
        assert [await anext(connection) for _ in range(MAX_DIRECT_MESSAGES)] == list(
            range(5, count)
        )
        assert "1 dropped so far" in caplog.text


@asynchronous
async def test_a_route_of_another_dialect_is_shown_a_token_once() -> None:
    shown: list[Any] = []

    async def plain(socket: Any) -> None:
        async for message in socket:
            shown.append(message)
            await socket.send('{"type":"error","code":"unknown"}')

    async with server(plain) as url:
        connection = connect(url, dialect="centrifuge", token="t", fixed_delay_s=0, proxy=None)
        async with connection, asyncio.timeout(20):
            with pytest.raises(
                Disconnected, match="is this a route of the dialect centrifuge"
            ) as e:
                await anext(connection)
            assert e.value.code == 1002
    assert len(shown) == 1


@asynchronous
async def test_a_server_that_only_echoes_is_one_too() -> None:
    async with server(echo) as url:
        connection = connect(url, dialect="centrifuge", fixed_delay_s=0, proxy=None)
        async with connection, asyncio.timeout(20):
            with pytest.raises(Disconnected) as caught:
                await connection.subscribe("r").__aenter__()
            assert caught.value.code == 1002


@asynchronous
async def test_a_message_that_is_too_large_is_the_end_since_it_would_come_again() -> None:
    async with meeting(max_message_bytes=1000) as (_, connection, peer):
        await peer.publish("r", "x" * 1000, 1)
        with pytest.raises(Disconnected, match="larger than max_message_bytes") as caught:
            await anext(connection)
        assert caught.value.code == 1009


@asynchronous
async def test_rooms_that_come_with_the_answer_to_connect() -> None:
    async with scripted() as script:
        connection = script.connect()
        entering = asyncio.create_task(connection.__aenter__())
        place = {"recoverable": True, "epoch": "e"}
        peer = await script.welcomed(subs={"news": {**place, "offset": 3}})
        await entering
        async with await anext(aiter(connection.given_rooms())) as room:
            await peer.publish("news", 4, 4)
            assert (await anext(room)).data == 4
            peer.cut()
            peer = await script.peer()
            missed = [{"data": 5, "offset": 5}, {"data": 6, "offset": 6}]
            answer = {**place, "offset": 4, "recovered": True, "publications": missed}
            request = await peer.answer("connect", {"client": "c2", "subs": {"news": answer}})
            assert request["subs"] == {"news": {"recover": True, "offset": 4, "epoch": "e"}}
            assert [(await anext(room)).data for _ in missed] == [5, 6]
        number, params = await peer.take("unsubscribe")
        assert params == {"channel": "news"}
        await peer.say({"id": number, "unsubscribe": {}})
        await connection.close()


@asynchronous
async def test_a_room_that_is_given_and_taken_before_anybody_asks() -> None:
    async with meeting() as (_, connection, peer):
        await peer.push("gone", subscribe={})
        await peer.push("gone", unsubscribe={"code": 2000, "reason": "no more"})
        await peer.push("there", subscribe={})
        given = connection.given_rooms()
        assert (await anext(given)).name == "there"
        assert list(connection._session.rooms) == ["there"]


@asynchronous
async def test_closing_while_the_server_is_silent() -> None:
    async with scripted() as script:
        connection = script.connect()
        entering = asyncio.create_task(connection.__aenter__())
        peer = await script.peer()
        await peer.take("connect")
        await connection.close()
        await entering
        assert connection.state == "closed"
        assert [each async for each in connection] == []


@asynchronous
async def test_a_function_for_the_token_that_fails_is_asked_again() -> None:
    answers: list[Any] = [OSError("down"), "t1"]

    def token() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    async with scripted() as script, script.connect(token=token) as connection:
        assert connection.last_close is not None
        assert connection.last_close.reason.endswith("the token function failed: OSError: down")
        peer = await script.peer()
        assert (await peer.answer("connect", {"client": "c1"}))["token"] == "t1"
        await connection.wait_open()


@pytest.mark.parametrize(
    ("token", "code", "text"),
    [
        (lambda: 5, 1006, "the token function returned nonsense: a token must be a str, not int"),
        (lambda: (_ for _ in ()).throw(Disconnected(4501, "signed out")), 4501, "signed out"),
    ],
    ids=["nonsense", "disconnected"],
)
def test_a_function_for_the_token_that_ends_it(token: Any, code: int, text: str) -> None:
    @asynchronous
    async def scenario() -> None:
        async with scripted() as script, script.connect(token=token) as connection:
            with pytest.raises(Disconnected, match=text) as caught:
                await anext(connection)
            assert caught.value.code == code

    scenario()


@asynchronous
async def test_a_large_answer_is_read_whole() -> None:
    async with meeting() as (_, connection, peer):
        calling = asyncio.create_task(connection.call("large"))
        await peer.answer("rpc", {"data": "x" * 2**22})
        assert len(await calling) == 2**22
        assert msgspec.json.encode(connection.last_close) == b"null"


@asynchronous
async def test_what_a_deaf_server_does_not_take_is_lost_with_its_connection() -> None:
    async with meeting() as (script, connection, peer):
        assert connection._socket is not None
        socket = connection._socket
        peer.socket.transport.pause_reading()
        large = asyncio.create_task(connection.send("x" * 2**24))
        await until(lambda: socket.paused)
        behind = asyncio.create_task(connection.send("behind it"))
        calling = asyncio.create_task(connection.call("behind it too"))
        await until(lambda: connection.queued == 1)
        peer.cut()
        assert [await large, await behind] == [False, False]
        peer = await script.welcomed()
        await peer.answer("rpc", {"data": "it was not sent before"})
        assert await calling == "it was not sent before"


class FullSocket:
    """A socket that takes nothing until it is told to; what it is given then is `sent`."""

    def __init__(self) -> None:
        self.may_go_on = asyncio.Event()
        self.is_waited_for = asyncio.Event()
        self.is_over = self.has_lost_bytes = False
        self.sent: list[bytes] = []

    @property
    def paused(self) -> bool:
        return not self.may_go_on.is_set()

    async def drained(self) -> None:
        self.is_waited_for.set()
        await self.may_go_on.wait()

    async def send(self, data: bytes, *, text: bool) -> None:
        self.sent.append(data)


@asynchronous
async def test_an_old_socket_is_not_given_what_belongs_to_the_next() -> None:
    async with meeting() as (_, connection, _):
        session = connection._session
        present, old = session._socket, FullSocket()
        session._socket = cast("ClientSocket", old)
        sending = asyncio.create_task(session.say("for the old one"))
        await old.is_waited_for.wait()
        session._socket = present
        session.ask("rpc", {}, lambda error, answer: None)
        old.may_go_on.set()
        assert await sending is False
        assert old.sent == []


@asynchronous
async def test_commands_go_before_what_is_sent_after_them() -> None:
    async with meeting() as (_, connection, peer):
        calling = asyncio.create_task(connection.call("first"))
        await asyncio.sleep(0)
        assert await connection.send("second")
        await peer.answer("rpc", {"data": 1})
        assert (await peer.take("send"))[1] == {"data": "second"}
        assert await calling == 1


@asynchronous
async def test_nothing_is_taken_of_a_message_behind_the_end() -> None:
    async with scripted() as script:
        connection = script.connect()
        entering = asyncio.create_task(connection.__aenter__())
        peer = await script.peer()
        number, _ = await peer.take("connect")
        refusal = {"id": number, "error": {"code": 101, "message": "no"}}
        await peer.say(refusal, {"push": {"message": {"data": "for somebody else"}}})
        await entering
        with pytest.raises(Disconnected, match="101 no"):
            await anext(connection)
