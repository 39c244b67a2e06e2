"""Joining: how clients come into rooms and leave them.

What must not live here: the tables (`registry`, `room`), what was missed (`recovery`, `joiner`), whether
a client may (`access`).

A room that remembers is joined in two steps. While it is found out what the client has missed, it is not
in the room; then it is brought in, without anything being awaited in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..dialects.dialect import Gap, Given, ServerSubscribed, ServerUnsubscribed
from ..errors import BrokerError, CommandError
from ..limits import check_room_name, printable
from ..model import EVERYBODY, USER_PREFIX, Position
from ..wire.piece import joined
from ..wire.publication import Subscribed
from . import room_waits
from .attempt import Attempt, attempt_of, call_off, joining_already
from .positions import Progress, with_names
from .room_waits import Ready, RoomWaits
from .tasks import is_being_cancelled

if TYPE_CHECKING:
    from ..wire.frame import Frame
    from .core import Core
    from .joiner import Recovered
    from .room import Membership
    from .session import ClientSession

RETRY_S = 0.5
"""How long after a failure the hub tries again to bring a client in."""


class Joining:
    """Brings clients into rooms, and takes them out. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._waits = RoomWaits(core)

    def reset(self) -> None:
        """Forget who was joining in an event loop that is gone."""
        self._waits.reset()

    def is_awaited(self, room: str) -> bool:
        """Tell whether somebody waits for a room, and needs all that is published to it."""
        return self._waits.is_awaited(room)

    # By the server

    def join(self, session: ClientSession, room: str) -> None:
        """See `Client.join`."""
        check_room_name(room)
        if room in session.memberships or session.close is not None or _comes_back(session, room):
            return
        if self._core.rules.is_stream(room):
            text = "a stream is joined by await client.subscribe(room), which gives the text so far"
            raise CommandError("not_available", text)
        self._check_room_limit(session)
        self.enter(session, room)
        self._core.recovery.entered(session.memberships[room])
        if not session.variant.dialect.is_plain:
            _note_given(session, room)
            self._core.publishing.tell(session, ServerSubscribed(room))

    def put(self, session: ClientSession, room: str) -> None:
        """Bring a plain client into a room of its identity: into a stream as soon as its text is known."""
        if self._core.rules.is_stream(room):
            self.bring_in(session, room)
        else:
            self.join(session, room)

    def bring_in(self, session: ClientSession, room: str, *, asks: bool = False) -> None:
        """Bring a plain client into a stream, however often that has to be tried.

        It is noted as joining from here on, and `leave` ends that. Who is joining already is brought in if that
        fails. `asks`: it has to be allowed to. Who is not, or is in too many rooms, has a gap.
        """
        if session.close is not None or room in session.memberships:
            return
        under_way = attempt_of(session, room)
        if under_way is not None:
            under_way.otherwise = partial(self.bring_in, session, room, asks=asks)
            return
        try:
            attempt = self._note_joining(session, room)
        except CommandError:
            self._stay_out(session, room)
        else:
            coming = self._bring_in(session, room, attempt, asks=asks)
            self._core.lifecycle.spawn(coming, f"bring into {room[:50]}")

    async def _bring_in(
        self, session: ClientSession, room: str, attempt: Attempt, *, asks: bool
    ) -> None:
        try:
            while session.close is None and attempt.is_under_way(session, room):
                try:
                    if asks:
                        await self._ask_again(session, room)
                    answer = await self._enter_when_ready(session, Ready(room, None), attempt)
                    if not asks:
                        session.unasked |= {room}
                except (Exception, asyncio.CancelledError) as error:
                    if is_being_cancelled():
                        raise
                    if isinstance(error, CommandError) and not error.temporary:
                        if error.code != "left":
                            attempt.otherwise = None
                            self._stay_out(session, room)
                        return
                    text = "client %s could not be brought into %s: %s; tried again"
                    why = printable(str(error) or type(error).__name__)
                    label, shown = session.label, printable(room, 50)
                    self._core.log.log(logging.WARNING, "rooms", text, label, shown, why)
                    await asyncio.sleep(RETRY_S)
                else:
                    self.send_missed(session, answer)
                    return
        finally:
            attempt.end(session, room)

    async def _ask_again(self, session: ClientSession, room: str) -> None:
        """Ask whether a client may come back to a room; raise where it may not, or that is not known now.

        What else the application raises becomes of it what does in a handler.
        """
        try:
            await self._core.access.check_join(session.client, room, None)
        except (CommandError, BrokerError):
            raise
        except (Exception, asyncio.CancelledError) as error:
            if is_being_cancelled():
                raise
            self._core.handler_errors.failed(session, error)
            if session.close is not None:
                raise _left(room) from error
            raise CommandError("internal_error", "internal error") from error

    def _stay_out(self, session: ClientSession, room: str) -> None:
        """Tell a client that it misses a stream from here on."""
        self._forget_stay(session, room)
        self._core.publishing.tell(session, Gap(room))

    async def ready(self, rooms: Sequence[str], positions: Mapping[str, Position]) -> list[Ready]:
        """Find out what a client to be has missed of the rooms that its identity names.

        What comes for them is written down until `give`, or `drop`, which has to follow. Raises
        `CommandError` if that cannot be found out now.
        """
        chosen = [Ready(room, positions.get(room)) for room in dict.fromkeys(rooms)]
        await self._waits.wait(chosen)
        return chosen

    def give(self, session: ClientSession, rooms: Sequence[Ready]) -> list[Given]:
        """Bring a client into rooms for which it is ready; return what it is to be told of each."""
        given = []
        for ready in rooms:
            _note_given(session, ready.room)
            answer = self._answer(session, ready, self._waits.finish(ready))
            given.append(Given(answer, ready.since))
        return given

    def drop(self, rooms: Sequence[Ready]) -> None:
        """Write nothing more down for who was ready for rooms. Twice is no error."""
        self._waits.drop(rooms)

    async def subscribe(
        self,
        session: ClientSession,
        room: str,
        since: Position | None = None,
        *,
        by_server: bool = False,
        must_recover: bool = False,
        token: str | None = None,
        takes_patches: bool = False,
        is_allowed: bool = False,
        data: Frame | None = None,
        expires_at: float | None = None,
    ) -> Subscribed:
        """See `Client.subscribe`. That the client is joining is noted before anything is awaited.

        `by_server`: the client has not asked for it, and is told, and sent what it missed; else that is in the answer
        to its command. `must_recover`: it wants to be in only if it misses nothing. `token` is what it shows to be let
        in. `takes_patches`: it is sent such, if the room has them. `is_allowed`: nobody is asked. `data` is told to it.
        `expires_at` is when the server takes it out again (None: never); the stay of who is in for good has no end.
        """
        check_room_name(room)
        if session.close is not None:
            raise _left(room)
        if room in session.memberships:
            return await self._standing(session, room, expires_at)
        if by_server and _comes_back(session, room):
            return Subscribed(room)
        if since is None and by_server and session.opening is not None:
            since = session.opening.positions.get(room)
        ready = Ready(room, since)
        attempt = self._note_joining(session, room)
        attempt.has_asked = not by_server
        try:
            grant = None
            if not is_allowed:
                grant = await self._core.access.check_join(session.client, room, token)
                ready.info = None if grant is None else grant.info
            if session.close is not None:
                raise _left(room)
            answer = await self._enter_when_ready(
                session, ready, attempt, must_recover=must_recover, takes_patches=takes_patches
            )
            if attempt.has_entered:
                self._forget_stay(session, room)  # that of before a gap
            if is_allowed and self._core.rules.is_stream(room):
                session.unasked |= {room}
        finally:
            attempt.end(session, room)
        if grant is not None:
            left_s = self._set_end(session, room, grant.expires_at, is_new=attempt.has_entered)
            answer = answer._replace(data=grant.data, expires_in_s=left_s)
        ends_at = expires_at if by_server else attempt.expires_at
        self._set_end(session, room, ends_at, is_new=attempt.has_entered)
        if by_server:
            self._announce(session, answer, ready.since, data)
        return answer

    def renew(
        self, session: ClientSession, room: str, expires_at: float | None, info: Any
    ) -> float | None:
        """Take what a new token says of a client that is in a room; return the seconds left (None: no end).

        The stay of who is in for good has no end.
        """
        self._note_info(session, room, info)
        if expires_at is None:
            self._core.subscriptions.forget(session, room)
        return self._set_end(session, room, expires_at, is_new=False)

    async def _enter_when_ready(
        self,
        session: ClientSession,
        ready: Ready,
        attempt: Attempt,
        *,
        must_recover: bool = False,
        takes_patches: bool = False,
    ) -> Subscribed:
        """Bring in a client that may be in, when it is known what it has missed.

        One that has asked takes what comes after its answer: so that is the same if the application has put it in
        meanwhile.
        """
        room = ready.room
        try:
            await self._waits.wait([ready])
            if session.close is not None or not attempt.is_under_way(session, room):
                raise _left(room)
            recovered = self._waits.finish(ready)
            if must_recover and ready.since is not None and not (recovered and recovered.is_whole):
                raise CommandError("position_lost", "unrecoverable position")
            is_in = room in session.memberships  # the application has put it in meanwhile
            if is_in and not attempt.has_asked:
                self._note_info(session, room, ready.info)
                return await self._standing(session, room)
            answer = self._answer(session, ready, recovered, takes_patches=takes_patches)
            attempt.has_entered = not is_in
            if session.opening is not None:
                session.opening.positions.pop(room, None)
        finally:
            self._waits.end(ready)
        return answer

    def _note_joining(self, session: ClientSession, room: str) -> Attempt:
        """Note that a client is joining; return what tells this from the next time it does."""
        if session.joining is None:
            session.joining = {}
        if room in session.joining:
            raise joining_already()
        self._check_room_limit(session)
        attempt = session.joining[room] = Attempt()
        return attempt

    # What is answered

    async def _standing(
        self, session: ClientSession, room: str, expires_at: float | None = None
    ) -> Subscribed:
        """Answer a client that is in the room already, when it is known where that stands.

        `expires_at` is a new end for a stay that has one.
        """
        placing = self._core.recovery.placing(room)
        if placing is not None:
            try:
                async with asyncio.timeout(room_waits.BROKER_TIMEOUT_S):
                    await asyncio.shield(placing)
            except TimeoutError as error:
                raise CommandError("unavailable", "try again later", temporary=True) from error
            if session.close is not None or room not in session.memberships:
                raise _left(room)
        position = self._core.recovery.position_of(room)
        if position is not None:
            position = with_names(position, session.all_names)
        self._set_end(session, room, expires_at, is_new=False)
        return Subscribed(room, position)

    def _answer(
        self,
        session: ClientSession,
        ready: Ready,
        recovered: Recovered | None,
        *,
        takes_patches: bool = False,
    ) -> Subscribed:
        """Bring a client into a room, note how far that has come here, and return the answer."""
        room, core = ready.room, self._core
        rule = core.rules.of(room)
        is_in = room in session.memberships
        is_patched = takes_patches and not is_in and rule is not None and rule.rules.delta
        self._note_info(session, room, ready.info)
        if not is_in:
            self.enter(session, room, is_patched=is_patched)
        if recovered is None:
            return Subscribed(room)
        core.recovery.count(recovered)
        members = session.memberships[room]
        if members.progress is None:
            members.progress = Progress(recovered.position)
        core.registry.note_former_names(session, ready.names)
        own = session.connection_id
        brought = [name for name in ready.names if name != own]
        others = [name for name in session.former_names if name not in brought]
        names = [*others, *brought, own]
        found = tuple(each for each in recovered.publications if each.exclude not in names)
        position = with_names(recovered.position, names)
        if members.is_stream:
            found = (joined(room, found, position, is_all=not recovered.is_whole),)
        can_recover = rule is not None and rule.rules.recover
        return Subscribed(
            room,
            position,
            recovered.is_whole,
            found,
            is_recoverable=can_recover,
            takes_patches=is_patched,
        )

    def _note_info(self, session: ClientSession, room: str, info: Any) -> None:
        """Note what a token says of a client to others in a room, and have the broker's list say it too."""
        if info is None:
            return
        self._core.infos.note_token(session, room, info)
        members = session.memberships.get(room)
        if members is not None and members.has_presence:
            self._core.presence.entered(session, room)

    def _announce(
        self,
        session: ClientSession,
        answer: Subscribed,
        since: Position | None,
        data: Frame | None,
    ) -> None:
        """Tell a client that the server has put it into a room, and send it what it missed."""
        if not session.variant.dialect.is_plain:
            _note_given(session, answer.room)
            position = answer.position if answer.is_recoverable else None
            is_whole = answer.recovered and position is not None
            if is_whole and answer.publications and since is not None and position is not None:
                # What it missed moves it on; if it is cut off before that, it has not had it.
                position = Position(since.offset, position.epoch)
            event = ServerSubscribed(answer.room, position, data, recovered=is_whole)
            self._core.publishing.tell(session, event)
        self.send_missed(session, answer)

    def send_missed(self, session: ClientSession, answer: Subscribed) -> None:
        """Send a client what it has missed of a room that it is in."""
        for publication in answer.publications:
            self._core.fanout.send(session, publication.frame, publication)

    # In and out

    def _check_room_limit(self, session: ClientSession) -> None:
        limit = self._core.settings.max_rooms_per_client
        if limit is not None and _room_count(session) >= limit:
            raise CommandError(
                "too_many_rooms", f"a client may be in {limit} rooms at most (max_rooms_per_client)"
            )

    def enter(self, session: ClientSession, room: str, *, is_patched: bool = False) -> None:
        """Make a client a member of a room that it may be in: everybody's and a user's too."""
        core, variant = self._core, None
        if room != EVERYBODY and room[0] != USER_PREFIX:
            core.stats.joins += 1
        if is_patched:
            dialect, deflates = session.variant.dialect, session.variant.deflates
            variant = core.variants.get(dialect, deflates=deflates, patches=True)
        if session.behind is not None:
            session.behind.discard(room)  # it begins anew, and knows from where
        members = core.registry.rooms.add(session, room, variant)
        core.fanout.joined(session, members)
        session.memberships[room] = members
        if members.has_presence:
            core.presence.entered(session, room)

    def leave(
        self,
        session: ClientSession,
        room: str,
        *,
        by_server: bool = False,
        comes_back: bool = False,
    ) -> None:
        """See `Client.leave`. `by_server`: the client has not asked for it, and is told. `comes_back`: it is out
        for a gap alone, and the hub brings it in again as it was; if it is just joining, it goes on."""
        check_room_name(room)
        is_plain, was_out = session.variant.dialect.is_plain, False
        if not comes_back:
            self._forget_stay(session, room)
            if by_server or is_plain:
                was_out = self._forget_gap(session, room)
            call_off(session, room)
        members = session.memberships.get(room)
        if session.close is not None:
            return
        if members is not None:
            self._take_out(session, members)
        if by_server and not is_plain and (members is not None or was_out):
            self._core.publishing.tell(session, ServerUnsubscribed(room))

    def _take_out(self, session: ClientSession, members: Membership) -> None:
        """Make a client a member no more."""
        core, room = self._core, members.name
        core.infos.forget(session, room)
        core.fanout.left(session, members)
        del session.memberships[room]
        if session.opening is not None:
            session.opening.given.discard(room)
        core.registry.rooms.remove(session, members)
        if members.has_presence:
            core.presence.left(session, room)

    def _forget_gap(self, session: ClientSession, room: str) -> bool:
        """Forget that a client has to come back to a room when it can take more; return whether it had to."""
        if session.behind is None or room not in session.behind:
            return False
        self._core.fanout.flush()  # what this turn had for it of the room comes before, or is dropped too
        session.behind.discard(room)
        return True

    def _set_end(
        self, session: ClientSession, room: str, expires_at: float | None, *, is_new: bool
    ) -> float | None:
        """Give a stay an end (None: none), if it is new, or a new one, if it has one; return the seconds left."""
        subscriptions = self._core.subscriptions
        if expires_at is None or not (is_new or subscriptions.has_end(session, room)):
            return None
        return subscriptions.expire(session, room, expires_at)

    def _forget_stay(self, session: ClientSession, room: str) -> None:
        """Forget that a client was put into a room without being asked, and when its stay there ends."""
        if room in session.unasked:
            session.unasked -= {room}
        self._core.subscriptions.forget(session, room)


def _room_count(session: ClientSession) -> int:
    """Count the rooms that a client has joined, without listing them.

    Those that it did not join, everybody's and its user's, come first and are never left.
    """
    first = islice(session.memberships, 2)
    hidden = sum(name == EVERYBODY or name[0] == USER_PREFIX for name in first)
    joining = 0 if session.joining is None else len(session.joining)
    return len(session.memberships) - hidden + joining


def _comes_back(session: ClientSession, room: str) -> bool:
    """Tell whether a client is out of a room for a gap only, and asks for it by itself when it can be told.

    One that speaks in commands does, with its position. If the server put it in before that, it would take what
    comes next for the next, and be refused as subscribed already.
    """
    is_out_for_gap = session.behind is not None and room in session.behind
    return is_out_for_gap and not session.variant.dialect.is_plain


def _note_given(session: ClientSession, room: str) -> None:
    if session.opening is not None:
        session.opening.given.add(room)


def _left(room: str) -> CommandError:
    return CommandError("left", f"the client left {printable(room, 50)!r} before it was in")
