"""The broker of many processes on NATS: subjects spread what is published, JetStream orders and keeps what rooms remember.

What must not live here: the contract (`broker`), the connection and how it comes back (`nats_connection`,
`nats_feed`), what waits for the server (`nats_outgoing`), what is kept and how (`nats_history`,
`nats_presence`).

A publication comes back to this process as it does to all others, by the server. What is stored is handed on by
its stream, in the stream's order; what is not goes straight from publisher to members.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from asyncio import Future
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..errors import BrokerUnavailable
from ..model import ClientInfo, Position, PresenceStats, Receipt
from ..wire.publication import Publication
from .broker import (
    KEY_TTL_S,
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
from .envelope import seal, seal_control, unpack, unseal_control
from .nats_address import NatsAddress, read_address
from .nats_connection import Connection, Rights, unavailable
from .nats_feed import NatsFeed
from .nats_history import NatsHistory, read_record
from .nats_names import NatsNames
from .nats_outgoing import NatsOutgoing
from .nats_presence import TOLD, NatsPresence, told_publication
from .nats_stream import State, Stored, Stream
from .reconnecting import unusable
from .unanswered import deliver_run
from .valkey_address import checked_prefix

logger: logging.Logger = logging.getLogger("hubbub")

WATCH_S = 1.0
"""How often it is looked whether the streams have lost what they kept."""
LOOKS = 5
"""How often in a row a stream that several servers have is to be found without its newest messages, until that is believed."""
_ALL = frozenset({Ability.CONTROL, Ability.HISTORY, Ability.PRESENCE, Ability.NOTES})
_WITHOUT_JETSTREAM = (
    "its server has no JetStream: start it with -js, or have the user's account allow it"
)


class _Running:
    """What a broker has from its start to its stop."""

    def __init__(
        self, broker: NatsBroker, node: Node, address: NatsAddress, names: NatsNames
    ) -> None:
        self.node = node
        self.sender: str = secrets.token_hex(8)
        self.number: int = 0
        self.skew_s: float = 0.0
        """How far the server's clock is before that of this process."""
        self.feed = NatsFeed(
            address, names, broker._take, broker._check, broker._lost, broker._back
        )
        self.rooms, self.people = _streams(self.feed, address, names)
        self.history = NatsHistory(self.rooms, names, lambda: time.time() + self.skew_s)
        self.presence = NatsPresence(self.people, names, broker._now)
        self.outgoing = NatsOutgoing(self.feed, names, lambda: self.history)
        self.has_streams: bool | None = None
        """Whether the server has JetStream (None: it was not asked yet)."""
        self.made: str | None = None
        """When the stream of rooms was made."""
        self.older: int = 0
        """How often in a row that stream had less than was seen before."""
        self.watch: asyncio.Task[None] | None = None


