"""A broker for tests: it joins several hubs of one process, and can be late, cut off and out of order.

Every broker of an `Exchange` is one node's. What is published goes to the exchange, which gives it its
place in the order of its room, and from there to each node that is interested, by a queue for each room
and node. Turns of the event loop carry it on; `hold` stops that, `cut` takes a node's way to the exchange
away, `shuffle` lets rooms overtake one another, never two publications of one room.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from hubbub import (
    BrokerUnavailable,
    ClientInfo,
    Frame,
    Hub,
    Position,
    PresenceStats,
    Publication,
    Receipt,
)
from hubbub.brokers.broker import (
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
from hubbub.brokers.history import HistoryStore
from hubbub.brokers.presence import Change, PresenceStore
from hubbub.testing import FakeClock, set_clock
from hubbub.wire.presence import told_frame
from nats_exchange import NatsExchange
from valkey_exchange import ValkeyExchange


class Exchange:
    """What connects the brokers. `late_turns` is how many turns of the loop everything takes."""

    def __init__(self, *, late_turns: int = 0, shuffle: random.Random | None = None) -> None:
        self.brokers: list[ExchangeBroker] = []
        self.late_turns = late_turns
        self.held = False
        self._shuffle = shuffle
        self.store = HistoryStore(64 * 1024**2, self._has_members)
        """What is kept; every node sees the same."""
        self.members = PresenceStore()
        """Who is where, on all nodes."""
        self.notes: dict[str, bytes] = {}
        """What nodes keep for one another."""
        self.clock: Callable[[], float] = lambda: 0.0
        """What it is aged by."""
        self._queues: dict[tuple[int, str], deque[Callable[[], object]]] = {}
        self._task: asyncio.Task[None] | None = None

    def broker(self) -> ExchangeBroker:
        """Return the broker of one more node."""
        broker = ExchangeBroker(self)
        self.brokers.append(broker)
        return broker

    def hubs(self, count: int, **settings: object) -> list[Hub]:
        """Return hubs that are nodes of this exchange."""
        return [Hub(broker=self.broker(), **settings) for _ in range(count)]  # type: ignore[arg-type]

    def _has_members(self, room: str) -> bool:
        nodes = [broker.node for broker in self.brokers]
        return any(node is not None and node.has_members(room) for node in nodes)

    @contextmanager
    def losing(self, node: int) -> Iterator[None]:
        """Lose on its way to a node what is published within; it is kept all the same."""
        self.hold()
        yield
        self.clear(node)
        self.release()

    def hold(self) -> None:
        """Deliver nothing until `release`."""
        self.held = True

    def release(self) -> None:
        """Deliver again, what was held first."""
        self.held = False
        self._wake()

    def accept(self, publication: Publication, keep: Keep | None) -> Publication | Receipt:
        """Give a publication its place, and keep it; return a receipt for one that was here before."""
        room, key, now = publication.room, publication.key, self.clock()
        if key is not None and (seen := self.store.seen(room, key, now)) is not None:
            return Receipt(0, seen[0], is_repeated=True)
        if keep is not None:
            self.store.add(publication, keep, now)
        if key is not None:
            self.store.note_key(room, key, publication.position, now)
        return publication

    @staticmethod
    def copy(publication: Publication) -> Publication:
        """Return what arrives: as over a network, that is the bytes, and not the object."""
        return Publication(
            publication.room,
            Frame(bytes(publication.data), publication.is_text),
            publication.exclude,
            publication.position,
            key=publication.key,
            kind=publication.kind,
            origin=publication.origin,
            time_ms=publication.time_ms,
            publisher=publication.publisher,
        )

    def put(self, number: int, room: str, work: Callable[[], object]) -> None:
        """Have something done for a node, in the order of its room."""
        self._queues.setdefault((number, room), deque()).append(work)
        self._wake()

    def clear(self, number: int) -> None:
        """Lose all that is on its way to a node."""
        for key in [key for key in self._queues if key[0] == number]:
            del self._queues[key]

    def _wake(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._carry())

    async def _carry(self) -> None:
        for _ in range(self.late_turns):
            await asyncio.sleep(0)
        while self._queues and not self.held:
            keys = list(self._queues)
            if self._shuffle is not None:
                self._shuffle.shuffle(keys)
            queue = self._queues.get(keys[0])
            if queue:
                queue.popleft()()
            if not queue:
                self._queues.pop(keys[0], None)
            if self._shuffle is not None and self._shuffle.random() < 0.3:
                await asyncio.sleep(0)

    @property
    def is_busy(self) -> bool:
        """Whether anything is on its way."""
        return bool(self._queues) and not self.held

    async def carried(self) -> None:
        """Wait until nothing is on its way."""
        quiet = 0
        while quiet < 20:
            await asyncio.sleep(0)
            quiet = 0 if self.is_busy else quiet + 1

    async def snapshot(self, room: str) -> Snapshot:
        """Return who is in a room."""
        return self.members.snapshot(room)


class ExchangeBroker:
    """One node's broker; see `hubbub.brokers.broker.Broker`."""

    receives_all: bool = False
    abilities: frozenset[Ability] = frozenset(
        {Ability.CONTROL, Ability.HISTORY, Ability.PRESENCE, Ability.NOTES}
    )

    def __init__(self, exchange: Exchange) -> None:
        self.node: Node | None = None
        self.rooms: set[str] = set()
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        """What was asked of it: "subscribe" or "unsubscribe", and the rooms."""
        self.presence_calls: list[tuple[str, tuple[str, ...]]] = []
        """What was asked of it about presence, and the names of members."""
        self.meanwhile: Callable[[str, tuple[str, ...]], object] = lambda verb, names: None
        """What happens while such a question is on its way; what it raises is the answer."""
        self._exchange = exchange
        self._number = len(exchange.brokers)
        self._is_cut = False
        self._futures: set[asyncio.Future[None]] = set()
        self._receipts: set[asyncio.Future[Receipt]] = set()

    async def start(self, node: Node) -> None:
        """Connect."""
        if self._is_cut:
            raise BrokerUnavailable("the exchange cannot be reached")
        await asyncio.sleep(0)
        self.node = node

    async def stop(self) -> None:
        """Disconnect."""
        self.node = None
        self.rooms.clear()
        self._exchange.clear(self._number)
        self._give_up()
        await asyncio.sleep(0)

    def publish(self, publication: Publication) -> asyncio.Future[Receipt]:
        """Hand a publication to the exchange."""
        return self._publish(publication, None)

    def publish_kept(self, publication: Publication, keep: Keep) -> asyncio.Future[Receipt]:
        """Hand a publication to the exchange, which keeps it."""
        return self._publish(publication, keep)

    def _publish(self, publication: Publication, keep: Keep | None) -> asyncio.Future[Receipt]:
        if self._is_cut or self.node is None:
            raise BrokerUnavailable("the exchange cannot be reached")
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._receipts.add(future)
        future.add_done_callback(self._receipts.discard)
        accepted = self._exchange.accept(publication, keep)
        if isinstance(accepted, Receipt):
            future.set_result(accepted)
            return future
        accepted = self._exchange.copy(accepted)
        for broker in self._exchange.brokers:
            if broker is self:
                self._exchange.put(
                    self._number, accepted.room, lambda: self._take_own(accepted, future)
                )
            else:
                broker.send(accepted)
        return future

    def send(self, publication: Publication) -> None:
        """Have a publication delivered to this node, if it is interested when that happens."""
        if not self._is_cut:
            self._exchange.put(self._number, publication.room, lambda: self._take(publication))

    def _take(self, publication: Publication) -> int:
        if self.node is not None and publication.room in self.rooms:
            return self.node.deliver(publication)
        return 0

    def _take_own(self, publication: Publication, future: asyncio.Future[Receipt]) -> None:
        count = self._take(publication)
        if not future.done():
            future.set_result(Receipt(count, publication.position))

    async def note(self, name: str, text: bytes) -> None:
        """Keep a text at the exchange."""
        if self._is_cut:
            raise BrokerUnavailable("the exchange cannot be reached")
        self._exchange.notes[name] = text

    async def noted(self, name: str) -> bytes | None:
        """Return a text that a node has left at the exchange."""
        if self._is_cut:
            raise BrokerUnavailable("the exchange cannot be reached")
        return self._exchange.notes.get(name)

    async def history(
        self,
        room: str,
        *,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> History:
        """Read what the exchange keeps, some turns later."""
        if self._is_cut:
            raise BrokerUnavailable("the exchange cannot be reached")
        for _ in range(1 + self._exchange.late_turns):
            await asyncio.sleep(0)
        now = self._exchange.clock()
        page = self._exchange.store.read(room, now, since=since, limit=limit, reverse=reverse)
        for _ in range(1 + self._exchange.late_turns):
            await asyncio.sleep(0)
        if self._is_cut:
            raise BrokerUnavailable("the exchange cannot be reached")
        return page

    async def remove_history(self, room: str) -> None:
        """Forget what the exchange keeps of a room."""
        self._exchange.store.remove(room, self._exchange.clock())

    async def _ask(self, verb: str, names: tuple[str, ...] = ()) -> None:
        """Be on the way to the exchange with a question about presence."""
        self.presence_calls.append((verb, names))
        await self._travel()
        self.meanwhile(verb, names)

    async def enter(
        self, room: str, members: Mapping[str, ClientInfo], terms: PresenceTerms
    ) -> Entered:
        """Have members written down, some turns later, and told in the same step."""
        exchange = self._exchange
        await self._ask("enter", tuple(members))
        change = exchange.members.enter(room, members, terms, exchange.clock())
        return Entered(await self._tell(room, change), change.is_quiet)

    async def leave(
        self, room: str, names: Sequence[str], terms: PresenceTerms
    ) -> Sequence[ClientInfo]:
        """Have members struck out."""
        exchange = self._exchange
        await self._ask("leave", tuple(names))
        return await self._tell(room, exchange.members.leave(room, names, terms, exchange.clock()))

    async def expire(self, room: str, terms: PresenceTerms) -> Sequence[ClientInfo]:
        """Have those struck out whose time is over."""
        exchange = self._exchange
        await self._ask("expire")
        return await self._tell(room, exchange.members.expire(room, terms, exchange.clock()))

    async def _tell(self, room: str, change: Change) -> Sequence[ClientInfo]:
        told = change.told
        if told is not None:
            publication = Publication(room, told_frame(room, told), kind=told.kind)
            for broker in self._exchange.brokers:
                broker.send(publication)
        await self._travel()
        return change.infos

    async def presence(self, room: str, most: int | None = None) -> Snapshot:
        """Read who is in a room, some turns later; the answer takes some more."""
        await self._travel()
        snapshot = self._exchange.members.snapshot(room, most)
        await self._travel()
        return snapshot

    async def presence_stats(self, room: str) -> PresenceStats:
        """Count who is in a room."""
        await self._travel()
        return self._exchange.members.stats(room)

    async def _travel(self) -> None:
        """Be on the way to the exchange, or back; what is cut off meanwhile fails."""
        for _ in range(1 + self._exchange.late_turns):
            if self._is_cut:
                break
            await asyncio.sleep(0)
        if self._is_cut or self.node is None:
            raise BrokerUnavailable("the exchange cannot be reached")

    def subscribe(self, rooms: Sequence[str]) -> asyncio.Future[None]:
        """Note what the node is interested in, when the exchange has heard of it."""
        self.calls.append(("subscribe", tuple(rooms)))
        if self._is_cut:
            raise BrokerUnavailable("the exchange cannot be reached")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)

        def note() -> None:
            self.rooms.update(rooms)
            if not future.done():
                future.set_result(None)

        self._exchange.put(self._number, "\\0interest", note)
        return future

    def unsubscribe(self, rooms: Sequence[str]) -> None:
        """Forget what the node is interested in."""
        self.calls.append(("unsubscribe", tuple(rooms)))
        self.rooms.difference_update(rooms)
        # Once more behind the questions that are on their way.
        forget = partial(self.rooms.difference_update, rooms)
        self._exchange.put(self._number, "\\0interest", forget)

    def send_control(self, control: Control) -> asyncio.Future[None] | None:
        """Say something to the other nodes."""
        if self._is_cut:
            raise BrokerUnavailable("the exchange cannot be reached")
        for broker in self._exchange.brokers:
            if broker is not self and not broker._is_cut:
                broker.take_control(control)
        return None

    def take_control(self, control: Control) -> None:
        """Have a word delivered to this node."""

        def hear() -> None:
            if self.node is not None:
                self.node.handle_control(control)

        self._exchange.put(self._number, "\\0control", hear)

    @property
    def condition(self) -> Condition:
        """Whether it has its way to the exchange."""
        return Condition("away" if self._is_cut else "up")

    # What a test does to it

    def cut(self) -> None:
        """Lose the way to the exchange, and what is on it."""
        self._is_cut = True
        self._exchange.clear(self._number)
        self._give_up()

    def mend(self) -> None:
        """Find the way again: the node is interested in what it was, and has a gap."""
        self._is_cut = False
        if self.node is not None:
            self.node.note_gap(None)

    def _give_up(self) -> None:
        waiting: list[asyncio.Future[Any]] = [*self._futures, *self._receipts]
        for future in waiting:
            if not future.done():
                future.set_exception(BrokerUnavailable("the exchange cannot be reached"))
                future.exception()


