"""The guide to many workers: what it starts is one hub, whichever process a client comes to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect as dial

from commands import command, serving
from hubbub import Hub
from hubbub.testing import connect
from nats_server import nats_url
from started_hub import until
from valkey_server import fresh_prefix, server_url

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("server_at", "broker"), [(server_url, "ValkeyBroker"), (nats_url, "NatsBroker")]
)
async def test_workers_on_one_server_are_one_hub(
    server_at: Callable[[], str], broker: str, load: Any, tmp_path: Path
) -> None:
    module = load("docs/guides/many-workers.md", "many_workers.py")
    url = f"{server_at()}?prefix={fresh_prefix()}"
    arguments = ("serve", "many_workers:app", "--workers", "2")
    with serving(*arguments, cwd=tmp_path, env={"HUBBUB_BROKER": url}) as (server, address):
        hub = Hub(broker=url, room_rules=module.hub.settings.room_rules)  # a third process
        await hub.start()
        async with asyncio.timeout(30):
            while len(await hub.nodes(wait_s=0.05)) < 3:
                pass
        server.wait_for(f"broker {broker}", "err")
        here = connect(hub)
        await here.client.subscribe("chat:1")
        clients = [await dial(f"ws://{address}/ws", proxy=None) for _ in range(8)]
        async with asyncio.timeout(30):
            while (await hub.presence_stats("chat:1")).clients < 9:
                await asyncio.sleep(0.01)
        hub.broadcast("from here")
        for client in clients:
            assert await asyncio.wait_for(client.recv(), 10) == "from here"
        await clients[0].send("from there")
        for client in clients:
            assert await asyncio.wait_for(client.recv(), 10) == "from there"
        await until(lambda: here.received == ["from here", "from there"])
        for client in clients:
            await client.close()
        await hub.stop()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("valky://:secret@localhost", "did you mean valkey://?"),
        ("valkey://:secret@127.0.0.1:1", "the broker at valkey://127.0.0.1:1 cannot be used"),
        ("valkey://:secret@127.0.0.1:port", "its host or port cannot be read"),
        ("nats://secret@127.0.0.1:1", "the broker at nats://127.0.0.1:1 cannot be used"),
    ],
)
def test_a_broker_that_cannot_be_is_told_at_the_start(url: str, says: str, tmp_path: Path) -> None:
    with command("serve", "--port", "0", "--broker", url, cwd=tmp_path) as server:
        assert server.wait() == 1
        assert says in server.err
        assert "secret" not in server.out + server.err
