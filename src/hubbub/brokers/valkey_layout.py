"""Layout: which server has which rooms. Here: one server, or several that know nothing of one another.

What must not live here: what is said to a server (`valkey_link`), what a message means (`valkey`).

A *place* is the name by which a server is chosen: the channel of a room, or a key. Of several servers each process
chooses the same by rendezvous hashing: the one whose name gives, together with the place, the largest number. So
one more server takes a share from each of the others, and no place goes from an old server to another old one.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from asyncio import Future
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from ..errors import BrokerUnavailable
from ..model import Receipt
from .broker import Condition
from .reconnecting import AWAY
from .valkey_connections import unavailable
from .valkey_link import Link
from .valkey_outgoing import Plain, Script

T = TypeVar("T")

MOST_KNOWN_PLACES = 20_000
"""For how many places it is remembered which server has them."""


class Layout(Protocol):
    """What a broker asks of its servers. Event loop only."""

    @property
    def links(self) -> Sequence[Link]:
        """The servers that have rooms."""
        ...

    async def start(self, control: bytes) -> None:
        """Connect to all, and want the channel by which nodes speak. Raises what `unavailable` understands."""
        ...

    async def stop(self) -> None:
        """Disconnect from all."""
        ...

    def link(self, place: bytes) -> Link:
        """Return the server that has a place now."""
        ...

    def put(self, place: bytes, number: int, room: str, command: Script | Plain) -> Future[Receipt]:
        """Have a publication sent to the server of its room: see `Outgoing.put`."""
        ...

    def subscribe(self, channels: Sequence[bytes]) -> Future[None]:
        """Want channels; done when all that is published there comes. Raises `BrokerUnavailable`."""
        ...

    def unsubscribe(self, channels: Sequence[bytes]) -> None:
        """Want channels no more."""
        ...

    async def answer(self, place: bytes, ask: Callable[[Link], Awaitable[T]]) -> T:
        """Ask a question of the server that has a place. Raises `BrokerUnavailable`."""
        ...

    async def say(self, channel: bytes, data: bytes) -> None:
        """Publish to all nodes, by whichever server can. Raises `BrokerUnavailable`."""
        ...


class Servers:
    """The layout of one server, or of several that know nothing of one another."""

    def __init__(self, links: Sequence[Link]) -> None:
        self.links: Sequence[Link] = links
        self._names = [link.connections.name.encode() for link in links]
        self._find = functools.lru_cache(MOST_KNOWN_PLACES)(self._choose)

    async def start(self, control: bytes) -> None:
        """See `Layout.start`."""
        for link in self.links:
            try:
                await link.start([control])
            except Exception as error:
                if len(self.links) == 1:
                    raise
                raise BrokerUnavailable(
                    f"{link.connections.shown}: {unavailable(error)}"
                ) from error

    async def stop(self) -> None:
        """See `Layout.stop`."""
        for link in self.links:
            await link.stop()

    def link(self, place: bytes) -> Link:
        """See `Layout.link`."""
        return self.links[0] if len(self.links) == 1 else self.links[self._find(place)]

    def _choose(self, place: bytes) -> int:
        return chosen(place, self._names)

    def put(self, place: bytes, number: int, room: str, command: Script | Plain) -> Future[Receipt]:
        """See `Layout.put`."""
        return self.link(place).outgoing.put(number, room, command)

    def subscribe(self, channels: Sequence[bytes]) -> Future[None]:
        """See `Layout.subscribe`. If one server is away nothing is asked of the others either."""
        parts = parted(self, channels)
        if not all(link.feed.is_up for link, _ in parts):
            raise BrokerUnavailable(AWAY)
        return together([link.feed.subscribe(part) for link, part in parts])

    def unsubscribe(self, channels: Sequence[bytes]) -> None:
        """See `Layout.unsubscribe`."""
        for link, part in parted(self, channels):
            link.feed.unsubscribe(part)

    async def answer(self, place: bytes, ask: Callable[[Link], Awaitable[T]]) -> T:
        """See `Layout.answer`."""
        return await self.link(place).answer(ask)

    async def say(self, channel: bytes, data: bytes) -> None:
        """See `Layout.say`. All nodes listen on all servers, so any that is there will do."""
        link = next((link for link in self.links if link.feed.is_up), self.links[0])
        await link.answer(lambda link: link.connections.client.publish(channel, data))


def chosen(place: bytes, names: Sequence[bytes]) -> int:
    """Return which of several servers, by their names, has a place."""

    def weight(number: int) -> bytes:
        return hashlib.blake2b(names[number] + b"\0" + place, digest_size=8).digest()

    return max(range(len(names)), key=weight)


def parted(layout: Layout, channels: Sequence[bytes]) -> list[tuple[Link, list[bytes]]]:
    """Part channels by the servers that have them."""
    parts: dict[Link, list[bytes]] = {}
    for channel in channels:
        parts.setdefault(layout.link(channel), []).append(channel)
    return list(parts.items())


def together(futures: Sequence[Future[None]]) -> Future[None]:
    """Return a future that is done when all are, with the first error that there is."""
    if len(futures) == 1:
        return futures[0]
    all_done: Future[None] = asyncio.get_running_loop().create_future()
    gathered = asyncio.gather(*futures, return_exceptions=True)

    def finish(found: Future[list[BaseException | None]]) -> None:
        if all_done.done():
            return
        errors = [] if found.cancelled() else [each for each in found.result() if each is not None]
        if errors:
            all_done.set_exception(errors[0])
            all_done.exception()
        else:
            all_done.set_result(None)

    gathered.add_done_callback(finish)
    return all_done


def condition_of(links: Sequence[Link]) -> Condition:
    """Return how servers are together: as the worst of them."""
    waiting = sum(link.outgoing.untaken for link in links)
    waiting_bytes = sum(link.outgoing.nbytes for link in links)
    lags = [link.outgoing.lag_s for link in links if link.outgoing.lag_s is not None]
    facts = waiting, waiting_bytes, max(lags, default=None)
    if not all(link.feed.is_up for link in links):
        return Condition("away", *facts)
    is_silent = any(link.feed.is_silent for link in links)
    return Condition("silent" if is_silent else "up", *facts)
