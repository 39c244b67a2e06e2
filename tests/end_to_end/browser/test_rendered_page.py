"""A page that the server renders with a history and a cursor, in Chromium: what follows comes once, and nothing is
missing.

The page for rooms.js is that of its guide.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.request import urlopen

import pytest
from playwright.sync_api import expect

from end_to_end.browser.processes import ServerProcess
from end_to_end.browser.visiting import Open
from end_to_end.playing import CENTRIFUGE
from places import ROOT, TESTS

GUIDE = (ROOT / "docs" / "rooms-js.md").read_text("utf-8")
TEMPLATE = """<!doctype html>
<title>rendered</title>
<link rel="icon" href="data:,">
%(body)s
<ul>{%% for each in said %%}<li>{{ each.text }}</li>{%% endfor %%}</ul>
<script src="/centrifuge.js"></script>
<script type="module">%(script)s</script>
"""
APP = """
import json
import sys

sys.path.append({tests!r})

import jinja2
from starlette.responses import FileResponse, HTMLResponse
from starlette.routing import Route

from centrifuge_app import make_app, make_hub

ROOM = "chat:1"
hub = make_hub()


async def rendered(request):
    template = jinja2.Template(open(request.path_params["name"] + ".html").read())
    cursor = await hub.cursor(ROOM)
    history = await hub.history(ROOM)
    said = [json.loads(each.data) for each in history.publications]
    page = template.render(token="ann", cursor=cursor, said=said)
    await hub.publish(ROOM, {{"text": "between"}})
    return HTMLResponse(page)


app = make_app(hub)
app.router.routes += [
    Route("/rendered/{{name}}", rendered),
    Route("/centrifuge.js", lambda request: FileResponse({bundle!r})),
]
"""
NPM = """
const since = JSON.parse(document.body.dataset.cursor);
const client = new Centrifuge(`ws://${location.host}/connection/websocket`, { token: document.body.dataset.token });
const room = client.newSubscription("chat:1", { since });
room.on("publication", ({ data }) => {
  const line = document.createElement("li");
  line.textContent = data.text;
  document.querySelector("ul").append(line);
});
room.subscribe();
client.connect();
"""


def of_the_guide() -> tuple[str, str]:
    """Return what the guide says of the page's body and of its script."""
    (body,) = re.findall(r"`(<body data-token=.*?>)`", GUIDE)
    (script,) = [x for x in re.findall(r"^```js\n(.*?)^```", GUIDE, re.M | re.S) if "since" in x]
    return body, script


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("app")
    app = APP.format(tests=str(TESTS), bundle=str(CENTRIFUGE.bundle))
    (folder / "rendered_page.py").write_text(app)
    body, script = of_the_guide()
    for name, text in (("npm", NPM), ("rooms", script)):
        (folder / f"{name}.html").write_text(TEMPLATE % {"body": body, "script": text})
    with ServerProcess("rendered_page:app", folder / "server.log", folder) as server:
        yield server


@pytest.mark.parametrize("name", ["npm", "rooms"])
def test_a_page_goes_on_from_where_it_was_rendered(
    served: ServerProcess, visit: Open, complaints: list[str], name: str
) -> None:
    def publish(*texts: str) -> None:
        said = [json.dumps({"text": text}) for text in texts]
        asked = json.dumps(["publish", "chat:1", *said]).encode()
        urlopen(f"{served.url}/do", asked).close()

    publish("one", "two")
    page = visit(f"{served.url}/rendered/{name}")
    expect(page.locator("li")).to_have_text(["one", "two", "between"])
    publish("three", "four")
    expect(page.locator("li")).to_have_text(["one", "two", "between", "three", "four"])
    assert complaints == []
