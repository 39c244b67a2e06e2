"""Both ways in which a command reaches running hubs, for tests: the options of each, and commands run with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from click.testing import CliRunner, Result

from calling import KEY
from hubbub import Hub, RoomRules
from hubbub.cli import main
from nats_server import nats_url
from serving import serve
from valkey_server import fresh_prefix, server_url

RULES = [RoomRules("chat:*", history=10, presence=True)]


class Reached(NamedTuple):
    """A hub, and the options with which a command reaches it by a way; also the other way's."""

    hub: Hub
    options: tuple[str, ...]
    broker: str
    api: str


@asynccontextmanager
async def reached(way: str, *, keys: Any = (KEY,)) -> AsyncIterator[Reached]:
    """Run a hub on a broker, with an API; `way` is "broker", "nats" (another broker) or "api"."""
    server = nats_url() if way == "nats" else server_url()
    url = f"{server}?prefix={fresh_prefix()}"
    hub = Hub(broker=url, room_rules=RULES)
    async with serve(hub.mount(hub.api("/api", keys=keys), "/ws")) as served:
        api = served.http("/api")
        options = ("--api", api, "--api-key", KEY) if way == "api" else ("--broker", url)
        yield Reached(hub, options, url, api)


async def run(
    *arguments: str, stdin: str | bytes = "", env: dict[str, str | None] | None = None
) -> Result:
    """Run the command in a thread: the hub has this one."""
    runner = CliRunner(env={"HUBBUB_BROKER": None, "API_KEY": None, **(env or {})})
    return await asyncio.to_thread(runner.invoke, main, list(arguments), input=stdin)
