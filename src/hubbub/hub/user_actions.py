"""User actions: what others do to the connections of a user, on all nodes: close them, let them stay longer,
put them into a room, take them out.

What must not live here: who may do it (whoever calls), how a client comes into a room (`joining`).

The verbs: `close`, `refresh`, `subscribe` and `unsubscribe`. A node does to its own connections what it is told,
and answers nothing.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..brokers.broker import Control
from ..errors import CommandError
from ..limits import check_room_name, printable
from ..model import USER_PREFIX, Position, check_unix_time
from ..wire.frame import Frame
from .attempt import settled
from .control import close_of, number_of, text_of
from .disconnects import EXPIRED

if TYPE_CHECKING:
    from .core import Core
    from .session import ClientSession

AT_ONCE = 64
"""How many connections of one user are put into a room at the same time."""


class Whom(NamedTuple):
    """Which connections are meant: those of `user`; of them only `client`, by its id (None: all), and none of
    `spared`. The user "" stands for all anonymous clients."""

    user: str
    client: str | None = None
    spared: tuple[str, ...] = ()

    def as_arguments(self) -> dict[str, Any]:
        """Return what a control message says of it."""
        return {"user": self.user, "client": self.client, "spared": list(self.spared)}


class Grant(NamedTuple):
    """A room that connections are put into. `since` is the position from which on they are sent what they
    missed, `data` what they are told beside it, as JSON, `expires_at` when they are taken out again, as a Unix
    time in seconds (None: not said, nothing, never)."""

    room: str
    since: Position | None = None
    data: str | None = None
    expires_at: float | None = None

    def as_arguments(self) -> dict[str, Any]:
        """Return what a control message says of it."""
        since = None if self.since is None else self.since.as_dict()
        return {**self._asdict(), "since": since}


class UserActions:
    """Does to connections of a user what others ask for, here and on all other nodes. Event loop only.

    A user without connections is no error: nobody knows of all nodes whether there are any. What is asked for is done
    here at once, whatever becomes of the others; when a verb returns they are told, and where they cannot be it
    raises as `ControlPlane.say`.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def close(self, whom: Whom, code: int, reason: str) -> None:
        """Close connections with a code and a reason that are checked already."""
        if whom.user and whom.client is None and not whom.spared:
            told = self._core.control.say("disconnect", user=whom.user, code=code, reason=reason)
        else:
            told = self._say("close", whom, code=code, reason=reason)
        self._close_here(whom, code, reason)
        await told

    async def refresh(self, whom: Whom, expires_at: float | None) -> None:
        """Let connections stay until a Unix time in seconds (None: for good); see `Client.refresh`."""
        check_unix_time(expires_at)
        told = self._say("refresh", whom, expires_at=expires_at)
        self._refresh_here(whom, expires_at)
        await told

    async def expire(self, whom: Whom) -> None:
        """Close connections as if their tokens had ended."""
        told = self._say("refresh", whom, is_expired=True)
        self._expire_here(whom)
        await told

    async def subscribe(self, whom: Whom, grant: Grant) -> None:
        """Put connections into a room; when this returns those of this node are in, or gone.

        Nobody is asked whether they may. One that is in the room stays as it is, but for a new end of a stay that
        has one; it is waited for one that is just coming in. Raises what kept the others from being told; else the
        first `CommandError` that kept a connection of this node out: a temporary one where that wait took too long.
        `ValueError` for an end that is no Unix time.
        """
        check_room_name(grant.room)
        check_unix_time(grant.expires_at)
        told = self._say("subscribe", whom, **grant.as_arguments())
        try:
            await self._subscribe_here(whom, grant)
        except Exception:
            await told
            raise
        await told

    async def unsubscribe(self, whom: Whom, room: str) -> None:
        """Take connections out of a room. Those that are not in it stay as they are."""
        check_room_name(room)
        told = self._say("unsubscribe", whom, room=room)
        self._unsubscribe_here(whom, room)
        await told

    def obey(self, control: Control) -> None:
        """Do what another node says, if its verb is of these."""
        arguments = control.arguments
        match control.verb:
            case "close":
                self._close_here(_whom(arguments), *close_of(arguments))
            case "refresh" if arguments.get("is_expired") is True:
                self._expire_here(_whom(arguments))
            case "refresh":
                expires_at = check_unix_time(arguments["expires_at"])
                self._refresh_here(_whom(arguments), expires_at)
            case "subscribe":
                whom, grant = _whom(arguments), _grant(arguments)
                name = f"put into {grant.room[:50]}"
                self._core.lifecycle.spawn(self._subscribe_as_told(whom, grant), name)
            case "unsubscribe":
                room = check_room_name(text_of(arguments, "room"))
                self._unsubscribe_here(_whom(arguments), room)

    def _say(self, verb: str, whom: Whom, **arguments: Any) -> Future[None]:
        return self._core.control.say(verb, **whom.as_arguments(), **arguments)

    def _found(self, whom: Whom) -> list[ClientSession]:
        """Return the connections of this node that are meant."""
        registry = self._core.registry
        if whom.client is not None:
            session = registry.sessions.get(whom.client)
            found = [] if session is None else [session]
        elif whom.user:
            found = list(registry.members_of(USER_PREFIX + whom.user))
        else:
            found = list(registry.sessions.values())
        return [
            session
            for session in found
            if (session.client.user or "") == whom.user and session.client.id not in whom.spared
        ]

    def _close_here(self, whom: Whom, code: int, reason: str) -> None:
        for session in self._found(whom):
            self._core.registry.disconnect(session, code, reason)

    def _refresh_here(self, whom: Whom, expires_at: float | None) -> None:
        for session in self._found(whom):
            self._core.registry.refresh(session, expires_at)

    def _expire_here(self, whom: Whom) -> None:
        for session in self._found(whom):
            self._core.registry.end(session, EXPIRED)

    def _unsubscribe_here(self, whom: Whom, room: str) -> None:
        for session in self._found(whom):
            self._core.joining.leave(session, room, by_server=True)

    async def _subscribe_here(self, whom: Whom, grant: Grant) -> None:
        found = self._found(whom)
        failures: list[CommandError] = []
        for start in range(0, len(found), AT_ONCE):
            some = found[start : start + AT_ONCE]
            done = await asyncio.gather(*(self._put(session, grant) for session in some))
            failures += [error for error in done if error is not None]
        if failures:
            raise failures[0]

    async def _put(self, session: ClientSession, grant: Grant) -> CommandError | None:
        """Put a connection into a room; return what kept it out, if it is still there."""
        room, expires_at = grant.room, grant.expires_at
        await self._core.turns.take()
        data = None if grant.data is None else Frame(grant.data.encode(), True)
        try:
            await settled(session, room, expires_at)
            await self._core.joining.subscribe(
                session,
                room,
                grant.since,
                by_server=True,
                is_allowed=True,
                data=data,
                expires_at=expires_at,
            )
        except CommandError as error:
            return None if error.code == "left" else error  # it has gone, or was taken out
        return None

    async def _subscribe_as_told(self, whom: Whom, grant: Grant) -> None:
        try:
            await self._subscribe_here(whom, grant)
        except CommandError as error:
            text = "clients of %s could not be put into %s, as another node asked: %s"
            names = printable(repr(whom.user), 50), printable(grant.room, 50)
            self._core.log.log(logging.WARNING, "rooms", text, *names, printable(str(error)))


def _whom(arguments: Mapping[str, Any]) -> Whom:
    client, spared = arguments["client"], arguments["spared"]
    if not isinstance(client, str | None) or not isinstance(spared, Sequence):
        raise TypeError("client is no text, or spared no list")
    return Whom(text_of(arguments, "user"), client, tuple(map(str, spared)))


def _grant(arguments: Mapping[str, Any]) -> Grant:
    room, since, data = text_of(arguments, "room"), arguments["since"], arguments["data"]
    if since is not None:
        since = Position(number_of(since, "offset"), text_of(since, "epoch"))
    if not isinstance(data, str | None):
        raise TypeError("data is no text")
    return Grant(check_room_name(room), since, data, check_unix_time(arguments["expires_at"]))
