"""Hubs: what a person can ask of running hubs from a terminal.

What must not live here: how they are reached (`hubs_broker`, `hubs_api`), which way is meant (`reach`), and the
commands (`cluster`, `tail`). Each way is an implementation of `Hubs`, so that no command knows which one it is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from ..errors import PositionLost
from ..model import ClientInfo, Position, Receipt

MOST_WAITING = 10_000
"""How many messages wait to be printed before some are left out."""


class Message(NamedTuple):
    """A message of a room; `position` is None in a room without a history."""

    data: str | bytes
    position: Position | None = None


class Note(NamedTuple):
    """Something that happened meanwhile. `gap`: messages may be missing here."""

    kind: Literal["gap", "away", "back"]
    text: str


class Start(NamedTuple):
    """Where to begin in a room: after an `offset` of an `epoch` (None: the one that there is), or with the
    newest `newest` messages that are kept (0: with what comes from now on)."""

    newest: int = 0
    offset: int | None = None
    epoch: str | None = None


class Page(NamedTuple):
    """Messages that a room has kept, and where the room stands."""

    messages: Sequence[Message]
    position: Position


class Hubs(Protocol):
    """Running hubs. All but `follow` return when it is done.

    What cannot be done raises `HubbubError` or `click.ClickException`, with a sentence that says what to do.
    """

    def publish(self, room: str, data: str, key: str | None) -> Receipt:
        """Publish to a room."""
        ...

    def to_user(self, user: str, data: str, key: str | None) -> Receipt:
        """Publish to all clients of a user."""
        ...

    def broadcast(self, data: str, key: str | None) -> Receipt:
        """Publish to everybody."""
        ...

    def presence(self, room: str) -> Mapping[str, ClientInfo]:
        """Return who is in a room, by the ids of clients."""
        ...

    def rooms(self, pattern: str) -> Mapping[str, int]:
        """Return the rooms that have members, and how many."""
        ...

    def disconnect(self, client: str | None, user: str | None, code: int, reason: str) -> None:
        """Close one client, or all of a user."""
        ...

    def follow(self, room: str, start: Start) -> AsyncGenerator[Message | Note, None]:
        """Yield what is published to a room, for ever; whoever is away meanwhile is waited for.

        In a room that remembers nothing comes twice, and what is missing is followed by nothing of before.
        """
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


class Reader(Protocol):
    """Reads what a room that remembers has kept."""

    async def read(self, since: Position | None = None, newest: int | None = None) -> Page:
        """Return what was kept after a position (None: all), or the newest messages, the oldest first.

        Raises `PositionLost`.
        """
        ...


async def begin(reader: Reader, start: Start) -> tuple[Sequence[Message | Note], Position]:
    """Return what is to be shown first of a room that remembers, and where it stands then."""
    if start.offset is None:
        page = await reader.read(newest=start.newest)
        return page.messages, page.position
    epoch = start.epoch
    if epoch is None:
        epoch = (await reader.read(newest=0)).position.epoch
    return await missed(reader, Position(start.offset, epoch))


async def missed(reader: Reader, since: Position) -> tuple[Sequence[Message | Note], Position]:
    """Return what was published after a position, with a note where something is not kept any more."""
    try:
        page = await reader.read(since)
    except PositionLost:
        page = await reader.read()
        rest = [each for each in page.messages if _is_after(each, since)]
        text = "messages are missing: the room does not keep them any more, or has begun anew"
        return [Note("gap", text), *rest], page.position
    return page.messages, page.position


def _is_after(message: Message, since: Position) -> bool:
    place = message.position
    return place is None or place.epoch != since.epoch or place.offset > since.offset
