"""The broker of one process: no server, nothing to install.

What must not live here: the contract (`broker`), what is kept (`history`, `presence`).
"""

from __future__ import annotations

import asyncio
import time
from asyncio import Future
from collections.abc import Mapping, Sequence

from ..model import ClientInfo, Position, PresenceStats, Receipt
from ..wire.presence import told_frame
from ..wire.publication import Publication
from .broker import Ability, Entered, History, Keep, Node, PresenceTerms, Snapshot
from .history import HistoryStore
from .presence import Change, PresenceStore

SWEEP_S = 1.0
"""How often what is too old is looked for, while anything is kept."""


class MemoryBroker:
    """The broker of one process: a publication is delivered within `publish`.

    It keeps histories, and who is where, in this process's memory, and knows no other process: two workers do not see
    each other through it, and what it keeps ends with the process.
    """

    abilities: frozenset[Ability] = frozenset({Ability.HISTORY, Ability.PRESENCE})
    receives_all: bool = True

    def __init__(self) -> None:
        self._node: Node | None = None
        self._receipt = Receipt(0)
        self._timer: asyncio.TimerHandle | None = None
        self.store: HistoryStore = HistoryStore(0)
        """What is kept; it is made anew at each start."""
        self.members: PresenceStore = PresenceStore()
        """Who is where; made anew at each start too."""

    async def start(self, node: Node) -> None:
        """Remember whom to deliver to."""
        self._node = node
        self.store = HistoryStore(node.history_max_bytes, node.has_members)
        self.members = PresenceStore()

    async def stop(self) -> None:
        """Forget whom to deliver to, and all that was kept."""
        self._node = None
        self.store = HistoryStore(0)
        self.members = PresenceStore()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def publish(self, publication: Publication) -> Receipt:
        """Deliver at once. Before start nobody is there, and nobody is reached."""
        node = self._node
        if node is None:
            return Receipt(0)
        if publication.key is not None:
            return self._publish_once(node, publication, None)
        count = node.deliver(publication)
        receipt = self._receipt
        if receipt.delivered_to != count:
            # One is kept, since most rooms keep their size from message to message.
            receipt = self._receipt = Receipt(count)
        return receipt

    def publish_kept(self, publication: Publication, keep: Keep) -> Receipt:
        """See `HistoryBroker.publish_kept`."""
        node = self._node
        return Receipt(0) if node is None else self._publish_once(node, publication, keep)

    def _publish_once(self, node: Node, publication: Publication, keep: Keep | None) -> Receipt:
        """Keep a publication, if it is to be kept, and deliver it unless its key was seen before."""
        store, room, key, now = self.store, publication.room, publication.key, node.now()
        if key is not None and (seen := store.seen(room, key, now)) is not None:
            return Receipt(0, seen[0], is_repeated=True)
        position = None
        if keep is not None:
            publication.time_ms = int(time.time() * 1000)
            position = store.add(publication, keep, now)
        if key is not None:
            store.note_key(room, key, position, now)
        if self._timer is None:
            self._sweep_later(node)
        return Receipt(node.deliver(publication), position)

    def _sweep_later(self, node: Node) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep, node)

    def _sweep(self, node: Node) -> None:
        self._timer = None
        self.store.sweep(node.now())
        self.store.let_go()
        if self.store.is_in_use:
            self._sweep_later(node)

    async def history(
        self,
        room: str,
        *,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> History:
        """See `HistoryBroker.history`."""
        if self._timer is None and self._node is not None:
            self._sweep_later(self._node)  # the question alone makes a room, which has to end
        return self.store.read(room, self._now(), since=since, limit=limit, reverse=reverse)

    async def remove_history(self, room: str) -> None:
        """See `HistoryBroker.remove_history`."""
        if self._node is not None:
            self.store.remove(room, self._node.now())

    async def enter(
        self, room: str, members: Mapping[str, ClientInfo], terms: PresenceTerms
    ) -> Entered:
        """See `PresenceBroker.enter`."""
        change = self.members.enter(room, members, terms, self._now())
        return Entered(self._tell(room, change), change.is_quiet)

    async def leave(
        self, room: str, names: Sequence[str], terms: PresenceTerms
    ) -> Sequence[ClientInfo]:
        """See `PresenceBroker.leave`."""
        return self._tell(room, self.members.leave(room, names, terms, self._now()))

    async def expire(self, room: str, terms: PresenceTerms) -> Sequence[ClientInfo]:
        """See `PresenceBroker.expire`."""
        return self._tell(room, self.members.expire(room, terms, self._now()))

    def _tell(self, room: str, change: Change) -> Sequence[ClientInfo]:
        """Deliver what is to be told of a change, and return who it concerns."""
        told, node = change.told, self._node
        if told is not None and node is not None:
            node.deliver(Publication(room, told_frame(room, told), kind=told.kind))
        return change.infos

    async def presence(self, room: str, most: int | None = None) -> Snapshot:
        """See `PresenceBroker.presence`."""
        return self.members.snapshot(room, most)

    async def presence_stats(self, room: str) -> PresenceStats:
        """See `PresenceBroker.presence_stats`."""
        return self.members.stats(room)

    def _now(self) -> float:
        return 0.0 if self._node is None else self._node.now()

    def subscribe(self, rooms: Sequence[str]) -> Future[None] | None:
        """Do nothing: all publications come anyway."""
        return None

    def unsubscribe(self, rooms: Sequence[str]) -> None:
        """Do nothing."""
