"""The guide to the HTTP API: its applications run, its curl lines do as written, and its table of methods is the code's."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from calling import KEY, api_of, call
from hubbub import Hub, RoomRules
from hubbub.asgi import api_types
from hubbub.asgi.api_methods import METHODS
from pages import blocks, named, run
from places import ROOT
from serving import PATIENCE_S, Served, serve, take, until

pytestmark = pytest.mark.anyio

PAGE = "docs/guides/http-api.md"
GUIDE = ROOT / PAGE
CRON_KEY = "another-key-0123456789"
LINES = [
    line
    for block in blocks(GUIDE)
    if block.info == ["sh"]
    for line in block.text.splitlines()
    if line.startswith("curl ")
]

_MESSAGE = {"b64data", "skip_history", "idempotency_key", "delta"}
_MESSAGE |= {"tags", "version", "version_epoch"}
REQUESTS: dict[str, tuple[set[str], set[str]]] = {
    "publish": ({"channel", "data"}, _MESSAGE),
    "broadcast": ({"channels", "data"}, _MESSAGE),
    "subscribe": (
        {"user", "channel"},
        {"client", "session", "data", "b64data", "recover_since", "expire_at"}
        | {"info", "b64info", "override"},
    ),
    "unsubscribe": ({"user", "channel"}, {"client", "session"}),
    "disconnect": ({"user"}, {"client", "session", "whitelist", "disconnect"}),
    "refresh": ({"user"}, {"client", "session", "expired", "expire_at", "info"}),
    "presence": ({"channel"}, set()),
    "presence_stats": ({"channel"}, set()),
    "history": ({"channel"}, {"limit", "since", "reverse"}),
    "history_remove": ({"channel"}, set()),
    "channels": (set(), {"pattern"}),
    "info": (set(), set()),
    "batch": ({"commands"}, {"parallel"}),
}
"""What each request has to have in Centrifugo's form, and what it may have."""
VALUES: dict[str, Any] = {
    "channel": "a",
    "channels": ["a"],
    "user": "ann",
    "data": 1,
    "b64data": "AAAA",
    "client": "tab",
    "session": "one",
    "commands": [],
    "whitelist": ["tab"],
    "pattern": "*",
    "skip_history": True,
    "delta": True,
    "reverse": True,
    "parallel": True,
    "expired": True,
    "idempotency_key": "k",
    "limit": 1,
    "expire_at": 4_000_000_000,
    "recover_since": {"offset": 0, "epoch": ""},
    "since": {"offset": 0, "epoch": ""},
    "disconnect": {"code": 4000, "reason": "moved"},
    "tags": {"a": "b"},
    "version": 1,
    "version_epoch": "x",
    "info": {"a": 1},
    "b64info": "AAAA",
    "override": {"presence": {"value": True}},
}
RESULTS: dict[str, set[str]] = {
    "publish": {"offset", "epoch"},
    "broadcast": {"responses"},
    "presence": {"presence"},
    "presence_stats": {"num_clients", "num_users"},
    "history": {"publications", "offset", "epoch"},
    "channels": {"channels"},
    "info": {"nodes"},
    "batch": {"replies"},
    "subscribe": set(),
    "unsubscribe": set(),
    "disconnect": set(),
    "refresh": set(),
    "history_remove": set(),
}
"""What each result has in Centrifugo's form."""
PARTS: dict[str, tuple[Any, set[str]]] = {
    "history": (api_types.Publication, {"data", "info", "offset", "tags"}),
    "info": (
        api_types.Node,
        {"uid", "name", "version", "num_clients", "num_users", "num_channels", "num_subs"}
        | {"uptime", "metrics", "process"},
    ),
    "channels": (api_types.ChannelInfo, {"num_clients"}),
    "presence": (api_types.ClientInfo, {"user", "client", "conn_info", "chan_info"}),
}
"""What is in the lists and maps of some."""


@asynccontextmanager
async def shown_app(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Any, Served]]:
    """Serve the application of the guide; give its module and the server."""
    monkeypatch.setenv("API_KEY", KEY)
    monkeypatch.setenv("CRON_API_KEY", CRON_KEY)
    module = load("docs/guides/http-api.md", "api_app.py")
    async with serve(module.app) as server:
        yield module, server


async def shell(line: str, server: Served, folder: Path) -> Any:
    """Run a line as it stands, in which localhost:8000 is the server; return what it printed, as JSON."""
    config = f'connect-to = "localhost:8000:127.0.0.1:{server.port}"\nsilent\nshow-error\n'
    (folder / ".curlrc").write_text(config, encoding="utf-8")
    environ = {**os.environ, "API_KEY": KEY, "CURL_HOME": str(folder), "no_proxy": "*"}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_shell(line, stdout=pipe, stderr=pipe, env=environ)
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert (process.returncode, err) == (0, b""), err.decode()
    return json.loads(out)


