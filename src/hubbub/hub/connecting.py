"""Connecting: how an open connection of a dialect with commands becomes a client's, by its first command.

What must not live here: other commands (`commands`), who may connect (`access`), the tables (`registry`).

Until its connect command a connection is open, holds a bounded place, is in no room, and has
`handshake_timeout_s` for it. The rooms of its identity are read before it is a client, so that its answer says of
each whether it has missed anything.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from ..dialects.dialect import Connect, Connected, Refreshed
from ..errors import CHANNEL_LIMIT, INVALID_TOKEN, CommandError, Disconnected, Refused
from ..limits import printable
from ..logs import level_of
from ..model import Handshake, Identity, Position
from ..raised import close_of
from .disconnects import CONNECT_FAILED, CONNECT_TIMEOUT, EXPIRED, SERVER_STOPPING
from .tasks import is_being_cancelled

if TYPE_CHECKING:
    from .admission import Place
    from .core import Core
    from .room_waits import Ready
    from .session import ClientSession

AUTHENTICATION_SHARE = 1.25
"""How long a connection may take from its connect command on, in parts of `handshake_timeout_s`: an
authenticate handler that takes longer than the setting is refused before that."""


class Opening:
    """What an open connection holds until its first command has connected it, and remembers after."""

    __slots__ = ("given", "handshake", "left", "place", "positions", "rest", "timer")

    def __init__(self, handshake: Handshake, place: Place, timer: asyncio.TimerHandle) -> None:
        self.handshake: Handshake = handshake
        self.place: Place | None = place
        self.timer: asyncio.TimerHandle = timer
        self.rest: Coroutine[Any, Any, None] | None = None
        """What the connect handlers have still to do."""
        self.left: int | None = None
        """What its commands may still cost, while it has not taken all answers (None: there were none);
        see `commands`."""
        self.given: set[str] = set()
        """The rooms that the server has put the client into: it cannot come back to them by itself."""
        self.positions: dict[str, Position] = {}
        """How far the client has come in rooms that the server had put it into."""

    def end(self) -> None:
        """Wait no more, and give back what is held. Twice is no error."""
        self.timer.cancel()
        self.give_back()

    def give_back(self) -> None:
        """Give back the place. Twice is no error."""
        place, self.place = self.place, None
        if place is not None:
            place.give_back()


class Connecting:
    """Makes clients of connections, and takes their new tokens. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def open(self, session: ClientSession, handshake: Handshake, place: Place) -> None:
        """Let a connection wait for its connect command, for so long and no longer."""
        core = self._core
        loop = asyncio.get_running_loop()
        timeout_s = core.settings.handshake_timeout_s
        timer = loop.call_later(timeout_s, core.registry.end, session, CONNECT_TIMEOUT)
        session.opening = Opening(handshake, place, timer)
        if core.lifecycle.is_draining:
            core.registry.end(session, SERVER_STOPPING)  # it came while the shutdown began

    async def connect(self, session: ClientSession, command: Connect) -> None:
        """Learn who the client is, and make one of its connection."""
        opening, core = session.opening, self._core
        assert opening is not None
        assert opening.place is not None
        self._wait_longer(session, opening)
        await core.turns.take()
        if session.close is not None:
            return
        handshake = dataclasses.replace(
            opening.handshake, connect_token=command.token, data=command.data
        )
        rooms: Sequence[Ready] = ()
        try:
            identity = await core.access.identify(handshake)
            if session.close is not None:
                return
            opening.timer.cancel()  # what follows has a limit of its own, and is not the client's fault
            rooms = await self._ready(identity, command)
            if session.close is not None:
                return
            client_id = opening.place.hold_id(handshake, identity)
            self._welcome(session, command, opening, handshake, identity, client_id, rooms)
        except Refused as refusal:
            self._turn_away(session, command, refusal)
            return
        finally:
            core.joining.drop(rooms)
            if not session.is_connected and session.close is None:
                # Whatever has failed: it does not stay for ever.
                self._wait_longer(session, opening)
        rest, opening.rest = opening.rest, None
        if rest is not None:
            await rest

    def _welcome(
        self,
        session: ClientSession,
        command: Connect,
        opening: Opening,
        handshake: Handshake,
        identity: Identity,
        client_id: str,
        rooms: Sequence[Ready],
    ) -> None:
        """Make a client of a connection, bring it into its rooms, and tell it so."""
        core, place = self._core, opening.place
        assert place is not None
        given = set(identity.rooms)
        opening.positions = {
            room: position for room, position in command.positions.items() if room not in given
        }
        opening.handshake = handshake

        def greet() -> None:
            told = core.joining.give(session, rooms)
            answer = Connected(command.id, client_id, _left_s(identity), told)
            if self._core.handler_errors.answer(session, answer) is None:
                core.registry.disconnect(session, CONNECT_FAILED.code, CONNECT_FAILED.reason)
                return
            for each in told:
                if not each.answer.recovered:
                    core.joining.send_missed(session, each.answer)

        core.registry.connect(session, place, identity, handshake, client_id, greet)
        opening.end()
        core.pings.add(session)

    async def _ready(self, identity: Identity, command: Connect) -> list[Ready]:
        """Find out what a client has missed of its rooms. Raises `Refused` while that cannot be done."""
        try:
            return await self._core.joining.ready(identity.rooms, command.positions)
        except CommandError as error:
            raise Refused(503, error.code, error.message) from error
        except (Exception, asyncio.CancelledError) as error:
            if is_being_cancelled():
                raise
            text = "what a client has missed could not be found out"
            raise self._core.access.as_refusal(error, text) from error

    def _wait_longer(self, session: ClientSession, opening: Opening) -> None:
        """Give who sent its connect command in time the time that authentication has, and a little."""
        core = self._core
        opening.timer.cancel()
        delay_s = core.settings.handshake_timeout_s * AUTHENTICATION_SHARE
        loop = asyncio.get_running_loop()
        opening.timer = loop.call_later(delay_s, core.registry.end, session, CONNECT_TIMEOUT)

    def _turn_away(self, session: ClientSession, command: Connect, refusal: Refused) -> None:
        """Answer a connect command with a refusal, and close."""
        core = self._core
        core.stats.refuse(refusal.code)
        text = "a connect command %s was refused: %d %s"
        code = printable(refusal.code)
        core.log.log(*level_of(refusal.code), text, session.label, refusal.status, code)
        self._core.handler_errors.reply(session, _as_error(refusal), command.id)
        close = close_of(refusal)
        assert close is not None
        if refusal.code == "token_expired":
            close = EXPIRED.code, EXPIRED.reason
        elif refusal.status == 401:
            close = INVALID_TOKEN, refusal.message
        elif refusal.code == "too_many_rooms":
            close = CHANNEL_LIMIT, refusal.message
        core.registry.disconnect(session, *close)

    async def refresh(self, session: ClientSession, token: str) -> Refreshed:
        """Take a new token of a client; one of another user closes it."""
        opening, core = session.opening, self._core
        if opening is None:
            raise CommandError("left", "the client has gone")
        handshake = dataclasses.replace(opening.handshake, connect_token=token)
        try:
            identity = await core.access.identify(handshake)
        except Refused as refusal:
            if refusal.code == "token_expired":  # an SDK would take an error for the end
                raise Disconnected(EXPIRED.code, EXPIRED.reason) from None
            if refusal.status == 401:
                raise Disconnected(INVALID_TOKEN, "invalid token") from None
            if refusal.code == "too_many_rooms":
                raise Disconnected(CHANNEL_LIMIT, "channel limit") from None
            raise _as_error(refusal) from None
        if identity.user != session.client.user:
            raise Disconnected(INVALID_TOKEN, "invalid token")
        core.registry.refresh(session, identity.expires_at)
        return Refreshed(_left_s(identity))


def _as_error(refusal: Refused) -> CommandError:
    """Return the answer to a command whose token was refused: one that may pass says so."""
    may_pass = refusal.status == 429 or refusal.status >= 500
    return CommandError(refusal.code, refusal.message, temporary=may_pass)


def _left_s(identity: Identity) -> float | None:
    """Return in how many seconds the client's token ends; None for never."""
    return None if identity.expires_at is None else identity.expires_at - time.time()
