"""Rooms that never had a publication, at a server: their positions stay while they have members here.

What must not live here: how long a position stays that nobody asks for (`broker`, `valkey_scripts`), who is in a
room (the hub; the broker knows which rooms are wanted).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator

from ..errors import BrokerUnavailable
from .broker import UNUSED_TTL_S

ASK_S = UNUSED_TTL_S / 4
"""How often such a room is asked for again, so that its position stays."""

AT_ONCE = 8
"""How many questions may be on their way: one after another, very many rooms would take longer than they have."""


class UnusedRooms:
    """Asks for rooms now and then, by `ask`, which notes whether each is still unused. Event loop only."""

    def __init__(self, ask: Callable[[str], Awaitable[object]]) -> None:
        self._ask = ask
        self._rooms: set[str] = set()
        self._asking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._asking = asyncio.get_running_loop().create_task(self._ask_on(), name="unused rooms")

    async def stop(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def note(self, room: str, *, is_kept: bool) -> None:
        """Learn whether a room is unused and wanted: then its position is kept."""
        if is_kept:
            self._rooms.add(room)
        else:
            self._rooms.discard(room)

    def leave(self, rooms: Iterable[str]) -> None:
        """Learn that rooms are wanted no more."""
        self._rooms.difference_update(rooms)

    async def ask_all(self) -> None:
        """Ask for each once. One whose server is away is asked for the next time."""
        rooms = iter(list(self._rooms))
        await asyncio.gather(*(self._ask_each(rooms) for _ in range(AT_ONCE)))

    async def _ask_each(self, rooms: Iterator[str]) -> None:
        for room in rooms:
            if room in self._rooms:
                with contextlib.suppress(BrokerUnavailable):
                    await self._ask(room)

    async def _ask_on(self) -> None:
        while True:
            await asyncio.sleep(ASK_S)
            await self.ask_all()
