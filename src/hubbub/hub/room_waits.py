"""RoomWaits: who waits for rooms, until all that is published to them comes here and what was missed is known.

What must not live here: how a client comes in then, and what it is answered (`joining`); what was missed
(`recovery`, `joiner`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import BrokerError, CommandError
from ..model import Position
from .joiner import Recovered
from .positions import split_names

if TYPE_CHECKING:
    from .core import Core
    from .joiner import Joiner

BROKER_TIMEOUT_S = 10.0
"""How long who joins waits for a broker that does not answer."""


class Ready:
    """What is known of a room that a client is about to enter. `names` are those under which the client was
    connected before, `info` is what a token says of it to others there (None: nothing), `joiner` is None in a room
    that keeps nothing."""

    __slots__ = ("info", "joiner", "names", "room", "since", "waiting")

    def __init__(self, room: str, since: Position | None) -> None:
        self.room: str = room
        self.since: Position | None = None
        self.names: list[str] = []
        self.info: Any = None
        self.joiner: Joiner | None = None
        self.waiting: dict[str, int] | None = None
        """Where it is counted while it waits."""
        if since is not None:
            self.since, self.names = split_names(since)


class RoomWaits:
    """Makes ready for rooms. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.reset()

    def reset(self) -> None:
        """Forget who waited in an event loop that is gone."""
        self._waiting: dict[str, int] = {}
        """How many wait for a room that the broker is asked for."""

    def is_awaited(self, room: str) -> bool:
        """Tell whether somebody waits for a room, and needs all that is published to it."""
        return room in self._waiting

    async def wait(self, rooms: Sequence[Ready]) -> None:
        """Wait until all that is published to the rooms comes here, and what was missed is known.

        `end` has to follow for each of them, unless this raises.
        """
        core = self._core
        try:
            for ready in rooms:
                self.begin(ready)
            joiners = [ready.joiner for ready in rooms if ready.joiner is not None]
            if core.broker.receives_all and not joiners:
                return
            # Looked up now: of a room that is refused later, while another is waited for, nothing is left to look up.
            arriving = [core.interest.ready(ready.room) for ready in rooms]
            if any(joiner.rule.is_stream for joiner in joiners):
                # A text of thousands of pieces takes a while.
                await core.turns.take(core.turns.most)
            async with asyncio.timeout(BROKER_TIMEOUT_S):
                for each in arriving:
                    if each is not None:
                        await asyncio.shield(each)
                await core.recovery.read_for(joiners)
        except BaseException as error:
            self.drop(rooms)
            if isinstance(error, BrokerError | TimeoutError):
                text = "try again later"
                raise CommandError("unavailable", text, temporary=True) from error
            raise

    def begin(self, ready: Ready) -> None:
        """Have what is published to a room come here, and write it down where the room remembers."""
        core, room = self._core, ready.room
        rule = core.rules.of(room)
        ready.waiting = self._waiting
        if not core.broker.receives_all:
            core.interest.add(room)
            self._waiting[room] = self._waiting.get(room, 0) + 1
        if rule is not None and rule.remembers:
            since = ready.since if rule.rules.recover else None
            ready.joiner = core.recovery.begin(room, rule, since)

    def finish(self, ready: Ready) -> Recovered | None:
        """Return what who is ready has missed until now; it enters before anything else is done."""
        joiner = ready.joiner
        if joiner is None:
            return None
        recovered = joiner.finish()
        if recovered is None:  # something was lost after it was read: so it has not got all
            position = self._core.recovery.position_of(ready.room) or joiner.position
            recovered = Recovered(position, False, (), joiner.since)
        return recovered

    def end(self, ready: Ready) -> None:
        """Wait for a room no more. Twice is no error."""
        waiting, ready.waiting = ready.waiting, None
        if waiting is None:
            return
        core, room = self._core, ready.room
        if ready.joiner is not None:
            core.recovery.end(ready.joiner)
        # Of another `waiting`, it began in a run before.
        if waiting is self._waiting and not core.broker.receives_all:
            waiting[room] -= 1
            if not waiting[room]:
                del waiting[room]
                if core.registry.room_of(room) is None:
                    core.interest.remove(room)  # it lingers, and stays if a member comes now

    def drop(self, rooms: Sequence[Ready]) -> None:
        """Wait for rooms no more. Twice is no error."""
        for ready in rooms:
            self.end(ready)
