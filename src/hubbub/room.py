"""Rooms: Members, the hub's book of one room, and Room, what an application holds in its hand.

What must not live here: delivery. The registry makes Members at the first join and throws them
away at the last leave; Room is a name and the hub, and is valid forever.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from .model import EVERYBODY, Receipt
from .settings import SlowPolicy

if TYPE_CHECKING:
    from .client import Client


class Members:
    """Who is in one room now. `dirty` says that something was published to it in this turn."""

    __slots__ = ("clients", "dirty", "name", "policy")

    def __init__(self, name: str, policy: SlowPolicy) -> None:
        self.name = name
        self.policy = policy
        self.clients: dict[Client, None] = {}
        self.dirty = False

    def __repr__(self) -> str:
        return f"<Members {self.name or 'everybody'!r}: {len(self.clients)}>"


class Publisher(Protocol):
    """What a room asks of the registry."""

    def publish_nowait(self, room: str, data: Any, exclude: Client | None) -> None: ...
    async def publish(self, room: str, data: Any, *, exclude: Client | None = None) -> Receipt: ...
    def members_of(self, room: str) -> tuple[Client, ...]: ...


class Room:
    """A named set of clients. It costs nothing while it is empty.

    Clients join and leave through `Client.join` and `Client.leave`. `len(room)`, iteration and
    `client in room` speak of this process only.
    """

    __slots__ = ("_hub", "_key")

    def __init__(self, hub: Publisher, key: str) -> None:
        self._hub = hub
        self._key = key

    @property
    def name(self) -> str:
        """The room's name."""
        return self._key

    def broadcast(self, data: Any, *, exclude: Client | None = None) -> None:
        """Send `data` to every member but `exclude`. Never blocks; any thread."""
        self._hub.publish_nowait(self._key, data, exclude)

    async def publish(self, data: Any, *, exclude: Client | None = None) -> Receipt:
        """Send `data` to every member but `exclude`, and wait for the broker's receipt."""
        return await self._hub.publish(self._key, data, exclude=exclude)

    def __len__(self) -> int:
        return len(self._hub.members_of(self._key))

    def __iter__(self) -> Iterator[Client]:
        return iter(self._hub.members_of(self._key))

    def __contains__(self, client: object) -> bool:
        return client in self._hub.members_of(self._key)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._key or EVERYBODY!r}>"


class User(Room):
    """The clients of one user, wherever they are connected."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """The user's name."""
        return self._key[1:]

    def send(self, data: Any) -> None:
        """Send `data` to every client of the user. Never blocks; any thread."""
        self.broadcast(data)
