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
from collections.abc import Callable, Collection, Iterable

from ..errors import BrokerError, BrokerUnavailable
from ..model import Position, Receipt
from .broker import Keep
from .envelope import pack
from .nats_connection import unavailable
from .nats_feed import NatsFeed
from .nats_history import NatsHistory, Run
from .nats_names import NatsNames
from .nats_stream import NoAnswer, NotNow
from .reconnecting import AWAY

MOST_WAITING = 10_000
"""How many publications may wait for the server; one more is refused at once."""
MOST_WAITING_BYTES = 16 * 1024**2
WAIT_S = 5.0
"""How long a publication waits for its receipt, before it is refused."""
RUN_BYTES = 64 * 1024
"""How many bytes a run has at most, if it has more than one publication."""
RUN_ENTRIES = 500
LOOK_S = 0.25
"""How often it is looked which have waited for too long."""
PAUSE_S = 0.1
"""How long after a try without success the next is made."""


class Waiting:
    """A publication without a receipt. `receipt` is what is known of it (None: the server has not taken it)."""

    __slots__ = (
        "comes_by",
        "envelope",
        "future",
        "is_sent",
        "keep",
        "key",
        "number",
        "receipt",
        "room",
        "since",
        "why",
    )

    def __init__(
        self,
        number: int,
        room: str,
        envelope: bytes,
        keep: Keep | None,
        key: str | None,
        since: float,
        future: Future[Receipt],
    ) -> None:
        self.number: int = number
        self.room: str = room
        self.envelope: bytes = envelope
        self.keep: Keep | None = keep
        self.key: str | None = key
        self.since: float = since
        self.future: Future[Receipt] = future
        self.receipt: Receipt | None = None
        self.comes_by: int | None = None
        """By which connection it comes here (None: by none)."""
        self.is_sent: bool = False
        """Whether the server may have taken it."""
        self.why: str = AWAY
        """Why it waits."""

    @property
    def is_plain(self) -> bool:
        """Whether it is neither kept nor has a key."""
        return self.keep is None and self.key is None

    def goes_with(self, other: Waiting) -> bool:
        """Tell whether it and another may be in one run."""
        return self.keep == other.keep and self.key is None and other.key is None


