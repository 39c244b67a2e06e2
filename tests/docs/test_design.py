"""The five flows of the design: each hop exists, and is taken where the page says."""

from __future__ import annotations

import ast
import asyncio
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from hubbub import Client, Hub
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.hub.lifecycle import State
from places import ROOT, SOURCE
from serving import nothing, serve, until

pytestmark = pytest.mark.anyio

DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
HOP = re.compile(r"`((?:[a-z]\w*\.)+\w+)`")
ROOMS = {path.name for path in SOURCE.iterdir() if path.is_dir()}
Hops = list[str]


def sections() -> dict[str, str]:
    """Return the parts of the design below headings of the third level, by heading."""
    found = re.findall(r"^### (.+)\n((?:(?!##).*\n)*)", DESIGN, re.MULTILINE)
    return dict(found)


def main_line(title: str) -> Hops:
    """Return the hops in the numbered items of a flow, in order."""
    items = re.findall(r"^\d+\. (?:.*\n)(?: {3}.*\n)*", sections()[title], re.MULTILINE)
    assert len(items) > 5, title
    return [hop for item in items for hop in HOP.findall(item) if is_ours(hop)]


def is_ours(name: str) -> bool:
    """Whether a name in code is a room, a module and something in it."""
    return name.count(".") > 1 and name.partition(".")[0] in ROOMS


def names_in(module: str) -> set[str]:
    """Return what a module defines: its functions and classes, those in classes by both names."""
    path = SOURCE.joinpath(*module.split(".")).with_suffix(".py")
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_everything_of_the_code_that_the_design_names_is_there() -> None:
    named = [name for name in HOP.findall(DESIGN) if is_ours(name)]
    assert len(named) > 100
    missing = []
    for name in named:
        module, _, what = name.rpartition(".")
        if what not in names_in(module):
            missing.append(name)
    assert missing == []


@contextmanager
def traced() -> Iterator[Hops]:
    """Gather the functions of ours that are called in this thread, as the design writes them."""
    calls: Hops = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            module = str(frame.f_globals.get("__name__", ""))
            if module.startswith("hubbub."):
                calls.append(f"{module.removeprefix('hubbub.')}.{frame.f_code.co_name}")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def assert_taken(hops: Hops, calls: Hops) -> None:
    """The hops are among the calls, in this order."""
    position = 0
    for hop in hops:
        try:
            position = calls.index(hop, position) + 1
        except ValueError:
            where = " before the hop above it" if hop in calls else ""
            pytest.fail(f"{hop} was not called{where}")


async def test_the_handshake_takes_its_hops() -> None:
    hub = Hub()
    hub.authenticate(lambda handshake: "ann")
    with traced() as calls:
        async with serve(hub.mount(nothing)) as served, served.connect():
            await until(lambda: hub.client_count == 1)
    assert_taken(main_line("From the handshake to the client"), calls)


async def test_a_message_takes_its_hops() -> None:
    hub = Hub()
    heard: list[dict[str, Any]] = []

    @hub.on("say")
    def say(client: Client, message: dict[str, Any]) -> None:
        heard.append(message)

    async with serve(hub.mount(nothing)) as served, served.connect() as socket:
        with traced() as calls:
            await socket.send('{"type": "say"}')
            await until(lambda: bool(heard))
    assert_taken(main_line("From a message to its handler"), calls)


async def test_a_publication_takes_its_hops() -> None:
    hub = Hub()
    hub.on_connect(lambda client: client.join("red"))
    async with serve(hub.mount(nothing)) as served, served.connect() as socket:
        await until(lambda: hub.rooms == {"red": 1})
        with traced() as calls:
            hub.room("red").broadcast("hello")
            assert await socket.recv() == "hello"
    assert_taken(main_line("From a publication to the sockets"), calls)


async def test_a_slow_client_takes_its_hops() -> None:
    hub = Hub(outbox_max_entries=1, write_timeout_s=1.0)
    async with serve(hub.mount(nothing)) as served, served.connect(max_queue=1, close_timeout=0.1):
        await until(lambda: hub.client_count == 1)
        session = session_of(next(iter(hub)))
        with traced() as calls:
            while session.close is None:  # the peer's queue, its socket, ours: then the outbox
                hub.broadcast(bytes(64 * 1024))
                await asyncio.sleep(0)
            transports = core_of(hub).registry.transports
            await until(lambda: not transports)
    assert_taken(main_line("From a slow client to its close"), calls)


async def test_the_shutdown_takes_its_hops() -> None:
    hub = Hub()
    with traced() as calls:
        async with serve(hub) as served, served.connect() as socket:
            await until(lambda: hub.client_count == 1)
            served.stop()
            with pytest.raises(ConnectionClosed):
                await socket.recv()
    assert_taken(main_line("The shutdown"), calls)


def test_the_states_of_a_hub_are_those_of_the_code() -> None:
    table = sections()["The states of a hub"]
    rows = re.findall(r"^\| (\w+) \|", table, re.MULTILINE)
    assert rows == ["state", *(state.value for state in State)]
