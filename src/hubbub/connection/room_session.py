"""What is said over a connection with rooms: who comes, which rooms, pings, answers, pushes.

What must not live here: the connection that comes back (`reconnecting`), and what becomes of one room
(`room_state`). `room_connection` calls it.

A new socket is told who comes and, in the same message, all rooms with their positions: the server
takes the commands of a message in order. What is read is never left unread for a room's sake: see
`room_inbox` for what bounds that. There is no task for a room; one runs while a token is asked for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NoReturn

from websockets.exceptions import ConnectionClosed

from ..errors import ABNORMAL, MESSAGE_TOO_BIG, CommandFailed, Disconnected
from ..model import Close
from . import protocol
from .client_socket import ClientSocket
from .commands import CLOSED, LOST, TIMEOUT, Commands, Done
from .failures import outcome_of
from .options import RoomOptions
from .outcome import AttemptEnded, Outcome, Retry, outcome_of_close
from .reconnecting import logger
from .retry import Backoff
from .room_state import RoomState
from .token_source import Renewal, TokenSource

MAX_DIRECT_MESSAGES = 100
"""How many messages to this client alone wait for the program: one more drops the oldest."""


class RoomSession:
    """The rooms, commands and tokens of a connection, over all its sockets."""

    def __init__(
        self,
        options: RoomOptions,
        new_backoff: Callable[[], Backoff],
        opened: Callable[[], None],
    ) -> None:
        self.client: str = ""
        self.dropped: int = 0
        self.rooms: dict[str, RoomState] = {}
        self.given: deque[RoomState] = deque()
        """Those that the server has given and the program has not heard of yet."""
        self.inbox: deque[bytes] = deque()
        """What the server said to this client alone."""
        self.changed: asyncio.Event = asyncio.Event()
        """Set when `given` or `inbox` has more, and at the end."""
        self.has_work: asyncio.Event = asyncio.Event()
        """Set when there may be something to send."""
        self.commands: Commands = Commands(options.timeout_s, options.max_queue, self.has_work.set)
        self.new_backoff: Callable[[], Backoff] = new_backoff
        self._options = options
        self._opened = opened
        self._token = TokenSource(options.token)
        self._renewal = Renewal(self, self._token, "refresh", {}, self._stop)
        self._socket: ClientSocket | None = None
        self._why: AttemptEnded | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers_pings = self._owes_pong = False
        self._silence_s = self._heard_at = 0.0
        self._watch_timer: asyncio.TimerHandle | None = None

    # What `token_source.Link` owes.

    @property
    def is_up(self) -> bool:
        """Whether there is a socket on which the server has been told who comes."""
        return self._socket is not None and self._why is None

    def ask(
        self, method: str, params: Mapping[str, Any], done: Done, *, is_first: bool = False
    ) -> int:
        """Ask the server; see `Commands.ask`."""
        return self.commands.ask(method, params, done, is_first=is_first)

    def lose(self, reason: str) -> None:
        """Lose the connection, and come back."""
        self._cut(Outcome(Close(ABNORMAL, reason), Retry.ALWAYS))

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something beside, as long as this connection lasts; what it raises ends that."""
        task = asyncio.create_task(self._guard(work), name="hubbub.connect.token")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Exception as error:
            self._cut(outcome_of(error))

    def _cut(self, outcome: Outcome) -> None:
        if self._socket is not None and self._why is None:
            self._why = AttemptEnded(outcome)
            self._socket.transport.abort()

    def _stop(self, error: CommandFailed) -> None:
        close = Close(error.code, error.message, by_server=True)
        self._cut(Outcome(close, Retry.NEVER))

    # One socket.

    async def prepare(self) -> None:
        """Have a token, before there is a socket."""
        if self._token.is_missing:
            await self._token.fetch()

    async def receive(self, socket: ClientSocket) -> NoReturn:
        """Say who comes, and take what the server says until the connection ends."""
        self._socket, self._why = socket, None
        try:
            self._come_back()
            while True:
                frame = await socket.recv(decode=False)
                self._heard_at = asyncio.get_running_loop().time()
                for reply in protocol.read(frame):
                    if self._why is not None:
                        raise self._why
                    self._take(reply)
        except AttemptEnded as ended:
            if ended is self._why or self.client:
                raise
            # Whoever listens at such a route may have been shown the token: it is not sent again.
            raise AttemptEnded(ended.outcome._replace(retry=Retry.NEVER)) from None
        except ConnectionClosed as error:
            outcome = outcome_of_close(error)
            if self._why is not None:
                raise self._why from None
            if outcome.close.code == MESSAGE_TOO_BIG and not outcome.close.by_server:
                # Who comes back is sent the same again.
                reason = "a message of the server is larger than max_message_bytes"
                close = Close(MESSAGE_TOO_BIG, reason)
                raise AttemptEnded(Outcome(close, Retry.NEVER, error=error)) from error
            raise
        finally:
            self._lost()

    async def send(self, socket: ClientSocket) -> None:
        """Send what there is to send, as fast as the socket takes it."""
        try:
            while not socket.is_over:
                if socket.paused:  # what is not sent may still be given up
                    await socket.drained()
                    continue
                self.has_work.clear()
                frame = protocol.PONG if self._owes_pong else self.commands.frame()
                if not frame:
                    await self.has_work.wait()
                    continue
                self._owes_pong = False if frame is protocol.PONG else self._owes_pong
                await socket.send(frame, text=True)  # does not wait
        except ConnectionClosed:
            logger.debug("the connection closed while commands were on their way")

    async def say(self, data: Any) -> bool:
        """Send something that has no answer, behind all commands before it; see `RoomConnection.send`."""
        line = protocol.write(0, "send", {"data": data})
        socket = self._socket
        if socket is None or not self.commands.is_open:
            return False
        try:
            while socket.paused and not socket.is_over:
                await socket.drained()
            if socket is not self._socket:
                return False  # what is to be sent now belongs to another connection
            while frame := self.commands.frame():
                await socket.send(frame, text=True)
            await socket.send(line, text=True)
            if socket.paused:
                await socket.drained()
        except ConnectionClosed:
            return False
        return not socket.has_lost_bytes

    def enter(self, state: RoomState) -> RoomState:
        """Ask for a room for the program; return the one that it is in then.

        That is the one that the server has given, if it has, and if the program has no position of its
        own. Raises `RuntimeError` if the program is in that room already.
        """
        held = self.rooms.get(state.name)
        if held is not None and held.is_entered:
            raise RuntimeError(f"this connection is in {state.name!r} already")
        if held is not None and held is not state:
            self._forget_given(held)
            if state.inbox.read is None:
                held.want(state)
                state = held
            else:
                held.leave()
        self.rooms[state.name] = state
        state.is_entered = True
        state.begin()
        return state

    def leave(self, state: RoomState) -> None:
        """Leave a room for the program. Twice is no error."""
        state.is_entered = False
        if self.rooms.get(state.name) is state:
            state.leave()
            del self.rooms[state.name]

    def _forget_given(self, room: RoomState) -> None:
        if room in self.given:
            self.given.remove(room)

    def _forget_ended(self, room: RoomState) -> None:
        """Forget a room of the server's that has ended before the program was in it."""
        is_held = self.rooms.get(room.name) is room
        if is_held and room.status == "unsubscribed" and not room.is_entered:
            del self.rooms[room.name]
            self._forget_given(room)

    def ended(self, outcome: Outcome) -> None:
        """Hear how an attempt or a connection ended."""
        code = outcome.close.code
        if code in (protocol.CONNECTION_EXPIRED, protocol.ALL_LOST):
            self._token.drop()
        if code == protocol.ALL_LOST:
            for room in self.rooms.values():
                room.invalidated()

    def closed(self, error: Disconnected | None) -> None:
        """Hear that it is over for good."""
        self.commands.close()
        for room in self.rooms.values():
            room.closed(error)
        self.changed.set()

    async def tidy(self) -> None:
        """End what still runs: a token function may itself wait for the end."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _lost(self) -> None:
        self._socket = None
        self.client = ""
        self._owes_pong = False
        if self._watch_timer is not None:
            self._watch_timer.cancel()
        self._renewal.stop()
        for task in self._tasks:
            task.cancel()
        for room in self.rooms.values():
            room.lost()
        self.commands.lose()

    # Who comes.

    def _come_back(self) -> None:
        """Say who comes, and all rooms, in as few messages as they fit in."""
        given = {
            room.name: protocol.since_of(room.inbox.read)
            for room in self.rooms.values()
            if room.is_given and room.inbox.read is not None
        }
        params: dict[str, Any] = {"name": "hubbub"}
        values = {"token": self._token.token, "data": self._options.data, "subs": given or None}
        params |= {name: value for name, value in values.items() if value is not None}
        self.ask("connect", params, self._connected, is_first=True)
        for room in self.rooms.values():
            room.ask(is_first=True)

    def _connected(self, error: CommandFailed | None, answer: protocol.ConnectAnswer) -> None:
        if error is not None:
            self._turned_away(error)
            return
        self.client = answer.client
        self._answers_pings = answer.pong
        self._silence_s = answer.ping + self._options.max_ping_delay_s if answer.ping else 0.0
        if self._silence_s:
            self._watch()
        self._renewal.schedule(answer)
        self.commands.is_open = True
        self.has_work.set()
        self._opened()
        for name, room in answer.subs.items():
            self._give(name, room)
        for held in self.rooms.values():
            if held.is_given and held.status == "subscribing":
                self._await_given(held)

    def _await_given(self, room: RoomState) -> None:
        """Learn whether the server gives a room again that its answer to connect lacks.

        Its connect handlers may still do that, by a push. They come before the client's commands: once
        any of those is answered, the server gives the room or does not. This one changes nothing.
        """

        def done(error: CommandFailed | None, page: protocol.PageAnswer) -> None:
            if error is not None and error.code == TIMEOUT:
                self.lose("no answer to history")
            elif error is None or error.code not in (LOST, CLOSED):
                room.not_given()
                self._forget_ended(room)

        self.ask("history", {"channel": room.name, "limit": 0}, done)

    def _turned_away(self, error: CommandFailed) -> None:
        is_expired = error.code == protocol.EXPIRED and self._token.can_renew
        if is_expired:
            self._token.drop()
        if error.code == TIMEOUT:
            self.lose("no answer to connect")
        elif error.code not in (LOST, CLOSED):
            retry = Retry.ALWAYS if error.temporary or is_expired else Retry.NEVER
            self._cut(Outcome(Close(error.code, error.message, by_server=True), retry))

    def _watch(self) -> None:
        """Give the connection up if nothing was heard for too long; else look again in time."""
        loop = asyncio.get_running_loop()
        left_s = self._heard_at + self._silence_s - loop.time()
        if left_s <= 0:
            self.lose("no ping")
        else:
            self._watch_timer = loop.call_later(left_s, self._watch)

    # What the server says.

    def _take(self, reply: protocol.Reply) -> None:
        if reply.push is not None:
            self._pushed(reply.push)
        elif not reply.is_ping:
            self.commands.settle(reply)
        elif self._answers_pings:
            self._owes_pong = True
            self.has_work.set()

    def _pushed(self, push: protocol.Push) -> None:
        room = self.rooms.get(push.channel)
        if push.message is not None:
            self._told(bytes(push.message.data))
        elif push.subscribe is not None:
            self._give(push.channel, push.subscribe)
        elif room is not None and push.pub is not None:
            room.published(push.pub)
        elif room is not None and push.unsubscribe is not None:
            room.taken_out(push.unsubscribe)
            self._forget_ended(room)

    def _give(self, name: str, answer: protocol.RoomAnswer) -> None:
        room = self.rooms.get(name)
        if room is None:
            room = self.rooms[name] = RoomState(self, name, None, TokenSource(None))
            self.given.append(room)
            self.changed.set()
        room.given(answer)

    def _told(self, data: bytes) -> None:
        self.inbox.append(data)
        self.changed.set()
        if len(self.inbox) <= MAX_DIRECT_MESSAGES:
            return
        self.inbox.popleft()
        before, self.dropped = self.dropped, self.dropped + 1
        if before.bit_length() != self.dropped.bit_length():
            text = "the program does not take what the server says to it alone: %d dropped so far"
            logger.warning(text, self.dropped)
