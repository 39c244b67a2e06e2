"""Cluster: the layout of a Valkey or Redis cluster, whose shards have rooms by slots.

What must not live here: what is said to a server (`valkey_link`), what waits for a shard (`valkey_moving`).

A shard is a primary and its replicas. Each has one `Shard` here, which follows its primary, as with Sentinels.
Rooms move between shards with their slots: a channel whose slot has moved is subscribed to again where it is
now, and its room has a gap. The client library's own cluster client follows a slot that is half moved to where
nobody listens yet; so the map of the slots is read here.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

from ..errors import BrokerUnavailable
from ..model import Receipt
from . import valkey_connections
from .reconnecting import AWAY
from .valkey_address import Address
from .valkey_connections import Connections, is_moving, is_replica, probe, slot_of, unavailable
from .valkey_feed import Feed, SlotMoved
from .valkey_layout import parted, together
from .valkey_link import Handlers, Link
from .valkey_moving import MovingOutgoing
from .valkey_names import Names
from .valkey_outgoing import Outgoing, Plain, Script, ValkeyWaiting

T = TypeVar("T")

SLOTS = 16384
PAUSE_S = 0.05
"""How long after a refusal it is asked again who has a slot."""


class Found(NamedTuple):
    """What a node says of a shard: the ids of its nodes, where its primary is (None: there is none), its slots."""

    nodes: frozenset[bytes]
    primary: tuple[str, int] | None
    slots: tuple[range, ...]


class Shard(Link):
    """A shard of a cluster, and a `Locator` of its primary."""

    def __init__(
        self, cluster: Cluster, address: Address, names: Names, handlers: Handlers
    ) -> None:
        self.nodes: frozenset[bytes] = frozenset()
        self.primary: tuple[str, int] | None = None
        self.has_slots: bool = False
        self._cluster = cluster
        super().__init__(Connections(address, self), names, handlers)
        self.feed: Feed = Feed(
            self.connections, handlers.take, self._lost, self._back, self._agree, self._moved
        )
        self.moving: MovingOutgoing = MovingOutgoing(
            self.connections,
            self._is_up,
            handlers.comes_by,
            lambda waiting: cluster.home(waiting).moving,
            lambda: cluster.refresh(self),
        )
        self.outgoing: Outgoing = self.moving

    async def find(self) -> tuple[str, int]:
        """See `Locator.find`."""
        await self._cluster.look_up(self)
        if self.primary is None:
            raise BrokerUnavailable("a shard of the cluster has no primary")
        return self.primary

    async def until_moved(self) -> None:
        """See `Locator.until_moved`. Nobody says so."""
        await asyncio.get_running_loop().create_future()

    async def _agree(self) -> None:
        try:
            await super()._agree()
        except BrokerUnavailable as error:
            if not is_moving(error.__cause__):
                raise  # else the slot of the mark is another's by now, and it is asked again there

    def _moved(self, channels: Sequence[bytes]) -> None:
        self._cluster.moved(self, channels)

    def _failed(self, error: BrokerUnavailable, cause: BaseException) -> None:
        if is_replica(cause):
            self.feed.fail(error)
        elif is_moving(cause):
            self._cluster.spawn(self._cluster.refresh(self))


class Cluster:
    """See the module, and `Layout`."""

    def __init__(self, address: Address, names: Names, handlers: Handlers) -> None:
        self._address, self._names, self._handlers = address, names, handlers
        self._shards: list[Shard] = []
        self._slots: list[Shard | None] = [None] * SLOTS
        self._at: dict[bytes, Shard] = {}
        """The channels that are wanted, and where."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._has_started = False

    @property
    def links(self) -> Sequence[Link]:
        """See `Layout.links`."""
        return [shard for shard in self._shards if shard.has_slots]

    async def start(self, control: bytes) -> None:
        """See `Layout.start`."""
        await self.look_up()
        for shard in self._shards:
            await shard.start([])
        self._has_started = True
        await self.subscribe([control])

    async def stop(self) -> None:
        """See `Layout.stop`."""
        self._has_started = False
        tasks = [*self._tasks, *([self._looking] if self._looking is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for shard in self._shards:
            await shard.stop()

    def link(self, place: bytes) -> Shard:
        """See `Layout.link`. Where nobody has its slot, any shard will say so."""
        return self._slots[slot_of(place)] or self._shards[0]

    def put(self, place: bytes, number: int, room: str, command: Script | Plain) -> Future[Receipt]:
        """See `Layout.put`. What is published to a room stays behind what waits already."""
        has = next((shard for shard in self._shards if shard.moving.has(room)), None)
        shard = self.link(place) if has is None else has
        return shard.moving.put(number, room, command)

    def home(self, waiting: ValkeyWaiting) -> Shard:
        """Return the shard that has the room of a publication now."""
        command = waiting.command
        return self.link(
            command.channel if isinstance(command, Plain) else command.keys[0].encode()
        )

    def subscribe(self, channels: Sequence[bytes]) -> Future[None]:
        """See `Layout.subscribe`."""
        parts = parted(self, channels)
        if not all(link.feed.is_up for link, _ in parts):
            raise BrokerUnavailable(AWAY)
        for channel in channels:
            self._at[channel] = self.link(channel)
        done = together([link.feed.subscribe(part) for link, part in parts])
        return self.spawn(self._subscribed(channels, done))

    async def _subscribed(self, channels: Sequence[bytes], done: Future[None]) -> None:
        """Wait for channels, of which some may move just now."""
        try:
            await done
        except SlotMoved:
            async with asyncio.timeout(valkey_connections.TIMEOUT_S):
                while not all(map(self._is_here, channels)):
                    await asyncio.sleep(PAUSE_S)

    def _is_here(self, channel: bytes) -> bool:
        shard = self._at.get(channel)
        return shard is None or shard.feed.is_subscribed(channel)

    def unsubscribe(self, channels: Sequence[bytes]) -> None:
        """See `Layout.unsubscribe`."""
        for channel in channels:
            shard = self._at.pop(channel, None)
            if shard is not None:
                shard.feed.unsubscribe([channel])

    async def answer(self, place: bytes, ask: Callable[[Link], Awaitable[T]]) -> T:
        """See `Layout.answer`. While the slot moves the question is asked again, for as long as an answer may take."""
        loop = asyncio.get_running_loop()
        late = loop.time() + valkey_connections.TIMEOUT_S
        while True:
            shard = self.link(place)
            try:
                return await shard.answer(ask)
            except BrokerUnavailable as error:
                if not is_moving(error.__cause__) or loop.time() > late:
                    raise
            await self.refresh(shard)
            await asyncio.sleep(PAUSE_S)

    async def say(self, channel: bytes, data: bytes) -> None:
        """See `Layout.say`."""
        await self.answer(
            channel,
            lambda link: link.connections.client.execute_command("SPUBLISH", channel, data),
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something that ends with the layout."""
        task = asyncio.get_running_loop().create_task(work, name="valkey cluster")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # The map

    async def refresh(self, first: Shard | None = None) -> None:
        """Find out who has which slots, if that can be found out now."""
        try:
            await self.look_up(first)
        except BrokerUnavailable:
            return

    async def look_up(self, first: Shard | None = None) -> None:
        """Find out who has which slots, from `first` if it is there. Raises `BrokerUnavailable`."""
        if self._looking is None or self._looking.done():
            loop = asyncio.get_running_loop()
            self._looking = loop.create_task(self._look_up(first), name="valkey cluster")
        await asyncio.shield(self._looking)

    async def _look_up(self, first: Shard | None) -> None:
        why = ""
        cause: Exception | None = None
        for place in self._places(first):
            (address,) = self._address._replace(hosts=(place,)).of_hosts()
            try:
                found = shards_of(
                    await probe(address, "CLUSTER", "SHARDS"), place[0], is_tls=address.is_tls
                )
            except Exception as error:
                why, cause = f"{address.shown}: {unavailable(error)}", error
                continue
            if any(each.slots for each in found):
                self._apply(found)
                return
            why, cause = f"{address.shown} knows of nobody who has slots", None
        raise BrokerUnavailable(f"no node of the cluster says who has what ({why})") from cause

    def _places(self, first: Shard | None) -> list[tuple[str, int]]:
        """Return where to ask, the likeliest first."""
        shards = sorted(self._shards, key=lambda shard: (shard is not first, not shard.feed.is_up))
        known = [shard.connections.place for shard in shards]
        return list(dict.fromkeys([*known, *self._address.hosts]))

    def _apply(self, found: Sequence[Found]) -> None:
        slots: list[Shard | None] = [None] * SLOTS
        for each in found:
            shard = next((one for one in self._shards if one.nodes & each.nodes), None)
            if shard is None and not each.slots:
                continue
            if shard is None:
                shard = self._new_shard(each)
            shard.nodes, shard.primary = each.nodes, each.primary
            for part in each.slots:
                slots[part.start : part.stop] = [shard] * len(part)
        if slots == self._slots:
            return self._leave_replicas()
        self._slots = slots
        for shard in self._shards:
            shard.has_slots = shard in slots
            if shard.has_slots:
                self._mark(shard)
        self._reroute()
        for shard in self._shards:
            shard.moving.note_moves()
        self._leave_replicas()
        return None

    def _new_shard(self, found: Found) -> Shard:
        place = found.primary or self._address.hosts[0]
        (address,) = self._address._replace(hosts=(place,)).of_hosts()
        shard = Shard(self, address, self._names, self._handlers)
        self._shards.append(shard)
        if self._has_started:
            shard.start_later()
        return shard

    def _mark(self, shard: Shard) -> None:
        def has(key: bytes) -> bool:
            return self._slots[slot_of(key)] is shard

        if not has(shard.mark_key.encode()):
            shard.use_mark(self._names.mark_in(has))

    def _leave_replicas(self) -> None:
        """Have shards follow their primaries, where the old one is there still."""
        for shard in self._shards:
            if shard.primary not in (None, shard.connections.place) and shard.feed.is_up:
                shard.feed.fail(BrokerUnavailable("another node has become the primary"))

    # Channels that move

    def moved(self, shard: Shard, channels: Sequence[bytes]) -> None:
        """Learn that a shard sends nothing of channels any more."""
        self.spawn(self._moved(shard, channels))

    async def _moved(self, shard: Shard, channels: Sequence[bytes]) -> None:
        self._handlers.left(channels)
        await self.refresh(shard)
        left = [channel for channel in channels if self._at.get(channel) is shard]
        if any(self.link(channel) is shard for channel in left):
            await asyncio.sleep(PAUSE_S)
        await self._arrive([channel for channel in left if self._at.get(channel) is shard])

    def _reroute(self) -> None:
        """Want channels where they are now."""
        moved = [channel for channel, shard in self._at.items() if self.link(channel) is not shard]
        for channel in moved:
            self._at[channel].feed.unsubscribe([channel])
        if moved:
            self._handlers.left(moved)
            self.spawn(self._arrive(moved))

    async def _arrive(self, channels: Sequence[bytes]) -> None:
        wanted = [channel for channel in channels if channel in self._at]
        for link, part in parted(self, wanted):
            for channel in part:
                self._at[channel] = self.link(channel)
            if link.feed.is_up:
                self.spawn(self._arrive_at(link, part))
            else:
                link.feed.want(part)  # `back` says when they come

    async def _arrive_at(self, link: Link, channels: Sequence[bytes]) -> None:
        try:
            await link.feed.subscribe(channels)
        except BrokerUnavailable:
            return  # they have moved again, or come when the server is back
        self._handlers.arrived(channels)


def shards_of(answer: Any, host: str, *, is_tls: bool) -> list[Found]:
    """Read the answer to CLUSTER SHARDS of a node at `host`. Raises `ValueError` for what is none."""
    found = []
    for row in answer:
        shard = _pairs(row)
        bounds = [int(bound) for bound in shard[b"slots"]]
        slots = tuple(
            range(one, last + 1) for one, last in zip(bounds[::2], bounds[1::2], strict=True)
        )
        nodes = [_pairs(node) for node in shard[b"nodes"]]
        primary = next((_place(node, host, is_tls=is_tls) for node in nodes if _leads(node)), None)
        found.append(Found(frozenset(node[b"id"] for node in nodes), primary, slots))
    return found


def _pairs(row: Any) -> dict[bytes, Any]:
    return dict(zip(row[::2], row[1::2], strict=True))


def _leads(node: dict[bytes, Any]) -> bool:
    return bool(node[b"role"] == b"master" and node[b"health"] != b"fail")


def _place(node: dict[bytes, Any], host: str, *, is_tls: bool) -> tuple[str, int]:
    """Return where a node is; one that does not know its own host is at that which was asked."""
    name = (node.get(b"endpoint") or node.get(b"ip") or b"").decode()
    port = node.get(b"tls-port") if is_tls else node.get(b"port")
    return name if name not in ("", "?") else host, int(port or node[b"port"])