async def test_every_line_of_curl_does_as_written(
    load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called: list[str] = []
    async with shown_app(load, monkeypatch) as (module, server), server.connect() as member:
        await until(lambda: len(module.hub) == 1)
        for line in LINES:
            found = await shell(line, server, tmp_path)
            called.append(line.rpartition("/")[2])
            if called[-1] == "openapi.json":
                assert set(found["paths"]) == {f"/{name}" for name in METHODS}
            elif called[-1] == "batch":
                assert [list(reply) for reply in found["replies"]] == [["info"], ["channels"]]
            else:
                assert set(found) == {"result"}, line
        assert await take(member, 3) == ['{"text": "one to nil"}', '{"n": 1}', '{"n": 2}']
    assert set(called) == {*METHODS, "openapi.json"}


async def test_the_key_of_cron_may_publish_news_and_nothing_else(
    load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    publish, *_ = LINES
    async with shown_app(load, monkeypatch) as (_, server):
        for line, code in (
            (publish, None),
            (publish.replace("news:sport", "chat"), 103),
            (publish.replace("api/publish", "api/info"), 103),
        ):
            found = await shell(line.replace("$API_KEY", CRON_KEY), server, tmp_path)
            assert found.get("error", {}).get("code") == code


async def test_the_client_of_the_guide(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = load("docs/guides/http-api.md", "cent_client.py")
    async with shown_app(load, monkeypatch) as (_, server):
        for offset in (1, 2):
            url = server.http("/api")
            assert await asyncio.to_thread(client.announce, url, KEY) == offset


DJANGO_CHECK = """
from django_app import app
from starlette.testclient import TestClient

with TestClient(app) as client:
    assert client.get("/page").text == "a page"
    headers = {"X-API-Key": "change-me-change-me"}
    found = client.post("/api/publish", headers=headers, json={"channel": "a", "data": 1})
    assert found.json() == {"result": {}}
"""


def test_django(tmp_path: Path) -> None:
    """In a process of its own: Django is configured once in a process."""
    (tmp_path / "django_app.py").write_text(named(PAGE)["django_app.py"], encoding="utf-8")
    assert run(["-c", DJANGO_CHECK], tmp_path) == ""


def test_the_file_of_keys_that_the_guide_shows_is_one(tmp_path: Path) -> None:
    from hubbub.asgi.api_keys import read_keys

    [shown] = [block.text for block in blocks(GUIDE) if block.text.startswith("# everything")]
    path = tmp_path / "keys"
    path.write_text(shown, encoding="utf-8")
    assert [key.name for key in read_keys(str(path))] == ["", "cron"]


def test_the_tables_have_all_methods_and_their_fields() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (.*) \|$", text, re.MULTILINE)
    shown = {name: cells for names, cells in rows for name in re.findall(r"`(\w+)`", names)}
    assert set(METHODS) <= set(shown)
    for name, method in METHODS.items():
        words = set(re.findall(r"`(\w+)`", shown[name].rpartition(" | ")[0]))
        assert words <= set(method.request.__struct_fields__), name


# What is not built


def not_built(heading: str) -> dict[str, set[str]]:
    """Return a table of the last section: for each method (the first words of a row) the fields in its second cell."""
    _, _, section = GUIDE.read_text(encoding="utf-8").partition("## What is not built")
    _, _, table = section.partition(heading)
    rows = re.findall(r"^\| (`.*) \| (.*) \|$", table.split("\n\n")[0], re.MULTILINE)
    found: dict[str, set[str]] = {}
    for methods, fields in rows:
        names, *_ = methods.partition(", in each")
        for name in re.findall(r"`(\w+)`", names):
            found[name] = set(re.findall(r"`(\w+)`", fields))
    return found


async def test_what_the_guide_says_is_not_available_is_refused_and_nothing_else_is() -> None:
    hub = Hub(room_rules=[RoomRules("a", history=10, presence=True)])
    await hub.start()
    app = api_of(hub)
    shown = not_built("| request |")
    for method, request in REQUESTS.items():
        asked: dict[str, Any] = {name: VALUES[name] for name in request[0]}
        for field in request[1]:
            found = await call(app, method, **{**asked, field: VALUES[field]})
            error = {"error": {"code": 108, "message": f"not available: {field}"}}
            is_built = field not in shown.get(method, ())
            assert "error" not in found if is_built else found == error, (method, field, found)
    assert set(shown) <= set(REQUESTS)
    await hub.stop()


def test_requests_have_all_fields_of_centrifugos_form() -> None:
    for method, (needed, more) in REQUESTS.items():
        assert {*needed, *more} == set(METHODS[method].request.__struct_fields__), method


def test_results_have_all_of_centrifugos_form_but_what_the_guide_says() -> None:
    missing = not_built("| result |")
    assert set(RESULTS) == set(METHODS)
    for method, fields in RESULTS.items():
        assert set(METHODS[method].result.__struct_fields__) == fields, method
    for method, (struct, fields) in PARTS.items():
        assert fields - set(struct.__struct_fields__) == missing.pop(method, set()), method
        assert set(struct.__struct_fields__) <= fields, method
    assert missing == {}
