"""Link: one server of a broker, with all that goes there and comes from there.

What must not live here: which rooms a server has (`valkey_layout`), what a message means (`valkey`).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ..errors import BrokerUnavailable
from .envelope import FORMAT, OtherFormat, require_format
from .reconnecting import AWAY
from .valkey_connections import Connections, is_replica, unavailable
from .valkey_feed import Feed
from .valkey_names import Names
from .valkey_outgoing import Outgoing
from .valkey_presence import ValkeyPresence
from .valkey_scripts import AGREE, HISTORY, MARK

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("hubbub")

MARK_S = 1.0
"""How often it is looked whether the server has forgotten everything."""
FORMAT_TTL_S = 15.0
"""How long after the last process of a version of Hubbub one may start that writes another form."""
PLACE_LOOKS = 5
"""Every how many of these looks it is asked whether the server is elsewhere now."""


class Handlers(NamedTuple):
    """What a link calls: `take` with each message's channel and data, `back` when what is wanted comes again,
    `forgot` when its server has forgotten everything. `comes_by` says by which connection what is published to
    a room comes here (None: by none). In a cluster, `left` is called with channels by which nothing comes while
    their slots move, and `arrived` when all comes again. None of them may raise."""

    take: Callable[[bytes, bytes], None]
    back: Callable[[Link], None]
    forgot: Callable[[], None]
    comes_by: Callable[[str], object]
    left: Callable[[Sequence[bytes]], None]
    arrived: Callable[[Sequence[bytes]], None]


class Link:
    """See the module. Event loop only."""

    def __init__(self, connections: Connections, names: Names, handlers: Handlers) -> None:
        self.connections: Connections = connections
        self._handlers = handlers
        self._names = names
        self.feed: Feed = Feed(connections, handlers.take, self._lost, self._back, self._agree)
        self.outgoing: Outgoing = Outgoing(connections, lambda: self.feed.is_up, handlers.comes_by)
        self.presence: ValkeyPresence = ValkeyPresence(connections.client, names)
        self.history: Any = connections.client.register_script(HISTORY)
        self.mark_key: str = names.mark
        self._mark: bytes | None = None
        self._watching: list[asyncio.Task[None]] = []

    def _is_up(self) -> bool:
        return self.feed.is_up

    async def start(self, channels: Sequence[bytes]) -> None:
        """Connect, and want channels. Raises what `unavailable` understands."""
        await self.feed.start(channels)
        await self.outgoing.start()
        self._start_watching()

    def start_later(self) -> None:
        """Connect as if the server had been away: `back` says when it is there."""
        self.feed.start_later()
        self.outgoing.start_later()
        self._start_watching()

    def _start_watching(self) -> None:
        loop = asyncio.get_running_loop()
        for each, name in ((self._watch(), "valkey mark"), (self._follow(), "valkey place")):
            self._watching.append(loop.create_task(each, name=name))

    def use_mark(self, key: str) -> None:
        """Look at another key to see whether the server has forgotten everything."""
        if key != self.mark_key:
            self.mark_key, self._mark = key, None

    async def stop(self) -> None:
        """Disconnect; who waits for a receipt or a channel is told."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await self.outgoing.stop()
        await self.feed.stop()
        await self.connections.close()

    async def answer(self, ask: Callable[[Link], Awaitable[T]]) -> T:
        """Ask a single question. Raises `BrokerUnavailable`.

        None is asked while the server is away: what it has kept is compared with a state that is read when it comes back.
        """
        if not self.feed.is_up:
            raise BrokerUnavailable(AWAY)
        return await self.connections.answer(lambda: ask(self))

    def _lost(self) -> None:
        self.outgoing.note_left(None)
        self.outgoing.renew()

    def _back(self) -> None:
        self.outgoing.wake()
        self._handlers.back(self)

    async def _watch(self) -> None:
        """See now, and again and again, whether the server has forgotten everything."""
        looks = 0
        while True:
            if self.feed.is_up:
                looks += 1
                await self._look(checks_place=looks % PLACE_LOOKS == 0)
            await asyncio.sleep(MARK_S)

    async def _follow(self) -> None:
        """See where the server is at once when somebody says that it is elsewhere, and not only now and then."""
        while True:
            try:
                await self.connections.until_moved()
            except Exception as error:
                logger.debug("nobody says where the broker's server is: %s", unavailable(error))
                await asyncio.sleep(PLACE_LOOKS * MARK_S)
            if self.feed.is_up:
                await self._is_here()

    async def _is_here(self) -> bool:
        """Tell whether the server is where it was; if not, it is given up."""
        try:
            await self.connections.check_place()
        except BrokerUnavailable as error:
            self.feed.fail(error)
            return False
        return True

    async def _look(self, *, checks_place: bool) -> None:
        if checks_place and not await self._is_here():
            return
        key = self.mark_key
        try:
            await self._agree()
            mark = await self.answer(self._read_mark)
        except OtherFormat as error:
            self.feed.fail(error)
            return
        except BrokerUnavailable as error:
            if error.__cause__ is not None:
                self._failed(error, error.__cause__)
            return
        if key != self.mark_key:
            return
        known, self._mark = self._mark, mark
        if known not in (None, mark):
            logger.warning("the broker's server has forgotten what it kept")
            self._handlers.forgot()

    async def _agree(self) -> None:
        """Raise `OtherFormat` if the others there write another form than this process."""
        key = self._names.format_beside(self.mark_key)
        ttl_ms = round(FORMAT_TTL_S * 1000)
        ask = partial(self.connections.client.eval, AGREE, 1, key, FORMAT, ttl_ms)
        require_format(await self.connections.answer(ask), FORMAT)

    def _failed(self, error: BrokerUnavailable, cause: BaseException) -> None:
        """Learn why a look failed. A server that has become a replica is given up."""
        if is_replica(cause):
            self.feed.fail(error)

    async def _read_mark(self, link: Link) -> bytes:
        mark: bytes = await link.connections.client.eval(MARK, 1, self.mark_key, fresh())
        return mark


def fresh() -> str:
    """Return a name that nothing else has, as for an epoch."""
    return secrets.token_hex(6)
