"""The broker of many processes: a Valkey or Redis server orders, keeps and spreads what is published.

What must not live here: the contract (`broker`), connections and how they come back (`valkey_connections`,
`valkey_feed`), what waits for the server (`valkey_outgoing`), what is atomic there (`valkey_scripts`).

A publication comes back to this process as it does to all others, by the server, so that all of them see one
order; its receipt waits for that.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from asyncio import Future
from collections.abc import Mapping, Sequence
from functools import partial

from ..errors import BrokerUnavailable, PositionLost
from ..limits import printable
from ..model import ClientInfo, Position, PresenceStats, Receipt
from ..wire.publication import Publication
from .broker import (
    KEY_TTL_S,
    Ability,
    Condition,
    Control,
    History,
    Keep,
    Node,
    PresenceTerms,
    Snapshot,
)
from .envelope import FORMAT, publication_of, seal, seal_control, unpack, unseal, unseal_control
from .valkey_address import Address, checked_prefix, read_address
from .valkey_connections import Connections, is_replica, unavailable
from .valkey_feed import AWAY, Feed
from .valkey_names import Names
from .valkey_outgoing import RUN, Outgoing, Plain, Script, position_of
from .valkey_presence import ValkeyPresence, is_told, told_publication
from .valkey_scripts import AGREE, HISTORY, MARK

logger: logging.Logger = logging.getLogger("hubbub")

POSITION_TTL_S = 7 * 24 * 3600.0
"""How long a room's position is kept after anybody has asked for it, or published there."""
SENDER_TTL_S = 60.0
"""How long it is known which publications of a process a room has had: longer than any is tried again."""
MARK_S = 1.0
"""How often it is looked whether the server has forgotten everything."""

FORMAT_TTL_S = 15.0
"""How long after the last process of a version of Hubbub one may start that writes another form."""


class _OtherFormat(BrokerUnavailable):
    """Processes of another version of Hubbub are there, which write what this one cannot read."""


class _Running:
    """What a broker has from its start to its stop."""

    def __init__(
        self, node: Node, connections: Connections, feed: Feed, outgoing: Outgoing, names: Names
    ) -> None:
        self.node = node
        self.connections = connections
        self.feed = feed
        self.outgoing = outgoing
        self.sender: str = secrets.token_hex(8)
        self.number: int = 0
        self.rooms: dict[bytes, str] = {}
        """The rooms that are wanted, by channel."""
        self.presence = ValkeyPresence(connections.client, names)
        self.history = connections.client.register_script(HISTORY)
        self.mark: bytes | None = None
        self.watch: asyncio.Task[None] | None = None
        self.saying: set[asyncio.Task[None]] = set()
        """Words to other nodes that are on their way."""