EXCHANGES: dict[str, Callable[[], Exchange]] = {
    "prompt": Exchange,
    "late": lambda: Exchange(late_turns=3),
    "shuffled": lambda: Exchange(shuffle=random.Random(7)),
}
"""The ways in which what is published may travel."""

CLUSTERS: dict[str, Callable[[], Exchange | ValkeyExchange]] = {
    **EXCHANGES,
    "valkey": ValkeyExchange,
    "nats": NatsExchange,
}
"""These, and real servers."""


@asynccontextmanager
async def cluster(
    exchange: Exchange | ValkeyExchange,
    count: int = 2,
    *,
    clock: FakeClock | None = None,
    **settings: object,
) -> AsyncIterator[list[Hub]]:
    """Run hubs that are nodes of an exchange; at the end all ways are open, and nothing is held.

    With a `clock` the hubs and the exchange go by that.
    """
    hubs = exchange.hubs(count, **settings)
    for hub in hubs:
        if clock is not None:
            exchange.clock = clock
            set_clock(hub, clock)
        await hub.start()
    try:
        yield hubs
    finally:
        for broker in exchange.brokers:
            broker.mend()
        exchange.release()
        for hub in hubs:
            await hub.stop()


async def carried(exchange: Exchange | ValkeyExchange) -> None:
    """Wait until nothing is on its way in the exchange, nor in its hubs' turns."""
    await exchange.carried()
