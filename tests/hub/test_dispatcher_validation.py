"""Dispatcher: what a validation refuses, what it lets pass, and what an invalid message causes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest

from hub.dispatching import Move, code_of, started
from hubbub import Client, CommandError, Hub
from hubbub.testing import connect, settle

pytestmark = pytest.mark.anyio

# Validation


def refuse_with_value_error(client: Client, message: Any) -> None:
    raise ValueError("too\nlong")


def refuse_without_words(client: Client, message: Any) -> None:
    raise ValueError


def refuse_with_command_error(client: Client, message: Any) -> None:
    raise CommandError("forbidden", "not for you", temporary=True)


async def refuse_async(client: Client, message: Any) -> bool:
    await asyncio.sleep(0)
    return False


async def refuse_async_with_error(client: Client, message: Any) -> bool:
    raise CommandError("late", "no")


def refuse_by_future(client: Client, message: Any) -> Awaitable[bool]:
    future = asyncio.get_running_loop().create_future()
    future.set_result(False)
    return future


@pytest.mark.parametrize(
    ("validate", "code", "text"),
    [
        (lambda client, message: False, "invalid_message", "the message was refused"),
        (refuse_with_value_error, "invalid_message", "too\ufffdlong"),
        (refuse_without_words, "invalid_message", "the message was refused"),
        (refuse_with_command_error, "forbidden", "not for you"),
        (refuse_async, "invalid_message", "the message was refused"),
        (refuse_async_with_error, "late", "no"),
        (refuse_by_future, "invalid_message", "the message was refused"),
    ],
)
@pytest.mark.parametrize("has_handler", [False, True])
async def test_s17_validate_refuses_and_the_socket_lives(
    validate: Callable[[Client, Any], Any], code: str, text: str, has_handler: bool
) -> None:
    hub = Hub()
    handled: list[str] = []
    hub.validate(validate)
    if has_handler:
        hub.on_message(lambda client, message: handled.append(message))
    await started(hub)
    peer, other = connect(hub), connect(hub)
    peer.send("x")
    await settle(hub)
    (reply,) = peer.json()
    assert (reply["type"], reply["code"], reply["message"]) == ("error", code, text)
    assert reply.get("temporary", False) is (code == "forbidden")
    assert handled == other.received == []
    assert hub.stats()["invalid"] == 1
    assert peer.client.is_connected
    await hub.stop()


async def allow_async(client: Client, message: Any) -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize("validate", [lambda client, message: None, allow_async])
@pytest.mark.parametrize("handler", ["none", "plain", "async"])
async def test_s17_what_validate_lets_pass_is_handled_in_order(
    validate: Callable[[Client, Any], Any], handler: str
) -> None:
    hub = Hub()
    seen: list[str] = []

    async def takes_later(client: Client, message: str) -> None:
        await asyncio.sleep(0)
        seen.append(message)

    hub.validate(validate)
    if handler == "plain":
        hub.on_message(lambda client, message: seen.append(message))
    elif handler == "async":
        hub.on_message(takes_later)
    await started(hub)
    peer = connect(hub)
    peer.send("1")
    peer.send("2")
    await settle(hub)
    await settle(hub)
    assert (peer.received if handler == "none" else seen) == ["1", "2"]
    assert hub.stats()["invalid"] == 0
    await hub.stop()


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_validate_that_fails_is_a_handler_that_fails(is_async: bool) -> None:
    hub = Hub()

    def broken(client: Client, message: Any) -> None:
        raise RuntimeError("broken")

    async def broken_later(client: Client, message: Any) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("broken")

    hub.validate(broken_later if is_async else broken)
    await started(hub)
    peer = connect(hub)
    peer.send("x")
    await settle(hub)
    assert code_of(peer) == 1011
    assert peer.received == []
    stats = hub.stats()
    assert (stats["handler_errors"], stats["invalid"]) == (1, 0)
    await hub.stop()


@pytest.mark.parametrize(
    ("on_invalid", "replies", "code"), [("reply", 1, None), ("ignore", 0, None), ("close", 0, 1008)]
)
async def test_s17_what_an_invalid_message_causes_is_a_setting(
    on_invalid: Literal["reply", "ignore", "close"], replies: int, code: int | None
) -> None:
    hub = Hub(on_invalid=on_invalid)

    @hub.on_message
    def moved(client: Client, message: Move) -> None: ...

    await started(hub)
    peer, other = connect(hub), connect(hub)
    peer.send("no json")
    await settle(hub)
    assert len(peer.received) == replies
    assert code_of(peer) == code
    assert hub.stats()["invalid"] == 1
    assert other.received == []
    await hub.stop()
