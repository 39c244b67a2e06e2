"""The way to NATS servers: which connection there is, how it comes back, and what is subscribed to.

What must not live here: what a message means (`nats`).

While the connection is being made again (`reconnecting`) nothing can be subscribed to; then all rooms that are wanted
are asked for at once, and only when the server has confirmed them the feed is up again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from asyncio import Future
from collections.abc import Awaitable, Callable, Mapping, Sequence

from ..errors import BrokerUnavailable
from . import reconnecting
from .broker import RoomsRefused
from .nats_address import NatsAddress
from .nats_connection import Connection, Rights, unavailable
from .nats_format import NatsFormat
from .nats_names import NatsNames
from .reconnecting import AWAY, Reconnecting

logger: logging.Logger = logging.getLogger("hubbub")

CANCEL_S = 0.1
"""How long a task may take to end before it is cancelled again."""

_CONTROL, _FORMAT = 2, 3


class NatsFeed(Reconnecting):
    """See the module. `take` is called with each message's room (None: it is for nodes), data and headers; `check`
    with each new connection, which it may refuse; `lost` when one has broken, `back` when all that is wanted
    comes again. Event loop only."""

    def __init__(
        self,
        address: NatsAddress,
        names: NatsNames,
        take: Callable[[str | None, bytes, Mapping[str, str]], None],
        check: Callable[[Connection], Awaitable[None]],
        lost: Callable[[], None],
        back: Callable[[], None],
    ) -> None:
        self._address, self._names = address, names
        super().__init__(unavailable, lost, back)
        self._hand_on, self._check = take, check
        self._format = NatsFormat(names.format)
        self._connection: Connection | None = None
        self._wanted: dict[str, int] = {}
        """The rooms that are wanted, and the numbers of their subscriptions."""
        self._rooms: dict[int, str] = {}
        self._last_number = _FORMAT
        self._asked: set[Future[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()

    @property
    def is_up(self) -> bool:
        """Whether all that is wanted comes."""
        return self._up.is_set()

    @property
    def connection(self) -> Connection:
        """The present connection. Raises `BrokerUnavailable`."""
        if self._connection is None or not self.is_up:
            raise BrokerUnavailable(AWAY)
        return self._connection

    async def until_up(self) -> None:
        """Wait until there is a connection."""
        await self._up.wait()

    def is_subscribed(self, room: str) -> bool:
        """Tell whether what is published to a room comes."""
        return self.is_up and room in self._wanted

    async def start(self) -> None:
        """Connect. Raises what `unavailable` understands."""
        await self._connect()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="nats feed")

    async def stop(self) -> None:
        """Disconnect; who waits for a room is told."""
        while self._task is not None and not self._task.done():
            self._task.cancel()  # the library may swallow one, by `asyncio.wait_for` on Python 3.11
            await asyncio.wait([self._task], timeout=CANCEL_S)
        self._up.clear()
        self._give_up("the broker has stopped")
        await self._drop()

    def subscribe(self, rooms: Sequence[str]) -> Future[None]:
        """Want rooms; done when the server has confirmed all of them. Raises `BrokerUnavailable`; fails with
        `RoomsRefused` where this user may not have some of them."""
        connection = self.connection
        self.unsubscribe([room for room in rooms if room in self._wanted])  # it is asked for again
        for room in rooms:
            self._last_number += 1
            self._wanted[room] = self._last_number
            self._rooms[self._last_number] = room
            connection.subscribe(self._names.room(room), self._last_number)
        numbers = {room: self._wanted[room] for room in rooms}
        future: Future[None] = asyncio.get_running_loop().create_future()
        self._asked.add(future)
        connection.ping().add_done_callback(lambda pong: self._confirmed(numbers, future, pong))
        return future

    def _confirmed(
        self, rooms: Mapping[str, int], future: Future[None], pong: Future[Rights]
    ) -> None:
        self._asked.discard(future)
        if pong.cancelled() or pong.exception() is not None:
            _fail(future, BrokerUnavailable(AWAY))
            return
        rights = pong.result()
        found = {room: rights.to_subscribe(self._names.room(room)) for room in rooms}
        refused = {room: error for room, error in found.items() if error is not None}
        # One that was left and asked for again meanwhile has another number, and an answer of its own.
        self.unsubscribe([room for room in refused if self._wanted.get(room) == rooms[room]])
        if refused:
            _fail(future, RoomsRefused(refused))
        elif not future.done():
            future.set_result(None)

    def unsubscribe(self, rooms: Sequence[str]) -> None:
        """Want rooms no more."""
        for room in rooms:
            number = self._wanted.pop(room, None)
            if number is not None:
                del self._rooms[number]
                if self._connection is not None:
                    self._connection.unsubscribe(number)

    # One connection

    async def _connect(self) -> None:
        """Connect, and wait until all that is wanted is confirmed."""
        servers = list(self._address.servers)
        random.shuffle(servers)
        connection = self._connection = Connection(self._address, self._take, self._names.inbox)
        await connection.open(servers)
        await self._format.ask(connection)
        await self._check(connection)
        connection.subscribe(self._names.control, _CONTROL)
        connection.subscribe(self._format.subject, _FORMAT)
        for room, number in self._wanted.items():
            connection.subscribe(self._names.room(room), number)
        self._format.say(connection)
        async with asyncio.timeout(reconnecting.SILENCE_S):
            rights = await connection.ping()
        if rights.too_many is not None:
            raise rights.too_many  # what does not come is not known, and may be anything
        if missing := rights.missing:
            logger.warning(
                "the broker's server refuses this user %d rights, the first: %s",
                len(missing),
                missing[0],
            )
        self._count_connection()
        self._up.set()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def _take(self, number: int, data: bytes, headers: Mapping[str, str], reply: bytes) -> None:
        if number == _FORMAT:
            if self._connection is not None:
                self._format.hear(self._connection, data, reply)
            return
        room = None if number == _CONTROL else self._rooms.get(number)
        if room is not None or number == _CONTROL:
            self._hand_on(room, data, headers)

    def _go_down(self) -> None:
        self._up.clear()
        assert self._connection is not None
        self._connection.fail(ConnectionError("the connection was given up"))

    @property
    def _heard(self) -> int:
        return 0 if self._connection is None else self._connection.heard

    async def _ask_for_a_sign(self) -> None:
        self.connection.ping()

    async def _until_broken(self) -> BaseException:
        """Watch the connection until something about it fails; return what that was."""
        assert self._connection is not None
        watch = asyncio.get_running_loop().create_task(self._watch(), name="nats watch")
        failed = self._connection.failed
        try:
            await asyncio.wait([watch, failed], return_when=asyncio.FIRST_COMPLETED)
            if failed.done() and (error := failed.exception()) is not None:
                return error
            return TimeoutError()
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    def _give_up(self, why: str) -> None:
        asked, self._asked = self._asked, set()
        for future in asked:
            _fail(future, BrokerUnavailable(why))


def _fail(future: Future[None], error: BrokerUnavailable) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()
