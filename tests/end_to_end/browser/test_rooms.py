"""rooms.js in Chromium: a page that is cut off misses nothing, and says who it is anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from end_to_end.browser.processes import ServerProcess
from places import TESTS

APP = """
from centrifuge_app import make_app, make_hub

app = make_app(make_hub())
"""

SCENARIO = """
async () => {
  const { Rooms } = await import("/connection/websocket/rooms.js");
  const server = (...request) =>
    fetch("/do", { method: "POST", body: JSON.stringify(request) }).then((answer) => answer.json());
  const until = async (condition) => {
    for (let left = 500; !condition(); left -= 1) {
      if (!left) throw new Error(`waited in vain for ${condition}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  const got = [], subscribed = [], closes = [];
  let asked = 0;
  const getToken = async () => (asked++ ? "ann" : "ann:expired");
  const rooms = new Rooms("/connection/websocket", { getToken, minDelayMs: 10, maxDelayMs: 50 });
  rooms.on("close", ({ code, comesBack }) => closes.push([code, comesBack]));
  const room = rooms.room("chat:page");
  room.on("message", ({ data, offset }) => got.push([data, offset]));
  room.on("subscribed", ({ recovered }) => subscribed.push(recovered));
  room.subscribe();
  await room.publish(1);
  await until(() => got.length === 1);
  await server("cut", "ann");
  await server("publish", "chat:page", "2", "3");
  await until(() => got.length === 3);
  await room.publish(4);
  await until(() => got.length === 4);
  const { publications } = await room.history({ limit: 2 });
  const sum = await rooms.call("add", [1, 2]);
  const refused = await room.presence().catch((error) => error.code);
  const { position } = room;
  rooms.close();
  return {
    asked, got, subscribed, closes, sum, refused,
    history: publications.map(({ data }) => data),
    offset: position.offset,
    state: rooms.state,
  };
}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("app")
    (folder / "rooms_page.py").write_text(f"import sys\nsys.path.append({str(TESTS)!r})\n{APP}")
    with ServerProcess("rooms_page:app", folder / "server.log", folder) as server:
        yield server


def test_a_page_that_is_cut_off_misses_nothing(browser: Browser, served: ServerProcess) -> None:
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(f"{served.url}/page")
        found: dict[str, Any] = page.evaluate(SCENARIO)
    finally:
        context.close()
    assert found == {
        "asked": 2,
        "got": [[number, number] for number in range(1, 5)],
        "subscribed": [False, True],
        "closes": [[109, True], [1006, True], [1000, False]],
        "sum": {"sum": 3},
        "refused": 108,
        "history": [1, 2],
        "offset": 4,
        "state": "closed",
    }
