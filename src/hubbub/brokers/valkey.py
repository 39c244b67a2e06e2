"""The broker of many processes: a Valkey or Redis server orders, keeps and spreads what is published.

What must not live here: the contract (`broker`), which server has which rooms (`valkey_layout`), connections
and how they come back (`valkey_link`, `valkey_connections`, `valkey_feed`), what waits for a server
(`valkey_outgoing`), what is atomic there (`valkey_scripts`).

A publication comes back to this process as it does to all others, by the server, so that all of them see one
order; its receipt waits for that.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from asyncio import Future
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from ..errors import BrokerUnavailable, PositionLost
from ..limits import printable
from ..model import ClientInfo, Position, PresenceStats, Receipt
from ..wire.publication import Publication
from .broker import (
    KEY_TTL_S,
    UNUSED_TTL_S,
    Ability,
    Condition,
    Control,
    Entered,
    History,
    Keep,
    Node,
    PresenceTerms,
    Snapshot,
)
from .envelope import publication_of, seal, seal_control, unpack, unseal, unseal_control
from .reconnecting import unusable
from .unanswered import deliver_run
from .valkey_address import Address, check_files, checked_prefix, read_address
from .valkey_cluster import Cluster
from .valkey_connections import Connections, unavailable
from .valkey_layout import Layout, Servers, condition_of, parted
from .valkey_link import Handlers, Link, fresh
from .valkey_names import Names
from .valkey_outgoing import RUN, Plain, Script, position_of
from .valkey_presence import is_told, told_publication
from .valkey_sentinel import Sentinels
from .valkey_unused import UnusedRooms

T = TypeVar("T")

MOST_READ = 2**31 - 1
"""How many publications one answer may have: a server reads no larger number, and no room keeps more."""

logger: logging.Logger = logging.getLogger("hubbub")

POSITION_TTL_S = 7 * 24 * 3600.0
"""How long a room's position is kept after anybody has asked for it, or published there, once it had a publication."""
SENDER_TTL_S = 60.0
"""How long it is known which publications of a process a room has had: longer than any is tried again."""


class _Running:
    """What a broker has from its start to its stop."""

    def __init__(self, node: Node, layout: Layout, unused: UnusedRooms) -> None:
        self.node = node
        self.layout = layout
        self.unused = unused
        self.sender: str = secrets.token_hex(8)
        self.number: int = 0
        self.rooms: dict[bytes, str] = {}
        """The rooms that are wanted, by channel."""
        self.saying: set[asyncio.Task[None]] = set()
        """Words to other nodes that are on their way."""

    def came(self, number: int, receipt: Receipt) -> None:
        """Learn that a publication of ours has come here."""
        for link in self.layout.links:
            link.outgoing.came(number, receipt)


