"""The examples of the HTTP API: a shell script and a script for cron, each run as its first lines say."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path

import pytest

from calling import KEY
from hubbub import Hub, RoomRules
from hubbub.testing import MemoryClient, connect
from places import ROOT
from serving import PATIENCE_S, Served, serve, until

pytestmark = pytest.mark.anyio

FOLDER = ROOT / "examples" / "http_api"


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Hub, Served, MemoryClient]]:
    """Serve a hub with the API, and a member of the rooms that the scripts publish to."""
    hub = Hub(room_rules=[RoomRules("news:*", history=10)])
    async with serve(hub.mount(hub.api(keys=[KEY]), "/ws")) as server:
        member = connect(hub)
        for room in ("news:sport", "news:reports"):
            member.client.join(room)
        yield hub, server, member


async def script(*command: str, **environ: str) -> tuple[int | None, str, str]:
    """Run a script to its end; return its exit code, and what it wrote."""
    pipe = asyncio.subprocess.PIPE
    env: Mapping[str, str] = {**os.environ, "no_proxy": "*", **environ}
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=env)
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    return process.returncode, out.decode(), err.decode()


async def test_the_shell_script_publishes(tmp_path: Path) -> None:
    path = str(FOLDER / "publish.sh")
    async with served() as (_, server, member):
        arguments = (server.http("/api"), "news:sport", '{"text": "one to nil"}')
        code, out, err = await script("sh", path, *arguments, API_KEY=KEY)
        assert (code, err) == (0, "")
        assert '"result":{"offset":1' in out
        await until(lambda: member.received == ['{"text": "one to nil"}'])
        code, out, err = await script("sh", path, *arguments, API_KEY="wrong")
        assert code
        assert '"code":101' in out
        assert "401" in err
        assert "wrong" not in out + err


async def test_the_script_for_cron_announces_each_day_once() -> None:
    path = str(FOLDER / "nightly.py")
    async with served() as (_, server, member):
        url = server.http("/api")
        for _ in range(2):
            assert await script(sys.executable, path, API_URL=url, API_KEY=KEY) == (0, "", "")
        await until(lambda: len(member.received) == 1)
        assert member.json() == [{"type": "report", "day": date.today().isoformat()}]
        code, out, err = await script(sys.executable, path, API_URL=url, API_KEY="wrong")
        assert (code, out) == (1, "")
        assert "was not announced: 401 Unauthorized" in err
        assert err.count("\n") == 1
    code, _, err = await script(sys.executable, path, API_URL=url, API_KEY=KEY)
    assert code == 1
    assert "was not announced: " in err
    assert "Traceback" not in err
