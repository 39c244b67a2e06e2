"""Testing: clients in memory and a clock that stands still, for the tests of applications.

It owns clients without sockets: they go through the real registry, fan-out, outbox and handlers. It must
not know a second hub, or what only Hubbub's own tests need. Applications' tests call it, and Hubbub's own.

    async def test_greeting() -> None:
        await hub.start()
        ann = connect(hub, user="ann")
        ann.send("hello")
        await settle(hub)
        assert ann.received == ["hello"]
        await hub.stop()
"""

from __future__ import annotations

from .memory import (
    FakeClock,
    MemoryClient,
    MemoryTransport,
    advance_time,
    connect,
    let_pass,
    messages,
    open_client,
    set_clock,
    settle,
)
from .room_client import RoomClient, follow

__all__ = [
    "FakeClock",
    "MemoryClient",
    "MemoryTransport",
    "RoomClient",
    "advance_time",
    "connect",
    "follow",
    "let_pass",
    "messages",
    "open_client",
    "set_clock",
    "settle",
]
