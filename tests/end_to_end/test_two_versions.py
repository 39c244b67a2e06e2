"""A process of an older version and one of this on one server: they are one cluster, and understand each other."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from array_dialect import ArrayDialect, events_of
from broker_hubs import member, rows, texts
from commands import clean_environment
from hubbub import Hub, Identity, RoomRules
from hubbub.testing import connect
from nats_server import nats_url
from older_node import RULES
from places import TESTS
from started_hub import until
from valkey_server import fresh_prefix, server_url

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


class Older:
    """An older process, and what it answers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def read(self) -> str:
        """Return its next line."""
        assert self._process.stdout is not None
        return (await asyncio.wait_for(self._process.stdout.readline(), 20)).decode().strip()

    async def ask(self, *told: Any) -> Any:
        """Return what it answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        return json.loads(await self.read())

    async def until(self, verb: str, holds: Callable[[Any], bool]) -> None:
        """Ask until an answer is right."""
        async with asyncio.timeout(10):
            while not holds(await self.ask(verb)):
                await asyncio.sleep(0.01)


@asynccontextmanager
async def older(url: str, prefix: str) -> AsyncIterator[Older]:
    """Run an older process until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(TESTS / "older_node.py"), url, prefix),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environment(),
    )
    try:
        made = Older(process)
        assert await made.read() == "ready"
        yield made
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def running(hub: Hub) -> AsyncIterator[None]:
    """Run a hub until the block ends."""
    await hub.start()
    try:
        yield
    finally:
        await hub.stop()


@pytest.mark.parametrize("url_of", [server_url, nats_url], ids=["valkey", "nats"])
async def test_messages_histories_keys_and_who_is_there_are_the_same_for_both(
    url_of: Callable[[], str],
) -> None:
    url, prefix = url_of(), fresh_prefix()
    rules = [RoomRules(**each) for each in RULES]
    hub = Hub(broker=url, broker_prefix=prefix, room_rules=rules)
    hub.authenticate(lambda handshake: Identity(user="eve", info={"name": "Eve"}))
    async with running(hub), older(url, prefix) as other:
        ann = await member(hub, "log", "who", user="ann", info={"name": "Ann"})
        eve = connect(hub, dialect=ArrayDialect())
        eve.send('["connect", 1]')
        eve.send('["subscribe", 2, "log"]')
        await until(lambda: any(each[:2] == ["subscribed", 2] for each in events_of(eve.received)))

        eve.send('["publish", 3, "log", "by eve"]')
        await until(lambda: texts(ann) == ["by eve"])
        assert await other.ask("publish", "by old", "one") == [2, False]
        assert (await hub.publish("log", "again", key="one")).is_repeated
        assert not (await hub.publish("log", "by hub", key="two")).is_repeated
        assert await other.ask("publish", "again", "two") == [3, True]
        said = ["by eve", "by old", "by hub"]
        await until(lambda: texts(ann) == said)
        await other.until("heard", lambda heard: [t for t in heard if "type" not in t] == said)
        kept = (await hub.history("log")).publications
        assert [each.data.decode() for each in kept] == await other.ask("history") == said
        publishers = [each.publisher and each.publisher.conn_info for each in kept]
        assert publishers == [{"name": "Eve"}, None, None]

        said_of: dict[str | None, Any] = {}
        async with asyncio.timeout(10):
            while said_of.keys() != {"ann", "old"}:
                present = (await hub.presence("who")).values()
                said_of = {info.user: info.conn_info for info in present}
        # On NATS each change writes the whole room, and an older process leaves out what it does not know.
        if url_of is not nats_url:
            assert said_of == {"ann": {"name": "Ann"}, "old": None}
        assert (await hub.presence_stats("who")).clients == 2
        await other.until("presence", lambda users: users == ["ann", "old"])
        await other.until("heard", lambda heard: any('"joined"' in t and "ann" in t for t in heard))

        await other.until("nodes", lambda count: count == 2)
        assert await other.ask("disconnect", "ann") == 0
        await until(lambda: ann.closed is not None)
        bob = await member(hub, "who", user="bob")
        hub.disconnect("old")
        await other.until("closed", bool)
        await until(
            lambda: any(left["user"] == "old" for row in rows(bob) for left in row.get("left", ()))
        )
