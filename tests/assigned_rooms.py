"""Clients that come into rooms of their identity, as an SDK does: for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from hubbub import Hub, Identity, Position, RoomRules
from hubbub.testing import MemoryClient, connect
from started_hub import until

RULES = [
    RoomRules("log:*", history=1000),
    RoomRules("state:*", history=1, cache=True),
    RoomRules("text:*", stream=True, history=100),
    RoomRules("quiet:*", history=5, recover=False),
]


def assigning(hub: Hub, *rooms: str) -> None:
    """Have a hub put everybody into rooms."""
    hub.authenticate(lambda handshake: Identity(user="ann", rooms=rooms))


async def come(hub: Hub, positions: dict[str, Position] | None = None) -> MemoryClient:
    """Connect with the positions of rooms that the server gave, as an SDK does."""
    peer = connect(hub, dialect="centrifuge")
    subs = {
        room: {"recover": True, "offset": place.offset, "epoch": place.epoch}
        for room, place in (positions or {}).items()
    }
    peer.send(msgspec.json.encode({"id": 1, "connect": {"subs": subs}}).decode())
    await until(lambda: bool(peer.received))
    return peer


def lines(peer: MemoryClient) -> list[Any]:
    return [msgspec.json.decode(line) for each in peer.received for line in str(each).split("\n")]


def data_of(peer: MemoryClient, room: str) -> list[Any]:
    """Return all that a client got of a room, with its connect answer or after it."""
    found = []
    for line in lines(peer):
        given = line.get("connect", {}).get("subs", {}).get(room, {})
        found += [each["data"] for each in given.get("publications", ())]
        push = line.get("push", {})
        if push.get("channel") == room and "pub" in push:
            found.append(push["pub"]["data"])
    return found


def assert_recovered(peer: MemoryClient, rooms: Sequence[str]) -> None:
    given = lines(peer)[0]["connect"]["subs"]
    assert [given[room]["recovered"] for room in rooms] == [True] * len(rooms)


def take(peer: MemoryClient, got: dict[str, list[int]], positions: dict[str, Position]) -> None:
    """Take what a client got as an SDK does, and move its positions on."""
    given = lines(peer)[0]["connect"]["subs"]
    for room, texts in got.items():
        new = data_of(peer, room)
        texts += new
        start = given[room]
        positions[room] = Position(start["offset"] + len(new), start["epoch"])
