"""`hubbub tail` as a program: what it prints, that no terminal obeys it, and how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import pytest

from calling import KEY
from cli.ways import reached
from commands import PATIENCE_S, Command, clean_environment, command
from hubbub import Hub
from hubbub.cli.tail import read_since

pytestmark = pytest.mark.anyio


async def said(hub: Hub, running: Command, room: str, text: str) -> None:
    """Publish until it is printed: nobody is told when a program has begun to follow."""
    while text not in running.out:
        assert running.process.poll() is None, running.err
        await hub.publish(room, text)
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("by", ["broker", "nats", "api"])
async def test_what_is_kept_and_what_comes_is_printed_until_ctrl_c(by: str) -> None:
    async with reached(by) as (hub, options, _, _):
        for number in range(3):
            await hub.publish("chat:1", str(number))
        with command("tail", "chat:1", "--history", "2", *options) as running:
            await asyncio.to_thread(running.wait_for, "^2$")
            await hub.publish("chat:1", '["\\u001b[2J", "two\\nlines"]')
            await hub.publish("chat:1", '{"a": "\x9b\u202e"}')
            await asyncio.to_thread(running.wait_for, "u202e")
            running.interrupt()
            assert await asyncio.to_thread(running.wait) == 0
            assert running.out.splitlines() == [
                "1",
                "2",
                '["\\u001b[2J", "two\\nlines"]',
                '{"a": "\\x9b\\u202e"}',
            ]
            assert running.err == ""


@pytest.mark.parametrize("by", ["broker", "nats", "api"])
async def test_json_has_a_position_to_go_on_after(by: str) -> None:
    async with reached(by) as (hub, options, _, _):
        for number in range(3):
            await hub.publish("chat:1", str(number))
        with command("tail", "chat:1", "--since", "1", "--json", *options) as running:
            await asyncio.to_thread(running.wait_for, '"2"')
        rows = [json.loads(line) for line in running.out.splitlines()]
        epoch = (await hub.cursor("chat:1")).epoch
        assert rows == [
            {"event": "message", "kind": "text", "offset": n + 1, "epoch": epoch, "data": str(n)}
            for n in (1, 2)
        ]
        with command("tail", "chat:1", "--since", "2:other", "--json", *options) as running:
            await asyncio.to_thread(running.wait_for, '"2"')
        events = [json.loads(line)["event"] for line in running.out.splitlines()]
        assert events == ["gap", "message", "message", "message"]


@pytest.mark.parametrize("by", ["broker", "nats"])
async def test_a_room_without_a_history_and_bytes_and_an_end_by_sigterm(by: str) -> None:
    async with reached(by) as (hub, options, _, _):
        with command("tail", "news", "--json", *options) as running:
            await said(hub, running, "news", "begun")
            await hub.publish("news", b"\x00\x01")
            await asyncio.to_thread(running.wait_for, "AAE=")
            row = json.loads(running.out.splitlines()[-1])
            assert row == {"event": "message", "kind": "binary", "data": "AAE="}
            running.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(running.wait) == 0
            assert running.err == ""


@pytest.mark.parametrize("by", ["broker", "nats", "api"])
async def test_a_reader_that_has_gone_ends_it_without_noise(by: str) -> None:
    async with reached(by) as (hub, options, _, _):
        await hub.publish("chat:1", "1")
        tail = (sys.executable, "-m", "hubbub", "tail", "chat:1", "--history", "1", *options)
        pipe = asyncio.subprocess.PIPE
        shell = await asyncio.create_subprocess_exec(
            *("sh", "-c", '"$@" | head -n 1', "sh", *tail),
            stdout=pipe,
            stderr=pipe,
            env=clean_environment(),
        )
        assert await asyncio.wait_for(shell.communicate(), PATIENCE_S) == (b"1\n", b"")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("tail", "news"), "this room keeps no history"),
        (("tail", "@ann"), "must not begin with '@'"),
    ],
)
async def test_what_the_api_cannot_follow_is_one_sentence(
    arguments: tuple[str, ...], text: str
) -> None:
    async with reached("api") as (_, options, _, _):
        with command(*arguments, *options) as running:
            assert await asyncio.to_thread(running.wait) == 1
    assert text in running.err
    assert KEY not in running.err
    assert "Traceback" not in running.err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("tail", "news", "--history", "1"), 1, "this room keeps no history: leave --history"),
        (("tail", "chat:1", "--since", "x"), 2, "--since is an OFFSET, or OFFSET:EPOCH"),
        (("tail", "chat:1", "--since", "1", "--history", "2"), 2, "exclude one another"),
    ],
)
async def test_what_cannot_be_is_one_sentence(
    arguments: tuple[str, ...], code: int, text: str
) -> None:
    async with reached("broker") as (_, options, _, _):
        with command(*arguments, *options) as running:
            assert await asyncio.to_thread(running.wait) == code
    assert text in running.err
    assert "Traceback" not in running.err


def test_a_position_is_read() -> None:
    assert read_since("5") == (5, None)
    assert read_since("5:a:b") == (5, "a:b")
