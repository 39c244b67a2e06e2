"""examples/tokens in Chromium: a page that is reloaded in the middle of a text has all of it, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from end_to_end.browser.processes import ServerProcess
from end_to_end.browser.visiting import Open
from places import ROOT

STOPS = (50, 150)
WORDS = [f"word{number}" for number in range(300)]
APP = f"""
import asyncio
import sys

sys.path.append({str(ROOT / "examples" / "tokens")!r})

import tokens_app
from tokens_app import app

may_go_on = asyncio.Semaphore(0)


@app.post("/go")
async def go() -> None:
    may_go_on.release()


async def generated():
    for number in range({len(WORDS)}):
        if number in {STOPS}:
            await may_go_on.acquire()
        await asyncio.sleep(0.002)
        yield f"word{{number}} "


tokens_app.generated = generated
"""
"""The example, but for its model: words have numbers, and it stops twice until it is told to go on."""


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("app")
    (folder / "numbered_tokens.py").write_text(APP)
    with ServerProcess("numbered_tokens:app", folder / "server.log", folder) as server:
        yield server


def expect_words(page: Page, count: int) -> None:
    """See that the text is the first words, each once and in order."""
    expect(page.locator("#text")).to_have_text(" ".join(WORDS[:count]), timeout=30_000)


def test_a_reload_in_the_middle_leaves_nothing_out_and_brings_nothing_twice(
    served: ServerProcess, visit: Open, complaints: list[str]
) -> None:
    page = visit(served.url)
    page.click("#ask")
    page.wait_for_url("**/?answer=*")
    expect_words(page, STOPS[0])
    other = visit(page.url)
    page.reload()
    expect_words(page, STOPS[0])
    expect_words(other, STOPS[0])
    page.click("#cut")
    page.request.post(f"{served.url}/go")
    page.reload()
    other.click("#cut")
    for each in (page, other):
        expect_words(each, STOPS[1])
    page.request.post(f"{served.url}/go")
    page.reload()
    for each in (page, other):
        expect(each.locator("#state")).to_have_text("the end", timeout=30_000)
        expect_words(each, len(WORDS))
    page.reload()
    expect(page.locator("#state")).to_have_text("the end")
    expect_words(page, len(WORDS))
    assert complaints == []
