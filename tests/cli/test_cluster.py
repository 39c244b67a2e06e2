"""`hubbub publish`, `who`, `rooms` and `kick`, over a broker and over an API, against a hub on a real server."""

from __future__ import annotations

import asyncio
import json

import pytest

from cli.ways import reached, run
from hubbub.testing import connect
from started_hub import until
from valkey_server import fresh_prefix, server_url

pytestmark = pytest.mark.anyio

WAYS = ["broker", "nats", "api"]


@pytest.mark.parametrize("by", WAYS)
async def test_publish_reaches_a_room(by: str) -> None:
    async with reached(by) as (hub, options, _, _):
        ann = connect(hub, user="ann")
        await ann.client.subscribe("chat:1")
        await ann.client.subscribe("news")
        done = await run("publish", "chat:1", '{"n":  1}', "--key", "k", *options)
        assert (done.exit_code, done.output) == (0, "published, offset 1\n")
        done = await run("publish", "chat:1", "-", *options, stdin='"two"\n3\n')
        assert done.output == "published, offset 2\npublished, offset 3\n"
        assert (await run("publish", "news", "{}", *options)).output == "published\n"
        done = await run("publish", "chat:1", '{"n":  1}', "--key", "k", *options)
        assert done.exit_code == 0
        await until(lambda: ann.received == ['{"n":  1}', '"two"', "3", "{}"])


async def test_publish_over_a_broker_reaches_users_and_everybody_and_takes_any_text() -> None:
    async with reached("broker") as (hub, _, url, _):
        env: dict[str, str | None] = {"HUBBUB_BROKER": url}
        ann = connect(hub, user="ann")
        await ann.client.subscribe("chat:1")
        assert (await run("publish", "chat:1", "a text", "--key", "k", env=env)).exit_code == 0
        done = await run("publish", "chat:1", "a text", "--key", "k", env=env)
        assert done.output == "was published before, by this key\n"
        assert (await run("publish", "--user", "ann", "own", env=env)).output == "published\n"
        assert (await run("publish", "--everybody", "all", env=env)).output == "published\n"
        await until(lambda: ann.received == ["a text", "own", "all"])


@pytest.mark.parametrize("by", WAYS)
async def test_who_is_there_and_who_is_sent_away(by: str) -> None:
    async with reached(by) as (hub, options, _, _):
        hub.presence_info(lambda client, room: {"name": "A\x1b[31m"})
        ann = connect(hub, user="ann", client_id="tab")
        bob = connect(hub, user="bob\x1b[2J", client_id="other")
        nobody = connect(hub, client_id="third")
        for peer in (ann, bob):
            await peer.client.subscribe("chat:1")
        ann.client.join("chat:2")
        nobody.client.join("chat:2")
        await until(lambda: hub.rooms == {"chat:1": 2, "chat:2": 2})
        while (await hub.presence_stats("chat:1")).clients < 2:
            await asyncio.sleep(0.01)
        while (await hub.presence_stats("chat:2")).clients < 2:
            await asyncio.sleep(0.01)
        done = await run("who", "chat:1", *options)
        assert done.exit_code == 0
        lines = sorted(done.output.splitlines())
        assert lines == [
            'other\tbob\N{REPLACEMENT CHARACTER}[2J\t{"name":"A\\u001b[31m"}',
            'tab\tann\t{"name":"A\\u001b[31m"}',
        ]
        rows = (await run("who", "chat:2", "--json", *options)).output.splitlines()
        info = {"name": "A\x1b[31m"}
        assert sorted(map(json.loads, rows), key=str) == [
            {"client": "tab", "user": "ann", "info": info},
            {"client": "third", "user": None, "info": info},
        ]
        assert (await run("rooms", *options)).output == "2\tchat:1\n2\tchat:2\n"
        assert (await run("rooms", "*2", *options)).output == "2\tchat:2\n"
        whom = ("tab", "--user", "ann") if by == "api" else ("tab",)
        done = await run("kick", *whom, "--code", "4001", "--reason", "away", *options)
        assert (done.exit_code, done.output) == (0, "")
        await until(lambda: ann.closed is not None)
        assert ann.closed is not None
        assert (ann.closed.code, ann.closed.reason) == (4001, "away")
        assert bob.closed is None
        assert (await run("kick", "--user", "bob\x1b[2J", *options)).exit_code == 0
        await until(lambda: bob.closed is not None)
        assert (await run("kick", "--user", "nobody", *options)).exit_code == 0
        done = await run("kick", "--user", "ann", "--code", "17", *options)
        assert (done.exit_code, "Traceback" in done.output) == (1, False)


@pytest.mark.parametrize("by", WAYS)
async def test_who_shows_what_connections_say_of_themselves(by: str) -> None:
    async with reached(by) as (hub, options, _, _):
        connect(hub, user="ann", client_id="tab", info={"name": "Ann"}).client.join("chat:1")
        connect(hub, user="bob", client_id="pad").client.join("chat:1")
        while (await hub.presence_stats("chat:1")).clients < 2:
            await asyncio.sleep(0.01)
        lines = (await run("who", "chat:1", *options)).output.splitlines()
        assert sorted(lines) == ["pad\tbob", 'tab\tann\t{"name":"Ann"}']
        rows = (await run("who", "chat:1", "--json", *options)).output.splitlines()
        assert sorted(map(json.loads, rows), key=str) == [
            {"client": "pad", "user": "bob", "info": None},
            {"client": "tab", "user": "ann", "info": None, "conn_info": {"name": "Ann"}},
        ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["publish", "chat:1", "x"], "name the broker of the hubs"),
        (["rooms", "--broker", "memory://"], r"memory:// (--broker) is the memory of one process"),
        (["rooms", "--broker", "valky://a"], "broker (--broker): must be a URL such as"),
        (["rooms", "--broker", "valky://:secret@host"], "no scheme 'valky'"),
        (["publish", "x"], "name a ROOM, or --user, or --everybody"),
        (["publish", "chat:1", "x", "--user", "ann"], "name a ROOM, or --user"),
        (["publish", "chat:1", "-", "--key", "k"], "--key is for one message"),
        (
            ["publish", "--user", "\udcff", "x", "--broker", "valkey://127.0.0.1:1"],
            "no text in UTF-8",
        ),
        (["kick"], "name a CLIENT, or --user"),
        (["kick", "--user", "\udcff", "--broker", "valkey://127.0.0.1:1"], "has no bytes in UTF-8"),
        (["kick", "tab", "--user", "ann", "--broker", "valkey://127.0.0.1:1"], "and not both"),
    ],
)
async def test_what_cannot_be_is_one_sentence(arguments: list[str], text: str) -> None:
    done = await run(*arguments)
    assert done.exit_code in (1, 2)
    assert text in done.output
    assert "secret" not in done.output
    assert "Traceback" not in done.output


async def test_a_server_that_was_never_used_by_a_hub_is_said() -> None:
    url = f"{server_url()}?prefix={fresh_prefix()}"
    done = await run("publish", "chat:1", "x", "--broker", url)
    assert (done.exit_code, "no hub has been on this broker" in done.output) == (1, True)
