"""The page that compares the verbs: each exists, waits and returns as its table says, and keeps what it says.

What must not live here: how the verbs work (tests/hub), and links (test_pages).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from hubbub import Client, CommandError, Hub, Receipt, RoomRules
from hubbub.hub.room import Room, User
from hubbub.testing import connect, settle
from places import ROOT

pytestmark = pytest.mark.anyio

PAGE = ROOT / "docs" / "verbs.md"
OWNERS: dict[str, type] = {
    "hub": Hub,
    "hub.room(name)": Room,
    "hub.to_user(name)": User,
    "client": Client,
}


def rows() -> list[list[str]]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("| `")]


def test_each_verb_is_awaited_where_the_page_awaits_it() -> None:
    assert len(rows()) == 8
    for verb, *_ in rows():
        found = re.fullmatch(r"`(await )?(.+)\.(\w+)\([\w, =…]*\)`", verb)
        assert found is not None, verb
        function: Callable[..., Any] = getattr(OWNERS[found[2]], found[3])
        assert inspect.iscoroutinefunction(function) is bool(found[1]), verb


async def test_what_each_verb_returns_and_keeps() -> None:
    hub = Hub(room_rules=[RoomRules("kept", history=10)])
    async with hub.lifespan():
        ann = connect(hub, user="ann")
        ann.client.join("kept")
        assert isinstance(await hub.publish("kept", "1", key="one"), Receipt)
        assert (await hub.room("kept").publish("1", key="one")).is_repeated
        silent: list[object] = [
            hub.room("kept").broadcast("2"),  # type: ignore[func-returns-value]
            hub.broadcast("3"),  # type: ignore[func-returns-value]
            hub.to_user("ann").send("4"),  # type: ignore[func-returns-value]
        ]
        assert silent == [None, None, None]
        assert ann.client.send("5") is True
        await settle(hub)
        assert ann.received == ["1", "2", "3", "4", "5"]
        kept = await hub.history("kept")
        assert [each.data for each in kept.publications] == [b"1", b"2"]
        ann.close()
        await settle(hub)
        assert ann.client.send("6") is False


async def test_join_asks_nobody_and_subscribe_asks_the_authorize_handler() -> None:
    hub = Hub(room_rules=[RoomRules("kept", history=10)])
    asked: list[tuple[str, str]] = []

    @hub.authorize
    def may(client: Client, action: str, room: str) -> bool:
        asked.append((action, room))
        return room == "kept"

    async with hub.lifespan():
        ann, bob = connect(hub), connect(hub)
        begin = await hub.cursor("kept")
        await hub.publish("kept", "before")
        ann.client.join("closed")
        assert asked == []
        with pytest.raises(CommandError, match="forbidden"):
            await ann.client.subscribe("closed to you")
        answer = await bob.client.subscribe("kept", since=begin)
        assert answer.recovered
        await settle(hub)
        assert bob.received == ["before"]
        assert asked == [("join", "closed to you"), ("join", "kept")]


async def test_what_is_wrong_with_the_call_is_raised_by_each_verb() -> None:
    hub = Hub()
    async with hub.lifespan():
        ann = connect(hub)
        for send in (hub.broadcast, hub.room("a").broadcast, hub.to_user("ann").send):
            with pytest.raises(TypeError, match="JSON"):
                send(object())
        with pytest.raises(TypeError, match="JSON"):
            ann.client.send(object())
        with pytest.raises(TypeError, match="JSON"):
            await hub.publish("a", object())
        with pytest.raises(CommandError, match="bad_room"):
            await hub.publish("@a", "x")
