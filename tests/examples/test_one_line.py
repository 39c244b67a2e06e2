"""One line takes the scoreboard from the memory of a process to a server: the same clients find the same in both."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import ModuleType
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection

from places import ROOT
from serving import PATIENCE_S, Served, serve
from valkey_server import fresh_prefix, server_url

pytestmark = pytest.mark.anyio

EXAMPLES = ROOT / "examples"
EXAMPLE = EXAMPLES / "scoreboard.py"
LINE = '    broker="memory://",\n'


def source_with(broker: str) -> str:
    """Return the example with another broker: one line of it is different."""
    text = EXAMPLE.read_text("utf-8")
    assert text.count(LINE) == 1
    return text.replace(LINE, f'    broker="{broker}",\n')


@asynccontextmanager
async def processes(broker: str, count: int) -> AsyncIterator[list[Served]]:
    """Serve the example, as often as there are to be hubs of it."""
    code = compile(source_with(broker), str(EXAMPLE), "exec")
    async with AsyncExitStack() as stack:
        served = []
        for _ in range(count):
            module = ModuleType("scoreboard")
            sys.modules["scoreboard"] = module  # FastAPI looks annotations up there
            stack.callback(sys.modules.pop, "scoreboard", None)
            exec(code, module.__dict__)
            served.append(await stack.enter_async_context(serve(module.app)))
        yield served


async def told(socket: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(socket.recv(), PATIENCE_S))


async def watch_a_game(one: Served, other: Served) -> list[Any]:
    """Be clients of two servers, which may be one; return all that they were told."""
    found: list[Any] = []
    async with (
        httpx2.AsyncClient(base_url=one.http(""), trust_env=False) as http,
        httpx2.AsyncClient(base_url=other.http(""), trust_env=False) as other_http,
        one.connect("/ws?game=final&name=ann") as ann,
    ):
        found.append(await told(ann))
        await http.post("/goals/final?team=reds")
        found.append(await told(ann))
        async with other.connect("/ws?game=final&name=bob") as bob:
            watching = await told(bob)
            position = watching["position"]
            await other_http.post("/goals/final?team=blues")
            await http.post("/goals/another?team=greens")
            found += [watching, await told(ann), await told(bob)]
            while len((await http.get("/goals/final")).json()["watching"]) < 2:
                await asyncio.sleep(0.01)
            found.append((await other_http.get("/goals/final")).json())
        await http.post("/goals/final?team=reds")
        found.append(await told(ann))
        since = f"offset={position['offset']}&epoch={position['epoch']}"
        async with other.connect(f"/ws?game=final&name=bob&{since}") as bob:
            found += [await told(bob) for _ in range(3)]
    return found


def without_epochs(found: list[Any]) -> list[Any]:
    """Leave out what is another text each time."""
    for each in found:
        if each.get("position"):
            del each["position"]["epoch"]
    return found


async def test_one_line_changes_and_the_same_clients_find_the_same() -> None:
    async with processes("memory://", 1) as (server,):
        in_memory = without_epochs(await watch_a_game(server, server))
    url = f"{server_url()}?prefix={fresh_prefix()}"
    async with processes(url, 1) as (server,):
        assert without_epochs(await watch_a_game(server, server)) == in_memory
    reds, blues = ({"type": "goal", "team": team} for team in ("reds", "blues"))
    assert in_memory == [
        {"type": "watching", "is_whole": False, "position": {"offset": 0}},
        reds,
        {"type": "watching", "is_whole": False, "position": {"offset": 1}},
        blues,
        blues,
        {"goals": ["reds", "blues"], "watching": ["ann", "bob"]},
        reds,
        blues,
        reds,
        {"type": "watching", "is_whole": True, "position": {"offset": 3}},
    ]


async def test_that_line_makes_several_processes_one() -> None:
    url = f"{server_url()}?prefix={fresh_prefix()}"
    async with processes(url, 2) as (one, other):
        between = without_epochs(await watch_a_game(one, other))
    async with processes("memory://", 1) as (server,):
        assert between == without_epochs(await watch_a_game(server, server))
