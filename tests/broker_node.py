"""What tests of brokers begin with: a node that writes down what it is told, and a broker that runs with one.

What must not live here: the servers (`valkey_server`, `nats_server`), and hubs with a broker (`broker_hubs`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from hubbub import Frame, Publication
from hubbub.brokers.broker import Broker, Control, Keep, condition_of
from hubbub.brokers.nats import NatsBroker
from hubbub.brokers.valkey import ValkeyBroker

KEEP = Keep(100, 60.0, 1024**2)

B = TypeVar("B", bound=Broker)


class Node:
    """A node that writes down what its broker calls. Each room of it has `members`."""

    def __init__(self, members: int = 1, name: str = "node") -> None:
        self.id = name
        self.history_max_bytes = 1024**2
        self.members = members
        self.publications: list[Publication] = []
        self.heard: list[Control] = []
        self.told_gaps: list[Sequence[str] | None] = []
        self.now: Callable[[], float] = lambda: 0.0

    @property
    def delivered(self) -> list[tuple[str, str]]:
        """The rooms and texts of what was delivered."""
        return [(each.room, each.data.decode()) for each in self.publications]

    @property
    def gaps(self) -> int:
        """How often it was told of a gap."""
        return len(self.told_gaps)

    @property
    def gap_rooms(self) -> list[str]:
        """The rooms that were named with the gaps."""
        return [room for rooms in self.told_gaps for room in rooms or ()]

    def has_members(self, room: str) -> bool:
        """Keep nothing of a room for its members."""
        return False

    def deliver(self, publication: Publication) -> int:
        """Take a publication."""
        self.publications.append(publication)
        return self.members

    def handle_control(self, control: Control) -> None:
        """Take a message of another node."""
        self.heard.append(control)

    def note_gap(self, rooms: Sequence[str] | None) -> None:
        """Take that something may be missing."""
        self.told_gaps.append(rooms)


def message(text: str, room: str = "red", **rest: Any) -> Publication:
    """Return a publication of a text."""
    return Publication(room, Frame(text.encode(), True), **rest)


def is_away(broker: Broker) -> Callable[[], bool]:
    """Return whether a broker is away, to be asked again and again."""
    return lambda: condition_of(broker).state == "away"


def is_up(broker: Broker) -> Callable[[], bool]:
    """Return whether a broker is up, to be asked again and again."""
    return lambda: condition_of(broker).state == "up"


@asynccontextmanager
async def running(broker: B, *rooms: str, name: str = "node") -> AsyncIterator[tuple[B, Node]]:
    """Run a broker with a node that wants these rooms, until the block ends."""
    node = Node(name=name)
    await broker.start(node)
    try:
        if rooms and (done := broker.subscribe(rooms)) is not None:
            await done
        yield broker, node
    finally:
        await broker.stop()


def valkey_on(
    url: str, *rooms: str, prefix: str = "t"
) -> AbstractAsyncContextManager[tuple[ValkeyBroker, Node]]:
    """Run a broker on a Valkey server."""
    return running(ValkeyBroker(url, prefix=prefix), *rooms)


def nats_on(
    url: str, *rooms: str, prefix: str = "t"
) -> AbstractAsyncContextManager[tuple[NatsBroker, Node]]:
    """Run a broker on a NATS server."""
    return running(NatsBroker(url, prefix=prefix), *rooms)
