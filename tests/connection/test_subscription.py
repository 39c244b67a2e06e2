"""What a program sees of a room."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from answering import asynchronous
from connection.scripted import at, data_of, entered, meeting
from hubbub.connection import RoomMessage
from hubbub.model import ClientInfo, Position, PresenceStats


class Said(msgspec.Struct):
    text: str


@asynchronous
async def test_messages_are_validated_and_a_wrong_one_does_not_end_it() -> None:
    async with meeting() as (_, connection, peer):
        room = await entered(connection, peer, at(0), kind=Said)
        await peer.publish("r", {"text": "one"}, 1)
        await peer.publish("r", {"text": 2}, 2)
        await peer.publish("r", {"text": "three"}, 3)
        assert await anext(room) == RoomMessage(Said("one"), 1)
        with pytest.raises(msgspec.ValidationError):
            await anext(room)
        assert room.position == Position(2, "e")
        assert await data_of(room, 1) == [Said("three")]


@asynchronous
async def test_several_readers_share_the_messages() -> None:
    async with meeting() as (_, connection, peer):
        room = await entered(connection, peer, at(0))
        readers = [asyncio.create_task(data_of(room, 1)) for _ in range(3)]
        await asyncio.sleep(0)
        for offset in (1, 2, 3):
            await peer.publish("r", offset, offset)
        assert sorted([(await each)[0] for each in readers]) == [1, 2, 3]


@asynchronous
async def test_a_reader_that_is_cancelled_has_taken_nothing() -> None:
    async with meeting() as (_, connection, peer):
        room = await entered(connection, peer, at(0))
        reader = asyncio.create_task(data_of(room, 1))
        await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait([reader])
        await peer.publish("r", "one", 1)
        assert await data_of(room, 1) == ["one"]


@asynchronous
async def test_its_commands_name_the_room() -> None:
    async with meeting() as (_, connection, peer):
        room = await entered(connection, peer, at(0))
        assert repr(room) == "<Subscription 'r' subscribed, 0 read ahead>"

        async def asked(command: Any, method: str, result: object) -> tuple[Any, Any]:
            task = asyncio.create_task(command)
            params = await peer.answer(method, result)
            return params, await task

        assert await asked(room.publish([1]), "publish", {}) == (
            {"channel": "r", "data": [1]},
            None,
        )
        page = {"publications": [{"data": 1, "offset": 4}], "offset": 9, "epoch": "e"}
        command = room.history(limit=2, since=Position(3, "e"), reverse=True)
        params, found = await asked(command, "history", page)
        since = {"offset": 3, "epoch": "e"}
        assert params == {"channel": "r", "limit": 2, "since": since, "reverse": True}
        assert (found.messages, found.position) == ([RoomMessage(1, 4)], Position(9, "e"))
        members = {"a": {"client": "a", "user": "ann", "chan_info": {"x": 1}}, "b": {"client": "b"}}
        _, present = await asked(room.presence(), "presence", {"presence": members})
        assert present == {"a": ClientInfo("a", "ann", {"x": 1}), "b": ClientInfo("b")}
        counts = {"num_clients": 3, "num_users": 2}
        _, stats = await asked(room.presence_stats(), "presence_stats", counts)
        assert stats == PresenceStats(3, 2)


@asynchronous
async def test_leaving_tells_the_server_and_forgets_what_was_read_ahead() -> None:
    async with meeting() as (_, connection, peer):
        room = await entered(connection, peer, at(0))
        await peer.publish("r", 1, 1)
        await peer.publish("r", 2, 2)
        assert await data_of(room, 1) == [1]
        await room.__aexit__(None, None, None)
        assert await peer.answer("unsubscribe", {}) == {"channel": "r"}
        assert [message async for message in room] == []
        entering = asyncio.create_task(room.__aenter__())
        missed = at(1, recovered=True, publications=[{"data": 2, "offset": 2}])
        assert (await peer.answer("subscribe", missed))["offset"] == 1
        await entering
        assert await data_of(room, 1) == [2]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"room": ""}, "a room is a str that is not empty, not ''"),
    ({"room": 5}, "a room is a str that is not empty, not 5"),
    ({"since": "5"}, "since must be a Position or"),
    ({"since": 5}, "since must be a Position or"),
    ({"since": {"offset": 5}}, "since must be a Position or"),
    ({"since": [1, 2]}, "a position is a whole number and a str"),
    ({"since": {"offset": -1, "epoch": "e"}}, "is not negative"),
    ({"since": (5, "")}, "offset 5 says nothing without its epoch"),
    ({"token": 5}, "a token must be a str, not int"),
    ({"token": lambda room: "t"}, "the token function is called without arguments"),
]


@pytest.mark.parametrize(("keywords", "text"), WRONG)
def test_a_wrong_argument_is_an_error_at_once(keywords: dict[str, Any], text: str) -> None:
    @asynchronous
    async def scenario() -> None:
        async with meeting() as (_, connection, _peer):
            with pytest.raises((TypeError, ValueError), match=text):
                connection.subscribe(**{"room": "r", **keywords})

    scenario()
