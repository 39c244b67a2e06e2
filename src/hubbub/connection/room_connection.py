"""Rooms over a connection that comes back: `connect(url, dialect="centrifuge")`.

What must not live here: what is said over the socket (`room_session`), and what becomes of one room
(`room_state`). Programs get one from `connect`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn, TypeVar, overload

import msgspec

from ..errors import CommandFailed
from ..model import ClientInfo, Position, PresenceStats
from . import options as checks
from .client_socket import ClientSocket
from .commands import CLOSED
from .options import Options, RoomOptions, Since, Token
from .outcome import Outcome
from .protocol import (
    CountsAnswer,
    DataAnswer,
    PageAnswer,
    PresenceAnswer,
    Published,
    publisher_of,
)
from .reconnecting import Reconnecting, State
from .retry import Backoff
from .room_session import RoomSession
from .room_state import RoomState
from .subscription import RoomMessage, RoomPage, Subscription
from .token_source import TokenSource

T = TypeVar("T")


class RoomConnection(Reconnecting):
    """A connection with rooms that comes back: `subscribe` to receive, `call` and the others to ask.

    Made by `connect(url, dialect="centrifuge")`. It is "open" once the server knows who it is. Iterate
    over it for what the server says to this client alone; of that 100 messages wait for the program, and
    one more drops the oldest, which `dropped` counts. Attributes to read: `state`, `last_close`,
    `retry_in_s` and `subprotocol`, as of `Connection`. A command that is given while there is no
    connection waits for one; who closes ends those that are not answered.
    """

    def __init__(
        self,
        options: Options,
        backoff: Callable[[], Backoff],
        rooms: RoomOptions,
        on_state: Callable[[State], object] | None = None,
    ) -> None:
        super().__init__(options, backoff(), on_state)
        self._session = RoomSession(rooms, backoff, self._set_open)

    @property
    def client(self) -> str:
        """The id of the present connection on the server; "" without one."""
        return self._session.client

    @property
    def dropped(self) -> int:
        """How many messages to this client alone were dropped, since the program did not take them."""
        return self._session.dropped

    @property
    def queued(self) -> int:
        """How many commands wait for a connection."""
        return self._session.commands.waiting

    def __repr__(self) -> str:
        rooms = len(self._session.rooms)
        return f"<RoomConnection {self._state}, {rooms} rooms, {self.queued} queued>"

    # Rooms.

    @overload
    def subscribe(
        self, room: str, *, since: Since | None = None, token: Token | None = None
    ) -> Subscription[Any]: ...

    @overload
    def subscribe(
        self, room: str, *, since: Since | None = None, token: Token | None = None, kind: type[T]
    ) -> Subscription[T]: ...

    @overload
    def subscribe(
        self, room: str, *, since: Since | None = None, token: Token | None = None, kind: Any
    ) -> Subscription[Any]: ...

    def subscribe(
        self, room: str, *, since: Since | None = None, token: Token | None = None, kind: Any = Any
    ) -> Subscription[Any]:
        """Return a room, to be entered with `async with`, and iterated over.

            async with connection.subscribe("chat:1", since=position) as room:
                async for message in room:
                    print(message.offset, message.data)

        `since` is the position to go on from: a `Position`, or `{"offset": …, "epoch": …}` as JSON has
        it; `{}` for all that is kept, or the newest of a room of which only that counts. None: from now
        on. `token` is what the server wants to see for this room, or a function, plain or async, that
        returns it: it is called when there is no token, and when one has ended. `kind` is what each
        message is validated as (a msgspec Struct, say); one that does not fit raises
        `msgspec.ValidationError`, and the iteration may be taken up again.

        Raises `TypeError` or `ValueError` for an argument that cannot be right; nothing else here does.
        Entering raises `Unsubscribed` if the server refuses the room for good, `Disconnected` if the
        connection ends, `RuntimeError` if the program is in that room already.
        """
        if not isinstance(room, str) or not room:
            raise TypeError(f"a room is a str that is not empty, not {room!r:.100}")
        checks.token_option(token)
        position = checks.since_option(since)
        state = RoomState(self._session, room, position, TokenSource(token, is_for_room=True))
        return Subscription(state, self, kind, self._enter_room, self._session.leave)

    def given_rooms(self) -> AsyncIterator[Subscription[Any]]:
        """Iterate over the rooms that the server puts this client into without being asked.

        Each comes once, unless the program has named it in `subscribe` before. Enter it as any other;
        what was published since the server gave it waits in it. One that the server does not give again
        after the connection was lost ends with `Unsubscribed`.
        """
        return _GivenRooms(self)

    def _enter_room(self, state: RoomState) -> RoomState:
        self._require_entered()
        self._require_not_ended()
        return self._session.enter(state)

    # Commands.

    async def publish(self, room: str, data: Any) -> None:
        """Publish any JSON to a room; the program need not be in it. Raises as `call`."""
        await self._command("publish", {"channel": room, "data": data})

    async def history(
        self,
        room: str,
        *,
        limit: int | None = None,
        since: Since | None = None,
        reverse: bool = False,
    ) -> RoomPage:
        """Read a part of a room's history, the oldest first, or the newest with `reverse`.

        `limit`: at most so many; 0 for the position alone, None for as many as the server gives (300).
        `since`: only what came after that position (before it, with `reverse`). Raises as `call`; code
        112 when what came after the position is not kept any more.
        """
        params: dict[str, Any] = {"channel": room, "limit": -1 if limit is None else limit}
        position = checks.since_option(since)
        if position is not None:
            params["since"] = {"offset": position.offset, "epoch": position.epoch}
        if reverse:
            params["reverse"] = True
        page: PageAnswer = await self._command("history", params)
        messages = [_message(each) for each in page.publications]
        return RoomPage(messages, Position(page.offset, page.epoch))

    async def presence(self, room: str) -> dict[str, ClientInfo]:
        """Ask who is in a room, by the ids of clients. Raises as `call`."""
        answer: PresenceAnswer = await self._command("presence", {"channel": room})
        return {client: each.as_info(client) for client, each in answer.presence.items()}

    async def presence_stats(self, room: str) -> PresenceStats:
        """Ask how many are in a room. Raises as `call`."""
        answer: CountsAnswer = await self._command("presence_stats", {"channel": room})
        return PresenceStats(answer.num_clients, answer.num_users)

    async def call(self, method: str, data: Any = None) -> Any:
        """Call a function of the server, `@hub.rpc(method)`, and return what that returns.

        Waits for the answer `timeout_s` at most, the wait for a connection included. Raises
        `CommandFailed`, `Disconnected` when the connection is closed for good, and `TypeError` for what
        JSON cannot say. A call that is cancelled before it is sent is not sent.
        """
        answer: DataAnswer = await self._command("rpc", {"method": method, "data": data})
        return msgspec.json.decode(answer.data)

    async def send(self, data: Any) -> bool:
        """Send any JSON to the server's message handlers, which give no answer.

        Returns True when the operating system has taken it, and False when there is no connection:
        nothing is kept for the next one. Raises `Disconnected` when the connection is closed for good.
        """
        self._require_entered()
        self._require_not_ended()
        return await self._session.say(data)

    async def _command(self, method: str, params: dict[str, Any]) -> Any:
        self._require_entered()
        self._require_not_ended()
        try:
            return await self._session.commands.answer(method, params)
        except CommandFailed as error:
            if error.code == CLOSED:
                raise self._closed_error() from error
            raise

    # What the server says to this client alone.

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        session = self._session
        await self._until(lambda: bool(session.inbox))
        return msgspec.json.decode(session.inbox.popleft())

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something of the server's; raise what an iteration ends with."""
        self._require_entered()
        changed = self._session.changed
        while not is_so():
            if self._state == "closed":
                raise self._error or StopAsyncIteration
            changed.clear()
            await changed.wait()

    # What the connection that comes back asks for.

    async def _prepare(self) -> None:
        await self._session.prepare()

    async def _receive(self, socket: ClientSocket) -> NoReturn:
        await self._session.receive(socket)

    async def _send_in_background(self, socket: ClientSocket) -> None:
        await self._session.send(socket)

    def _ended(self, outcome: Outcome) -> None:
        self._session.ended(outcome)

    def _finished(self) -> None:
        self._session.closed(self._error)

    async def _tidy(self) -> None:
        await self._session.tidy()

    def _set_state(self, state: State) -> None:
        super()._set_state(state)
        self._session.changed.set()

    def _wake(self) -> None:
        super()._wake()
        self._session.has_work.set()


class _GivenRooms:
    """The rooms that the server gives, as they come."""

    def __init__(self, connection: RoomConnection) -> None:
        self._connection = connection

    def __aiter__(self) -> _GivenRooms:
        return self

    async def __anext__(self) -> Subscription[Any]:
        connection = self._connection
        given = connection._session.given
        await connection._until(lambda: bool(given))
        state = given.popleft()
        enter, leave = connection._enter_room, connection._session.leave
        return Subscription(state, connection, Any, enter, leave)


def _message(published: Published) -> RoomMessage[Any]:
    data = msgspec.json.decode(published.data)
    return RoomMessage(data, published.offset or None, publisher_of(published.info))
