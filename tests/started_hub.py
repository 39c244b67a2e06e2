"""A hub that has started, a wait with an end, and the close code a peer got."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from hubbub import Hub
from hubbub.testing import MemoryClient

PATIENCE_S = 10.0


async def started(**settings: Any) -> Hub:
    hub = Hub(**settings)
    await hub.start()
    return hub


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.001)


def code_of(peer: MemoryClient) -> int | None:
    return None if peer.closed is None else peer.closed.code
