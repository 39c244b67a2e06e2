"""What becomes of messages that are invalid, unknown or too many; on every transport."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Literal

import msgspec
import pydantic
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from hubbub import Client, CommandError, Hub
from serving import take, until, venue

pytestmark = pytest.mark.anyio


class Model(pydantic.BaseModel):
    name: str
    tags: set[str] = set()


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
