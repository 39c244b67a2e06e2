"""What a program sees of a room: iterate over it to receive, and ask about it.

What must not live here: what a room is asked and told (`room_state`), and the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

import msgspec

from ..errors import NORMAL, CommandFailed, Disconnected, MessagesMissed
from ..model import ClientInfo, Position, PresenceStats
from .options import Since
from .protocol import publisher_of
from .room_state import RoomState

T = TypeVar("T")

SubscriptionState = Literal["unsubscribed", "subscribing", "subscribed", "paused"]


@dataclass(frozen=True, slots=True)
class RoomMessage(Generic[T]):
    """A message of a room: `data`, and its `offset` in the room's history (None: it keeps none). `publisher` is the
    client that published it, as others see it (None: the server did)."""

    data: T
    offset: int | None
    publisher: ClientInfo | None = None


@dataclass(frozen=True, slots=True)
class RoomPage:
    """A part of a room's history. `position` is where the room stands now."""

    messages: list[RoomMessage[Any]]
    position: Position


class RoomCommands(Protocol):
    """What a connection does for its rooms."""

    async def publish(self, room: str, data: Any) -> None:
        """Publish to a room."""
        ...

    async def history(
        self,
        room: str,
        *,
        limit: int | None = None,
        since: Since | None = None,
        reverse: bool = False,
    ) -> RoomPage:
        """Read a part of a room's history."""
        ...

    async def presence(self, room: str) -> dict[str, ClientInfo]:
        """Ask who is in a room."""
        ...

    async def presence_stats(self, room: str) -> PresenceStats:
        """Ask how many are in a room."""
        ...


class Subscription(Generic[T]):
    """A room that the program is in, within `async with connection.subscribe(room) as room:`.

    Entering waits until the server has let the client in; the iteration gives each message once and in
    order, over lost connections. It raises `MessagesMissed` where something cannot be had any more, and
    goes on behind it; `Unsubscribed` when the room is closed to the client for good, and `Disconnected` when
    the connection is; both after all that came before. It ends when the program leaves the room, or closes
    the connection. Who enters it again goes on from `position`.
    """

    def __init__(
        self,
        state: RoomState,
        commands: RoomCommands,
        kind: Any,
        enter: Callable[[RoomState], RoomState],
        leave: Callable[[RoomState], None],
    ) -> None:
        self._state = state
        self._commands = commands
        self._decode: Callable[[bytes], T] = msgspec.json.Decoder(kind).decode
        self._enter = enter
        self._leave = leave
        self._was_entered = False

    @property
    def name(self) -> str:
        """The room's name."""
        return self._state.name

    @property
    def state(self) -> SubscriptionState:
        """What becomes of it: "subscribing" is asked for, or again after the connection was lost.

        "paused": the program is too far behind. The room is asked for again when it has taken what
        was read ahead.
        """
        return self._state.status

    @property
    def position(self) -> Position | None:
        """The position after the last message that the iteration has given.

        `subscribe(room, since=position)` goes on from there, in another process too. None in a room that
        keeps no history, and before the position is known.
        """
        return self._state.inbox.taken

    @property
    def refusal(self) -> CommandFailed | None:
        """Why it was refused for now; None when it was not, or is in the room."""
        return self._state.refusal

    def __repr__(self) -> str:
        return f"<Subscription {self.name!r} {self.state}, {len(self._state.inbox)} read ahead>"

    async def __aenter__(self) -> Self:
        self._state = self._enter(self._state)
        self._was_entered = True
        try:
            while self._state.status == "subscribing":
                await self._wait()
        except BaseException:
            self._leave(self._state)
            raise
        if self._state.status == "unsubscribed":
            self._leave(self._state)
            raise self._state.error or Disconnected(NORMAL, "closed")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave(self._state)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RoomMessage[T]:
        state = self._state
        while not len(state.inbox):
            if state.status == "unsubscribed":
                if state.error is not None:
                    raise state.error
                if not self._was_entered:
                    raise RuntimeError("use it as  async with connection.subscribe(room) as room:")
                raise StopAsyncIteration
            await self._wait()
        item = state.inbox.take()
        state.took()
        if item.data is None:
            raise MessagesMissed(state.name, item.after)
        return RoomMessage(self._decode(item.data), item.offset, publisher_of(item.info))

    async def publish(self, data: Any) -> None:
        """Publish any JSON to the room. Raises as `RoomConnection.call`."""
        await self._commands.publish(self.name, data)

    async def history(
        self, *, limit: int | None = None, since: Since | None = None, reverse: bool = False
    ) -> RoomPage:
        """Read a part of the room's history; see `RoomConnection.history`."""
        return await self._commands.history(self.name, limit=limit, since=since, reverse=reverse)

    async def presence(self) -> dict[str, ClientInfo]:
        """Ask who is in the room, by the ids of clients. Raises as `RoomConnection.call`."""
        return await self._commands.presence(self.name)

    async def presence_stats(self) -> PresenceStats:
        """Ask how many are in the room. Raises as `RoomConnection.call`."""
        return await self._commands.presence_stats(self.name)

    async def _wait(self) -> None:
        self._state.changed.clear()
        await self._state.changed.wait()
