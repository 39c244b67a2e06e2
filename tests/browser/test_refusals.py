"""hubbub.js in Chromium: every row of refusals.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from refusing import ROWS, RefusingServer, attempts_of

from .processes import free_port
from .test_browser import browser  # noqa: F401 (a fixture)

LIMIT = 6
"""How many attempts a row is looked at: more than it takes to give up."""

TRY_OUT = """
async ([urls, limit]) => {
  const { Hubbub } = await import("/hubbub.js");
  const tryOut = (url) => new Promise((resolve) => {
    const closes = [];
    const connectTimeoutMs = url.endsWith("no_answer") ? 200 : 10_000;
    const hub = new Hubbub(url, { fixedDelayMs: 1, connectTimeoutMs });
    const end = () => {
      const { stopped } = hub;
      hub.close();
      resolve({ attempts: closes.length, closes, stopped });
    };
    hub.on("close", (close) => {
      closes.push(close);
      if (close.comesBack && closes.length >= limit) end();
    });
    hub.on("stop", () => setTimeout(end, 20)); // nothing more may come
  });
  window.found = Promise.all(urls.map(tryOut));
}
"""

Found = dict[str, Any]


@pytest.fixture(scope="module")
def server() -> Iterator[RefusingServer]:
    with RefusingServer() as server:
        yield server


def try_out(
    browser: Browser,  # noqa: F811
    server: RefusingServer,
    groups: list[list[str]],
    limit: int,
) -> Found:
    """Let hubbub.js try every URL; each group has a page of its own, and all pages run at once.

    Chromium slows down a page whose sockets have failed about ten times.
    """
    contexts = [browser.new_context() for _ in groups]
    try:
        pages = [context.new_page() for context in contexts]
        for page, urls in zip(pages, groups, strict=True):
            page.goto(f"{server.url}/page")
            page.evaluate(TRY_OUT, [urls, limit])
        found: Found = {}
        for page, urls in zip(pages, groups, strict=True):
            found |= zip(urls, page.evaluate("window.found"), strict=True)
        return found
    finally:
        for context in contexts:
            context.close()


@pytest.fixture(scope="module")
def refused(browser: Browser, server: RefusingServer) -> Found:  # noqa: F811
    """What came of every refusal."""
    urls = {f"/refuse/{row['status']}": attempts_of(row, LIMIT) for row in ROWS["refusals"]}
    short = [url for url, attempts in urls.items() if attempts == 1]
    long = [url for url, attempts in urls.items() if attempts > 1]
    groups = [short[i : i + 8] for i in range(0, len(short), 8)]
    groups += [long[i : i + 2] for i in range(0, len(long), 2)]
    return try_out(browser, server, groups, LIMIT)


@pytest.fixture(scope="module")
def closed(browser: Browser, server: RefusingServer) -> Found:  # noqa: F811
    """What came of every close code."""
    return try_out(browser, server, [[f"/close/{row['code']}" for row in ROWS["closes"]]], 2)


@pytest.mark.parametrize("row", ROWS["refusals"], ids=lambda row: str(row["status"]))
def test_fault_11_each_refusal(refused: Found, row: dict[str, Any]) -> None:
    status = row["status"]
    found = refused[f"/refuse/{status}"]
    assert found["attempts"] == attempts_of(row, LIMIT)
    # A browser hides which redirect it was, and what its body says.
    code = 300 if row.get("redirect") else status
    reason = f"HTTP {code}" if status == 204 or row.get("redirect") else f"because {status}"
    if status == 426:
        reason = "a WebSocket would be accepted; does a proxy or a subprotocol prevent it?"
    for close in found["closes"]:
        assert (close["code"], close["reason"], close["opened"]) == (1006, reason, False)
    stopped = found["stopped"]
    if attempts_of(row, LIMIT) == LIMIT:
        assert stopped is None
    else:
        assert (stopped["code"], stopped["reason"]) == (code, reason)


@pytest.mark.parametrize("row", ROWS["closes"], ids=lambda row: str(row["code"]))
def test_each_close_code(closed: Found, row: dict[str, Any]) -> None:
    code = row["code"]
    found = closed[f"/close/{code}"]
    assert found["attempts"] == attempts_of(row, 2)
    reason = f"because {code}" if row["on_the_wire"] else ""
    for close in found["closes"]:
        assert close == {
            "code": 1006 if code == 1015 else code,
            "reason": reason,
            "opened": True,
            "comesBack": row["comes_back"],
        }
    stop = {"code": code, "reason": reason, "body": None}
    assert found["stopped"] == (None if row["comes_back"] else stop)


def test_each_failure_and_what_was_open_once(
    browser: Browser,  # noqa: F811
    server: RefusingServer,
) -> None:
    nobody = f"ws://127.0.0.1:{free_port()}/ws"
    failures = [row["cause"] for row in ROWS["failures"] if row["comes_back"]]
    assert len(failures) == len(ROWS["failures"])
    assert failures[0] == "nobody_listens"
    urls = [nobody, *(f"/fail/{cause}" for cause in failures[1:]), "/once/404"]
    found = try_out(browser, server, [[url] for url in urls], LIMIT)
    for url in urls:
        assert (found[url]["attempts"], found[url]["stopped"]) == (LIMIT, None), url
    opened = [close["opened"] for close in found["/once/404"]["closes"]]
    assert opened == [True] + [False] * (LIMIT - 1)
