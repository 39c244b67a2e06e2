"""Take the README's picture: the demo's first page, with two people talking (`make screenshot`).

python tools/screenshot.py writes docs/images/demo.png; --out names another file, --dark takes the
dark page. Chromium is the one that CHROMIUM names, or the one on the path.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import uvicorn
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from hubbub import Protocol
from hubbub.demo import create_app

OUT = Path(__file__).resolve().parent.parent / "docs" / "images" / "demo.png"
SIZE: ViewportSize = {"width": 1200, "height": 800}
Scheme = Literal["light", "dark"]
MAX_BYTES = 300_000
# A container has no place for Chromium's sandbox; the rest keeps it from calling home.
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TALK = [
    ("ann", "Good morning! The new build is on staging."),
    ("bob", "I see it. Does it survive a restart?"),
    ("ann", "Pull the plug and watch."),
]
AFTERWARDS = [
    ("bob", "Back by itself, and nobody typed a thing."),
    ("ann", "That is all I wanted to show. Coffee?"),
]


@contextmanager
def demo() -> Iterator[str]:
    """Serve the demo from a thread; give its address."""
    config = uvicorn.Config(
        create_app(), host="127.0.0.1", port=0, ws=Protocol, log_level="warning"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                sys.exit("the demo did not start")
            thread.join(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def person(browser: Browser, url: str, name: str, scheme: Scheme) -> Page:
    """Open the first page as somebody, and wait until it is connected."""
    page = browser.new_page(viewport=SIZE, color_scheme=scheme, locale="en-GB")
    page.goto(f"{url}/websocket?username={name}")
    wait_until_connected(page)
    return page


def wait_until_connected(page: Page) -> None:
    """Wait for the lamp to be green, for as long as a reconnection may take."""
    expect(page.locator("#wire")).to_have_attribute("data-state", "open", timeout=20_000)


def say(page: Page, text: str) -> None:
    """Send a line and see it come back."""
    page.fill("#text", text)
    page.click("#send")
    expect(page.locator("#log .bubble .text").last).to_have_text(text)


def take(browser: Browser, url: str, scheme: Scheme, out: Path) -> None:
    """Let two people talk, cut one wire between, and take the picture."""
    pages = {name: person(browser, url, name, scheme) for name in ("ann", "bob")}
    for name in ("cleo", "dan"):
        person(browser, url, name, scheme)
    for name, text in TALK:
        say(pages[name], text)
    pages["bob"].click("#cut")
    wait_until_connected(pages["bob"])
    for name, text in AFTERWARDS:
        say(pages[name], text)
    shown = pages["bob"]
    expect(shown.locator("#online li")).to_have_count(4)
    expect(shown.locator("#log .bubble")).to_have_count(len(TALK) + len(AFTERWARDS))
    shown.mouse.move(0, 0)
    shown.evaluate("document.activeElement.blur()")
    out.parent.mkdir(parents=True, exist_ok=True)
    shown.screenshot(path=out)


def main() -> None:
    """Read the command line and take the picture."""
    parser = argparse.ArgumentParser(description="Take a picture of the demo.")
    parser.add_argument("--out", type=Path, default=OUT, help="the file to write (PNG)")
    parser.add_argument("--dark", action="store_true", help="take the dark page")
    arguments = parser.parse_args()
    names = ("chromium", "chromium-headless-shell")
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        sys.exit("Chromium is missing: run  make browser  or set CHROMIUM to its path")
    with demo() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=OPTIONS)
        take(browser, url, "dark" if arguments.dark else "light", arguments.out)
        browser.close()
    size = arguments.out.stat().st_size
    if size > MAX_BYTES:
        sys.exit(f"{arguments.out} has {size} bytes; a README's picture has {MAX_BYTES} at most")
    print(f"{arguments.out}: {size} bytes")


if __name__ == "__main__":
    main()
