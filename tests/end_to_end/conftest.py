"""What the tests of clients in JavaScript share: who plays their scenarios."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import sync_playwright

from chromium import launch
from end_to_end.playing import Events, Player, Script, play_in_a_page, play_in_node
from serving import Served


@pytest.fixture(scope="module")
def chromium() -> Iterator[Player]:
    """Give what plays a scenario in Chromium, in a thread: Playwright has an event loop of its own."""
    with ThreadPoolExecutor(1) as thread:
        playwright = thread.submit(sync_playwright().start).result()
        browser = thread.submit(launch, playwright).result()

        async def play(script: Script, server: Served, name: str) -> Events:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                thread, play_in_a_page, browser, script, server.port, name
            )

        yield play
        thread.submit(browser.close).result()
        thread.submit(playwright.stop).result()


@pytest.fixture(params=["node", "chromium"])
def player(request: pytest.FixtureRequest) -> Player:
    """Give what plays scenarios: in Node, and in Chromium."""
    found: Player = play_in_node if request.param == "node" else request.getfixturevalue("chromium")
    return found
