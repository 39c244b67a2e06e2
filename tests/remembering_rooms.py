"""Rooms that remember, for tests: their rules, and what is published there and comes."""

from __future__ import annotations

from typing import Any

from hubbub import Client, Hub, Position, RoomRules
from hubbub.testing import MemoryClient
from recovering import Recovering
from started_hub import started

RULES = [
    RoomRules("state:*", history=1, cache=True),
    RoomRules("quiet:*", history=5, recover=False),
    RoomRules("members:*", publish="members"),
    RoomRules("server:*", publish="server", history=3),
    RoomRules("red", history=5, history_ttl_s=60.0),
]


async def remembering(**settings: Any) -> Hub:
    return await started(room_rules=RULES, **settings)


async def publish(
    hub: Hub, *texts: str, room: str = "red", exclude: Client | None = None
) -> Position:
    for text in texts:
        receipt = await hub.publish(room, text, exclude=exclude)
    assert receipt.position is not None
    return receipt.position


def said(peer: MemoryClient) -> list[object]:
    """Return what a plain client got, but for the mark that something may be lost of what everybody gets."""
    return [each for each in peer.received if each != '{"type":"gap","room":""}']


def texts(client: Recovering) -> list[str]:
    return [text for text, _ in client.got]
