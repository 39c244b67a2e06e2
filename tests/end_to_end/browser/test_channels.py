"""The demo's page /channels in Chromium: the npm SDK, a wire that is cut, and the count of what that cost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from end_to_end.browser.processes import ServerProcess
from end_to_end.browser.visiting import (
    MARKUP,
    Open,
    connected,
    expect_said,
    expect_unharmed,
    say,
    shoot,
)

pytestmark = pytest.mark.timeout(120)

SERVED = """
from hubbub import RoomRules
from hubbub.demo import create_app
from hubbub.demo.controllers import channels

channels.TICK_S = 0.02
rule = channels.RULES[1]
channels.RULES[1] = RoomRules(rule.pattern, history={history}, publish="server", presence=True)
app = create_app()
"""


def serve_quick(folder: Path, history: int) -> ServerProcess:
    """A demo whose ticker is fast, and keeps so many messages."""
    (folder / "quick.py").write_text(SERVED.format(history=history))
    return ServerProcess("quick:app", folder / "server.log", folder)


def enter(page: Page, channel: str) -> None:
    page.click(f"[data-channel={channel}]")
    expect(page.locator(f"[data-channel={channel}]")).to_have_attribute("aria-pressed", "true")


def cut(page: Page) -> None:
    page.click("#cut")
    expect(page.locator("#wire")).to_have_attribute("data-state", "waiting")
    expect(page.locator("#verdict")).to_have_text("The wire is cut")


def came_late(page: Page) -> int:
    """Return how many messages the page says came late."""
    return int(page.locator("#fact-recovered").inner_text())


def test_what_a_cut_wire_has_missed_arrives_and_is_counted(
    demo: ServerProcess, visit: Open, complaints: list[str]
) -> None:
    ann = connected(visit(f"{demo.url}/channels?username=ann&cut=2"))
    bob = connected(visit(f"{demo.url}/channels?username=bob", color_scheme="dark"))
    for page in (ann, bob):
        expect(page.locator("#here li")).to_have_text(["ann", "bob"])
    say(ann, "before the cut")
    expect_said(bob, "ann", "before the cut")
    expect(ann.locator("#fact-last")).to_have_text(re.compile(r"#\d+"))
    cut(ann)
    expect(ann.locator("#state")).to_contain_text("back in")
    expect(ann.locator("#send")).to_be_disabled()
    expect(ann.locator("#fact-refused")).not_to_have_text("0")
    say(bob, "said meanwhile")
    expect_said(bob, "bob", "said meanwhile")
    expect(ann.locator("#log .bubble")).to_have_count(1)
    shoot(ann, "channels-cut")
    connected(ann)
    expect(ann.locator("#verdict")).to_have_text("0 missed, 0 twice")
    assert came_late(ann) > 3, "eight of the ticker, and what bob said"
    expect_said(ann, "bob", "said meanwhile")
    expect(ann.locator("#log .late .text")).to_have_text(["said meanwhile"])
    expect(ann.locator("#strip .late").first).to_be_visible()
    expect(ann.locator("#strip .missing")).to_have_count(0)
    say(ann, MARKUP)
    expect_said(bob, "ann", MARKUP)
    expect_unharmed(bob)
    expect(bob.locator("#log .late")).to_have_count(0)
    shoot(ann, "channels-light")
    shoot(bob, "channels-dark")
    assert complaints == []


def test_rooms_have_their_own_people_history_and_typing(
    demo: ServerProcess, visit: Open, complaints: list[str]
) -> None:
    ann = connected(visit(f"{demo.url}/channels?username=ann"))
    bob = connected(visit(f"{demo.url}/channels?username=bob"))
    for page in (ann, bob):
        enter(page, "random")
    for page in (ann, bob):
        expect(page.locator("#here li")).to_have_text(["ann", "bob"])
    bob.locator("#text").press_sequentially("well")
    expect(ann.locator("#typing")).to_have_text("bob is typing …")
    expect(bob.locator("#typing")).to_have_text("")
    bob.press("#text", "Enter")
    expect_said(ann, "bob", "well")
    expect(ann.locator("#typing")).to_have_text("")
    enter(bob, "general")
    expect(bob.locator("#log .bubble", has_text="well")).to_have_count(0)
    expect(ann.locator("#here li")).to_have_text(["ann"])
    say(ann, "bob has left")
    expect_said(ann, "ann", "bob has left")
    enter(bob, "random")
    expect_said(bob, "ann", "bob has left")
    expect(bob.locator("#log .bubble .text")).to_have_text(["well", "bob has left"])
    expect(bob.locator("#log .bubble.mine")).to_have_count(1)
    bob.reload()
    connected(bob)
    expect(bob.locator("[data-channel=random]")).to_have_attribute("aria-pressed", "true")
    expect(bob.locator("#log .bubble .text")).to_have_text(["well", "bob has left"])
    bob.fill("#username", "eve")
    bob.press("#username", "Enter")
    expect(ann.locator("#here li")).to_have_text(["ann", "eve"])
    assert complaints == []


def test_the_history_of_a_room_is_read_page_by_page(
    tmp_path: Path, visit: Open, complaints: list[str]
) -> None:
    with serve_quick(tmp_path, history=2000) as server:
        page = connected(visit(f"{server.url}/channels"))
        expect(page.locator("#fact-last")).to_have_text(re.compile(r"#\d\d\d"))
        enter(page, "ticker")
        expect(page.locator("#composer")).to_be_hidden()
        first = page.locator("#log .tick b").first
        before = int(first.inner_text().removeprefix("#"))
        page.locator("#log").hover()
        page.locator("#log").evaluate("log => log.scrollTop = 0")
        while page.locator("#older").is_visible():
            page.click("#older")
            expect(first).not_to_have_text(f"#{before}")
            before = int(first.inner_text().removeprefix("#"))
            if before == 1:
                break
        shown = page.locator("#log .tick b").all_inner_texts()
        assert shown == [f"#{number}" for number in range(1, len(shown) + 1)]
        assert len(shown) > 100
    assert complaints == []


def test_the_verdict_says_what_is_missing(tmp_path: Path, visit: Open) -> None:
    """The room keeps five messages, and fifty are published while the wire is cut."""
    with serve_quick(tmp_path, history=5) as server:
        page = connected(visit(f"{server.url}/channels?cut=1"))
        enter(page, "ticker")
        expect(page.locator("#fact-last")).to_have_text(re.compile(r"#\d+"))
        cut(page)
        connected(page)
        verdict = page.locator("#verdict")
        expect(verdict).to_have_text(re.compile(r"^\d+ missed, 0 twice$"))
        assert int(verdict.inner_text().split()[0]) > 10
        expect(page.locator("#log .note")).to_have_text("What was missed is not kept any more.")
        expect(page.locator("#strip .missing").first).to_be_visible()
        shoot(page, "channels-missed")


def test_a_wire_is_mended_before_its_time(demo: ServerProcess, visit: Open) -> None:
    page = connected(visit(f"{demo.url}/channels?cut=60"))
    expect(page.locator("#fact-last")).to_have_text(re.compile(r"#\d+"))
    cut(page)
    page.click("#again")
    connected(page)
    expect(page.locator("#verdict")).to_have_text("0 missed, 0 twice")


def test_a_server_that_restarts_wipes_nothing_and_nothing_is_counted(
    tmp_path: Path, visit: Open
) -> None:
    with ServerProcess("hubbub.demo.app:app", tmp_path / "server.log") as server:
        page = connected(visit(f"{server.url}/channels?username=ann&cut=1"))
        say(page, "before the restart")
        expect_said(page, "ann", "before the restart")
        cut(page)
        connected(page)
        expect(page.locator("#verdict")).to_have_text("0 missed, 0 twice")
        server.kill()
        expect(page.locator("#wire")).not_to_have_attribute("data-state", "open")
        server.start()
        connected(page)
        expect(page.locator("#restarted")).to_contain_text("The server restarted at about")
        expect(page.locator("#verdict")).to_have_text("The server restarted")
        say(page, "after it")
        expect_said(page, "ann", "after it")
        texts = page.locator("#log li").all_inner_texts()
        what = ["before the restart", "The server restarted.", "not kept any more", "after it"]
        assert [word in text for word, text in zip(what, texts, strict=True)] == [True] * 4, texts
        cut(page)
        connected(page)
        expect(page.locator("#verdict")).to_have_text("0 missed, 0 twice")


def test_the_page_is_used_by_keyboard(demo: ServerProcess, visit: Open) -> None:
    page = connected(visit(f"{demo.url}/channels?username=ann&cut=1"))
    page.focus("[data-channel=general]")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("[data-channel=random]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#log")).to_have_attribute("aria-live", "polite")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("[data-channel=ticker]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#log")).to_have_attribute("aria-live", "off")
    page.focus("#cut")
    page.keyboard.press("Enter")
    expect(page.locator("#verdict")).to_have_text("0 missed, 0 twice")
    assert page.locator("#verdict").get_attribute("role") == "status"
