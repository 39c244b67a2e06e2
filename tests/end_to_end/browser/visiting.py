"""What a person does on a page, and sees there.

Screenshots are kept in artifacts/, which git ignores.
"""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from places import ROOT

ARTIFACTS = ROOT / "artifacts"
MARKUP = "<img src=x onerror=window.pwned=1>"

Open = Callable[..., Page]
"""Opens an address, each time as another person; keywords are those of a browser's context."""


def connected(page: Page) -> Page:
    expect(page.locator("#wire")).to_have_attribute("data-state", "open")
    return page


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.click("#send")


def expect_said(page: Page, name: str, text: str) -> None:
    bubble = page.locator("#log .bubble").last
    expect(bubble.locator(".text")).to_have_text(text)
    expect(bubble.locator(".name")).to_contain_text(name)


def expect_unharmed(page: Page) -> None:
    """See that markup which came as a message became no element and ran nothing."""
    assert page.locator("main img").count() == 0
    assert page.evaluate("window.pwned") is None


def shoot(page: Page, name: str) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)
