"""Hubs over the broker that they share: a publisher, and a node of the broker that only listens.

What must not live here: the verbs (`publisher`), how publications travel (`brokers`), what is printed (`tail`).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Literal, cast

import click

from ..brokers.broker import Control, HistoryBroker, condition_of
from ..brokers.schemes import broker_at
from ..errors import BrokerUnavailable, CommandError, SettingsError
from ..limits import check_room_name, printable
from ..model import ClientInfo, Position, Receipt
from ..publisher import AsyncPublisher, Publisher
from ..settings import Settings
from ..wire.publication import Kind, Publication
from .hubs import MOST_WAITING, Message, Note, Page, Start, begin, missed

LOOK_S = 1.0
"""How often it is looked whether the broker is there, and tried again to read what was missed."""


class BrokerHubs:
    """Hubs over a broker: see `Hubs`. It connects at the first verb."""

    def __init__(self, broker: str | None, prefix: str) -> None:
        settings = Settings.load()
        source = "--broker" if broker else settings.source("broker")
        self._url: str = broker or settings.broker
        self._prefix = prefix
        broker_at(self._url, source)  # what is wrong in it is said of where it was written
        try:
            self._publisher = Publisher(self._url, prefix=prefix)
        except SettingsError:
            raise
        except ValueError as error:
            text = "name the broker of the hubs: --broker URL, or HUBBUB_BROKER; or their API: --api URL"
            if source != "default":
                url = printable(self._url, 50)
                text = (
                    f"{url} ({source}) is the memory of one process, and reaches no other: {text}"
                )
            raise click.ClickException(text) from error

    def publish(self, room: str, data: str, key: str | None) -> Receipt:
        """Publish to a room."""
        return self._publisher.publish(room, data, key=key)

    def to_user(self, user: str, data: str, key: str | None) -> Receipt:
        """Publish to all clients of a user."""
        return self._publisher.to_user(user, data, key=key)

    def broadcast(self, data: str, key: str | None) -> Receipt:
        """Publish to everybody."""
        return self._publisher.broadcast(data, key=key)

    def presence(self, room: str) -> Mapping[str, ClientInfo]:
        """Return who is in a room."""
        return self._publisher.presence(room)

    def rooms(self, pattern: str) -> Mapping[str, int]:
        """Return the rooms that have members, and how many."""
        return self._publisher.rooms(pattern)

    def disconnect(self, client: str | None, user: str | None, code: int, reason: str) -> None:
        """Close one client, or all of a user."""
        if client is not None and user is not None:
            raise click.UsageError("over a broker name a CLIENT, or --user, and not both")
        if user is not None:
            self._publisher.disconnect(user, code, reason)
        else:
            self._publisher.kick(client or "", code, reason)

    async def follow(self, room: str, start: Start) -> AsyncGenerator[Message | Note, None]:
        """Yield what is published to a room."""
        check_room_name(room)
        async with AsyncPublisher(self._url, prefix=self._prefix) as publisher:
            try:
                await publisher.cursor(room)
                remembers = True
            except CommandError:
                remembers = False
        listener = Listener(room)
        broker = broker_at(self._url, prefix=self._prefix)
        await broker.start(listener)
        try:
            answered = broker.subscribe([room])
            if answered is not None:
                await answered
            feed = Feed(cast(HistoryBroker, broker), listener, remembers)
            async for item in feed.items(start):
                yield item
        finally:
            await broker.stop()

    def close(self) -> None:
        """Disconnect."""
        self._publisher.close()


class Listener:
    """A node of a broker that has one member in one room: whoever reads `take`. See `brokers.broker.Node`."""

    def __init__(self, room: str) -> None:
        self.id: str = f"tail-{secrets.token_hex(8)}"
        self.history_max_bytes: int = 0
        self._room = room
        self._waiting: deque[Publication | None] = deque()
        self._news = asyncio.Event()

    def now(self) -> float:
        """Return the time in seconds."""
        return time.monotonic()

    def has_members(self, room: str) -> bool:
        """Tell whether it is the room."""
        return room == self._room

    def deliver(self, publication: Publication) -> int:
        """Take a publication. When too many wait, they are left out, and that is a gap."""
        if publication.room != self._room or publication.kind is not Kind.MESSAGE:
            return 0
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.clear()
            self._waiting.append(None)
        self._waiting.append(publication)
        self._news.set()
        return 1

    def handle_control(self, control: Control) -> None:
        """Pass it over: there is no client here."""

    def note_gap(self, rooms: Sequence[str] | None) -> None:
        """Learn that publications may have been lost."""
        if rooms is None or self._room in rooms:
            self._waiting.append(None)
            self._news.set()

    async def take(self, wait_s: float) -> list[Publication | None]:
        """Return what has come, None for a gap; nothing when nothing comes in time."""
        try:
            async with asyncio.timeout(wait_s):
                await self._news.wait()
        except TimeoutError:
            return []
        self._news.clear()
        came = list(self._waiting)
        self._waiting.clear()
        return came


class Feed:
    """What is published to a room: as it comes, and from what the room keeps where something was missed."""

    def __init__(self, broker: HistoryBroker, listener: Listener, remembers: bool) -> None:
        self._broker = broker
        self._listener = listener
        self._remembers = remembers
        self._room = listener._room
        self._position = Position(0, "")
        self._is_behind = False
        self._is_away = False

    async def items(self, start: Start) -> AsyncGenerator[Message | Note, None]:
        """Yield messages and notes, for ever. Raises `ClickException` where nothing is kept to begin with."""
        if self._remembers:
            first, self._position = await begin(self, start)
            for message in first:
                yield message
        elif start != Start():
            raise click.ClickException(
                "this room keeps no history: leave --history and --since out"
            )
        while True:
            came = await self._listener.take(LOOK_S)
            for note in self._condition():
                yield note
            if self._is_behind:
                for item in await self._catch_up():
                    yield item
            for publication in came:
                for item in await self._show(publication):
                    yield item

    def _condition(self) -> Sequence[Note]:
        state: Literal["up", "silent", "away"] = condition_of(self._broker).state
        if self._is_away == (state != "up"):
            return ()
        self._is_away = state != "up"
        if self._is_away:
            return (Note("away", "the broker is away; waiting for it"),)
        return (Note("back", "the broker is back"),)

    async def _show(self, publication: Publication | None) -> Sequence[Message | Note]:
        if publication is None:
            if self._remembers:
                return await self._catch_up()
            return (Note("gap", "messages may be missing: the room keeps none"),)
        place, known = publication.position, self._position
        if place is None or not self._remembers:
            return (_message(publication),)
        if place.epoch == known.epoch and place.offset <= known.offset:
            return ()
        if place.epoch == known.epoch and place.offset == known.offset + 1:
            self._position = place
            return (_message(publication),)
        return await self._catch_up()

    async def _catch_up(self) -> Sequence[Message | Note]:
        """Read what was missed; if the broker is away, that is done later."""
        try:
            found, self._position = await missed(self, self._position)
        except BrokerUnavailable:
            self._is_behind = True
            return ()
        self._is_behind = False
        return found

    async def read(self, since: Position | None = None, newest: int | None = None) -> Page:
        """Read what the room has kept; see `Reader`."""
        is_newest = newest is not None
        page = await self._broker.history(self._room, since=since, limit=newest, reverse=is_newest)
        found = [_message(each) for each in page.publications]
        return Page(found[::-1] if is_newest else found, page.position)


def _message(publication: Publication) -> Message:
    data = publication.data.decode() if publication.is_text else publication.data
    return Message(data, publication.position)
