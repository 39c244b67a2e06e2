"""Hubs whose broker has a server: hubs that run, members, what they were told, and publishers that do not tire.

What must not live here: the servers (`valkey_server`, `nats_server`), and a broker without a hub (`broker_node`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from hubbub import BrokerUnavailable, Hub, RoomRules
from hubbub.testing import MemoryClient, connect
from started_hub import until

RULES = [
    RoomRules("log", history=1000),
    RoomRules("who", presence=True, join_leave=True, leave_grace_s=0),
]
GAP = {"type": "gap", "room": "news"}


@asynccontextmanager
async def hubs_on(
    url: str, count: int = 2, rules: Sequence[RoomRules] = RULES
) -> AsyncIterator[list[Hub]]:
    """Run hubs on one server until the block ends."""
    hubs = [Hub(broker=url, room_rules=rules) for _ in range(count)]
    for hub in hubs:
        await hub.start()
    try:
        yield hubs
    finally:
        for hub in hubs:
            await hub.stop()


async def member(hub: Hub, *rooms: str, **options: Any) -> MemoryClient:
    """Connect a client, and have it in these rooms."""
    peer = connect(hub, **options)
    for room in rooms:
        await peer.client.subscribe(room)
    return peer


def state(hub: Hub, *states: str) -> Callable[[], bool]:
    """Return whether a hub's broker is in one of these states, to be asked again and again."""
    return lambda: hub.stats()["broker_state"] in states


def texts(peer: MemoryClient) -> list[object]:
    """Return what was published, without what the hub says itself."""
    return [each for each in peer.received if '"type"' not in str(each)]


def rows(peer: MemoryClient) -> list[Any]:
    """Return what the hub itself has said to a plain client."""
    return [json.loads(str(each)) for each in peer.received if '"type"' in str(each)]


class Publishers:
    """Tasks that publish numbered texts to the room "log", one after another, until they are to end.

    Each hub has as many as are `named`. Each `key_every`-th text is its own key (0: none). What is refused is
    tried again with `tries_again`; else it is `refused`, and the next one follows after `rest_s` more.
    """

    def __init__(
        self,
        hubs: Sequence[Hub],
        *,
        named: str = "x",
        pause_s: float = 0.001,
        rest_s: float = 0.0,
        key_every: int = 0,
        tries_again: bool = False,
    ) -> None:
        self.taken: list[str] = []
        self.refused: list[str] = []
        self._pause_s, self._rest_s = pause_s, rest_s
        self._key_every, self._tries_again = key_every, tries_again
        self._is_over = False
        self._tasks = [
            asyncio.create_task(self._publish(f"{number}{name}", hub))
            for number, hub in enumerate(hubs)
            for name in named
        ]

    async def _publish(self, name: str, hub: Hub) -> None:
        number = 0
        while not self._is_over:
            number += 1
            text = f"{name}{number}"
            has_key = self._key_every and number % self._key_every == 0
            while not await self._is_taken(hub, text, text if has_key else None):
                if not self._tries_again:
                    self.refused.append(text)
                    break
            await asyncio.sleep(self._pause_s)

    async def _is_taken(self, hub: Hub, text: str, key: str | None) -> bool:
        try:
            receipt = await hub.publish("log", text, key=key)
        except BrokerUnavailable:
            await asyncio.sleep(self._rest_s)
            return False
        assert receipt.position is not None
        self.taken.append(text)
        return True

    async def take(self, more: int) -> None:
        """Wait until more than that many more texts are taken."""
        count = len(self.taken)
        await until(lambda: len(self.taken) > count + more)

    async def end(self) -> None:
        """Have each end with the text that it is at. Raises what one has failed with."""
        self._is_over = True
        await asyncio.gather(*self._tasks)
