"""Registry: who is connected, and who is in which room: the tables of one hub.

What must not live here: ASGI, HTTP, sockets, frameworks, handler calling (`dispatcher`), delivery
(`fanout`), the life of the hub (`lifecycle`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..dialects.dialect import Dialect
from ..dialects.plain import PLAIN
from ..errors import MESSAGE_TOO_BIG, check_close, fit_reason
from ..limits import BURST_S, TokenBucket, check_room_name, printable
from ..model import (
    EVERYBODY,
    USER_PREFIX,
    Close,
    Handshake,
    Identity,
    check_unix_time,
)
from ..room_rules import SlowPolicy
from ..transports.transport import Transport
from .attempt import call_off_all
from .client import Client
from .deadlines import GRACE_S
from .disconnects import CONNECT_FAILED, REPLACED_BY_NEWER, SLOW_CONSUMER, Cause
from .room import Membership, Room, RoomTable
from .session import ClientSession

if TYPE_CHECKING:
    from .admission import Place
    from .core import Core

logger: logging.Logger = logging.getLogger("hubbub")

_MOST_FORMER_NAMES = 16


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
            self.rooms: RoomTable = RoomTable(policy, slow_policies, rules=core.rules)
        else:
            self.rooms = RoomTable(
                policy, slow_policies, self._first_came, self._last_went, rules=core.rules
            )
        self.room_of: Callable[[str], Membership | None] = self.rooms.get
        """Return who is in a room, None when nobody is. Every publication asks."""
        self._named: dict[str, ClientSession] = {}
        self._formerly: dict[str, set[ClientSession]] = {}
        self._last_name = 0

    def _first_came(self, room: str) -> None:
        if room != EVERYBODY:
            self._core.interest.add(room)

    def _last_went(self, room: str) -> None:
        if room != EVERYBODY and not self._core.joining.is_awaited(room):
            self._core.interest.remove(room)

    def reset(self) -> None:
        """Forget what a dead event loop left behind."""
        self.sessions.clear()
        for session in self.opened:
            if session.opening is not None:
                session.opening.give_back()
        self.opened.clear()
        self.transports.clear()
        self.rooms.clear()
        self._named.clear()
        self._formerly.clear()

    def name_session(self, session: ClientSession) -> str:
        """Return a new name for a connection; see `ClientSession.connection_id`."""
        self._last_name += 1
        name = f"{self._core.node_id}.{self._last_name}"
        if session.close is None:
            self._named[name] = session
        return name

    def sessions_named(self, name: str) -> tuple[ClientSession, ...]:
        """Return the connection of a name, and those with which its client has come back, as they say themselves.

        All of them are left out of what leaves out that name: who says a stranger's name harms nobody else.
        """
        own, others = self._named.get(name), self._formerly.get(name)
        if others is None:
            return () if own is None else (own,)
        return (*others,) if own is None else (own, *others)

    def note_former_names(self, session: ClientSession, names: Sequence[str]) -> None:
        """Learn under which names a client was connected before: what leaves those out leaves it out too."""
        known = session.former_names
        new = [name for name in names if name not in known and name != session.connection_id]
        if not new or session.close is not None:
            return
        kept = session.former_names = (*known, *new)[-_MOST_FORMER_NAMES:]
        for name in {*known} - {*kept}:
            self._forget_former(session, name)
        for name in kept:
            self._formerly.setdefault(name, set()).add(session)

    def _forget_former(self, session: ClientSession, name: str) -> None:
        sessions = self._formerly.get(name, set())
        sessions.discard(session)
        if not sessions:
            self._formerly.pop(name, None)

    # Coming and going

    def open(self, transport: Transport, dialect: Dialect = PLAIN) -> ClientSession:
        """Take a connection whose handshake was accepted. It is nobody's yet, and in no room."""
        core = self._core
        session = ClientSession(core, transport, dialect)
        rate = core.settings.messages_per_second
        if rate is not None and dialect.is_plain:  # else each command is charged, not each frame
            session.message_bucket = TokenBucket(rate, rate * BURST_S, core.clock())
        self.transports.add(transport)
        return session

    def open_unidentified(
        self, transport: Transport, dialect: Dialect, place: Place, handshake: Handshake
    ) -> ClientSession:
        """Take a connection whose first command will say whose it is; see `connecting`.

        Raises `Refused(503)` when all places are taken.
        """
        kept = place.keep()
        session = self.open(transport, dialect)
        self.opened[session] = None
        self._core.connecting.open(session, handshake, kept)
        return session

    def connect(
        self,
        session: ClientSession,
        place: Place,
        identity: Identity,
        handshake: Handshake,
        id_: str,
        greet: Callable[[], None] | None = None,
    ) -> Client:
        """Make a client of a connection, bring it into its rooms, and run the connect handlers.

        `greet` brings it into its rooms and tells it so (None: it is told nothing). Whatever fails in
        this closes the client with 1011 and frees its place.
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
            self._take_in(session, place, identity, handshake, greet)
        except BaseException as error:
            self._note(session, CONNECT_FAILED, error=error)
            self.disconnect(session, CONNECT_FAILED.code, CONNECT_FAILED.reason)
            if not isinstance(error, Exception):
                raise
        return client

    def _take_in(
        self,
        session: ClientSession,
        place: Place,
        identity: Identity,
        handshake: Handshake,
        greet: Callable[[], None] | None,
    ) -> None:
        core, client = self._core, session.client
        if identity.meta:
            client.meta.update(identity.meta)
        if identity.info is not None:
            core.infos.note_identity(session, identity.info)
        self.opened.pop(session, None)
        self.sessions[client.id] = session
        place.seat(session)
        core.joining.enter(session, EVERYBODY)
        if client.user is not None:
            core.joining.enter(session, USER_PREFIX + client.user)
        core.liveness.add(session)
        if identity.expires_at is not None:
            self.refresh(session, identity.expires_at)
        core.stats.total_clients += 1
        logger.debug("client %s connected", client.id)
        if greet is None:
            for room in identity.rooms:
                core.joining.put(session, room)
        else:
            greet()
            if session.close is not None:
                return
        session.dispatcher.connected(session, handshake)
        if core.lifecycle.is_draining:
            core.lifecycle.end_session(session)  # its handshake was under way at that moment

    def refresh(self, session: ClientSession, expires_at: float | None) -> None:
        """See `Client.refresh`."""
        check_unix_time(expires_at)
        if session.close is None:
            # Counted by the hub's own clock from here on: one that is set forward ends nobody.
            left_s = None if expires_at is None else expires_at - time.time()
            if left_s is not None and left_s > 0 and not session.variant.dialect.is_plain:
                left_s += GRACE_S
            self._core.liveness.expire_in(session, left_s)

    def remove(self, session: ClientSession, close: Close) -> None:
        """Take a client out of the tables and run the disconnect handlers. Twice is no error."""
        if session.close is not None:
            return
        core = self._core
        core.stats.undelivered += core.fanout.pending_for(session)
        session.note_close(close)
        core.stats.end(close.code, by_server=close.by_server)
        if session.has_connection_id:
            self._named.pop(session.connection_id, None)
        for name in session.former_names:
            self._forget_former(session, name)
        for members in session.memberships.values():
            self.rooms.remove(session, members)
            if members.has_presence:
                core.presence.left(session, members.name)
        call_off_all(session)
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
        code, reason = session.variant.closing(code, reason)
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
        if cause is SLOW_CONSUMER:
            session.give_up_waiting()
        self._note(session, cause, *details, error=error)
        self.disconnect(session, cause.code, cause.reason)

    def end_as(
        self, session: ClientSession, cause: Cause, close: Close, *, detail: str | None = None
    ) -> None:
        """Close a client as `end` does, with another code and reason than the table's.

        The log says `detail`, or that reason.
        """
        if session.close is None:
            self._note(session, cause, printable(close.reason) if detail is None else detail)
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

    def memberships(self) -> list[Membership]:
        """Return all rooms that have members here."""
        return self.rooms.all()

    def members_of(self, key: str) -> Mapping[ClientSession, None]:
        """Return the clients of this process that are in a room now, in the order of joining."""
        members = self.rooms.get(key)
        return {} if members is None else members.sessions

    def clients_of(self, key: str) -> list[Client]:
        """Return the same as clients."""
        return [session.client for session in self.members_of(key)]

    def room(self, name: str) -> Room:
        """Return the room of that name; it need not have members. Raises `CommandError` (name)."""
        members = self.rooms.get(name) if type(name) is str else None
        if members is not None and members.room is not None:
            return members.room
        room = Room(self._core, check_room_name(name))
        if members is not None:
            members.room = room
        return room

    def surplus_of_users(self) -> int:
        """Return how many clients there are beyond the first of each user."""
        return sum(
            len(members.sessions) - 1
            for members in self.rooms.all()
            if members.name.startswith(USER_PREFIX)
        )

    def room_sizes(self) -> dict[str, int]:
        """Return the rooms that have members in this process, and how many. Any thread."""
        return self.rooms.sizes()
