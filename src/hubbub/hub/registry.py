"""Registry: who is connected, and who is in which room: the tables of one hub.

What must not live here: ASGI, HTTP, sockets, frameworks, handler calling (`dispatcher`), delivery
(`fanout`), the life of the hub (`lifecycle`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from ..dialects.dialect import Dialect, ServerSubscribed, ServerUnsubscribed
from ..dialects.plain import PLAIN
from ..errors import MESSAGE_TOO_BIG, BrokerError, CommandError, check_close, fit_reason
from ..limits import BURST_S, TokenBucket, check_room_name, printable
from ..model import (
    EVERYBODY,
    USER_PREFIX,
    Close,
    Handshake,
    Identity,
    Position,
    check_unix_time,
)
from ..room_rules import SlowPolicy
from ..transports.transport import Transport
from ..wire.piece import joined
from ..wire.publication import Subscribed
from .client import Client
from .disconnects import CONNECT_FAILED, REPLACED_BY_NEWER, SERVER_STOPPING, SLOW_CONSUMER, Cause
from .recovery import Progress, Recovered, split_names, with_names
from .room import Membership, Room, RoomTable
from .session import ClientSession

if TYPE_CHECKING:
    from .admission import Place
    from .core import Core

logger: logging.Logger = logging.getLogger("hubbub")


class Registry:
    """The tables of a hub. One event loop owns it; `disconnect` may be called from any thread."""

    def __init__(self, core: Core, slow_policies: Mapping[str, SlowPolicy]) -> None:
        self._core = core
        self.sessions: dict[str, ClientSession] = {}
        """The clients of this process by their ids."""
        self.opened: dict[ClientSession, None] = {}
        """Connections that are open, and that no command has connected yet."""
        self.transports: set[Transport] = set()
        """The transports whose sockets are not gone."""
        policy = core.settings.slow_policy
        if core.broker.receives_all:
            self._rooms = RoomTable(policy, slow_policies, rules=core.rules)
        else:
            self._rooms = RoomTable(
                policy, slow_policies, self._first_came, self._last_went, rules=core.rules
            )
        self.room_of: Callable[[str], Membership | None] = self._rooms.get
        """Return who is in a room, None when nobody is. Every publication asks."""
        self._named: dict[str, ClientSession] = {}
        self._last_name = 0
        self.session_named: Callable[[str], ClientSession | None] = self._named.get
        """Return the live connection of a name, None when it is another process's, or gone."""

    def _first_came(self, room: str) -> None:
        if room != EVERYBODY:
            self._core.interest.add(room)

    def _last_went(self, room: str) -> None:
        if room != EVERYBODY:
            self._core.interest.remove(room)

    def reset(self) -> None:
        """Forget what a dead event loop left behind."""
        self.sessions.clear()
        for session in self.opened:
            if session.opening is not None:
                session.opening.give_back()
        self.opened.clear()
        self.transports.clear()
        self._rooms.clear()
        self._named.clear()

    def name_session(self, session: ClientSession) -> str:
        """Return a new name for a connection; see `ClientSession.connection_id`."""
        self._last_name += 1
        name = f"{self._core.node_id}.{self._last_name}"
        if session.close is None:
            self._named[name] = session
        return name

    # Coming and going

    def open(self, transport: Transport, dialect: Dialect = PLAIN) -> ClientSession:
        """Take a connection whose handshake was accepted. It is nobody's yet, and in no room."""
        core = self._core
        session = ClientSession(core, transport, dialect)
        rate = core.settings.messages_per_second
        if rate is not None:
            session.message_bucket = TokenBucket(rate, rate * BURST_S, core.clock())
        self.transports.add(transport)
        return session

    def open_unidentified(
        self, transport: Transport, dialect: Dialect, place: Place, handshake: Handshake
    ) -> ClientSession:
        """Take a connection whose first command will say whose it is; see `commands`.

        Raises `Refused(503)` when all places are taken.
        """
        kept = place.keep()
        session = self.open(transport, dialect)
        self.opened[session] = None
        self._core.commands.open(session, handshake, kept)
        return session

    def connect(
        self,
        session: ClientSession,
        place: Place,
        identity: Identity,
        handshake: Handshake,
        id_: str,
    ) -> Client:
        """Make a client of a connection, and run the connect handlers.

        Whatever fails in this closes the client with 1011 and frees its place.
        """
        holder = self.sessions.get(id_)
        if holder is not None:
            self.end(holder, REPLACED_BY_NEWER)
        session.client = client = Client(
            self._core,
            session,
            id_,
            user=identity.user,
            address=handshake.address,
            connected_at=time.time(),
        )
        try:
            self._take_in(session, place, identity, handshake)
        except BaseException as error:
            self._note(session, CONNECT_FAILED, error=error)
            self.disconnect(session, CONNECT_FAILED.code, CONNECT_FAILED.reason)
            if not isinstance(error, Exception):
                raise
        return client

    def _take_in(
        self, session: ClientSession, place: Place, identity: Identity, handshake: Handshake
    ) -> None:
        core, client = self._core, session.client
        if identity.meta:
            client.meta.update(identity.meta)
        self.opened.pop(session, None)
        self.sessions[client.id] = session
        place.seat(session)
        self._enter(session, EVERYBODY)
        if client.user is not None:
            self._enter(session, USER_PREFIX + client.user)
        core.liveness.add(session)
        if identity.expires_at is not None:
            self.refresh(session, identity.expires_at)
        core.stats.total_clients += 1
        logger.debug("client %s connected", client.id)
        if session.dispatcher is core.dispatcher:  # else they come after the answer to its command
            for room in identity.rooms:
                self.join(session, room)
        session.dispatcher.connected(session, handshake)
        if core.lifecycle.is_draining:
            self.end(session, SERVER_STOPPING)  # its handshake was under way at that moment

    def refresh(self, session: ClientSession, expires_at: float | None) -> None:
        """See `Client.refresh`."""
        check_unix_time(expires_at)
        if session.close is None:
            # Counted by the hub's own clock from here on: one that is set forward ends nobody.
            left_s = None if expires_at is None else expires_at - time.time()
            self._core.liveness.expire_in(session, left_s)

    def remove(self, session: ClientSession, close: Close) -> None:
        """Take a client out of the tables and run the disconnect handlers. Twice is no error."""
        if session.close is not None:
            return
        core = self._core
        core.stats.undelivered += core.fanout.pending_for(session)
        session.note_close(close)
        if session.has_connection_id:
            self._named.pop(session.connection_id, None)
        for members in session.memberships.values():
            self._rooms.remove(session, members)
            if members.has_presence:
                core.presence.left(session, members.name)
        session.joining = None
        self.opened.pop(session, None)
        if session.is_connected and self.sessions.get(session.client.id) is session:
            del self.sessions[session.client.id]
        if session.place is not None:
            session.place.release()
        core.liveness.remove(session)
        core.subscriptions.forget(session)
        logger.debug("client %s disconnected: %s", session.label, close.code)
        session.dispatcher.disconnected(session)

    def transport_lost(self, session: ClientSession) -> None:
        """Forget a transport whose socket is gone, and what still waits for its client."""
        self.transports.discard(session.transport)
        if session.outbox is not None:
            self._core.stats.undelivered += session.outbox.clear()

    def disconnect(self, session: ClientSession, code: int, reason: str) -> None:
        """Close one client; what was sent to it before goes first. Any thread."""
        check_close(code, reason)
        lifecycle = self._core.lifecycle
        if lifecycle.is_elsewhere():
            lifecycle.post(self.disconnect, session, code, reason)
            return
        if session.close is not None:
            return
        reason = fit_reason(reason)
        self._core.fanout.flush()
        session.transport.close(code, reason)
        self.remove(session, Close(code, reason, by_server=True))

    def end(
        self,
        session: ClientSession,
        cause: Cause,
        *details: object,
        error: BaseException | None = None,
    ) -> None:
        """Close a client for a reason of the hub's own: count it, log it, close. Twice is no error."""
        if session.close is not None:
            return
        if cause is SLOW_CONSUMER and session.outbox is not None:
            session.count_lost(session.outbox.clear())
        self._note(session, cause, *details, error=error)
        self.disconnect(session, cause.code, cause.reason)

    def end_as(self, session: ClientSession, cause: Cause, close: Close) -> None:
        """Close a client as `end` does, with another code and reason than the table's."""
        if session.close is None:
            self._note(session, cause, printable(close.reason))
            self.disconnect(session, close.code, close.reason)

    def _note(
        self,
        session: ClientSession,
        cause: Cause,
        *details: object,
        error: BaseException | None = None,
    ) -> None:
        """Count and log why a client is closed."""
        core = self._core
        if cause.counter is not None:
            setattr(core.stats, cause.counter, getattr(core.stats, cause.counter) + 1)
        if cause.text is not None:
            text = f"client %s {cause.text}"
            core.log.log(cause.level, cause.kind, text, session.label, *details, error=error)

    def violated(self, session: ClientSession, code: int, reason: str) -> None:
        """Take out a client whose bytes broke RFC 6455 or a limit; its transport closes by itself."""
        core = self._core
        core.stats.protocol_errors += 1
        text = "client %s closed with %d: %s"
        is_too_big = code == MESSAGE_TOO_BIG  # which a setting says, and nothing in the RFC
        level, kind = (logging.WARNING, "size") if is_too_big else (logging.INFO, "protocol")
        core.log.log(level, kind, text, session.label, code, printable(reason))
        self.remove(session, Close(code, reason, by_server=True))

    def tell_dropped(self, session: ClientSession) -> None:
        """Say now and then that a client's outbox drops messages."""
        text = "client %s is slow; its outbox drops messages"
        self._core.log.log(logging.WARNING, "dropped", text, session.label)

    def everybody(self) -> list[ClientSession]:
        """Return all connections that have not ended, those that are not connected yet included."""
        return [*self.sessions.values(), *self.opened]

    # Rooms

    def join(self, session: ClientSession, room: str) -> None:
        """See `Client.join`."""
        check_room_name(room)
        if room in session.memberships or session.close is not None:
            return
        if self._core.rules.is_stream(room):
            text = "a stream is joined by await client.subscribe(room), which gives the text so far"
            raise CommandError("not_available", text)
        self._check_room_limit(session)
        self._enter(session, room)
        if not session.variant.dialect.is_plain:
            self._note_given(session, room)
            self._core.publishing.tell(session, ServerSubscribed(room))

    async def subscribe(
        self,
        session: ClientSession,
        room: str,
        since: Position | None = None,
        *,
        by_server: bool = False,
        is_allowed: bool = False,
        must_recover: bool = False,
        token: str | None = None,
    ) -> Subscribed:
        """See `Client.subscribe`. That the client is joining is noted before anything is awaited.

        `by_server`: the client has not asked for it, and is told, and sent what it missed; else that
        is in the answer to its command. `is_allowed`: nobody is asked. `must_recover`: it wants to be in only
        if it misses nothing. `token` is what it shows to be let in.
        """
        check_room_name(room)
        if session.close is not None:
            raise _left(room)
        if room in session.memberships:
            return Subscribed(room, self._position_of(room))
        names: list[str] = []
        if since is None and by_server and session.opening is not None:
            since = session.opening.positions.pop(room, None)
        if since is not None:
            since, names = split_names(since)
        attempt = self._note_joining(session, room)
        try:
            expires_at = None
            if not is_allowed:
                expires_at = await self._core.access.check_join(session.client, room, token)
            if session.close is not None:
                raise _left(room)
            recovered = await self._await_room(room, since)
            if session.close is not None or not _is_joining(session, room, attempt):
                raise _left(room)
            if must_recover and since is not None and not (recovered and recovered.is_whole):
                raise CommandError("position_lost", "unrecoverable position")
        finally:
            if session.joining is not None and _is_joining(session, room, attempt):
                del session.joining[room]
        if room in session.memberships:  # the application has put it in meanwhile
            return Subscribed(room, self._position_of(room))
        answer = self._answer(session, room, names, recovered)
        if expires_at is not None:
            left_s = self._core.subscriptions.expire(session, room, expires_at)
            answer = answer._replace(expires_in_s=left_s)
        if by_server:
            self._announce(session, answer, since)
        return answer

    def _note_joining(self, session: ClientSession, room: str) -> object:
        """Note that a client is joining; return what tells this from the next time it does."""
        if session.joining is None:
            session.joining = {}
        if room in session.joining:
            raise CommandError("joining", "this client is joining the room already", temporary=True)
        self._check_room_limit(session)
        attempt = session.joining[room] = object()
        return attempt

    def _answer(
        self, session: ClientSession, room: str, names: Sequence[str], recovered: Recovered | None
    ) -> Subscribed:
        """Bring a client into a room, note how far that has come here, and return the answer."""
        self._enter(session, room)
        if recovered is None:
            return Subscribed(room)
        members = session.memberships[room]
        if members.progress is None:
            members.progress = Progress(recovered.position)
        own = session.connection_id
        names = [*(name for name in names if name != own), own]
        found = tuple(each for each in recovered.publications if each.exclude not in names)
        position = with_names(recovered.position, names)
        if members.is_stream:
            found = (joined(room, found, position, is_all=not recovered.is_whole),)
        return Subscribed(room, position, recovered.is_whole, found)

    def _announce(self, session: ClientSession, answer: Subscribed, since: Position | None) -> None:
        """Tell a client that the server has put it into a room, and send it what it missed."""
        publishing = self._core.publishing
        if not session.variant.dialect.is_plain:
            self._note_given(session, answer.room)
            position = answer.position
            if answer.recovered and since is not None and position is not None:
                # What it missed moves it on; if it is cut off before that, it has not had it.
                position = Position(since.offset, position.epoch)
            publishing.tell(session, ServerSubscribed(answer.room, position))
        for publication in answer.publications:
            self._core.fanout.send(session, publication.frame, publication)

    @staticmethod
    def _note_given(session: ClientSession, room: str) -> None:
        if session.opening is not None:
            session.opening.given.add(room)

    def _position_of(self, room: str) -> Position | None:
        members = self._rooms.get(room)
        return None if members is None or members.progress is None else members.progress.position

    async def _await_room(self, room: str, since: Position | None) -> Recovered | None:
        """Wait until all that is published to a room comes here, and what was missed is known."""
        core = self._core
        rule = core.rules.of(room)
        remembers = rule is not None and rule.remembers
        if core.broker.receives_all and not remembers:
            return None
        if not core.broker.receives_all:
            core.interest.add(room)
        ready = core.interest.ready(room)
        try:
            if ready is not None:
                await asyncio.shield(ready)
            if rule is None or not remembers:
                return None
            return await core.recovery.read_for(room, rule, since if rule.rules.recover else None)
        except BrokerError as error:
            raise CommandError("unavailable", "try again later", temporary=True) from error
        finally:
            if not core.broker.receives_all and self._rooms.get(room) is None:
                core.interest.remove(room)  # it lingers, and stays if a member comes now

    def _check_room_limit(self, session: ClientSession) -> None:
        limit = self._core.settings.max_rooms_per_client
        if limit is not None and _room_count(session) >= limit:
            raise CommandError(
                "too_many_rooms", f"a client may be in {limit} rooms at most (max_rooms_per_client)"
            )

    def leave(self, session: ClientSession, room: str, *, by_server: bool = False) -> None:
        """See `Client.leave`. `by_server`: the client has not asked for it, and is told."""
        check_room_name(room)
        if session.joining is not None:
            session.joining.pop(room, None)
        if by_server and session.behind is not None and session.variant.dialect.is_plain:
            session.behind.discard(room)  # else it would be brought back when it can take more
        members = session.memberships.get(room)
        if members is None or session.close is not None:
            return
        self._core.subscriptions.forget(session, room)
        self._core.fanout.left(session, members)
        del session.memberships[room]
        if session.opening is not None:
            session.opening.given.discard(room)
        self._rooms.remove(session, members)
        if members.has_presence:
            self._core.presence.left(session, room)
        if by_server and not session.variant.dialect.is_plain:
            self._core.publishing.tell(session, ServerUnsubscribed(room))

    def _enter(self, session: ClientSession, room: str) -> None:
        if session.behind is not None:
            session.behind.discard(room)  # it begins anew, and knows from where
        members = self._rooms.add(session, room)
        self._core.fanout.joined(session, members)
        session.memberships[room] = members
        if members.has_presence:
            self._core.presence.entered(session, room)

    def memberships(self) -> list[Membership]:
        """Return all rooms that have members here."""
        return self._rooms.all()

    def members_of(self, key: str) -> Mapping[ClientSession, None]:
        """Return the clients of this process that are in a room now, in the order of joining."""
        members = self._rooms.get(key)
        return {} if members is None else members.sessions

    def clients_of(self, key: str) -> list[Client]:
        """Return the same as clients."""
        return [session.client for session in self.members_of(key)]

    def room(self, name: str) -> Room:
        """Return the room of that name; it need not have members. Raises `CommandError` (name)."""
        members = self._rooms.get(name) if type(name) is str else None
        if members is not None and members.room is not None:
            return members.room
        room = Room(self._core, check_room_name(name))
        if members is not None:
            members.room = room
        return room

    def room_sizes(self) -> dict[str, int]:
        """Return the rooms that have members in this process, and how many. Any thread."""
        return self._rooms.sizes()


def _room_count(session: ClientSession) -> int:
    """Count the rooms that a client has joined, without listing them.

    Those that it did not join, everybody's and its user's, come first and are never left.
    """
    first = islice(session.memberships, 2)
    hidden = sum(name == EVERYBODY or name[0] == USER_PREFIX for name in first)
    joining = 0 if session.joining is None else len(session.joining)
    return len(session.memberships) - hidden + joining


def _is_joining(session: ClientSession, room: str, attempt: object) -> bool:
    return session.joining is not None and session.joining.get(room) is attempt


def _left(room: str) -> CommandError:
    return CommandError("left", f"the client left {printable(room, 50)!r} before it was in")
