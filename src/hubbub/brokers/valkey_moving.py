"""What waits for one shard of a cluster: as `valkey_outgoing`, with rooms that move to another shard.

What must not live here: which shard has a room (`valkey_cluster`).

A room that moves must not get its publications in another order: a script takes a number below the last for a
second try. So of each room one command is on its way at a time; what a shard refuses goes back to the front;
and what waits for a room goes to another shard as a whole, when nothing of it is on its way.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from .valkey_connections import Connections, is_moving
from .valkey_outgoing import PAUSE_S, Outgoing, ValkeyWaiting, runs_in


class MovingOutgoing(Outgoing):
    """See the module. `home` returns where publications to a channel go now, `refused` finds out anew who has
    what. Event loop only."""

    def __init__(
        self,
        connections: Connections,
        is_up: Callable[[], bool],
        comes_by: Callable[[str], object],
        home: Callable[[ValkeyWaiting], MovingOutgoing],
        refused: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(connections, is_up, comes_by, is_sharded=True)
        self._home, self._refused = home, refused
        self._rooms: Counter[str] = Counter()
        self._has_moves = self._has_refused = False

    def has(self, room: str) -> bool:
        """Tell whether publications to a room wait here, or are on their way from here."""
        return room in self._rooms

    def note_moves(self) -> None:
        """Learn that rooms have moved: what waits for those of other shards goes there before more is sent."""
        self._has_moves = True
        if not self._is_up():
            self._hand_over()

    def _hand_over(self) -> None:
        """Give away what waits for rooms that other shards have now, if nothing of it is on its way."""
        self._has_moves = False
        busy = {each.room for each in self._unanswered.values() if each.is_on_its_way}
        staying: list[ValkeyWaiting] = []
        for waiting in self._queue:
            if waiting.number not in self._unanswered:
                continue
            other = self._home(waiting)
            if other is self or waiting.room in busy:
                staying.append(waiting)
                self._has_moves |= other is not self
            else:
                self._forget(waiting)
                other.take(waiting)
        self._queue.clear()
        self._queue.extend(staying)

    def _next(self) -> list[ValkeyWaiting]:
        if self._has_moves:
            self._hand_over()
        some = super()._next()
        seen: set[str] = set()
        first: list[ValkeyWaiting] = []
        for run in runs_in(some):
            if run[0].room not in seen:
                seen.add(run[0].room)
                first += run
        taken = {waiting.number for waiting in first}
        self._put_back([waiting for waiting in some if waiting.number not in taken])
        return first

    def _put_back(self, some: list[ValkeyWaiting]) -> None:
        for waiting in some:
            waiting.is_on_its_way = False
        self._queue.extendleft(reversed(some))

    async def _write_some(self) -> None:
        await super()._write_some()
        if self._has_refused:
            self._has_refused = False
            await self._refused()
            await asyncio.sleep(PAUSE_S)
            self._has_work.set()

    def _answered_all(self, some: list[ValkeyWaiting], answers: list[Any]) -> None:
        refused = []
        for waiting, answer in zip(some, answers, strict=True):
            if is_moving(answer):
                waiting.unknown -= 1
                if waiting.number in self._unanswered:
                    refused.append(waiting)
            else:
                waiting.is_on_its_way = False
                self._answered(waiting, answer)
        self._put_back(refused)
        self._has_refused = bool(refused)

    def _add(self, waiting: ValkeyWaiting) -> None:
        super()._add(waiting)
        self._rooms[waiting.room] += 1

    def _forget(self, waiting: ValkeyWaiting) -> None:
        if waiting.number in self._unanswered:
            self._rooms[waiting.room] -= 1
            if not self._rooms[waiting.room]:
                del self._rooms[waiting.room]
        super()._forget(waiting)
