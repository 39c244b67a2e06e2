"""Tokens of a client program: where one comes from, and how another is shown before it ends.

What must not live here: what a token says, which only the server reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Protocol

from ..errors import CommandFailed, Disconnected, HubbubError, Unsubscribed
from .commands import CLOSED, LOST, TIMEOUT, Done
from .failures import FunctionFailed
from .handshake import resolve
from .options import Token, check_token
from .protocol import EXPIRED, Expiry
from .reconnecting import logger
from .retry import Backoff


class Link(Protocol):
    """What a connection owes its rooms and its tokens."""

    @property
    def is_up(self) -> bool:
        """Whether there is a socket on which the server has been told who comes."""
        ...

    def ask(
        self, method: str, params: Mapping[str, Any], done: Done, *, is_first: bool = False
    ) -> int:
        """Ask the server; see `Commands.ask`."""
        ...

    def lose(self, reason: str) -> None:
        """Lose the connection, and come back."""
        ...

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something beside, as long as this connection lasts; what it raises ends that."""
        ...

    def new_backoff(self) -> Backoff:
        """Return the delays between attempts, as the connection has them."""
        ...


class TokenSource:
    """One token, or a function that gives out tokens, which is asked when there is none.

    A function says by `Disconnected` that there will be none for the connection, and one for a room's
    token by `Unsubscribed` that there will be none for that room.
    """

    def __init__(self, token: Token | None, *, is_for_room: bool = False) -> None:
        self._function: Callable[[], str | Awaitable[str]] | None = (
            token if callable(token) else None
        )
        self.token: str | None = token if isinstance(token, str) else None
        self._says: tuple[type[HubbubError], ...] = (
            (Disconnected, Unsubscribed) if is_for_room else (Disconnected,)
        )

    @property
    def can_renew(self) -> bool:
        """Whether there will be another token when this one has ended."""
        return self._function is not None

    @property
    def is_missing(self) -> bool:
        """Whether the function has to be asked first."""
        return self.token is None and self._function is not None

    def drop(self) -> None:
        """Forget a token that has ended, if there can be another."""
        if self._function is not None:
            self.token = None

    async def fetch(self) -> None:
        """Have another token. Raises what `handshake.resolve` raises."""
        if self._function is not None:
            self.token = await resolve("token", self._function, check_token, says=self._says)


class Renewal:
    """Shows the server a new token when its time for the old one ends.

    `method` and `params` are the command for it; `refused` is called when it is refused for good.
    """

    def __init__(
        self,
        link: Link,
        source: TokenSource,
        method: str,
        params: Mapping[str, Any],
        refused: Callable[[CommandFailed], None],
    ) -> None:
        self._link = link
        self._source = source
        self._method = method
        self._params = params
        self._refused = refused
        self._timer: asyncio.TimerHandle | None = None
        self._turn = 0
        self._backoff = link.new_backoff()

    def schedule(self, expiry: Expiry) -> None:
        """Note when the token ends, as the server has just said."""
        self.stop()
        self._backoff = self._link.new_backoff()
        if expiry.expires and self._source.can_renew:
            self._begin_in(max(expiry.ttl, 1))

    def stop(self) -> None:
        """Do nothing more until `schedule` is called again."""
        self._turn += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin_in(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay_s, self._begin, self._turn)

    def _begin(self, turn: int) -> None:
        self._link.spawn(partial(self._renew, turn))

    async def _renew(self, turn: int) -> None:
        room = self._params.get("channel")
        try:
            has_token = await fetched(
                self._source, "the connection" if room is None else repr(room)
            )
        except Unsubscribed as error:
            if turn == self._turn:
                self._refused(CommandFailed(error.code, error.reason))
            return
        if turn != self._turn:
            return
        if not has_token:
            self._begin_in(self._backoff.next_delay())
        else:
            params = {**self._params, "token": self._source.token}
            self._link.ask(self._method, params, lambda *answer: self._answered(turn, *answer))

    def _answered(self, turn: int, error: CommandFailed | None, answer: Any) -> None:
        if turn != self._turn or (error is not None and error.code in (LOST, CLOSED)):
            return
        if error is None:
            self.schedule(answer)
        elif error.temporary or error.code in (TIMEOUT, EXPIRED):
            self._begin_in(self._backoff.next_delay())
        else:
            self._refused(error)


async def fetched(source: TokenSource, what: str) -> bool:
    """Have another token; return whether there is one. A function that failed is asked again later.

    Raises what says that there will be none: `Disconnected`, `Unsubscribed`, and `FunctionWrong`.
    """
    try:
        await source.fetch()
    except FunctionFailed as error:
        logger.warning("no token for %s: %s", what, error)
        return False
    return True
