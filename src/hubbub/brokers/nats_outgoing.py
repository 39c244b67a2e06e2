"""What is published and has no receipt yet: it waits, leaves, and is tried again or refused.

What must not live here: how a run is stored (`nats_history`), how the connection comes back (`nats_feed`).

What one turn of the event loop publishes leaves at its end, in the order of the calls, what it has for one room as one
message, a *run*. What is neither kept nor has a key is taken when the server has answered a ping behind it; what comes
meanwhile leaves together after that. All else is
stored, one run of a room at a time, while what comes after it waits in the room's *lane*: so the order of a room stays.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice, takewhile

from ..errors import BrokerError, BrokerUnavailable
from ..model import Position, Receipt
from .broker import Keep
from .envelope import pack, packed_size
from .nats_connection import NoRight, Rights, unavailable
from .nats_feed import NatsFeed
from .nats_history import NatsHistory, Run
from .nats_names import NatsNames
from .nats_stream import NoAnswer, NotNow
from .reconnecting import AWAY
from .unanswered import RUN_BYTES, Unanswered, Waiting, runs_of

RUN_ENTRIES = 500
RUN = b"r\n"
"""What stands before a run that is not stored."""
HEADERS_BYTES = 1024
"""How many of the bytes that a message may have are left for what is beside a run that is stored."""
PAUSE_S = 0.1
"""How long after a try without success the next is made."""


class NatsWaiting(Waiting):
    """A publication without a receipt, and how it is kept."""

    __slots__ = ("envelope", "keep", "key", "why")

    def __init__(
        self, number: int, room: str, envelope: bytes, keep: Keep | None, key: str | None
    ) -> None:
        super().__init__(number, room, len(envelope))
        self.envelope: bytes = envelope
        self.keep: Keep | None = keep
        self.key: str | None = key
        self.why: str = AWAY
        """Why it waits."""

    @property
    def is_plain(self) -> bool:
        """Whether it is neither kept nor has a key."""
        return self.keep is None and self.key is None

    def goes_with(self, other: NatsWaiting) -> bool:
        """Tell whether it and another may be in one run."""
        return self.keep == other.keep and self.key is None and other.key is None


class NatsOutgoing(Unanswered[NatsWaiting]):
    """See the module. `history` is None where the server stores nothing. Event loop only."""

    def __init__(
        self, feed: NatsFeed, names: NatsNames, history: Callable[[], NatsHistory]
    ) -> None:
        super().__init__()
        self._feed, self._names, self._history = feed, names, history
        self._plain: deque[NatsWaiting] = deque()
        self._plain_rooms: set[str] = set()
        self._lanes: dict[str, deque[NatsWaiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_due = False
        self._on_way = 0
        """How many pings have no answer, of those behind what is neither kept nor has a key."""

    async def stop(self) -> None:
        """Send nothing more; who waits is refused."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._end()
        self._plain.clear()

    def put(
        self, number: int, room: str, envelope: bytes, keep: Keep | None, key: str | None
    ) -> Future[Receipt]:
        """Have a publication sent. Raises as `_check_room_for`."""
        takes = self._feed.connection.max_payload if self._feed.is_up else None
        waiting = NatsWaiting(number, room, envelope, keep, key)
        head = len(RUN) if waiting.is_plain else HEADERS_BYTES
        self._check_room_for(waiting.size, takes, packed_size(waiting.size) - waiting.size + head)
        self._add(waiting)
        if room in self._lanes:
            self._lanes[room].append(waiting)
        elif waiting.is_plain:
            self._plain.append(waiting)
            self._plain_rooms.add(room)
            self._send_later()
        else:
            if room in self._plain_rooms:
                self._send_now()  # else it would overtake what was published to its room before
            self._lanes[room] = deque([waiting])
            task = asyncio.get_running_loop().create_task(self._work(room), name="nats publish")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return waiting.future

    def wake(self) -> None:
        """Go on: the server is there again."""
        self._send_now()

    # What is neither kept nor has a key

    def _send_later(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        """Send all that waits, with one ping behind it; unless one has no answer yet, so that more goes together."""
        self._is_due = False
        if not self._on_way:
            self._send_now()

    def _send_now(self) -> None:
        if not self._feed.is_up or not self._plain:
            return
        some = [waiting for waiting in self._plain if waiting.number in self._unanswered]
        self._plain.clear()
        self._plain_rooms.clear()
        self._on_way += 1
        self._publish(some).add_done_callback(lambda pong: self._ponged(some, pong))

    def _ponged(self, some: list[NatsWaiting], pong: Future[Rights]) -> None:
        self._on_way -= 1
        self._ponged_for(some, pong)
        self._send()

    def _publish(self, some: list[NatsWaiting]) -> Future[Rights]:
        connection = self._feed.connection
        most = min(RUN_BYTES, connection.max_payload - len(RUN))
        for run in runs_of(some, _always, most, RUN_ENTRIES):
            self._note_sent(run)
            data = RUN + pack([each.envelope for each in run])
            try:
                connection.publish(self._names.room(run[0].room), data)
            except BrokerUnavailable as error:
                self._fail_all(run, error, is_known=True)
        return self._ping()

    def _ping(self) -> Future[Rights]:
        began = asyncio.get_running_loop().time()

        def answered(pong: Future[Rights]) -> None:
            if not pong.cancelled() and pong.exception() is None:
                self._note_lag(began)

        pong = self._feed.connection.ping()
        pong.add_done_callback(answered)
        return pong

    def _note_sent(self, run: Iterable[NatsWaiting]) -> None:
        for waiting in run:
            self._note_way(waiting, self._comes_by(waiting.room))
            waiting.unknown += 1

    def _fail_all(self, run: Iterable[NatsWaiting], error: BrokerError, *, is_known: bool) -> None:
        """Refuse a run; `is_known` says whether the last try is known to have done nothing."""
        for waiting in run:
            waiting.unknown -= is_known
            self._fail(waiting, error)

    def _comes_by(self, room: str) -> int | None:
        return self._feed.connections if self._feed.is_subscribed(room) else None

    def _ponged_for(self, some: list[NatsWaiting], pong: Future[Rights]) -> None:
        """Learn that the server has taken some, but for what this user may not publish, and that those that come here
        have come."""
        error = None if pong.cancelled() else pong.exception()
        for waiting in some:
            if pong.cancelled() or error is not None:
                self._fail(waiting, unavailable(error or TimeoutError()))
            elif (refused := self._refused(pong.result(), waiting.room)) is not None:
                self._fail_all([waiting], refused, is_known=True)
            elif waiting.number in self._unanswered:
                self._finish(waiting, Receipt(0))

    def _refused(self, rights: Rights, room: str) -> NoRight | None:
        # A subject is not written for each publication where nothing was refused.
        return rights.to_publish(self._names.room(room)) if rights.missing else None

    # What is stored

    async def _work(self, room: str) -> None:
        """Send what is in a room's lane, run by run, until there is nothing."""
        lane = self._lanes[room]
        try:
            while lane:
                await self._feed.until_up()  # how long a run may be is what the server takes
                run = self._next_run(lane)
                if not run:
                    continue
                if run[0].is_plain:
                    await self._send_run(run)
                else:
                    await self._store(run)
        finally:
            del self._lanes[room]

    def _next_run(self, lane: deque[NatsWaiting]) -> list[NatsWaiting]:
        most = RUN_BYTES
        if self._feed.is_up:
            most = min(most, self._feed.connection.max_payload - HEADERS_BYTES)
        left = (each for each in lane if each.number in self._unanswered)  # others were refused
        first = next(left, None)
        if first is None:
            lane.clear()
            return []
        some = [first, *islice(takewhile(first.goes_with, left), RUN_ENTRIES - 1)]
        run = runs_of(some, _always, most, RUN_ENTRIES)[0]
        while lane.popleft() is not run[-1]:
            pass
        return run

    async def _send_run(self, run: list[NatsWaiting]) -> None:
        await self._feed.until_up()
        some = [waiting for waiting in run if waiting.number in self._unanswered]
        pong = self._publish(some)
        await asyncio.wait([pong])
        self._ponged_for(some, pong)

    async def _store(self, waiting: list[NatsWaiting]) -> None:
        first = waiting[0]
        run = Run(first.room, [each.envelope for each in waiting], first.keep, first.key)
        while True:
            await self._feed.until_up()
            left = [each for each in waiting if each.number in self._unanswered]
            if not left:
                return  # all were refused while they waited
            if not waiting[0].may_be_there:  # else the same run is tried again: it may be stored
                waiting = left
                run.envelopes = [each.envelope for each in left]
            self._note_sent(waiting)
            began = asyncio.get_running_loop().time()
            try:
                place = await self._history().store(run)
            except NoAnswer as error:
                self._excuse(waiting, error, is_known=False)
            except BrokerError as error:
                if self._feed.is_up and not isinstance(error, NotNow):
                    self._fail_all(waiting, error, is_known=True)
                    return
                self._excuse(waiting, error, is_known=True)
            except Exception as error:
                self._fail_all(waiting, unavailable(error), is_known=False)
                return
            else:
                self._note_lag(began)
                self._stored(waiting, place.first, is_repeated=place.is_repeated)
                return
            await asyncio.sleep(PAUSE_S)

    def _excuse(self, waiting: list[NatsWaiting], error: BrokerError, *, is_known: bool) -> None:
        """Note why a run waits on; `is_known` says whether the last try is known to have done nothing."""
        for each in waiting:
            each.unknown -= is_known
            each.why = str(error)

    def _stored(
        self, run: list[NatsWaiting], position: Position | None, *, is_repeated: bool
    ) -> None:
        for waiting in run:
            receipt = Receipt(0, position, is_repeated=is_repeated)
            if position is not None:
                position = Position(position.offset + 1, position.epoch)
            if waiting.number not in self._unanswered:
                continue
            self._taken(waiting, receipt, self._comes_by(waiting.room))

    # What becomes of them

    def _why_late(self, waiting: NatsWaiting) -> str:
        if waiting.may_be_there and waiting.why == AWAY:
            return "the server does not answer"
        return waiting.why

    def _look(self) -> None:
        super()._look()
        for queue in (self._plain, *self._lanes.values()):
            while queue and queue[0].number not in self._unanswered:
                queue.popleft()
        # While the server is away nothing is sent, which would clear them.
        self._plain_rooms = {waiting.room for waiting in self._plain}


def _always(one: NatsWaiting, other: NatsWaiting) -> bool:
    """Let all go together that is asked about: it is of one kind."""
    return True
