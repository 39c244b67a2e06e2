"""Feed: the connection by which publications come from a Valkey server, and how it comes back.

What must not live here: what a message means (`valkey`).

One task reads, one asks for channels in the order of the calls, one sees whether the server is still there. While the
connection is being made again (`reconnecting`) nothing can be subscribed to; then all channels that are
wanted are asked for at once, and only when the server has confirmed them the feed is up again.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from ..errors import BrokerUnavailable
from . import reconnecting
from .broker import MOST_ROOMS_A_CALL
from .reconnecting import Reconnecting
from .valkey_connections import (
    Connections,
    close_line,
    hear,
    library,
    moved_slot,
    slot_of,
    tell,
    unavailable,
)

_MESSAGE = frozenset({b"message", b"smessage"})
_CONFIRMED = frozenset({b"subscribe", b"ssubscribe"})


class SlotMoved(BrokerUnavailable):
    """A server of a cluster has not, or no more, the slot of a channel."""


class _Order:
    """Channels to subscribe to together. `left` counts those that are not confirmed."""

    __slots__ = ("future", "left")

    def __init__(self, left: int, future: Future[None]) -> None:
        self.left = left
        self.future = future


async def _agree_with_all() -> None:
    """Be content with any server."""


class Feed(Reconnecting):
    """See the module. `take` is called with each message's channel and data; `lost` when the connection
    has broken, `back` when all that is wanted comes again. None of them may raise. `agree` is awaited with each
    connection before it is up; where it raises there is none, and another is tried. Event loop only.

    With `moved` it is of one shard of a cluster, whose channels are in slots: `moved` is called with those that the
    server has no more, which are wanted no more then."""

    def __init__(
        self,
        connections: Connections,
        take: Callable[[bytes, bytes], None],
        lost: Callable[[], None],
        back: Callable[[], None],
        agree: Callable[[], Awaitable[None]] = _agree_with_all,
        moved: Callable[[Sequence[bytes]], None] | None = None,
    ) -> None:
        super().__init__(unavailable, lost, back)
        self._connections, self._agree = connections, agree
        self._moved = moved
        self._subscribe, self._unsubscribe = b"SUBSCRIBE", b"UNSUBSCRIBE"
        if moved is not None:
            self._subscribe, self._unsubscribe = b"SSUBSCRIBE", b"SUNSUBSCRIBE"
        self._take = take
        self._line: Any = None
        self._wanted: dict[bytes, bool] = {}
        """The channels that are wanted, and whether the server has confirmed them."""
        self._confirming: dict[bytes, deque[_Order]] = {}
        self._requests: asyncio.Queue[tuple[bytes, Sequence[bytes]]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._failed: Future[None] | None = None
        self._frames = 0
        self.is_up: bool = False
        """Whether all that is wanted comes."""

    def is_subscribed(self, channel: bytes) -> bool:
        """Tell whether what is published to a channel comes."""
        return self._wanted.get(channel, False)

    async def start(self, channels: Sequence[bytes]) -> None:
        """Connect. Raises what `unavailable` understands."""
        self._wanted = dict.fromkeys(channels, False)
        await self._connect()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="valkey feed")

    async def stop(self) -> None:
        """Disconnect; who waits for a channel is told."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.is_up = False
        self._give_up("the broker has stopped")
        await self._drop()

    def subscribe(self, channels: Sequence[bytes]) -> Future[None]:
        """Want channels; done when the server has confirmed all of them."""
        future: Future[None] = asyncio.get_running_loop().create_future()
        order = _Order(len(channels), future)
        for channel in channels:
            self._wanted[channel] = False
            self._confirming.setdefault(channel, deque()).append(order)
        self._requests.put_nowait((self._subscribe, channels))
        return future

    def unsubscribe(self, channels: Sequence[bytes]) -> None:
        """Want channels no more."""
        for channel in channels:
            self._wanted.pop(channel, None)
        self._requests.put_nowait((self._unsubscribe, channels))

    def want(self, channels: Sequence[bytes]) -> None:
        """Want channels when the server is there again: `back` says when they come."""
        self._wanted |= dict.fromkeys(channels, False)

    def start_later(self) -> None:
        """Connect as if a connection had been lost: `back` says when it is there."""
        self._task = asyncio.get_running_loop().create_task(self._begin(), name="valkey feed")

    def fail(self, error: Exception) -> None:
        """Give the connection up, and make another."""
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    # One connection

    async def _connect(self) -> None:
        """Connect, and wait until all that is wanted is confirmed."""
        await self._connections.forget_old()
        line = self._line = await self._connections.open_line()
        await self._agree()
        asked: set[bytes] = set()
        moved: list[bytes] = []
        async with asyncio.timeout(reconnecting.SILENCE_S):
            # While the server answers, more may be wanted (`want`), and some no more.
            while self._wanted.keys() != asked:
                new = [channel for channel in self._wanted if channel not in asked]
                for part in self._parts(new):
                    await tell(line, self._subscribe, *part)
                asked.update(new)
                moved += await self._all_confirmed(line, set(new))
                gone = asked - self._wanted.keys()
                for part in self._parts(list(gone)):
                    await tell(line, self._unsubscribe, *part)
                asked -= gone
        for channel in moved:
            self._wanted.pop(channel, None)
        for channel in self._wanted:
            self._wanted[channel] = True
        self._failed = asyncio.get_running_loop().create_future()
        self._requests = asyncio.Queue()  # what was asked for meanwhile is done
        self._count_connection()
        self.is_up = True
        if moved and self._moved is not None:
            self._moved(moved)

    async def _all_confirmed(self, line: Any, left: set[bytes]) -> list[bytes]:
        """Wait until the server has confirmed channels; return those that it has no more."""
        moved: list[bytes] = []
        while left:
            try:
                answer = await hear(line)
            except library().ResponseError as error:
                slot = moved_slot(error)
                if slot is None:
                    raise
                found = [channel for channel in left if slot_of(channel) == slot]
                moved += found
                left.difference_update(found)
                continue
            if answer[0] in _CONFIRMED:
                left.discard(answer[1])
            elif answer[0] in _MESSAGE:
                self._take(answer[1], answer[2])
        return moved

    async def _drop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await close_line(line)

    async def _begin(self) -> None:
        await self._come_back()
        self._on_back()
        await self._run()

    def _go_down(self) -> None:
        self.is_up = False

    @property
    def _heard(self) -> int:
        return self._frames

    async def _ask_for_a_sign(self) -> None:
        await tell(self._line, b"PING")

    async def _until_broken(self) -> BaseException:
        """Use the connection until something about it fails; return what that was."""
        loop = asyncio.get_running_loop()
        work = [self._read(), self._request(), self._watch(), self._fail()]
        tasks = [loop.create_task(each, name="valkey feed") for each in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().exception() or OSError("the connection has ended")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        """Hand on what comes, until the connection breaks."""
        while True:
            try:
                answer = await hear(self._line)
            except library().ResponseError as error:
                slot = moved_slot(error)
                if slot is None:
                    raise
                self._frames += 1
                self._lose([channel for channel in self._wanted if slot_of(channel) == slot])
                continue
            self._frames += 1
            kind = answer[0]
            if kind in _MESSAGE:
                self._take(answer[1], answer[2])
            elif kind in _CONFIRMED:
                self._confirmed(answer[1])
            elif kind == b"sunsubscribe" and self._wanted.get(answer[1]):
                self._lose([answer[1]])  # nobody has asked for that: its slot has moved

    def _lose(self, channels: Sequence[bytes]) -> None:
        """Say which channels the server has no more, and to those who wait for them too."""
        for channel in channels:
            self._wanted.pop(channel, None)
            for order in self._confirming.pop(channel, ()):
                if not order.future.done():
                    order.future.set_exception(SlotMoved("its slot is being moved"))
                    order.future.exception()
        if channels and self._moved is not None:
            self._moved(channels)

    def _confirmed(self, channel: bytes) -> None:
        orders = self._confirming.get(channel)
        order = orders.popleft() if orders else None
        if not orders:
            self._confirming.pop(channel, None)
            if channel in self._wanted:
                self._wanted[channel] = True
        if order is not None:
            order.left -= 1
            if not order.left and not order.future.done():
                order.future.set_result(None)

    async def _request(self) -> None:
        """Say to the server what is wanted and what not, in the order of the calls."""
        while True:
            verb, channels = await self._requests.get()
            for part in self._parts(channels):
                await tell(self._line, verb, *part)

    async def _fail(self) -> None:
        assert self._failed is not None
        await self._failed

    def _give_up(self, why: str) -> None:
        for orders in self._confirming.values():
            for order in orders:
                if not order.future.done():
                    order.future.set_exception(BrokerUnavailable(why))
                    order.future.exception()
        self._confirming.clear()
        for channel in self._wanted:
            self._wanted[channel] = False

    def _parts(self, channels: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
        """Part channels into what goes in a command each: in a cluster, those of one slot."""
        if self._moved is None:
            for start in range(0, len(channels), MOST_ROOMS_A_CALL):
                yield channels[start : start + MOST_ROOMS_A_CALL]
            return
        slots: dict[int, list[bytes]] = {}
        for channel in channels:
            slots.setdefault(slot_of(channel), []).append(channel)
        yield from slots.values()
