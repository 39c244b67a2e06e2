"""The real `wscat` from npm, as people use it to try a server."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from hubbub import Hub
from places import ROOT
from serving import PATIENCE_S, serve, until

pytestmark = pytest.mark.anyio

WSCAT = ROOT / "node_modules" / ".bin" / "wscat"


async def test_s18_wscat_talks_to_the_hub() -> None:
    command = str(WSCAT) if WSCAT.exists() else shutil.which("wscat")
    assert command is not None, "wscat is missing: `make test` brings it (npm install wscat)"
    hub = Hub()

    @hub.on_connect
    def greet(client: object) -> None:
        hub.broadcast("somebody came")

    async def application(scope: object, receive: object, send: object) -> None:
        raise AssertionError("wscat asks for the socket only")

    async with serve(hub.mount(application)) as served:
        process = await asyncio.create_subprocess_exec(
            *(command, "--no-color", "--connect", served.ws(), "--execute", "hello", "--wait", "1"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        try:
            # Its standard input stays open: at the end of that, wscat ends at once.
            output = await asyncio.wait_for(process.stdout.read(), 2 * PATIENCE_S)
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        lines = output.decode()
        assert process.returncode == 0, lines
        assert "somebody came" in lines
        assert "hello" in lines
        await until(lambda: len(hub) == 0)