class NatsOutgoing:
    """See the module. `history` is None where the server stores nothing. Event loop only."""

    def __init__(
        self, feed: NatsFeed, names: NatsNames, history: Callable[[], NatsHistory]
    ) -> None:
        self._feed, self._names, self._history = feed, names, history
        self._plain: deque[Waiting] = deque()
        self._plain_rooms: set[str] = set()
        self._lanes: dict[str, deque[Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unanswered: dict[int, Waiting] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False
        self._on_way = 0
        """How many pings have no answer, of those behind what is neither kept nor has a key."""
        self.nbytes: int = 0
        """How many bytes of messages wait."""

    def __len__(self) -> int:
        """How many publications the server has not taken yet."""
        return sum(waiting.receipt is None for waiting in self._unanswered.values())

    async def stop(self) -> None:
        """Send nothing more; who waits is refused."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for waiting in list(self._unanswered.values()):
            if waiting.receipt is not None:
                self._finish(waiting, waiting.receipt)
            else:
                self._fail(waiting, BrokerUnavailable("the broker has stopped"))
        self._plain.clear()

    def put(
        self, number: int, room: str, envelope: bytes, keep: Keep | None, key: str | None
    ) -> Future[Receipt]:
        """Have a publication sent. Raises `BrokerUnavailable` where too many wait already."""
        size = len(envelope)
        if len(self._unanswered) >= MOST_WAITING or self.nbytes + size > MOST_WAITING_BYTES:
            raise BrokerUnavailable("too many publications wait for the broker")
        loop = asyncio.get_running_loop()
        future: Future[Receipt] = loop.create_future()
        waiting = Waiting(number, room, envelope, keep, key, loop.time(), future)
        self._unanswered[number] = waiting
        self.nbytes += size
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
            task = loop.create_task(self._work(room), name="nats publish")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._timer is None:
            self._timer = loop.call_later(LOOK_S, self._look)
        return future

    def wake(self) -> None:
        """Go on: the server is there again."""
        self._send_now()

    def came(self, number: int, receipt: Receipt) -> None:
        """Learn that a publication of ours has come here."""
        waiting = self._unanswered.get(number)
        if waiting is not None:
            self._finish(waiting, receipt)

    def note_left(self, rooms: Collection[str] | None) -> None:
        """Learn that what is published to these rooms (None: to all) comes here no more."""
        for waiting in list(self._unanswered.values()):
            if rooms is None or waiting.room in rooms:
                waiting.comes_by = None
                if waiting.receipt is not None:
                    self._finish(waiting, waiting.receipt)

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

    def _ponged(self, some: list[Waiting], pong: Future[None]) -> None:
        self._on_way -= 1
        self._taken(some, pong)
        self._send()

    def _publish(self, some: list[Waiting]) -> Future[None]:
        connection = self._feed.connection
        for run in _runs_of(some, connection.max_payload):
            self._mark_sent(run)
            data = b"r\n" + pack([each.envelope for each in run])
            try:
                connection.publish(self._names.room(run[0].room), data)
            except BrokerUnavailable as error:
                for waiting in run:
                    self._fail(waiting, error)
        return connection.ping()

    def _mark_sent(self, run: Iterable[Waiting]) -> None:
        for waiting in run:
            is_wanted = self._feed.is_subscribed(waiting.room)
            waiting.comes_by = self._feed.connections if is_wanted else None
            waiting.is_sent = True

    def _taken(self, some: list[Waiting], pong: Future[None]) -> None:
        """Learn that the server has taken some, and that those that come here have come."""
        error = None if pong.cancelled() else pong.exception()
        for waiting in some:
            if pong.cancelled() or error is not None:
                why = unavailable(error or TimeoutError())
                text = f"it may have been published, or not: {why}"
                self._fail(waiting, BrokerUnavailable(text))
            elif waiting.number in self._unanswered:
                self._finish(waiting, Receipt(0))

    # What is stored

    async def _work(self, room: str) -> None:
        """Send what is in a room's lane, run by run, until there is nothing."""
        lane = self._lanes[room]
        try:
            while lane:
                run = self._next_run(lane)
                if not run:
                    continue
                if run[0].is_plain:
                    await self._send_run(run)
                else:
                    await self._store(run)
        finally:
            del self._lanes[room]

    def _next_run(self, lane: deque[Waiting]) -> list[Waiting]:
        most = RUN_BYTES
        if self._feed.is_up:
            most = min(most, self._feed.connection.max_payload - 1024)
        run: list[Waiting] = []
        size = 0
        while lane and len(run) < RUN_ENTRIES:
            waiting = lane[0]
            size += len(waiting.envelope)
            if run and (size > most or not run[0].goes_with(waiting)):
                break
            lane.popleft()
            if waiting.number in self._unanswered:  # else it was refused while it waited
                run.append(waiting)
        return run

    async def _send_run(self, run: list[Waiting]) -> None:
        await self._feed.until_up()
        some = [waiting for waiting in run if waiting.number in self._unanswered]
        pong = self._publish(some)
        await asyncio.wait([pong])
        self._taken(some, pong)

    async def _store(self, waiting: list[Waiting]) -> None:
        first = waiting[0]
        run = Run(first.room, [each.envelope for each in waiting], first.keep, first.key)
        while True:
            await self._feed.until_up()
            if not any(each.number in self._unanswered for each in waiting):
                return  # all were refused while they waited
            self._mark_sent(waiting)
            try:
                place = await self._history().store(run)
            except NoAnswer as error:
                self._excuse(waiting, f"it may have been published, or not: {error}")
            except BrokerError as error:
                if self._feed.is_up and not isinstance(error, NotNow):
                    for each in waiting:
                        self._fail(each, error)
                    return
                self._excuse(waiting, str(error))
            except Exception as error:
                for each in waiting:
                    self._fail(each, unavailable(error))
                return
            else:
                self._stored(waiting, place.first, is_repeated=place.is_repeated)
                return
            await asyncio.sleep(PAUSE_S)

    def _excuse(self, waiting: list[Waiting], why: str) -> None:
        for each in waiting:
            each.why = why

    def _stored(self, run: list[Waiting], position: Position | None, *, is_repeated: bool) -> None:
        for waiting in run:
            receipt = Receipt(0, position, is_repeated=is_repeated)
            if position is not None:
                position = Position(position.offset + 1, position.epoch)
            if waiting.number not in self._unanswered:
                continue
            by = waiting.comes_by
            is_here = by == self._feed.connections and self._feed.is_subscribed(waiting.room)
            if is_repeated or by is None or not is_here:
                self._finish(waiting, receipt)
            else:
                waiting.receipt = receipt  # and it comes, or has come

    # What becomes of them

    def _look(self) -> None:
        """Refuse what has waited for too long."""
        loop = asyncio.get_running_loop()
        late = loop.time() - WAIT_S
        for waiting in list(self._unanswered.values()):
            if waiting.since > late:
                break
            if waiting.receipt is not None:  # taken; that it comes here is not waited for longer
                self._finish(waiting, waiting.receipt)
            elif waiting.is_sent and waiting.why == AWAY:
                text = "it may have been published, or not: the server does not answer"
                self._fail(waiting, BrokerUnavailable(text))
            else:
                self._fail(waiting, BrokerUnavailable(waiting.why))
        for queue in (self._plain, *self._lanes.values()):
            while queue and queue[0].number not in self._unanswered:
                queue.popleft()
        self._timer = loop.call_later(LOOK_S, self._look) if self._unanswered else None

    def _finish(self, waiting: Waiting, receipt: Receipt) -> None:
        self._forget(waiting)
        if not waiting.future.done():
            waiting.future.set_result(receipt)

    def _fail(self, waiting: Waiting, error: BrokerError) -> None:
        self._forget(waiting)
        if not waiting.future.done():
            waiting.future.set_exception(error)
            waiting.future.exception()

    def _forget(self, waiting: Waiting) -> None:
        if self._unanswered.pop(waiting.number, None) is not None:
            self.nbytes -= len(waiting.envelope)


def _runs_of(some: list[Waiting], max_payload: int) -> list[list[Waiting]]:
    """Part what leaves together into what goes in one message; the order of a room stays."""
    most = min(RUN_BYTES, max_payload - 1024)
    runs: list[list[Waiting]] = []
    last: dict[str, tuple[list[Waiting], int]] = {}
    for waiting in some:
        run, size = last.get(waiting.room, ([], 0))
        size += len(waiting.envelope)
        if run and size <= most and len(run) < RUN_ENTRIES:
            run.append(waiting)
        else:
            run, size = [waiting], len(waiting.envelope)
            runs.append(run)
        last[waiting.room] = run, size
    return runs