class NatsBroker:
    """A broker on NATS servers, at `nats://`, with TLS at `tls://`.

    `url` is described in the guide "Many workers"; `prefix` (None: that of the URL, or "hubbub") begins all
    subjects: two applications on one server must have two. What is published while the server is away waits for
    five seconds, and is refused then. In rooms without a history only what one process publishes has an order.
    Without JetStream there are neither histories nor presence nor keys. Raises `SettingsError` for a URL that
    cannot be. Needs the extra `nats`.
    """

    receives_all: bool = False

    def __init__(
        self, url: str | NatsAddress = "nats://localhost:4222", *, prefix: str | None = None
    ) -> None:
        self._address = url if isinstance(url, NatsAddress) else read_address(url)
        self._names = NatsNames(self._address.prefix if prefix is None else checked_prefix(prefix))
        self._running: _Running | None = None
        self.abilities: frozenset[Ability] = _ALL
        """What it can do; after the start, what its server lets it."""
        self.lacks: str = ""
        """Why it can do no more, where the server does not let it."""

    def __repr__(self) -> str:
        return f"<NatsBroker {self._address.shown} prefix={self._names.prefix!r}>"

    @property
    def condition(self) -> Condition:
        """How it is at this moment."""
        running = self._running
        if running is None:
            return Condition("away")
        outgoing, feed = running.outgoing, running.feed
        state: Literal["up", "silent", "away"] = "away"
        if feed.is_up:
            state = "silent" if feed.is_silent else "up"
        return Condition(state, outgoing.untaken, outgoing.nbytes, outgoing.lag_s)

    # Beginning and end

    async def start(self, node: Node) -> None:
        """See `Broker.start`."""
        if self._address.is_tls and not self._address.is_verified:
            logger.warning("the certificate of the broker is not verified: verify=no says so")
        self.abilities, self.lacks = _ALL, ""
        running = self._running = _Running(self, node, self._address, self._names)
        try:
            await running.feed.start()
        except BaseException as error:
            self._running = None
            await self._close(running)
            if not isinstance(error, Exception):
                raise
            raise unusable(self._address.shown, error, unavailable(error)) from None
        if not running.has_streams:
            self.abilities, self.lacks = frozenset({Ability.CONTROL}), _WITHOUT_JETSTREAM
        running.watch = asyncio.get_running_loop().create_task(
            self._watch(running), name="nats streams"
        )

    async def stop(self) -> None:
        """See `Broker.stop`."""
        running, self._running = self._running, None
        if running is not None:
            await self._close(running)
        self.abilities, self.lacks = _ALL, ""  # it may be another server next time

    async def _close(self, running: _Running) -> None:
        if running.watch is not None:
            running.watch.cancel()
            await asyncio.gather(running.watch, return_exceptions=True)
        await running.outgoing.stop()
        await running.history.stop()
        await running.feed.stop()

    def _require(self) -> _Running:
        if self._running is None:
            raise BrokerUnavailable("the broker has not started")
        return self._running

    def _require_streams(self) -> _Running:
        running = self._require()
        if running.has_streams is False:
            raise BrokerUnavailable(_WITHOUT_JETSTREAM)
        return running

    async def _check(self, connection: Connection) -> None:
        """See what a new connection's server can do, and whether its streams are those that were there."""
        running = self._running
        if running is None:
            return
        state = await running.rooms.open(connection)
        if state is None and running.has_streams:
            raise BrokerUnavailable(_WITHOUT_JETSTREAM)
        if running.has_streams is None:
            running.has_streams = state is not None
        if state is None or not running.has_streams:
            return
        await running.people.open(connection)
        await self._saw(running, state, running.history.last_sequence, connection)

    # Publishing

    def publish(self, publication: Publication) -> Future[Receipt]:
        """See `Broker.publish`."""
        return self._send(publication, None)

    def publish_kept(self, publication: Publication, keep: Keep) -> Future[Receipt]:
        """See `HistoryBroker.publish_kept`."""
        return self._send(publication, keep)

    def _send(self, publication: Publication, keep: Keep | None) -> Future[Receipt]:
        is_stored = keep is not None or publication.key is not None
        running = self._require_streams() if is_stored else self._require()
        if publication.time_ms is None:
            publication.time_ms = int(time.time() * 1000)
        running.number += 1
        envelope = seal(publication, running.sender, running.number)
        return running.outgoing.put(
            running.number, publication.room, envelope, keep, publication.key
        )

    # What comes

    def subscribe(self, rooms: Sequence[str]) -> Future[None]:
        """See `Broker.subscribe`."""
        return self._require().feed.subscribe(rooms)

    def unsubscribe(self, rooms: Sequence[str]) -> None:
        """See `Broker.unsubscribe`."""
        running = self._running
        if running is not None:
            running.feed.unsubscribe(rooms)
            running.outgoing.note_left(set(rooms))

    def _take(self, room: str | None, data: bytes, headers: Mapping[str, str]) -> None:
        running = self._running
        if running is None:
            return
        try:
            if room is None:
                self._take_control(running.node, data)
            elif (told := headers.get(TOLD)) is not None:
                running.node.deliver(told_publication(room, told))
            elif data:  # without any, it is a change of presence that is not told
                self._take_run(running, room, data, headers)
        except ValueError:
            logger.warning("a broker's message is none of ours")

    def _take_control(self, node: Node, data: bytes) -> None:
        control = unseal_control(data)
        if control.origin != node.id:
            node.handle_control(control)

    def _take_run(
        self, running: _Running, room: str, data: bytes, headers: Mapping[str, str]
    ) -> None:
        position, run = None, data.partition(b"\n")[2]
        if data[:1] == b"h":
            record = read_record(Stored(int(headers.get("Nats-Sequence", "0")), data))
            running.history.note(room, record)
            position, run = Position(record.first, record.epoch), record.run
        came = running.outgoing.came
        deliver_run(running.node, room, unpack(run), position, running.sender, came)

    def _lost(self) -> None:
        if self._running is not None:
            self._running.outgoing.note_left(None)

    def _back(self) -> None:
        if self._running is not None:
            self._running.outgoing.wake()
            self._running.node.note_gap(None)

    # What was kept

    async def _watch(self, running: _Running) -> None:
        """See again and again whether the streams have lost what they kept, and forget what has ended."""
        while True:
            await asyncio.sleep(WATCH_S)
            if not running.feed.is_up or not running.has_streams:
                continue
            running.history.sweep()
            last = running.history.last_sequence
            try:
                connection = running.feed.connection
                state = await running.rooms.open(connection)
                await running.people.open(connection)
                if state is not None and await self._saw(running, state, last, connection):
                    running.node.note_gap(None)
            except BrokerUnavailable as error:
                logger.debug("the broker's streams cannot be looked at: %s", error)

    async def _saw(
        self, running: _Running, state: State, last: int, connection: Connection
    ) -> bool:
        """Compare a stream's state with what is known; return whether something has been lost.

        `last` is the highest number that had been seen before it was asked. A stream that has come back without its
        newest messages forgets the others too: so all rooms begin new epochs.
        """
        running.skew_s = state.time_s - time.time()
        is_other = running.made not in (None, state.made)
        is_older = running.made == state.made and state.last < last
        running.made = state.made
        running.older = running.older + 1 if is_older else 0
        if is_older and state.replicas > 1 and running.older < LOOKS:
            return False  # the server that leads now may not have read all that it has
        if not is_other and not is_older:
            return False
        logger.warning("the broker's server has forgotten what it kept")
        if is_older:
            everything = self._names.history_of_all
            await running.rooms.forget(everything, before=state.last + 1, by=connection)
        running.history.forget_all()
        return True

    def _now(self) -> float:
        """Return the server's time, by which leases end."""
        running = self._running
        return time.time() + (0.0 if running is None else running.skew_s)

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
        running = self._require_streams()
        return await running.history.read(room, since=since, limit=limit, reverse=reverse)

    async def remove_history(self, room: str) -> None:
        """See `HistoryBroker.remove_history`."""
        await self._require_streams().history.remove(room)

    async def note(self, name: str, text: bytes) -> None:
        """See `NoteBroker.note`."""
        rooms = self._require_streams().rooms
        headers = {"Nats-Rollup": "sub"}
        await rooms.add(self._names.note(name), text, after=None, headers=headers)

    async def noted(self, name: str) -> bytes | None:
        """See `NoteBroker.noted`."""
        stored = await self._require_streams().rooms.last(self._names.note(name))
        return None if stored is None else stored.data

    async def enter(
        self, room: str, members: Mapping[str, ClientInfo], terms: PresenceTerms
    ) -> Entered:
        """See `PresenceBroker.enter`."""
        return await self._require_streams().presence.enter(room, members, terms)

    async def leave(
        self, room: str, names: Sequence[str], terms: PresenceTerms
    ) -> Sequence[ClientInfo]:
        """See `PresenceBroker.leave`."""
        return await self._require_streams().presence.leave(room, names, terms)

    async def expire(self, room: str, terms: PresenceTerms) -> Sequence[ClientInfo]:
        """See `PresenceBroker.expire`."""
        return await self._require_streams().presence.expire(room, terms)

    async def presence(self, room: str, most: int | None = None) -> Snapshot:
        """See `PresenceBroker.presence`."""
        return await self._require_streams().presence.snapshot(room, most)

    async def presence_stats(self, room: str) -> PresenceStats:
        """See `PresenceBroker.presence_stats`."""
        return await self._require_streams().presence.stats(room)

    def send_control(self, control: Control) -> Future[None]:
        """See `ControlBroker.send_control`."""
        connection = self._require().feed.connection
        subject = self._names.control
        connection.publish(subject, seal_control(control))
        pong = connection.ping()
        return asyncio.get_running_loop().create_task(_said(subject, pong), name="nats control")


