"""Commands: each ends once, with its answer or with why there is none."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from answering import asynchronous
from hubbub.connection.commands import FRAME_BYTES, LOST, TIMEOUT, TOO_MANY, Commands
from hubbub.connection.outcome import AttemptEnded
from hubbub.connection.protocol import Nothing, Refusal, Reply
from hubbub.errors import CommandFailed


def commands(timeout_s: float = 60, max_waiting: int = 3) -> Commands:
    return Commands(timeout_s, max_waiting, lambda: None)


def lines(frame: bytes) -> list[Any]:
    return [msgspec.json.decode(line) for line in frame.split(b"\n") if line]


def asking(made: Commands, method: str = "publish") -> asyncio.Task[Any]:
    return asyncio.create_task(made.answer(method, {"channel": "r"}))


async def code_of(asked: asyncio.Task[Any]) -> tuple[int, bool]:
    with pytest.raises(CommandFailed) as caught:
        await asked
    return caught.value.code, caught.value.is_uncertain


@asynchronous
async def test_the_first_go_out_before_the_connection_is_open() -> None:
    made = commands()
    asked = asking(made)
    await asyncio.sleep(0)
    made.ask("connect", {}, lambda *_: None, is_first=True)
    assert lines(made.frame()) == [{"id": 2, "connect": {}}]
    assert made.frame() == b""
    assert made.waiting == 1
    made.is_open = True
    assert lines(made.frame()) == [{"id": 1, "publish": {"channel": "r"}}]
    made.settle(Reply(1, publish=Nothing()))
    assert await asked == Nothing()
    made.settle(Reply(1, publish=Nothing()))
    made.settle(Reply(77, publish=Nothing()))
    assert len(made) == 1


@asynchronous
async def test_a_refusal_an_answer_of_another_kind_and_no_answer_at_all() -> None:
    made = commands()
    made.is_open = True
    refused, wrong = asking(made), asking(made)
    await asyncio.sleep(0)
    made.frame()
    made.settle(Reply(1, error=Refusal(100, "later", temporary=True)))
    with pytest.raises(CommandFailed) as caught:
        await refused
    error = caught.value
    assert (error.code, error.message, error.temporary) == (100, "later", True)
    with pytest.raises(AttemptEnded, match="the answer to publish has no publish"):
        made.settle(Reply(2))
    wrong.cancel()

    hasty = commands(timeout_s=0.01)
    unsent = asking(hasty)
    assert await code_of(unsent) == (TIMEOUT, False)
    hasty.is_open = True
    assert hasty.frame() == b"", "what nobody waits for is not sent"
    sent = asking(hasty)
    await asyncio.sleep(0)
    hasty.frame()
    assert await code_of(sent) == (TIMEOUT, True)
    assert len(hasty) == 0


@asynchronous
async def test_what_was_sent_is_lost_with_a_connection_and_the_rest_waits() -> None:
    made = commands()
    made.is_open = True
    sent = asking(made)
    await asyncio.sleep(0)
    made.frame()
    found: list[Any] = []
    made.ask("subscribe", {}, lambda *given: found.append(given))
    unsent = asking(made)
    await asyncio.sleep(0)
    made.lose()
    assert await code_of(sent) == (LOST, True)
    assert found[0][0].code == LOST, "the next connection asks for its rooms anew"
    assert not unsent.done()
    made.is_open = True
    assert [each["id"] for each in lines(made.frame())] == [3]
    made.close()
    assert (await code_of(unsent))[1]


@asynchronous
async def test_only_so_many_wait_for_a_connection() -> None:
    made = commands(max_waiting=2)
    waiting = [asking(made), asking(made)]
    await asyncio.sleep(0)
    assert await code_of(asking(made)) == (TOO_MANY, False)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    third = asking(made)
    await asyncio.sleep(0)
    made.is_open = True
    assert [each["id"] for each in lines(made.frame())] == [2, 3], "the cancelled one is not sent"
    made.close()
    await asyncio.wait([third, *waiting])
    assert isinstance(third.exception(), CommandFailed)
    assert isinstance(waiting[1].exception(), CommandFailed)


@asynchronous
async def test_many_commands_are_parted_into_messages_that_a_server_takes() -> None:
    made = commands()
    for _ in range(100):
        made.ask("subscribe", {"channel": "x" * 1000}, lambda *_: None, is_first=True)
    made.ask("subscribe", {"channel": "x" * 2 * FRAME_BYTES}, lambda *_: None, is_first=True)
    frames = []
    while frame := made.frame():
        frames.append(frame)
    assert sum(len(lines(frame)) for frame in frames) == 101
    assert all(len(frame) <= FRAME_BYTES for frame in frames[:-1])
    assert len(lines(frames[-1])) == 1
    made.close()
