"""Tokens that end: another is shown in time, over the same connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from answering import asynchronous, until
from connection.scripted import at, data_of, end_of, meeting, scripted
from hubbub.connection.token_source import TokenSource
from hubbub.errors import Disconnected, Unsubscribed

ENDS = {"expires": True, "ttl": 1}


def giving(*answers: Any) -> Callable[[], str]:
    """Return a function that gives these one after another, and raises those that are exceptions."""
    left = list(answers)

    def token() -> str:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    return token


def test_a_token_that_is_given_cannot_be_renewed() -> None:
    for token in ("t", None):
        source = TokenSource(token)
        source.drop()
        assert (source.token, source.can_renew, source.is_missing) == (token, False, False)
    source = TokenSource(lambda: "t")
    assert (source.token, source.can_renew, source.is_missing) == (None, True, True)


@asynchronous
async def test_the_connections_token_is_renewed_until_it_has_no_end() -> None:
    async with scripted() as script:
        connection = script.connect(token=giving("t0", OSError("down"), "t1", "t2", "t3", "t4"))
        entering = asyncio.create_task(connection.__aenter__())
        peer = await script.welcomed(**ENDS)
        await entering
        # Asked again after the function has failed, after a temporary refusal, and after 109.
        assert (await peer.refuse("refresh", 100, temporary=True))["token"] == "t1"
        assert (await peer.refuse("refresh", 109))["token"] == "t2"
        assert (await peer.answer("refresh", ENDS))["token"] == "t3"
        assert (await peer.answer("refresh", {}))["token"] == "t4"
        calling = asyncio.create_task(connection.call("still here"))
        await peer.answer("rpc", {"data": 1})
        assert await calling == 1
        await connection.close()


@asynchronous
async def test_a_new_token_that_is_refused_for_good_is_the_end() -> None:
    async with scripted() as script:
        connection = script.connect(token=giving("t0", "t1"))
        entering = asyncio.create_task(connection.__aenter__())
        peer = await script.welcomed(**ENDS)
        await entering
        await peer.refuse("refresh", 101)
        with pytest.raises(Disconnected, match="101 no"):
            await anext(connection)


@asynchronous
async def test_a_function_that_says_it_is_over_ends_the_connection() -> None:
    async with scripted() as script:
        connection = script.connect(token=giving("t0", Disconnected(4501, "signed out")))
        entering = asyncio.create_task(connection.__aenter__())
        await script.welcomed(**ENDS)
        await entering
        with pytest.raises(Disconnected, match="4501 signed out"):
            await anext(connection)


@asynchronous
async def test_a_room_has_a_token_of_its_own() -> None:
    async with meeting() as (script, connection, peer):
        tokens = giving("t0", "t1", "t2", "t3", "t4")
        room = connection.subscribe("r", token=tokens)
        entering = asyncio.create_task(room.__aenter__())
        assert (await peer.refuse("subscribe", 109))["token"] == "t0"
        assert (await peer.answer("subscribe", at(0, **ENDS)))["token"] == "t1"
        await entering
        assert await peer.answer("sub_refresh", {}) == {"channel": "r", "token": "t2"}
        peer.cut()
        peer = await script.welcomed()
        assert (await peer.answer("subscribe", at(0, recovered=True)))["token"] == "t2"
        await peer.push("r", unsubscribe={"code": 2501, "reason": "subscription expired"})
        assert (await peer.answer("subscribe", at(0, recovered=True)))["token"] == "t3"
        await peer.publish("r", "one", 1)
        assert await data_of(room, 1) == ["one"]


@asynchronous
async def test_a_room_whose_new_token_is_refused_is_left() -> None:
    async with meeting() as (_, connection, peer):
        room = connection.subscribe("r", token=giving("t0", "t1"))
        entering = asyncio.create_task(room.__aenter__())
        await peer.answer("subscribe", at(0, **ENDS))
        await entering
        await peer.refuse("sub_refresh", 103)
        assert await end_of(room) == 103
        await peer.answer("unsubscribe", {})
        assert connection.state == "open"


@pytest.mark.parametrize("first", ["t0", None])
def test_a_function_that_says_that_there_is_none_ends_the_room_alone(first: str | None) -> None:
    @asynchronous
    async def scenario() -> None:
        none = Unsubscribed("r", 401, "not yours")
        async with meeting() as (_, connection, peer):
            room = connection.subscribe("r", token=giving(*([first] if first else []), none))
            entering = asyncio.create_task(room.__aenter__())
            if first:
                await peer.answer("subscribe", at(0, **ENDS))
                await entering
                assert await end_of(room) == 401
            else:
                with pytest.raises(Unsubscribed, match="not in 'r': 401 not yours"):
                    await entering
            assert connection.state == "open"

    scenario()


@pytest.mark.parametrize("first", ["t0", None], ids=["at a refresh", "at first"])
def test_for_the_connection_it_is_a_failure_like_any_other(first: str | None) -> None:
    @asynchronous
    async def scenario() -> None:
        none = Unsubscribed("r", 401, "a room's function says this")
        async with scripted() as script:
            token = giving(*([first] if first else []), none, "t1")
            connection = script.connect(token=token)
            entering = asyncio.create_task(connection.__aenter__())
            peer = await script.peer()
            shown = (await peer.answer("connect", {"client": "c", **(ENDS if first else {})}))[
                "token"
            ]
            if first:
                shown = (await peer.answer("refresh", {}))["token"]
            assert shown == "t1"
            await entering
            await connection.wait_open()
            text = "the token function failed: Unsubscribed: not in 'r': 401 a room's function says this"
            why = None if connection.last_close is None else connection.last_close.reason
            assert why is None if first else why is not None and why.endswith(text)
            await connection.close()

    scenario()


@asynchronous
async def test_an_answer_to_a_token_that_was_given_up_means_nothing() -> None:
    async with meeting() as (_, connection, peer):
        room = connection.subscribe("r", token=giving("t0", "t1", "t2"))
        entering = asyncio.create_task(room.__aenter__())
        await peer.answer("subscribe", at(0, **ENDS))
        await entering
        number, _params = await peer.take("sub_refresh")
        await peer.push("r", unsubscribe={"code": 2501, "reason": "subscription expired"})
        assert (await peer.answer("subscribe", at(0, recovered=True)))["token"] == "t2"
        await peer.say({"id": number, "error": {"code": 103, "message": "too late"}})
        await peer.publish("r", "one", 1)
        assert await data_of(room, 1) == ["one"]


@asynchronous
async def test_a_function_that_fails_is_asked_again_for_a_room() -> None:
    async with meeting() as (_, connection, peer):
        room = connection.subscribe("r", token=giving(OSError("down"), "t1"))
        entering = asyncio.create_task(room.__aenter__())
        assert (await peer.answer("subscribe", at(0)))["token"] == "t1"
        await entering


@asynchronous
async def test_a_function_that_takes_long_holds_nothing_up_and_ends_with_the_connection() -> None:
    cancelled = asyncio.Event()
    asked = asyncio.Event()

    async def slow() -> str:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return "never"

    async with meeting() as (_, connection, peer):
        entering = asyncio.create_task(connection.subscribe("r", token=slow).__aenter__())
        await asked.wait()
        calling = asyncio.create_task(connection.call("meanwhile"))
        await peer.answer("rpc", {"data": 1})
        assert await calling == 1
        await connection.close()
        assert cancelled.is_set()
        with pytest.raises(Disconnected):
            await entering
        await until(lambda: not connection._session._tasks)


@asynchronous
async def test_a_function_for_a_rooms_token_may_close_the_connection() -> None:
    async with meeting() as (_, connection, _):

        async def token() -> str:
            await connection.close()
            return "late"

        with pytest.raises(Disconnected):
            async with connection.subscribe("red", token=token):
                pytest.fail("it was closed")
        async with asyncio.timeout(10):
            await connection.close()
        assert connection.state == "closed"
