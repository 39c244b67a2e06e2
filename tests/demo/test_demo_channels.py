"""The demo's page /channels as its socket shows it: the Centrifuge protocol, what is kept and who may what.

What must not live here: the page in a browser (end_to_end/browser/test_channels).
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection

from hubbub.demo import create_app
from hubbub.demo.controllers import channels
from hubbub.demo.models.names import clean_name
from hubbub.demo.models.text import MAX_LINE_CHARACTERS
from places import ROOT, SOURCE, TESTS
from serving import PATIENCE_S, Served, serve

pytestmark = pytest.mark.anyio

PATH = "/ws/channels"
MARKUP = "<img src=x onerror=window.pwned=1>"


class Visitor:
    """A client of the protocol, command by command. What comes unasked waits in `pushes`."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.pushes: list[dict[str, Any]] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._number = 0

    async def _read(self) -> None:
        text = await asyncio.wait_for(self.socket.recv(), PATIENCE_S)
        for line in text.splitlines():
            message = json.loads(line)
            if "id" in message:
                self._answers[message["id"]] = message
            elif message:
                self.pushes.append(message["push"])

    async def do(self, command: str, **fields: Any) -> dict[str, Any]:
        """Carry out a command; return its answer: the result, or {"error": …}."""
        self._number += 1
        await self.socket.send(json.dumps({"id": self._number, command: fields}))
        while self._number not in self._answers:
            await self._read()
        answer = self._answers.pop(self._number)
        return answer if "error" in answer else answer[command]

    async def say(self, text: Any, channel: str = "general") -> dict[str, Any]:
        return await self.do("rpc", method="say", data={"channel": channel, "text": text})

    async def type(self, channel: str = "general", times: int = 1) -> None:
        """Say that one is typing, so many times in one frame."""
        message = {"type": "typing", "channel": channel}
        await self.socket.send("\n".join([json.dumps({"send": {"data": message}})] * times))

    async def next_of(self, channel: str) -> Any:
        """Wait for the next publication of a room; return its data."""
        while True:
            for push in self.pushes:
                if push.get("channel") == channel and "pub" in push:
                    self.pushes.remove(push)
                    return push["pub"]["data"]
            await self._read()

    async def told(self, kind: str) -> dict[str, Any]:
        """Wait for a message of a type to this client alone."""
        while True:
            for push in self.pushes:
                data = push.get("message", {}).get("data", {})
                if data.get("type") == kind:
                    assert isinstance(data, dict)
                    return data
            await self._read()


@asynccontextmanager
async def visit(served: Served, name: Any = "", *rooms: str) -> AsyncIterator[Visitor]:
    async with served.connect(PATH) as socket:
        visitor = Visitor(socket)
        await visitor.do("connect", data={"username": name})
        for room in rooms:
            assert "error" not in await visitor.do("subscribe", channel=room)
        yield visitor


@asynccontextmanager
async def demo(**config: Any) -> AsyncIterator[Served]:
    async with serve(create_app(), **config) as served:
        yield served


@pytest.mark.parametrize("native", [True, False])
async def test_what_is_said_is_numbered_and_kept(native: bool) -> None:
    async with demo(native=native) as served, visit(served, "ann", "talk:general") as ann:
        assert await ann.say(" one ") == {"data": {"number": 1}}
        assert await ann.say(MARKUP) == {"data": {"number": 2}}
        said = [await ann.next_of("talk:general") for _ in range(2)]
        assert [(each["number"], each["text"]) for each in said] == [(1, "one"), (2, MARKUP)]
        assert {each["name"] for each in said} == {"ann"}
        assert datetime.fromisoformat(said[0]["time"]).tzinfo is not None
        async with visit(served, "bob", "talk:general") as bob:
            page = await bob.do("history", channel="talk:general", limit=1, reverse=True)
            assert [each["data"] for each in page["publications"]] == said[1:]
            older = {"offset": page["publications"][0]["offset"], "epoch": page["epoch"]}
            page = await bob.do(
                "history", channel="talk:general", limit=9, reverse=True, since=older
            )
            assert [each["data"] for each in page["publications"]] == said[:1]


async def test_who_comes_back_gets_what_was_missed() -> None:
    async with demo() as served, visit(served, "ann", "talk:general") as ann:
        async with visit(served, "bob") as bob:
            place = await bob.do("subscribe", channel="talk:general")
        for text in ("one", "two"):
            await ann.say(text)
        async with visit(served, "bob") as bob:
            since = {"recover": True, "offset": place.get("offset", 0), "epoch": place["epoch"]}
            again = await bob.do("subscribe", channel="talk:general", **since)
            assert again["recovered"] is True
            missed = [each["data"]["text"] for each in again["publications"]]
            assert missed == ["one", "two"]


