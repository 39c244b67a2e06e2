"""Rooms with presence, for tests: their rules, members of them, and what these and the handlers are told."""

from __future__ import annotations

from typing import Any

from hubbub import Hub, RoomRules
from hubbub.testing import FakeClock, MemoryClient, advance_time, connect, set_clock, settle

RULES = [
    RoomRules("red", presence=True, join_leave=True),
    RoomRules("now", presence=True, join_leave=True, leave_grace_s=0),
    RoomRules("quiet", presence=True, leave_grace_s=0),
    RoomRules("small", presence=True, join_leave=True, join_leave_max_members=4, leave_grace_s=0),
    RoomRules("price", presence=True, join_leave=True, leave_grace_s=0, slow_policy="latest"),
    RoomRules("kept", presence=True, join_leave=True, leave_grace_s=0, history=10),
]


class Said:
    """What the handlers of a hub were told."""

    def __init__(self, hub: Hub) -> None:
        self.rows: list[tuple[str, str, str | None]] = []
        hub.on_join(lambda room, info: self.rows.append(("join", room, info.user)))
        hub.on_leave(lambda room, info: self.rows.append(("leave", room, info.user)))


async def with_presence(**settings: Any) -> Hub:
    hub = Hub(room_rules=RULES, **settings)
    set_clock(hub, FakeClock())
    await hub.start()
    return hub


async def pass_time(hub: Hub, seconds: float) -> None:
    advance_time(hub, seconds)
    await settle(hub)


async def member(hub: Hub, room: str, user: str | None = None, **options: Any) -> MemoryClient:
    peer = connect(hub, user=user, **options)
    peer.client.join(room)
    await settle(hub)
    return peer


def told(peer: MemoryClient) -> list[tuple[str, list[str | None]]]:
    """Return what a plain client was told: "joined" or "left", and which users."""
    rows = []
    for row in peer.json():
        if isinstance(row, dict) and row.get("type") == "presence":
            for kind in ("joined", "left"):
                if row[kind]:
                    rows.append((kind, [info["user"] for info in row[kind]]))
            if "paused" in row:
                rows.append(("paused" if row["paused"] else "told again", []))
    return rows


async def users(hub: Hub, room: str) -> list[str | None]:
    return sorted((info.user for info in (await hub.presence(room)).values()), key=str)