class ValkeyBroker:
    """A broker on a Valkey or Redis server, at `valkey://`, `redis://`, with TLS `valkeys://`, `rediss://`, or `unix://`.

    `url` is described in the guide "Many workers"; `prefix` (None: that of the URL, or "hubbub") begins all keys and channels:
    two applications on one server must have two. What is published while the server is away waits for five
    seconds, and is refused then. Raises `SettingsError` for a URL that cannot be. Needs the extra `valkey`.
    """

    abilities: frozenset[Ability] = frozenset(
        {Ability.CONTROL, Ability.HISTORY, Ability.PRESENCE, Ability.NOTES}
    )
    receives_all: bool = False

    def __init__(
        self, url: str | Address = "valkey://localhost:6379", *, prefix: str | None = None
    ) -> None:
        self._address = url if isinstance(url, Address) else read_address(url)
        self._names = Names(self._address.prefix if prefix is None else checked_prefix(prefix))
        self._running: _Running | None = None

    def __repr__(self) -> str:
        return f"<ValkeyBroker {self._address.shown} prefix={self._names.prefix!r}>"

    @property
    def condition(self) -> Condition:
        """How it is at this moment."""
        running = self._running
        if running is None:
            return Condition("away")
        outgoing = running.outgoing
        facts = len(outgoing), outgoing.nbytes, outgoing.lag_s
        if not running.feed.is_up:
            return Condition("away", *facts)
        return Condition("silent" if running.feed.is_silent else "up", *facts)

    # Beginning and end

    async def start(self, node: Node) -> None:
        """See `Broker.start`."""
        connections = Connections(self._address)
        if self._address.is_tls and not self._address.is_verified:
            logger.warning("the certificate of the broker is not verified: verify=no says so")
        agree = partial(self._agree, connections)
        feed = Feed(connections, self._take, self._lost, self._back, agree)
        outgoing = Outgoing(connections, lambda: feed.is_up, self._comes_by)
        running = _Running(node, connections, feed, outgoing, self._names)
        try:
            await feed.start([self._names.control])
            await outgoing.start()
        except BaseException as error:
            await self._close(running)
            if not isinstance(error, Exception):
                raise
            where = f"the broker at {self._address.shown} cannot be used"
            raise BrokerUnavailable(f"{where}: {unavailable(error)}") from None
        self._running = running
        running.watch = asyncio.get_running_loop().create_task(
            self._watch(running), name="valkey mark"
        )

    async def stop(self) -> None:
        """See `Broker.stop`."""
        running, self._running = self._running, None
        if running is not None:
            await self._close(running)

    async def _close(self, running: _Running) -> None:
        tasks = [*running.saying, *([] if running.watch is None else [running.watch])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await running.outgoing.stop()
        await running.feed.stop()
        await running.connections.close()

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
        publication.time_ms = int(time.time() * 1000)
        return self._send(publication, keep)

    def _send(self, publication: Publication, keep: Keep | None) -> Future[Receipt]:
        running = self._require()
        running.number += 1
        number, room = running.number, publication.room
        envelope = seal(publication, running.sender, number)
        channel = self._names.channel(room)
        command: Script | Plain = Plain(channel, envelope)
        if keep is not None or publication.key is not None:
            command = self._script(running, publication, keep, channel, envelope)
        return running.outgoing.put(number, room, command, len(envelope))

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
        return Script(tuple(keys), bounds, running.number, envelope, is_single=key is not None)

    def _comes_by(self, room: str) -> int | None:
        """Return the number of the connection by which what is published to a room comes here."""
        running = self._running
        if running is None or not running.feed.is_up:
            return None
        is_wanted = running.feed.is_subscribed(self._names.channel(room))
        return running.feed.connections if is_wanted else None

    # What comes

    def subscribe(self, rooms: Sequence[str]) -> Future[None]:
        """See `Broker.subscribe`."""
        running = self._require()
        if not running.feed.is_up:
            raise BrokerUnavailable(AWAY)
        channels = {self._names.channel(room): room for room in rooms}
        running.rooms |= channels
        return running.feed.subscribe(list(channels))

    def unsubscribe(self, rooms: Sequence[str]) -> None:
        """See `Broker.unsubscribe`."""
        running = self._running
        if running is None:
            return
        channels = [self._names.channel(room) for room in rooms]
        for channel in channels:
            running.rooms.pop(channel, None)
        running.feed.unsubscribe(channels)
        running.outgoing.note_left(set(rooms))

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
        for sealed in unpack(rest) if is_run else (rest,):
            envelope = unseal(sealed)
            count = running.node.deliver(publication_of(envelope, room, position))
            if envelope.sender == running.sender:
                running.outgoing.came(envelope.number, Receipt(count, position))
            if position is not None:
                position = Position(position.offset + 1, position.epoch)

    def _lost(self) -> None:
        if self._running is not None:
            self._running.outgoing.note_left(None)
            self._running.outgoing.renew()

    def _back(self) -> None:
        if self._running is not None:
            self._running.outgoing.wake()
            self._running.node.note_gap(None)

    async def _watch(self, running: _Running) -> None:
        """See now, and again and again, whether the server has forgotten everything."""
        while True:
            if running.feed.is_up:
                await self._look(running)
            await asyncio.sleep(MARK_S)

    async def _look(self, running: _Running) -> None:
        try:
            await self._agree(running.connections)
            mark = await self._read_mark(running)
        except BrokerUnavailable as error:
            is_other = isinstance(error, _OtherFormat)
            if is_other or (error.__cause__ is not None and is_replica(error.__cause__)):
                running.feed.fail(error)
            return
        known, running.mark = running.mark, mark
        if known not in (None, mark):
            logger.warning("the broker's server has forgotten what it kept")
            running.node.note_gap(None)

    async def _agree(self, connections: Connections) -> None:
        """Raise `BrokerUnavailable` if the others here write another form than this process."""
        names = (self._names.format, FORMAT, _ms(FORMAT_TTL_S))
        ask = partial(connections.client.eval, AGREE, 1, *names)
        held = printable((await connections.answer(ask)).decode(errors="replace"), 20)
        if held != FORMAT:
            raise _OtherFormat(
                f"other processes there have a version of Hubbub that writes format {held}, and this one"
                f" writes {FORMAT}: end them, or give this one another prefix"
            )

    async def _read_mark(self, running: _Running) -> bytes:
        connections = running.connections
        ask = partial(connections.client.eval, MARK, 1, self._names.mark, _fresh())
        mark: bytes = await connections.answer(ask)
        return mark

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
        first = (offset, epoch, "" if limit is None else limit, int(reverse))
        arguments = [*first, _fresh(), _ms(POSITION_TTL_S), running.outgoing.state]
        keys = [self._names.key(room, "h"), self._names.key(room, "s")]
        ask = partial(running.history, keys=keys, args=arguments)
        answer = await running.connections.answer(ask)
        if isinstance(answer, int):
            raise PositionLost(room, is_other_epoch=answer == 1)
        top, name, rows = answer
        found = [
            publication_of(unseal(sealed), room, Position(number, name.decode()))
            for number, sealed in rows
        ]
        return History(found, Position(top, name.decode()))

    async def remove_history(self, room: str) -> None:
        """See `HistoryBroker.remove_history`."""
        connections = self._require().connections
        keys = self._names.key(room, "h"), self._names.key(room, "s")
        await connections.answer(lambda: connections.client.delete(*keys))

    async def note(self, name: str, text: bytes) -> None:
        """See `NoteBroker.note`."""
        connections = self._require().connections
        await connections.answer(lambda: connections.client.set(self._names.note(name), text))

    async def noted(self, name: str) -> bytes | None:
        """See `NoteBroker.noted`."""
        connections = self._require().connections
        text: bytes | None = await connections.answer(
            lambda: connections.client.get(self._names.note(name))
        )
        return text

    async def enter(
        self, room: str, members: Mapping[str, ClientInfo], terms: PresenceTerms
    ) -> Sequence[ClientInfo]:
        """See `PresenceBroker.enter`."""
        running = self._require()
        return await running.connections.answer(
            lambda: running.presence.enter(room, members, terms)
        )

    async def leave(
        self, room: str, names: Sequence[str], terms: PresenceTerms
    ) -> Sequence[ClientInfo]:
        """See `PresenceBroker.leave`."""
        running = self._require()
        return await running.connections.answer(lambda: running.presence.leave(room, names, terms))

    async def expire(self, room: str, terms: PresenceTerms) -> Sequence[ClientInfo]:
        """See `PresenceBroker.expire`."""
        running = self._require()
        return await running.connections.answer(lambda: running.presence.expire(room, terms))

    async def presence(self, room: str) -> Snapshot:
        """See `PresenceBroker.presence`."""
        running = self._require()
        return await running.connections.answer(lambda: running.presence.snapshot(room))

    async def presence_stats(self, room: str) -> PresenceStats:
        """See `PresenceBroker.presence_stats`."""
        running = self._require()
        return await running.connections.answer(lambda: running.presence.stats(room))

    # Control

    def send_control(self, control: Control) -> Future[None]:
        """See `ControlBroker.send_control`."""
        running = self._require()
        said = asyncio.get_running_loop().create_task(self._say(running, seal_control(control)))
        running.saying.add(said)
        said.add_done_callback(running.saying.discard)
        return said

    async def _say(self, running: _Running, data: bytes) -> None:
        connections = running.connections
        await connections.answer(lambda: connections.client.publish(self._names.control, data))


def _fresh() -> str:
    return secrets.token_hex(6)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