async def _said(subject: str, pong: Future[Rights]) -> None:
    """Wait until the server has taken what was said. Raises `BrokerUnavailable`."""
    try:
        rights = await pong
    except Exception as error:
        raise unavailable(error) from error
    if (refused := rights.to_publish(subject)) is not None:
        raise refused


def _streams(feed: NatsFeed, address: NatsAddress, names: NatsNames) -> tuple[Stream, Stream]:
    """Return the stream of what rooms remember, and that of who is in them."""
    common: dict[str, Any] = {
        "retention": "limits",
        "storage": "file",
        "num_replicas": address.replicas,
        "discard": "new",
        "allow_direct": True,
        "allow_msg_ttl": True,
        "max_bytes": address.max_bytes or -1,
        "max_msgs": -1,
        "max_consumers": -1,
        "max_msg_size": -1,
        "max_age": 0,
    }
    rooms = {
        "name": names.stream("rooms"),
        "subjects": names.in_rooms,
        "republish": names.told_of_rooms,
        "duplicate_window": round(KEY_TTL_S * 1e9),
        "allow_rollup_hdrs": True,
    }
    people = {
        "name": names.stream("presence"),
        "subjects": names.in_presence,
        "republish": names.told_of_presence,
        "max_msgs_per_subject": 1,
    }
    return Stream(lambda: feed.connection, common | rooms), Stream(
        lambda: feed.connection, common | people
    )
