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

from calling import KEY
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
