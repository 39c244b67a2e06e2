"""`hubbub publish`, `who`, `rooms` and `kick`, against a hub on a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from click.testing import CliRunner, Result

from hubbub import Hub, RoomRules
from hubbub.cli import main
from hubbub.testing import connect
from nats_server import nats_url
from started_hub import until
from valkey_server import fresh_prefix, server_url

pytestmark = pytest.mark.anyio

RULES = [RoomRules("chat:*", history=10, presence=True)]


@asynccontextmanager
async def running(server_at: Callable[[], str] = server_url) -> AsyncIterator[tuple[Hub, str]]:
    url = f"{server_at()}?prefix={fresh_prefix()}"
    hub = Hub(broker=url, room_rules=RULES)
    await hub.start()
    try:
        yield hub, url
    finally:
        await hub.stop()


async def run(*arguments: str, stdin: str = "", broker: str | None = None) -> Result:
    """Run the command in a thread: the hub has this one."""
    environment = {} if broker is None else {"HUBBUB_BROKER": broker}
    runner = CliRunner(env=environment)
    return await asyncio.to_thread(runner.invoke, main, list(arguments), input=stdin)


@pytest.mark.parametrize("server_at", [server_url, nats_url])
async def test_publish_reaches_rooms_users_and_everybody(server_at: Callable[[], str]) -> None:
    async with running(server_at) as (hub, url):
        ann = connect(hub, user="ann")
        await ann.client.subscribe("chat:1")
        done = await run("publish", "chat:1", '{"n": 1}', "--key", "k", broker=url)
        assert (done.exit_code, done.output) == (0, "published, offset 1\n")
        done = await run("publish", "chat:1", '{"n": 1}', "--key", "k", "--broker", url)
        assert done.output == "was published before, by this key\n"
        done = await run("publish", "chat:1", "-", stdin="two\nthree\n", broker=url)
        assert done.output == "published, offset 2\npublished, offset 3\n"
        assert (await run("publish", "--user", "ann", "own", broker=url)).output == "published\n"
        assert (await run("publish", "--everybody", "all", broker=url)).output == "published\n"
        await until(lambda: ann.received == ['{"n": 1}', "two", "three", "own", "all"])


async def test_who_is_there_and_who_is_sent_away() -> None:
    async with running() as (hub, url):
        hub.presence_info(lambda client, room: {"name": "A\x1b[31m"})
        ann = connect(hub, user="ann", client_id="tab")
        bob = connect(hub, user="bob\x1b[2J", client_id="other")
        for peer in (ann, bob):
            await peer.client.subscribe("chat:1")
        ann.client.join("chat:2")
        await until(lambda: hub.rooms == {"chat:1": 2, "chat:2": 1})
        while (await hub.presence_stats("chat:1")).clients < 2:
            await asyncio.sleep(0.01)
        done = await run("who", "chat:1", broker=url)
        assert done.exit_code == 0
        assert sorted(line.split("\t")[0] for line in done.output.splitlines()) == ["other", "tab"]
        assert "\x1b" not in done.output
        rows = (await run("who", "chat:1", "--json", broker=url)).output.splitlines()
        assert {json.loads(row)["user"] for row in rows} == {"ann", "bob\x1b[2J"}
        assert (await run("rooms", broker=url)).output == "2\tchat:1\n1\tchat:2\n"
        assert (await run("rooms", "*2", broker=url)).output == "1\tchat:2\n"
        done = await run("kick", "tab", "--code", "4001", "--reason", "away", broker=url)
        assert (done.exit_code, done.output) == (0, "")
        await until(lambda: ann.closed is not None)
        assert ann.closed is not None
        assert (ann.closed.code, ann.closed.reason) == (4001, "away")
        assert (await run("kick", "--user", "bob\x1b[2J", broker=url)).exit_code == 0
        await until(lambda: bob.closed is not None)
        assert (await run("kick", "nobody", broker=url)).exit_code == 0
        done = await run("kick", "tab", "--code", "17", broker=url)
        assert (done.exit_code, "Traceback" in done.output) == (1, False)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["publish", "chat:1", "x"], "name the broker of the hubs"),
        (["rooms", "--broker", "memory://"], "name the broker of the hubs"),
        (["rooms", "--broker", "valky://:secret@host"], "no scheme 'valky'"),
        (["publish", "x"], "name a ROOM, or --user, or --everybody"),
        (["publish", "chat:1", "x", "--user", "ann"], "name a ROOM, or --user"),
        (["publish", "chat:1", "-", "--key", "k"], "--key is for one message"),
        (["kick"], "name a CLIENT, or --user"),
        (["kick", "tab", "--user", "ann"], "name a CLIENT, or --user"),
    ],
)
async def test_what_cannot_be_is_one_sentence(
    arguments: list[str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HUBBUB_BROKER", raising=False)
    done = await run(*arguments)
    assert done.exit_code in (1, 2)
    assert text in done.output
    assert "secret" not in done.output
    assert "Traceback" not in done.output


async def test_a_server_that_was_never_used_by_a_hub_is_said() -> None:
    url = f"{server_url()}?prefix={fresh_prefix()}"
    done = await run("publish", "chat:1", "x", "--broker", url)
    assert (done.exit_code, "no hub has been on this broker" in done.output) == (1, True)
