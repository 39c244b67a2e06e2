"""Interest: which rooms this process has members in, as the broker is told.

What must not live here: who is in a room (`room`), how a broker subscribes.

A room that is joined and left all the time costs a broker nothing: it is left only `LINGER_S` after its
last member, and what one turn of the event loop asks for goes in one call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from ..brokers.broker import MOST_ROOMS_A_CALL, RoomsRefused, apart
from ..errors import BrokerUnavailable
from ..limits import printable
from ..model import EVERYBODY

if TYPE_CHECKING:
    from .core import Core

LINGER_S = 2.0
"""How long the broker is still asked for a room after its last member has left."""
MOST_LINGERING = 10_000
"""How many such rooms there may be; of more the oldest is left at once."""
RETRY_S = 1.0
"""How long after a refusal the broker is asked again for a room that has members."""


class Interest:
    """Tells a broker which rooms are wanted. Event loop only; made anew for each."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rooms: dict[str, asyncio.Future[None]] = {}
        self._asked: dict[str, None] = {}
        self._lingering: dict[str, float] = {}
        self._has_timer = False
        self._will_ask = False
        self._will_trim = False
        self._is_over = False

    def __len__(self) -> int:
        """How many rooms the broker was asked for, and not left yet."""
        return len(self._rooms)

    def start(self) -> None:
        """Be interested in what everybody gets."""
        if not self._core.broker.receives_all:
            self.add(EVERYBODY)

    def add(self, room: str) -> None:
        """Want a room: its first member has come, or is on its way. Twice is no error."""
        if self._is_over or self._lingering.pop(room, None) is not None or room in self._rooms:
            return
        self._rooms[room] = asyncio.get_running_loop().create_future()
        self._asked[room] = None
        if not self._will_ask:
            self._will_ask = True
            self._core.lifecycle.schedule(self._ask)

    def remove(self, room: str) -> None:
        """Want a room no more: its last member has gone."""
        if room not in self._rooms:
            return
        self._lingering[room] = self._core.clock()
        if len(self._lingering) > MOST_LINGERING and not self._will_trim:
            self._will_trim = True
            self._core.lifecycle.schedule(self._trim)
        self._sweep_later()

    def ready(self, room: str) -> asyncio.Future[None] | None:
        """Return what to wait for until all that is published to a room comes; None for nothing.

        It may fail with `BrokerUnavailable`, or what else the broker says.
        """
        future = self._rooms.get(room)
        if future is None or (future.done() and not future.exception()):
            return None
        return future

    def stop(self) -> None:
        """Wait for nothing any more, and ask for nothing: what is answered from now on comes too late."""
        self._is_over = True
        for future in self._rooms.values():
            if not future.done():
                future.set_exception(BrokerUnavailable("the hub has stopped"))
                future.exception()
        self._rooms.clear()
        self._asked.clear()
        self._lingering.clear()

    def _ask(self) -> None:
        self._will_ask = False
        self._trim()  # what has come and gone within the turn need not be asked for
        rooms, self._asked = list(self._asked), {}
        for start in range(0, len(rooms), MOST_ROOMS_A_CALL):
            for part in apart(self._core.broker, rooms[start : start + MOST_ROOMS_A_CALL]):
                self._subscribe(part)

    def _subscribe(self, rooms: Sequence[str]) -> None:
        waiting = [self._rooms[room] for room in rooms]
        try:
            done = self._core.broker.subscribe(rooms)
            if done is not None:
                done.add_done_callback(lambda each: self._answered(rooms, waiting, each))
        except Exception as error:
            self._failed(rooms, waiting, error)
        else:
            if done is None:
                _succeed(waiting)

    def _answered(
        self,
        rooms: Sequence[str],
        waiting: Sequence[asyncio.Future[None]],
        done: asyncio.Future[None],
    ) -> None:
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if error is None:
            _succeed(waiting)
            return
        refused = error.why if isinstance(error, RoomsRefused) else frozenset(rooms)
        pairs = list(zip(rooms, waiting, strict=True))
        _succeed([future for room, future in pairs if room not in refused])
        failed = [pair for pair in pairs if pair[0] in refused]
        self._failed([room for room, _ in failed], [future for _, future in failed], error)

    def _failed(
        self, rooms: Sequence[str], waiting: Sequence[asyncio.Future[None]], error: BaseException
    ) -> None:
        """Tell those who wait, and ask again later for the rooms that have members."""
        if self._is_over:
            return
        core = self._core
        text = "the broker does not send what is published to %d rooms (%s first): %s; asked again"
        why = printable(str(error) or type(error).__name__)
        first = printable(rooms[0] or "everybody's", 50)
        core.log.log(logging.WARNING, "interest", text, len(rooms), first, why)
        if isinstance(error, asyncio.CancelledError):
            error = BrokerUnavailable("the broker gave up")
        whys = error.why if isinstance(error, RoomsRefused) else {}
        for room, future in zip(rooms, waiting, strict=True):
            if not future.done():
                future.set_exception(whys.get(room, error))
                future.exception()
            if self._rooms.get(room) is future:
                del self._rooms[room]
                self._lingering.pop(room, None)
        core.lifecycle.schedule(lambda: self._ask_again(rooms), RETRY_S)

    def _ask_again(self, rooms: Sequence[str]) -> None:
        """Ask again for rooms with members, and leave the others: a broker that could not answer may want them still."""
        if self._is_over:
            return
        for room in rooms:
            if room == EVERYBODY or self._core.registry.room_of(room) is not None:
                self.add(room)
        if left := [room for room in rooms if room not in self._rooms]:
            self._unsubscribe(left)

    def _sweep_later(self) -> None:
        if not self._has_timer:
            self._has_timer = True
            self._core.lifecycle.schedule(self._sweep, LINGER_S)

    def _sweep(self) -> None:
        self._has_timer = False
        now = self._core.clock()
        rooms = self._rooms
        # One that the broker has not answered for stays: somebody may wait for that.
        self._leave(
            [
                room
                for room, since in self._lingering.items()
                if now - since >= LINGER_S and rooms[room].done()
            ]
        )
        if self._lingering:
            self._sweep_later()

    def _trim(self) -> None:
        self._will_trim = False
        count = len(self._lingering) - MOST_LINGERING
        if count > 0:
            self._leave(list(islice(self._lingering, count)))

    def _leave(self, rooms: Sequence[str]) -> None:
        """Leave rooms that linger; what was not asked for yet is not left either."""
        known = [room for room in rooms if room not in self._asked]
        for room in rooms:
            del self._lingering[room]
            self._asked.pop(room, None)
            future = self._rooms.pop(room)
            if not future.done():
                future.set_exception(BrokerUnavailable("the room was left"))
                future.exception()
        for start in range(0, len(known), MOST_ROOMS_A_CALL):
            self._unsubscribe(known[start : start + MOST_ROOMS_A_CALL])

    def _unsubscribe(self, rooms: Sequence[str]) -> None:
        core = self._core
        try:
            core.broker.unsubscribe(rooms)
        except Exception as error:
            text = "the broker could not leave %d rooms"
            core.log.log(logging.ERROR, "interest", text, len(rooms), error=error)


def _succeed(waiting: Sequence[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)
