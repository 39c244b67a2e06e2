"""The demo with several workers: pages say which one they are connected to, and all of them are one demo."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from commands import serving
from end_to_end.browser.visiting import Open, connected, expect_said, say, shoot

MOST_VISITS = 60
"""So often a page is opened to meet the other worker: the kernel chooses."""


@pytest.fixture(scope="module")
def workers() -> Iterator[str]:
    with serving("demo", "--workers", "2") as (server, address):
        server.wait_for("2 workers share a local server", "err")
        yield f"http://{address.partition('/')[0]}"


def place_of(page: Page) -> str:
    place = connected(page).locator("#place")
    expect(place).to_have_text(re.compile(r"^worker \d+, process \d+$"))
    return place.inner_text()


def at_both(visit: Open, url: str) -> tuple[Page, Page]:
    """Open pages until two are connected to two workers."""
    first = visit(url)
    for _ in range(MOST_VISITS):
        other = visit(url)
        if place_of(other) != place_of(first):
            return first, other
        other.close()
    raise AssertionError("all came to one worker")


def test_what_is_said_crosses_and_the_rosters_are_of_all(
    workers: str, visit: Open, complaints: list[str]
) -> None:
    ann, bob = at_both(visit, f"{workers}/websocket")
    for page, text in ((ann, "from ann"), (bob, "from bob")):
        say(page, text)
        for each in (ann, bob):
            expect(each.locator("#log .bubble .text").last).to_have_text(text)
    for each in (ann, bob):
        expect(each.locator("#online-count")).to_have_text("2")
    assert complaints == []


def test_the_chat_is_one_conversation(workers: str, visit: Open, complaints: list[str]) -> None:
    ann, bob = at_both(visit, f"{workers}/chat")
    for number in range(3):
        for page in (ann, bob):
            name = page.input_value("#username")
            say(page, f"line {number} of {name}")
            for each in (ann, bob):
                expect_said(each, name, f"line {number} of {name}")
    for each in (ann, bob):
        people = each.locator("#here")
        for page in (ann, bob):
            expect(people).to_contain_text(page.input_value("#username"))
    shoot(bob, "demo-workers-chat")
    ann.click("#cut")
    expect(ann.locator("#wire")).to_have_attribute("data-state", "waiting")
    connected(ann)
    expect(ann.locator("#restarted")).to_be_hidden()
    assert complaints == []


def test_the_monitor_shows_all_workers(workers: str, visit: Open, complaints: list[str]) -> None:
    page = connected(visit(f"{workers}/monitor"))
    rows = page.locator("#workers tr")
    expect(rows).to_have_count(2)
    process = place_of(page).rpartition(" ")[2]
    expect(page.locator("#workers tr.you")).to_have_attribute("data-process", process)
    expect(page.locator("#worker-count")).to_have_text("2")
    expect(page.locator('[data-meter="cpu"] .reading')).to_contain_text("%")
    shoot(page, "demo-workers-monitor")
    assert complaints == []


def test_players_of_both_workers_see_one_another(workers: str, visit: Open) -> None:
    ann, bob = at_both(visit, f"{workers}/game")
    for each in (ann, bob):
        expect(each.locator("#player-count")).to_have_text("2")


def test_a_channel_counts_what_both_workers_say(workers: str, visit: Open) -> None:
    ann, bob = at_both(visit, f"{workers}/channels?cut=1")
    for page in (ann, bob):
        page.locator("[data-room^='talk:']").first.click()
    for page, text in ((ann, "from ann"), (bob, "from bob"), (ann, "again")):
        say(page, text)
        for each in (ann, bob):
            expect(each.locator("main")).to_contain_text(text)
