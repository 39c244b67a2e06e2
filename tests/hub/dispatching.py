"""What the tests of the dispatcher share: a hub that runs, and messages with a type."""

from __future__ import annotations

from typing import Any

import msgspec

from hubbub import Hub
from hubbub.testing import MemoryClient


class Move(msgspec.Struct):
    x: int


async def started(hub: Hub | None = None, **settings: Any) -> Hub:
    hub = hub or Hub(**settings)
    await hub.start()
    return hub


def code_of(peer: MemoryClient) -> int | None:
    return None if peer.closed is None else peer.closed.code
