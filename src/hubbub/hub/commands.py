"""Commands: what becomes of the commands of a dialect. Each is carried out once, whatever dialect it
came in.

What must not live here: how a command is written (a dialect), handlers of messages (`dispatcher`),
the first of them (`connecting`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, assert_never

from ..dialects.dialect import (
    Command,
    Connect,
    History,
    Page,
    Pong,
    Presence,
    PresenceStats,
    Present,
    Publish,
    Refresh,
    Refreshed,
    Reply,
    Result,
    Returned,
    Rpc,
    Send,
    SubRefresh,
    Subscribe,
    Unsubscribe,
    Unsupported,
)
from ..errors import (
    BrokerError,
    CommandError,
    PositionLost,
    ProtocolError,
    is_sendable,
)
from ..limits import check_room_name, is_room_name, printable
from ..model import Close, Handshake
from ..model import PresenceStats as Counts
from ..wire.frame import Frame, encode_json
from ..wire.publication import Subscribed
from .disconnects import BAD_COMMAND, NO_HANDLER
from .dispatcher import Dispatcher
from .tasks import is_being_cancelled

if TYPE_CHECKING:
    from .session import ClientSession


TURN_COST = 64
"""What the commands of one client may cost in one turn of the event loop: each costs 1, and 1 more for
every 16 publications or clients, and every `COST_BYTES`, in its answer. A frame has room for a
thousand commands, and each may be answered with a whole history."""
COST_BYTES = 4096
WAIT_S = 0.05
"""How often it is looked whether a client has taken its answers."""
MOST_A_PAGE = 300
"""How many publications one answer to a history command has at most."""
MOST_LISTED = 10_000
"""How many clients one answer to a presence command has at most: of more it is told only how many."""


class CommandDispatcher(Dispatcher):
    """Reads commands where the plain dispatcher takes messages. Event loop only."""

    def connected(self, session: ClientSession, handshake: Handshake) -> None:
        """Run the connect handlers; what they have to wait for the connect command waits for."""
        opening = session.opening  # it may be gone when a handler has closed the connection
        assert opening is not None
        opening.rest = self._start_connect(session, handshake)

    def disconnected(self, session: ClientSession) -> None:
        """Run the disconnect handlers of a client that was connected; end what was only open."""
        if session.opening is not None:  # else this is the second time, after a handler's end
            session.opening.end()
        self._core.pings.remove(session)
        if session.is_connected:
            super().disconnected(session)
        else:
            self._drop_waiting(session)
            if session.handler_task is not None:
                session.handler_task.cancel()

    def drained(self, session: ClientSession, count: int) -> None:
        """Run the drop handlers, for who is a client: errors may be dropped before."""
        if session.is_connected:
            super().drained(session, count)

    def take(self, session: ClientSession, frame: Frame) -> None:
        """Carry out the commands in a message, one after another."""
        try:
            commands = session.variant.dialect.parse(frame)
        except ProtocolError as error:
            if is_sendable(error.close_code):
                close = Close(error.close_code, error.reason)
                self._core.registry.end_as(session, BAD_COMMAND, close)
            else:
                self._errors.failed(session, error)
        except CommandError as error:
            if self._core.rates.charge_command(session, None):
                self._errors.reject(session, error)
        except Exception as error:
            self._errors.failed(session, error)
        else:
            if commands:
                self._wait(session, self._run(session, commands))

    async def _run(self, session: ClientSession, commands: Sequence[Command]) -> None:
        left = self._left_of(session)
        is_coming = not session.is_connected
        for command in commands:
            close = session.close
            if close is not None and (close.by_server or not session.is_connected):
                return  # else it is as with messages: what was sent before the end is handled
            if left <= 0:
                await self._until_taken(session)
                left = TURN_COST
            if self._is_within_rate(session, command, is_coming=is_coming):
                left -= await self._execute(session, command)
            else:
                left -= 1
            if session.opening is not None:
                session.opening.left = left

    def _left_of(self, session: ClientSession) -> int:
        """Return what the commands of a client may still cost: anew if it has taken all answers."""
        opening = session.opening
        if opening is None or opening.left is None:
            return TURN_COST
        if session.outbox is None and session.transport.writable:
            return TURN_COST
        return opening.left

    def _is_within_rate(self, session: ClientSession, command: Command, *, is_coming: bool) -> bool:
        """Charge a command. With its connect command a client may say all rooms that it was in."""
        rates = self._core.rates
        if isinstance(command, Pong):
            return rates.charge_frame(session, droppable=True)
        if is_coming and isinstance(command, Connect | Subscribe):
            return True
        return rates.charge_command(session, getattr(command, "id", None))

    async def _until_taken(self, session: ClientSession) -> None:
        """Leave the others their turn, and wait until the client has taken its answers so far."""
        await asyncio.sleep(0)
        while session.close is None and (
            session.outbox is not None or not session.transport.writable
        ):
            await asyncio.sleep(WAIT_S)

    async def _execute(self, session: ClientSession, command: Command) -> int:
        """Carry out one command and answer it; return what that cost. Whatever it raises ends here."""
        if isinstance(command, Connect) == session.is_connected and not isinstance(command, Pong):
            self._core.registry.end(session, BAD_COMMAND, type(command).__name__)
            return 1
        number: int | None = getattr(command, "id", None)
        try:
            answer = await self._carry_out(session, command, number)
        except CommandError as error:
            self._errors.reply(session, error, number)
        except BrokerError:
            later = CommandError("unavailable", "try again later", temporary=True)
            self._errors.reply(session, later, number)
        except asyncio.CancelledError as cancelled:
            if is_being_cancelled():
                raise
            self._command_failed(session, number, cancelled)  # only something that it awaited
        except Exception as wrong:
            self._command_failed(session, number, wrong)
        else:
            if answer is not None:
                size = self._errors.answer(session, answer)
                return _cost_of(answer, size or 0)
        return 1

    def _command_failed(
        self, session: ClientSession, number: int | None, error: BaseException
    ) -> None:
        """Deal with what a command raised, and answer a client that stays: it waits for that."""
        self._errors.failed(session, error)
        if number is not None and session.close is None:
            self._errors.reply(session, CommandError("internal_error", "internal error"), number)

    async def _carry_out(
        self, session: ClientSession, command: Command, number: int | None
    ) -> Reply | None:
        """Do what a command says; return its answer, None if it has been answered, or needs none."""
        core = self._core
        result: Result | None = None
        self._check_size(command)
        match command:
            case Connect():
                await core.connecting.connect(session, command)
                return None
            case Send(message):
                if self._is_heard(session):
                    await self.handle(session, message)
                return None
            case Pong():
                return None
            case Subscribe():
                result = await self._subscribe(session, command)
            case Unsubscribe(_, room) if not is_room_name(room):
                pass  # it is not in what cannot be
            case Unsubscribe(_, room):
                core.joining.leave(session, room)
                if session.behind is not None:
                    session.behind.discard(room)  # it wants no more of it, the gap included
            case Publish(_, room, message):
                check_room_name(room)
                await core.access.check(session.client, "publish", room)
                publisher = core.infos.of(session, room)
                await core.publishing.publish(room, message, publisher=publisher)
            case Refresh(_, token):
                result = await core.connecting.refresh(session, token)
            case History(_, room):
                result = await self._history(session, command)
            case Presence() | PresenceStats():
                result = await self._presence(session, command)
            case SubRefresh(_, room, token):
                result = await self._refresh_subscription(session, room, token)
            case Rpc():
                result = await self._call_function(session, command)
            case Unsupported(_, error):
                raise error
            case _:
                assert_never(command)
        return Reply(number, command, result)

    def _check_size(self, command: Command) -> None:
        """Raise `CommandError` for a message of the application's own that is too large."""
        limit = self._settings.max_message_bytes
        if limit is None or not isinstance(command, Publish | Send | Rpc):
            return
        frame = command.data if isinstance(command, Rpc) else command.message
        if len(frame.payload) > limit:
            raise CommandError("too_large", f"a message has at most {limit} bytes")

    def _is_heard(self, session: ClientSession) -> bool:
        """Tell whether a message is to be handled. Where there is no handler at all a plain client is answered so,
        and to this command there is no answer: it closes the client, but where what is invalid is ignored."""
        if self._handlers.takes_messages or self._settings.on_invalid == "ignore":
            return True
        self._core.registry.end(session, NO_HANDLER)
        return False

    async def _subscribe(self, session: ClientSession, command: Subscribe) -> Subscribed:
        """Bring a client into a room that it asks for."""
        await self._core.turns.take()
        if check_room_name(command.room) in session.memberships:
            raise CommandError("already_subscribed", "already subscribed")
        return await self._core.joining.subscribe(
            session,
            command.room,
            command.since,
            must_recover=command.must_recover,
            token=command.token,
            takes_patches=command.takes_patches,
        )

    async def _refresh_subscription(
        self, session: ClientSession, room: str, token: str
    ) -> Refreshed:
        """Take a new token of a client for a room that it is in."""
        core = self._core
        if check_room_name(room) not in session.memberships:
            raise CommandError("forbidden", "not subscribed")
        try:
            grant = await core.access.check_token(session.client, room, token)
            if session.close is not None or room not in session.memberships:
                raise CommandError("forbidden", "not subscribed")
        except CommandError as error:
            if error.code != "token_expired":
                raise
            core.subscriptions.end(session, room)  # so that it comes back with a new one
            return Refreshed(None)
        return Refreshed(core.joining.renew(session, room, grant.expires_at, grant.info))

    async def _call_function(self, session: ClientSession, command: Rpc) -> Returned:
        """Call a function of the application for a client. What it raises comes through."""
        functions = self._core.handlers.rpc
        handler = functions.get(command.method)
        if not functions:
            raise CommandError("not_available", "not available: nothing can be called here")
        if handler is None:
            method = printable(command.method, 50)
            raise CommandError("unknown_method", f"there is no method {method!r}")
        data = handler.decode(command.data)
        try:
            value = handler.function(session.client, data)
            if hasattr(value, "__await__"):
                value = await value
        except BrokerError as error:
            answer = self._errors.note_and_answer(session, error)
            assert answer is not None
            raise answer from error
        return Returned(Frame(encode_json(value), True))

    async def _history(self, session: ClientSession, command: History) -> Page:
        """Read a part of a room's history for a client."""
        core, room = self._core, command.room
        check_room_name(room)
        await core.access.check(session.client, "history", room)
        core.recovery.require_history(room)
        limit = MOST_A_PAGE if command.limit is None else min(command.limit, MOST_A_PAGE)
        since, reverse = command.since, command.reverse
        if since is not None and since.offset == 0 and reverse:
            raise CommandError("bad_request", "nothing is before the offset 0")
        try:
            page = await core.recovery.page_for(
                session, room, since=since, limit=limit, reverse=reverse
            )
        except PositionLost as lost:
            raise CommandError("position_lost", str(lost)) from None
        return Page(page.publications, page.position)

    async def _presence(
        self, session: ClientSession, command: Presence | PresenceStats
    ) -> Present | Counts:
        """Find out for a client who is in a room, or how many."""
        core, room = self._core, command.room
        check_room_name(room)
        await core.access.check(session.client, "presence", room)
        if isinstance(command, PresenceStats):
            return await core.presence.stats(room)
        return Present(await core.presence.present(room, MOST_LISTED))


def _cost_of(answer: Reply, size: int) -> int:
    """Return what an answer of so many bytes costs; see `TURN_COST`."""
    result = answer.result
    parts = result.clients if isinstance(result, Present) else getattr(result, "publications", ())
    return 1 + len(parts) // 16 + size // COST_BYTES