async def test_the_ticker_counts_and_goes_on_while_its_only_listener_is_away() -> None:
    async with demo() as served:
        async with visit(served, "ann") as ann:
            place = await ann.do("subscribe", channel="ticker")
            first = await ann.next_of("ticker")
            second = await ann.next_of("ticker")
            assert second["number"] == first["number"] + 1
        async with asyncio.timeout(PATIENCE_S):
            while True:  # each time as somebody who comes back
                async with visit(served, "ann") as ann:
                    since = {"offset": place.get("offset", 0), "epoch": place["epoch"]}
                    again = await ann.do("subscribe", channel="ticker", recover=True, **since)
                assert again["recovered"] is True
                numbers = [each["data"]["number"] for each in again["publications"]]
                assert numbers == [*range(first["number"], first["number"] + len(numbers))]
                if len(numbers) > 3:
                    break


async def test_nobody_publishes_by_a_command_and_there_are_no_other_rooms() -> None:
    rooms = ["talk:general", "typing:general", "ticker"]
    async with demo() as served, visit(served, "ann", *rooms) as ann:
        forged = {"number": 99, "name": "bob", "text": "forged"}
        for room in (*rooms, "talk:random", "elsewhere"):
            answer = await ann.do("publish", channel=room, data=forged)
            assert answer["error"]["code"] == 103, room
        for room in ("talk:secret", "typing:secret", "elsewhere"):
            for command in ("subscribe", "history", "presence"):
                answer = await ann.do(command, channel=room)
                assert answer["error"]["code"] == 103, (command, room)
        await ann.say("the end")
        assert (await ann.next_of("talk:general"))["text"] == "the end"
        page = await ann.do("history", channel="talk:general", limit=9)
        assert len(page["publications"]) == 1


