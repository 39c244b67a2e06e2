"""Hubs over their HTTP API: what it cannot do, and what its errors say to who types a command."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from calling import KEY
from cli.ways import reached, run
from hubbub import ApiKey
from hubbub.cli import hubs_api
from hubbub.cli.hubs import Message, Note, Start
from hubbub.cli.hubs_api import ApiHubs
from serving import held_port

pytestmark = pytest.mark.anyio


class Answering(HTTPServer):
    """A web server that is no API: it answers all with a status, and keeps what it was sent."""

    status = 200
    location = ""
    body = b"<html>a page</html>"
    paths: list[str]


class _Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_POST(self) -> None:
        self.server.paths.append(self.path)
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def do_GET(self) -> None:
        self.server.paths.append(self.path)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing."""


@contextmanager
def answering() -> Iterator[Answering]:
    server = Answering(("127.0.0.1", 0), _Handler)
    server.paths = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["publish", "chat:1", "a text"], "a text is JSON in quotes"),
        (["publish", "--user", "ann", "1"], "the API cannot publish to a user"),
        (["publish", "--everybody", "1"], "the API cannot publish to everybody"),
        (["kick", "tab"], "the API knows a client by its user"),
        (["who", "news"], "presence"),
        (["publish", "a\x1b[2J", "1"], "must not hold U+001B"),
    ],
)
async def test_what_the_api_cannot_do_is_said(arguments: list[str], text: str) -> None:
    async with reached("api") as (_, options, _, _):
        done = await run(*arguments, *options)
    assert done.exit_code in (1, 2)
    assert text in done.output
    assert "Traceback" not in done.output


async def test_a_key_that_may_not_is_told_where_that_is_said() -> None:
    key = ApiKey(KEY, methods=["publish"], rooms=["chat:*"], per_second=0.5)
    async with reached("api", keys=[key]) as (_, options, _, _):
        done = await run("who", "chat:1", *options)
        assert "this key may not call presence" in done.output
        assert "where the server's keys are given" in done.output
        done = await run("publish", "chat:1", "1", *options)
        assert done.exit_code == 0
        done = await run("publish", "chat:1", "2", *options)
        assert (done.exit_code, "Too Many Requests" in done.output) == (1, True), done.output


async def test_a_wrong_address_is_told_what_to_do() -> None:
    async with reached("api") as (_, _, _, api):
        done = await run("rooms", "--api", api.removesuffix("/api") + "/wrong", "--api-key", KEY)
        assert (done.exit_code, "there is no API of Hubbub at" in done.output) == (1, True)
        done = await run("rooms", "--api", api, "--api-key", "another-key-0123456789")
        assert (done.exit_code, "does not take this key" in done.output) == (1, True)
    for url in ("localhost:8000/api", "ftp://h/api", "http://", "http://h:x/api", "http://h/a b"):
        done = await run("rooms", "--api", url, "--api-key", KEY)
        assert (done.exit_code, "--api is an address such as" in done.output) == (2, True)
    for url in ("http://me:secret@h/api", "http://h/api?api_key=secret"):
        done = await run("rooms", "--api", url, "--api-key", KEY)
        assert (done.exit_code, "secret" in done.output) == (2, False)


async def test_where_nobody_listens_is_said() -> None:
    with held_port() as port:
        done = await run("rooms", "--api", f"http://127.0.0.1:{port}/api", "--api-key", KEY)
    assert (done.exit_code, "cannot be reached: Connection refused" in done.output) == (1, True)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (200, "its answer is none of an API"),
        (302, "it redirects elsewhere"),
        (404, "it answers channels with 404"),
        (502, "cannot answer now: HTTP status 502"),
    ],
)
async def test_another_web_server_is_no_api_and_gets_the_key_once(status: int, text: str) -> None:
    with answering() as server, answering() as elsewhere:
        server.status = status
        server.location = f"http://127.0.0.1:{elsewhere.server_port}/" if status == 302 else ""
        url = f"http://127.0.0.1:{server.server_port}"
        done = await run("rooms", "--api", f"{url}/api/", "--api-key", KEY)
        assert (done.exit_code, text in done.output) == (1, True), done.output
        assert "a page" not in done.output
        assert server.paths == ["/api/channels"]
        assert elsewhere.paths == []


async def test_a_room_is_followed_whatever_happens_to_the_api(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hubs_api, "POLL_S", 0.01)
    monkeypatch.setattr(hubs_api, "LONGEST_DELAY_S", 0.05)
    async with reached("api") as (hub, _, _, api):
        await hub.publish("chat:1", '{"n": 0}')
        hubs = ApiHubs(api, KEY)
        items = hubs.follow("chat:1", Start(newest=1))
        first = await anext(items)
        assert isinstance(first, Message)
        assert first.data == '{"n": 0}'
        await hub.publish("chat:1", "a text")
        second = await anext(items)
        assert isinstance(second, Message)
        assert second.data == '"a text"'  # over the API there is nothing but JSON
        with answering() as other:
            other.status = 503
            monkeypatch.setattr(hubs, "_url", f"http://127.0.0.1:{other.server_port}")
            away = await anext(items)
            assert isinstance(away, Note)
            assert away.kind == "away"
            for number in range(12):  # of which the room keeps ten
                await hub.publish("chat:1", str(number))
            monkeypatch.setattr(hubs, "_url", api)
            found = [await anext(items) for _ in range(12)]
        kinds = [each.kind if isinstance(each, Note) else each.data for each in found]
        assert kinds == ["back", "gap", *map(str, range(2, 12))]
        await hub.publish("chat:1", "1")
        third = await anext(items)
        assert isinstance(third, Message)
        assert third.position == await hub.cursor("chat:1")
        await items.aclose()


async def test_a_key_that_is_taken_back_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs_api, "POLL_S", 0.01)
    async with reached("api") as (hub, _, _, api):
        await hub.publish("chat:1", "1")
        hubs = ApiHubs(api, KEY)
        items = hubs.follow("chat:1", Start(newest=1))
        await anext(items)
        hubs._key = "another-key-0123456789"
        with pytest.raises(hubs_api.ApiError, match="does not take this key"):
            await asyncio.wait_for(anext(items), 10)
