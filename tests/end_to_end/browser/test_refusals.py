"""hubbub.js in Chromium: every row of refusals.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from refusing import ROWS, RefusingServer, attempts_of
from stress.ports import free_port

LIMIT = 6
"""How many attempts a refusal or a failure is looked at: more than it takes to give up."""

CLOSE_LIMIT = 2
"""The same for a close code."""

AT_ONCE = 4
"""How many URLs are tried at once. Chromium makes a page's handshake wait the longer, the more of
its others are under way, and the more of them have failed for each that succeeded: a few at a time,
those that succeed (the close codes) first, and it makes none wait."""

TRY_OUT = """
async ([tries, atOnce]) => {
  const { Hubbub } = await import("/hubbub.js");
  const tryOut = ([url, limit]) => new Promise((resolve) => {
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
  const found = {};
  const tryNext = async () => {
    for (let next; (next = tries.shift()); ) found[next[0]] = await tryOut(next);
  };
  await Promise.all(Array.from({ length: atOnce }, tryNext));
  return found;
}
"""

Found = dict[str, Any]


@pytest.fixture(scope="module")
def nobody() -> str:
    """Where nobody listens."""
    return f"ws://127.0.0.1:{free_port()}/ws"


@pytest.fixture(scope="module")
def found(browser: Browser, nobody: str) -> Iterator[Found]:
    """What came of every row, by its URL."""
    tries = [(f"/close/{row['code']}", CLOSE_LIMIT) for row in ROWS["closes"]]
    tries += [(f"/refuse/{row['status']}", LIMIT) for row in ROWS["refusals"]]
    tries += [(f"/fail/{cause}", LIMIT) for cause in causes()[1:]]
    tries += [(nobody, LIMIT), ("/once/404", LIMIT)]
    context = browser.new_context()
    with RefusingServer() as server:
        page = context.new_page()
        page.goto(f"{server.url}/page")
        yield page.evaluate(TRY_OUT, [tries, AT_ONCE])
    context.close()


def causes() -> list[str]:
    """Return the causes of failures, all of which come back; the first needs no server."""
    failures = [row["cause"] for row in ROWS["failures"] if row["comes_back"]]
    assert len(failures) == len(ROWS["failures"])
    assert failures[0] == "nobody_listens"
    return failures


@pytest.mark.parametrize("row", ROWS["refusals"], ids=lambda row: str(row["status"]))
def test_fault_11_each_refusal(found: Found, row: dict[str, Any]) -> None:
    status = row["status"]
    seen = found[f"/refuse/{status}"]
    assert seen["attempts"] == attempts_of(row, LIMIT)
    # A browser hides which redirect it was, and what its body says.
    code = 300 if row.get("redirect") else status
    reason = f"HTTP {code}" if status == 204 or row.get("redirect") else f"because {status}"
    if status == 426:
        reason = "a WebSocket would be accepted; does a proxy or a subprotocol prevent it?"
    for close in seen["closes"]:
        assert (close["code"], close["reason"], close["opened"]) == (1006, reason, False)
    stopped = seen["stopped"]
    if attempts_of(row, LIMIT) == LIMIT:
        assert stopped is None
    else:
        assert (stopped["code"], stopped["reason"]) == (code, reason)


@pytest.mark.parametrize("row", ROWS["closes"], ids=lambda row: str(row["code"]))
def test_each_close_code(found: Found, row: dict[str, Any]) -> None:
    code = row["code"]
    seen = found[f"/close/{code}"]
    assert seen["attempts"] == attempts_of(row, CLOSE_LIMIT)
    reason = f"because {code}" if row["on_the_wire"] else ""
    for close in seen["closes"]:
        assert close == {
            "code": 1006 if code == 1015 else code,
            "reason": reason,
            "opened": True,
            "comesBack": row["comes_back"],
        }
    stop = {"code": code, "reason": reason, "body": None}
    assert seen["stopped"] == (None if row["comes_back"] else stop)


def test_each_failure_and_what_was_open_once(found: Found, nobody: str) -> None:
    urls = [nobody, *(f"/fail/{cause}" for cause in causes()[1:]), "/once/404"]
    for url in urls:
        assert (found[url]["attempts"], found[url]["stopped"]) == (LIMIT, None), url
    opened = [close["opened"] for close in found["/once/404"]["closes"]]
    assert opened == [True] + [False] * (LIMIT - 1)