async def test_presence_knows_users_and_tells_of_them() -> None:
    async with demo() as served, visit(served, "ann", "talk:general") as ann:
        async with visit(served, "bob", "talk:general") as bob:
            present = (await bob.do("presence", channel="talk:general"))["presence"]
            assert sorted(each["user"] for each in present.values()) == ["ann", "bob"]
        async with visit(served, "bob", "talk:random"):
            while not any("leave" in push for push in ann.pushes):
                await ann._read()
        told = [
            (kind, push[kind]["info"]["user"])
            for push in ann.pushes
            for kind in ("join", "leave")
            if kind in push
        ]
        assert told[-2:] == [("join", "bob"), ("leave", "bob")]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is too often be so for as long as a test may take."""
    monkeypatch.setattr(channels, "LINES_WITHIN_S", 600.0)
    monkeypatch.setattr(channels, "TYPINGS_WITHIN_S", 600.0)


@pytest.mark.usefixtures("patient")
async def test_who_types_is_told_to_the_others_and_kept_nowhere() -> None:
    async with (
        demo() as served,
        visit(served, "ann", "typing:general") as ann,
        visit(served, "bob", "typing:general", "talk:general") as bob,
    ):
        await bob.type()
        assert await ann.next_of("typing:general") == {"name": "bob"}
        assert (await ann.do("history", channel="typing:general", limit=1))["error"]["code"] == 108
        await bob.type(times=30)
        await bob.say("the end")
        await ann.do("subscribe", channel="talk:general")
        assert len([push for push in ann.pushes if "pub" in push]) == channels.TYPINGS - 1
        assert not any(push.get("channel") == "typing:general" for push in bob.pushes)


async def test_one_speaks_only_where_one_is() -> None:
    async with demo() as served, visit(served, "ann", "talk:random", "ticker") as ann:
        for channel in ("general", "ticker", "elsewhere", ""):
            assert (await ann.say("hello", channel))["error"]["code"] == 103, channel
        await ann.type("general")
        assert "data" in await ann.say("hello", "random")


@pytest.mark.parametrize(
    "text", ["", " \u0000\u202e ", 7, None, "x" * 2100, "x" * (MAX_LINE_CHARACTERS + 1)]
)
async def test_a_wrong_line_is_answered_and_takes_no_number(text: Any) -> None:
    async with demo() as served, visit(served, "ann", "talk:general") as ann:
        assert (await ann.say(text))["error"]["code"] >= 100
        assert await ann.say("hello") == {"data": {"number": 1}}


@pytest.mark.usefixtures("patient")
async def test_a_frame_of_many_lines_is_as_slow_as_many_frames() -> None:
    """Of what is kept and goes to everybody one may say less than the hub takes of other commands."""
    async with demo() as served, visit(served, "ann", "talk:general") as ann:
        say = {"method": "say", "data": {"channel": "general", "text": "again"}}
        commands = [json.dumps({"id": number, "rpc": say}) for number in range(100, 130)]
        await ann.socket.send("\n".join(commands))
        answer = await ann.say("and again")
        assert answer["error"] == {
            "code": 111,
            "message": "10 lines in 600 seconds are enough",
            "temporary": True,
        }
        page = await ann.do("history", channel="talk:general", limit=200)
        assert len(page["publications"]) == channels.LINES


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"username": " Ann   Lee "}, "Ann Lee"),
        ({"username": MARKUP}, clean_name(MARKUP)),
        ({"username": ""}, None),
        ({"username": 7}, None),
        ({"username": ["ann"]}, None),
        ("ann", None),
        (None, None),
    ],
)
async def test_a_name_is_taken_or_given(data: Any, name: str | None) -> None:
    async with demo() as served, served.connect(PATH) as socket:
        visitor = Visitor(socket)
        assert "client" in await visitor.do("connect", data=data)
        you = await visitor.told("you")
        assert you["name"] == name or (name is None and re.fullmatch(r"[a-z]+-[a-z]+", you["name"]))
        assert (await visitor.told("server"))["run"]


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("", "10"),
        ("?cut=2", "2"),
        ("?cut=0", "1"),
        ("?cut=999", "60"),
        ("?cut=9999", "10"),
        ("?cut=-3", "10"),
        ("?cut=x", "10"),
        ('?cut=%22"', "10"),
    ],
)
async def test_the_length_of_a_cut_can_be_chosen(query: str, seconds: str) -> None:
    async with demo() as served, httpx2.AsyncClient(trust_env=False) as http:
        page = await http.get(served.http(f"/channels{query}"))
        assert f'data-cut-s="{seconds}"' in page.text
        assert f"Cut the wire for {seconds} s<" in page.text


async def test_the_sdk_and_its_licences_are_served() -> None:
    async with demo() as served, httpx2.AsyncClient(trust_env=False) as http:
        page = await http.get(served.http("/channels"))
        assert f'<script src="{channels.SDK}" defer></script>' in page.text
        sdk = await http.get(served.http(channels.SDK))
        assert sdk.headers["content-type"].startswith("text/javascript")
        for name in ("LICENSE", "LICENSE-events"):
            place = channels.SDK.rpartition("/")[0]
            licence = await http.get(served.http(f"{place}/{name}"))
            assert "Permission is hereby granted, free of charge" in licence.text


def test_the_sdk_is_the_one_that_npm_installs() -> None:
    """Byte for byte, in the version of the Makefile; the other is a part of it."""
    folder = SOURCE / "demo" / Path(channels.SDK).relative_to("/").parent
    files = {
        "centrifuge.js": "centrifuge/dist/centrifuge.js",
        "LICENSE": "centrifuge/LICENSE",
        "LICENSE-events": "events/LICENSE",
    }
    assert {path.name for path in folder.iterdir()} == set(files)
    for ours, theirs in files.items():
        installed = ROOT / "node_modules" / theirs
        if not installed.exists():
            pytest.fail("the SDK is missing: run  make browser")
        assert (folder / ours).read_bytes() == installed.read_bytes(), ours
    version = json.loads((ROOT / "node_modules/centrifuge/package.json").read_text())["version"]
    (pinned,) = re.findall(r"^CENTRIFUGE := (.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert folder.name == f"centrifuge-{version}" == f"centrifuge-{pinned}"
    assert folder.name in (folder.parent / "README.md").read_text()


def test_the_package_names_the_licences_of_what_others_wrote() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {path for pattern in project["license-files"] for path in ROOT.glob(pattern)}
    vendor = SOURCE / "demo" / "static" / "vendor"
    assert named == {ROOT / "LICENSE", *vendor.rglob("LICENSE*")}
    assert len(named) == 3


def test_the_tally_and_the_wire_of_the_page() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.fail("node is not on the PATH; these tests need Node.js 18 or newer")
    script = str(TESTS / "end_to_end" / "js" / "channels.mjs")
    command = [node, "--test", "--test-reporter=tap", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^# pass [1-9]", done.stdout, re.M), done.stdout
    assert re.search(r"^# (skipped|todo) [1-9]", done.stdout, re.M) is None, done.stdout


async def test_no_command_harms_the_page_or_newcomers() -> None:
    lines = ["", "null", "[]", "{", "\x00", '{"id": 1}', '{"id": 2, "rpc": {"method": "say"}}']
    lines += ['{"send": {"data": "typing"}}', '{"send": {"data": {"type": "typing"}}}']
    lines += ['{"id": 3, "rpc": {"method": "say", "data": {"channel": "\\ud800", "text": "x"}}}']
    lines += ['{"id": 4, "subscribe": {"channel": "@ann"}}', '{"send": {"data": ' + "[" * 500]
    async with demo() as served, httpx2.AsyncClient(trust_env=False) as http:
        for line in lines:
            async with visit(served, "ann", "talk:general") as ann:
                await ann.socket.send(line)
                async with visit(served, "bob", "talk:general") as bob:
                    assert "data" in await bob.say("still here")
        stats = (await http.get(served.http("/stats"))).json()["channels"]
        assert stats["handler_errors"] == 0
