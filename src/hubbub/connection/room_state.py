"""One room of a connection: asked for, in it, too far behind, out of it; and what each of these means.

What must not live here: what a program sees of it (`subscription`), and the connection.

    unsubscribed --begin()--> subscribing            it is asked for, from the position that was read
    subscribing --answer--> subscribed               what was missed is in the answer, or a gap is told
    subscribing --refused for now--> subscribing     and asked for again after a delay
    subscribing --refused for good--> unsubscribed   with an error
    subscribed --the connection is lost--> subscribing
    subscribed --taken out, may come back--> subscribing
    subscribed --taken out for good--> unsubscribed  with an error
    subscribed --the inbox is full--> paused         the server is told to leave it out
    paused --all is taken--> subscribing
    any --leave()--> unsubscribed
    (none) --the server gives it--> subscribed
    subscribing --the server does not give it again, and the program has asked for it--> subscribing
    subscribing --the server does not give it again--> unsubscribed  with an error

A room that the server has given is not asked for while it gives it, and one without a history gives nothing
again: while such an inbox is full, what comes is dropped, and a gap is told in its place.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Literal

from ..errors import CommandFailed, Disconnected, HubbubError, Unsubscribed
from ..model import Position
from .commands import CLOSED, LOST, TIMEOUT
from .protocol import (
    COMES_BACK,
    EXPIRED,
    STATE_LOST,
    SUBSCRIPTION_EXPIRED,
    TAKEN_OUT,
    Ending,
    Published,
    RoomAnswer,
    since_of,
)
from .reconnecting import logger
from .room_inbox import RoomInbox
from .token_source import Link, Renewal, TokenSource, fetched

Status = Literal["unsubscribed", "subscribing", "subscribed", "paused"]


class RoomState:
    """A room, as its connection holds it. `changed` is set when who waits should look again."""

    def __init__(self, link: Link, name: str, since: Position | None, token: TokenSource) -> None:
        self.name: str = name
        self.status: Status = "unsubscribed"
        self.inbox: RoomInbox = RoomInbox(since)
        self.is_given: bool = False
        """Whether the server has put the client into it by itself."""
        self.is_entered: bool = False
        """Whether the program is in it, whatever its state."""
        self.is_wanted: bool = False
        """Whether the program has asked for it by its name: it asks itself where the server gives it no more."""
        self.error: HubbubError | None = None
        """Why it is "unsubscribed", if not by the program's own will."""
        self.refusal: CommandFailed | None = None
        """Why it was refused last, for now."""
        self.changed: asyncio.Event = asyncio.Event()
        self._link = link
        self._token = token
        self._turn = 0  # of asking: what belongs to an earlier one is passed over
        self._is_asking = False
        self._was_in = False
        self._is_dropping = False
        self._timer: asyncio.TimerHandle | None = None
        self._backoff = link.new_backoff()
        self._renewal = self._new_renewal()

    def _new_renewal(self) -> Renewal:
        params = {"channel": self.name}
        return Renewal(self._link, self._token, "sub_refresh", params, self._refresh_refused)

    # What the program does.

    def want(self, asked: RoomState) -> None:
        """Be the room that the program has asked for, though the server gave it: with the token of that."""
        self._renewal.stop()
        self.is_wanted, self._token = True, asked._token
        self._renewal = self._new_renewal()

    def begin(self) -> None:
        """Ask for the room, from where it was read; nothing in one that the server has given."""
        self.error = None
        if self.status == "unsubscribed":
            self.status, self.is_given, self.is_wanted = "subscribing", False, True
            self._backoff = self._link.new_backoff()
            self.ask()

    def leave(self) -> None:
        """Be out of the room, and forget what was read ahead."""
        if self._link.is_up and self.status in ("subscribing", "subscribed"):
            self._ask_to_leave()
        if self.status != "unsubscribed":
            self._end(None)
        self.inbox.clear()
        self.is_given = self.is_wanted = self._was_in = self._is_dropping = False

    def took(self) -> None:
        """Hear that the program has taken something."""
        if len(self.inbox):
            return
        if self._is_dropping:
            self._is_dropping = False
            self._miss(self.inbox.read, is_whole=False)
        elif self.status == "paused":
            self.status = "subscribing"
            self.ask()

    # What becomes of the connection.

    def ask(self, *, is_first: bool = False) -> None:
        """Ask for the room, if it is to be asked for and can be."""
        self._stop_asking()
        if self.status != "subscribing" or self.is_given or not self._link.is_up:
            return
        turn = self._turn
        if self._token.is_missing:
            self._link.spawn(partial(self._ask_with_token, turn))
            return
        params: dict[str, Any] = {"channel": self.name, **since_of(self.inbox.read)}
        if self._token.token is not None:
            params["token"] = self._token.token

        def done(error: CommandFailed | None, answer: Any) -> None:
            if turn == self._turn:
                self._answered(error, answer)
            elif error is None and self.is_wanted and self.status == "unsubscribed":
                self._ask_to_leave()  # the server has put it in and out meanwhile, and now it is in

        self._is_asking = True
        self._link.ask("subscribe", params, done, is_first=is_first)

    def lost(self) -> None:
        """Hear that the connection is lost."""
        self._stop()
        if self.status == "subscribed":
            self.status = "subscribing"

    def closed(self, error: Disconnected | None) -> None:
        """Hear that the connection is over for good."""
        if self.status != "unsubscribed":
            self._end(error)

    # What the server says.

    def published(self, message: Published) -> None:
        """Take a message."""
        if self.status != "subscribed":
            return  # it was on its way while the room was left; who comes back is given it again
        if self._is_dropping or self.inbox.is_full:
            self._fall_behind(message)
        else:
            self.inbox.put(message)
            self.changed.set()

    def given(self, answer: RoomAnswer) -> None:
        """Hear that the server has put the client into the room."""
        is_own = self._is_asking or self.status == "paused"
        if is_own and self.inbox.read is not None and self._is_behind(answer):
            # The program has asked for it from a position, which only its own command can say.
            self._ask_to_leave()
            self.ask()
            return
        self.is_given = True
        self._enter(answer)

    def not_given(self) -> None:
        """Hear that the server does not give the room on this connection, or has not until now."""
        if not (self.is_given and self.status == "subscribing"):
            return
        if self.is_wanted:
            self.is_given = False
            self.ask()
        else:
            self._end(Unsubscribed(self.name, TAKEN_OUT, "the server does not give it any more"))

    def invalidated(self) -> None:
        """Hear that the room's token and position are worth nothing any more: what comes next is a gap."""
        self._token.drop()
        self._was_in = self._was_in or self.inbox.read is not None
        self.inbox.read = None

    def taken_out(self, ending: Ending) -> None:
        """Hear that the server has taken the client out of the room."""
        if self.status != "subscribed":
            return
        self._renewal.stop()
        if ending.code == SUBSCRIPTION_EXPIRED:
            self._token.drop()
        if ending.code == STATE_LOST:
            self.invalidated()
        if self.is_given or ending.code < COMES_BACK:
            self._end(Unsubscribed(self.name, ending.code, ending.reason))
            return
        self.status = "subscribing"
        self.ask()

    # Answers.

    async def _ask_with_token(self, turn: int) -> None:
        try:
            has_token = await fetched(self._token, repr(self.name))
        except Unsubscribed as error:
            if turn == self._turn:
                self._end(error)
            return
        if turn != self._turn:
            return
        if has_token:
            self.ask()
        else:
            self._ask_later()

    def _answered(self, error: CommandFailed | None, answer: Any) -> None:
        self._is_asking = False
        if error is None:
            self._enter(answer)
        elif error.code == TIMEOUT:
            self._link.lose("no answer to subscribe")
        elif error.code not in (LOST, CLOSED):
            self._refused(error)

    def _refused(self, error: CommandFailed) -> None:
        """Ask again later, if the server may think otherwise then."""
        can_renew = error.code == EXPIRED and self._token.can_renew
        if can_renew:
            self._token.drop()
        if not (error.temporary or can_renew):
            self._end(Unsubscribed(self.name, error.code, error.message))
            return
        self.refusal = error
        self._ask_later()
        if self._backoff.attempts == 1:
            logger.warning("refused for now in %r: %s", self.name, error)

    def _refresh_refused(self, error: CommandFailed) -> None:
        """Leave the room, whose token has ended: the server would be in no hurry."""
        self._ask_to_leave()
        self._end(Unsubscribed(self.name, error.code, error.message))

    def _ask_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._stop_asking()
        self._timer = loop.call_later(self._backoff.next_delay(), self.ask)

    def _enter(self, answer: RoomAnswer) -> None:
        position, read = answer.position, self.inbox.read
        is_known = self._was_in or read is not None
        is_whole = bool(answer.publications) and (not answer.recovered or read is None)
        self.status, self.error, self._was_in = "subscribed", None, True
        self.refusal, self._backoff = None, self._link.new_backoff()
        self._stop_asking()
        self._renewal.schedule(answer)
        if is_known and not answer.recovered and self._is_behind(answer):
            self._miss(position, is_whole=is_whole)
        else:
            self.inbox.begin(position, is_whole=is_whole)
        if (self._is_dropping and answer.publications) or not self.inbox.put_all(
            answer.publications
        ):
            self._fall_behind(answer.publications[-1])
        self.changed.set()

    def _is_behind(self, answer: RoomAnswer) -> bool:
        """Tell whether something was published since, or may have been."""
        position, read = answer.position, self.inbox.read
        if position is None or read is None:
            return True
        # A hub adds to an epoch who the client was, behind a tilde: it is the same history.
        epochs = {each.epoch.partition("~")[0] for each in (position, read)}
        return position.offset != read.offset or len(epochs) > 1

    def _miss(self, position: Position | None, *, is_whole: bool) -> None:
        self.inbox.put_gap(position, is_whole=is_whole)
        self.changed.set()

    # Too far behind.

    def _fall_behind(self, last: Published) -> None:
        """Have no room for what comes: leave it to the history, or drop it where there is none."""
        if not self.is_given and self.inbox.read is not None:
            self.status = "paused"
            self._renewal.stop()
            self._ask_to_leave()
            return
        self._is_dropping = True
        if self.inbox.read is not None and last.offset:
            self.inbox.read = Position(last.offset, self.inbox.read.epoch)

    def _ask_to_leave(self) -> None:
        self._link.ask("unsubscribe", {"channel": self.name}, self._left)

    def _left(self, error: CommandFailed | None, answer: Any) -> None:
        if error is not None and error.code not in (LOST, CLOSED):
            self._link.lose("no answer to unsubscribe")

    # The end.

    def _end(self, error: HubbubError | None) -> None:
        self._stop()
        self.status = "unsubscribed"
        self.error = error
        self.changed.set()

    def _stop(self) -> None:
        self._stop_asking()
        self._renewal.stop()

    def _stop_asking(self) -> None:
        self._turn += 1
        self._is_asking = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
