"""Clients in JavaScript, and how their scenarios are played: in Node, and in a page of Chromium.

What must not live here: what should come of a scenario (the tests), the server (`centrifuge_app`).
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser

from hubbub.demo.controllers.channels import SDK
from places import SOURCE, TESTS
from serving import Served

JS = TESTS / "end_to_end" / "js"
IN_A_PAGE = """
async ([scenarios, name, base]) => {
  const { play } = await import(scenarios);
  return JSON.stringify(await play(name, %s, WebSocket, base));
}
"""

COMES_BACK = (3499, 4000, 4499)
STAYS_AWAY = (3500, 3999, 4500, 4999)
"""Close codes at the ends of their ranges, as `js/playing.mjs` has them too."""

Events = list[list[Any]]
"""What happened: of each event its kind, and what is told of it."""
Scenario = Callable[[str], Awaitable[Events]]
"""Plays a scenario of one client on one server."""


class Script(NamedTuple):
    """A client: its program for Node, the file of its scenarios, and how a page comes by it."""

    program: Path
    scenarios: str
    found_as: str
    bundle: Path | None = None


CENTRIFUGE = Script(
    JS / "centrifuge_node.mjs",
    "centrifuge.mjs",
    "Centrifuge",
    SOURCE / "demo" / SDK.removeprefix("/"),
)
ROOMS = Script(
    JS / "rooms_node.mjs",
    "rooms.mjs",
    '(await import("/connection/websocket/rooms.js")).Rooms',
)

Player = Callable[[Script, Served, str], Awaitable[Events]]


async def run_node(*arguments: str) -> str:
    """Run Node; return what it printed."""
    node = shutil.which("node")
    if node is None:
        pytest.fail("node is not on the PATH; these tests need Node.js 18 or newer")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(node, *arguments, stdout=pipe, stderr=pipe)
    try:
        out, errors = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, (out + errors).decode()
    return out.decode()


async def play_in_node(script: Script, server: Served, name: str) -> Events:
    """Play a scenario in Node."""
    events: Events = json.loads(
        await run_node(str(script.program), f"127.0.0.1:{server.port}", name)
    )
    return events


def play_in_a_page(browser: Browser, script: Script, port: int, name: str) -> Events:
    """Play a scenario in a page of the server's origin."""
    base = f"127.0.0.1:{port}"
    page = browser.new_page()
    try:
        page.route(
            "**/js/*.mjs", lambda route: route.fulfill(path=JS / PurePath(route.request.url).name)
        )
        page.goto(f"http://{base}/page")
        if script.bundle is not None:
            page.add_script_tag(path=script.bundle)
        arguments = [f"/js/{script.scenarios}", name, base]
        events: Events = json.loads(page.evaluate(IN_A_PAGE % script.found_as, arguments))
        return events
    finally:
        page.close()


def of(events: Events, *kinds: str) -> Events:
    """Return the events of some kinds."""
    return [event for event in events if event[0] in kinds]