class ValkeyBroker:
    """A broker on Valkey or Redis servers, at `valkey://`, `redis://`, with TLS `valkeys://`, `rediss://`, or
    `unix://`; with Sentinels at `valkey+sentinel://`, on a cluster at `valkey+cluster://`.

    `url` is described in the guide "Many workers"; `prefix` (None: that of the URL, or "hubbub") begins all
    keys and channels: two applications on one server must have two. What is published while the server is away
    waits for five seconds, and is refused then. Raises `SettingsError` for a URL that cannot be. Needs the
    extra `valkey`.
    """

    abilities: frozenset[Ability] = frozenset(
        {Ability.CONTROL, Ability.HISTORY, Ability.PRESENCE, Ability.NOTES}
    )
    receives_all: bool = False

    def __init__(
        self, url: str | Address = "valkey://localhost:6379", *, prefix: str | None = None
    ) -> None:
        self._address = url if isinstance(url, Address) else read_address(url)
        prefix = self._address.prefix if prefix is None else checked_prefix(prefix)
        database = self._address.options.get("db", 0)
        self._names = Names(prefix, is_sharded=self._address.is_cluster, database=database)
        self._running: _Running | None = None

    def __repr__(self) -> str:
        return f"<ValkeyBroker {self._address.shown} prefix={self._names.prefix!r}>"

    @property
    def condition(self) -> Condition:
        """How it is at this moment."""
        running = self._running
        if running is None:
            return Condition("away")
        return condition_of(running.layout.links)

    # Beginning and end

    async def start(self, node: Node) -> None:
        """See `Broker.start`."""
        if self._address.is_tls and not self._address.is_verified:
            logger.warning("the certificate of the broker is not verified: verify=no says so")
        layout = self._layout()
        running = self._running = _Running(node, layout, UnusedRooms(self._ask_for))
        try:
            check_files(self._address.files)
            await layout.start(self._names.control)
        except BaseException as error:
            self._running = None
            await self._close(running)
            if not isinstance(error, Exception):
                raise
            raise unusable(self._address.shown, error, unavailable(error)) from None
        running.unused.start()

    def _layout(self) -> Layout:
        on = (self._take, self._back, self._forgot, self._comes_by, self._left, self._arrived)
        handlers = Handlers(*on)
        if self._address.is_cluster:
            return Cluster(self._address, self._names, handlers)
        if self._address.primary:
            each = [Connections(self._address, Sentinels(self._address))]
        else:
            each = [Connections(address) for address in self._addresses()]
        return Servers([Link(connections, self._names, handlers) for connections in each])

    def _addresses(self) -> list[Address]:
        """Return how each server is reached; a test's have ways of their own."""
        return self._address.of_each()

    async def stop(self) -> None:
        """See `Broker.stop`."""
        running, self._running = self._running, None
        if running is not None:
            await self._close(running)

    async def _close(self, running: _Running) -> None:
        tasks = list(running.saying)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await running.unused.stop()
        await running.layout.stop()

    def _require(self) -> _Running:
        if self._running is None:
            raise BrokerUnavailable("the broker has not started")
        return self._running

    # Publishing

    def publish(self, publication: Publication) -> Future[Receipt]:
        """See `Broker.publish`."""
        return self._send(publication, None)

    def publish_kept(self, publication: Publication, keep: Keep) -> Future[Receipt]:
        """See `HistoryBroker.publish_kept`."""
        return self._send(publication, keep)

    def _send(self, publication: Publication, keep: Keep | None) -> Future[Receipt]:
        running = self._require()
        if publication.time_ms is None:
            publication.time_ms = int(time.time() * 1000)
        running.number += 1
        number, room = running.number, publication.room
        envelope = seal(publication, running.sender, number)
        channel = self._names.channel(room)
        command: Script | Plain = Plain(channel, envelope)
        if keep is not None or publication.key is not None:
            command = self._script(running, publication, keep, channel, envelope)
        return running.layout.put(channel, number, room, command)

    def _script(
        self,
        running: _Running,
        publication: Publication,
        keep: Keep | None,
        channel: bytes,
        envelope: bytes,
    ) -> Script:
        room, key, name = publication.room, publication.key, self._names.key
        keys = [name(room, "h"), name(room, "s"), name(room, "n:", running.sender)]
        if key is not None:
            keys.append(name(room, "k:", key))
        keep = Keep(0, 0.0, 0) if keep is None else keep
        position_ttl_s = max(POSITION_TTL_S, keep.ttl_s)
        times = (_ms(position_ttl_s), _ms(KEY_TTL_S), _ms(SENDER_TTL_S))
        bounds = (channel, keep.entries, _ms(keep.ttl_s), keep.max_bytes, *times)
        return Script(tuple(keys), bounds, envelope, is_single=key is not None)

    def _comes_by(self, room: str) -> object:
        """Return the connection by which what is published to a room comes here, as a name that it alone has."""
        running = self._running
        if running is None:
            return None
        channel = self._names.channel(room)
        feed = running.layout.link(channel).feed
        return (id(feed), feed.connections) if feed.is_up and feed.is_subscribed(channel) else None

    # What comes

    def subscribe(self, rooms: Sequence[str]) -> Future[None]:
        """See `Broker.subscribe`."""
        running = self._require()
        channels = {self._names.channel(room): room for room in rooms}
        subscribed = running.layout.subscribe(list(channels))
        running.rooms |= channels
        return subscribed

    def apart(self, rooms: Sequence[str]) -> list[list[str]]:
        """Part rooms by their servers: see `broker.apart`."""
        running = self._require()
        channels = {self._names.channel(room): room for room in rooms}
        parts = parted(running.layout, list(channels))
        return [[channels[channel] for channel in part] for _, part in parts]

    def unsubscribe(self, rooms: Sequence[str]) -> None:
        """See `Broker.unsubscribe`."""
        running = self._running
        if running is None:
            return
        channels = [self._names.channel(room) for room in rooms]
        for channel in channels:
            running.rooms.pop(channel, None)
        running.layout.unsubscribe(channels)
        running.unused.leave(rooms)
        self._note_left(running, set(rooms))

    def _note_left(self, running: _Running, rooms: set[str]) -> None:
        for link in running.layout.links:
            link.outgoing.note_left(rooms)

    def _take(self, channel: bytes, data: bytes) -> None:
        running = self._running
        if running is None:
            return
        try:
            if channel == self._names.control:
                self._take_control(running.node, data)
            else:
                self._take_publication(running, channel, data)
        except ValueError:
            logger.warning("a broker's message on %s is none of ours", printable(repr(channel), 80))
        except Exception:
            logger.exception("a broker's message on %s failed", printable(repr(channel), 80))

    def _take_control(self, node: Node, data: bytes) -> None:
        control = unseal_control(data)
        if control.origin != node.id:
            node.handle_control(control)

    def _take_publication(self, running: _Running, channel: bytes, data: bytes) -> None:
        room = running.rooms.get(channel)
        if room is None:
            return
        place, _, rest = data.partition(b"\n")
        if is_told(place):
            running.node.deliver(told_publication(room, place, rest))
            return
        is_run = place[:1] == RUN
        position = position_of(place[1:] if is_run else place)
        run = unpack(rest) if is_run else (rest,)
        deliver_run(running.node, room, run, position, running.sender, running.came)

    def _back(self, link: Link) -> None:
        running = self._running
        if running is None:
            return
        if len(running.layout.links) == 1:
            running.node.note_gap(None)
            return
        of = running.layout.link
        running.node.note_gap(
            [room for channel, room in running.rooms.items() if of(channel) is link]
        )

    def _left(self, channels: Sequence[bytes]) -> None:
        if (running := self._running) is not None:
            self._note_left(running, set(_rooms_of(running, channels)))

    def _arrived(self, channels: Sequence[bytes]) -> None:
        if (running := self._running) is not None and (rooms := _rooms_of(running, channels)):
            running.node.note_gap(rooms)

    def _forgot(self) -> None:
        if self._running is not None:
            self._running.node.note_gap(None)

    # What is asked

    async def history(
        self,
        room: str,
        *,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> History:
        """See `HistoryBroker.history`."""
        running = self._require()
        offset, epoch = ("", "") if since is None else (since.offset, since.epoch)
        most = "" if limit is None else min(limit, MOST_READ)
        first = (offset, epoch, most, int(reverse))
        keys = [self._names.key(room, "h"), self._names.key(room, "s")]

        async def ask(link: Link) -> Any:
            state = link.connections.state
            arguments = [*first, fresh(), _ms(POSITION_TTL_S), state, _ms(UNUSED_TTL_S)]
            return await link.history(keys=keys, args=arguments)

        channel = self._names.channel(room)
        answer = await running.layout.answer(channel, ask)
        if isinstance(answer, int):
            raise PositionLost(room, is_other_epoch=answer == 1)
        top, name, rows = answer
        running.unused.note(room, is_kept=top == 0 and channel in running.rooms)
        found = [
            publication_of(unseal(sealed), room, Position(number, name.decode()))
            for number, sealed in rows
        ]
        return History(found, Position(top, name.decode()))

    async def _ask_for(self, room: str) -> None:
        await self.history(room, limit=0)

    async def remove_history(self, room: str) -> None:
        """See `HistoryBroker.remove_history`."""
        keys = self._names.key(room, "h"), self._names.key(room, "s")
        await self._ask(room, lambda link: link.connections.client.delete(*keys))

    async def note(self, name: str, text: bytes) -> None:
        """See `NoteBroker.note`."""
        key = self._names.note(name)
        answer = self._require().layout.answer
        await answer(key.encode(), lambda link: link.connections.client.set(key, text))

    async def noted(self, name: str) -> bytes | None:
        """See `NoteBroker.noted`."""
        key = self._names.note(name)
        answer = self._require().layout.answer
        text: bytes | None
        text = await answer(key.encode(), lambda link: link.connections.client.get(key))
        return text

    async def enter(
        self, room: str, members: Mapping[str, ClientInfo], terms: PresenceTerms
    ) -> Entered:
        """See `PresenceBroker.enter`."""
        return await self._ask(room, lambda link: link.presence.enter(room, members, terms))

    async def leave(
        self, room: str, names: Sequence[str], terms: PresenceTerms
    ) -> Sequence[ClientInfo]:
        """See `PresenceBroker.leave`."""
        return await self._ask(room, lambda link: link.presence.leave(room, names, terms))

    async def expire(self, room: str, terms: PresenceTerms) -> Sequence[ClientInfo]:
        """See `PresenceBroker.expire`."""
        return await self._ask(room, lambda link: link.presence.expire(room, terms))

    async def presence(self, room: str, most: int | None = None) -> Snapshot:
        """See `PresenceBroker.presence`."""
        return await self._ask(room, lambda link: link.presence.snapshot(room, most))

    async def presence_stats(self, room: str) -> PresenceStats:
        """See `PresenceBroker.presence_stats`."""
        return await self._ask(room, lambda link: link.presence.stats(room))

    async def _ask(self, room: str, ask: Callable[[Link], Awaitable[T]]) -> T:
        """Ask a question of the server that has a room."""
        return await self._require().layout.answer(self._names.channel(room), ask)

    # Control

    def send_control(self, control: Control) -> Future[None]:
        """See `ControlBroker.send_control`."""
        running = self._require()
        said = asyncio.get_running_loop().create_task(self._say(running, seal_control(control)))
        running.saying.add(said)
        said.add_done_callback(running.saying.discard)
        return said

    async def _say(self, running: _Running, data: bytes) -> None:
        await running.layout.say(self._names.control, data)


def _rooms_of(running: _Running, channels: Sequence[bytes]) -> list[str]:
    return [running.rooms[channel] for channel in channels if channel in running.rooms]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
