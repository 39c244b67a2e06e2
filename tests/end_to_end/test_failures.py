"""What user code raises, and what its client and the others see of it; on every transport."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, Literal

import msgspec
import pydantic
import pytest
import starlette.exceptions
from websockets.exceptions import ConnectionClosed

import hubbub
from hubbub import Client, Close, CommandError, Disconnected, Hub
from serving import take, until, venue

pytestmark = pytest.mark.anyio


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


class Cancelling(msgspec.Struct):
    text: str

    def __post_init__(self) -> None:
        raise asyncio.CancelledError


@pytest.mark.parametrize("kind", ["only", "typed", "async", "validated"])
async def test_fault_06_a_decoder_that_asks_a_cancelled_future_harms_its_message_alone(
    way: str, kind: str
) -> None:
    hub = Hub()

    async def later(client: Client, message: Any) -> None:
        raise AssertionError("it cannot be decoded")

    later.__annotations__["message"] = Cancelling
    if kind == "only":
        hub.on_message(decoding(Cancelling))
    else:
        hub.on("bad")(later if kind == "async" else decoding(Cancelling))
    if kind == "validated":
        hub.validate(lambda client, message: True)
    async with venue(hub, way) as here:
        socket = await here.join()
        for _ in range(2):
            await socket.send('{"type": "bad", "text": "x"}')
        await until(lambda: hub.stats()["handler_errors"] == 2)
        hub.broadcast("still here")
        assert await take(socket, 1) == ["still here"]


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
