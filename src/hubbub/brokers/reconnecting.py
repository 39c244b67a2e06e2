"""Reconnecting: how the connection by which publications come is watched, given up, and made again, over any server.

What must not live here: how a connection is made, and what is subscribed to (`valkey_feed`, `nats_feed`).

Where nothing is heard for `PING_S` the server is asked for a sign of life. It is *silent* until one comes, and
the connection is given up after `SILENCE_S`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import re
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable

from ..errors import BrokerUnavailable
from ..limits import printable
from .envelope import OtherFormat

logger: logging.Logger = logging.getLogger("hubbub")

PING_S = 0.3
"""How long nothing may be heard before the server is asked for a sign of life; how long it has for that
before it is silent. What comes just after a look counts until the next: three times as long pass at most."""
SILENCE_S = 10.0
"""How long the server may be silent before the connection is given up."""
LOOK_S = 0.5
"""How often it is looked whether it is silent still. A loop that was stopped has seen one look, not many."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.05, 2.0
"""How long to wait before a connection is tried again: twice as long each time, up to a bound."""

AWAY = "the broker is away"

_NOBODY_THERE = {errno.ECONNREFUSED, errno.ENOENT}
"""What the system says where no server listens."""
_ERRNO = re.compile(r"\[Errno (\d+)\]")


def reason_of(error: BaseException) -> str:
    """Return what has failed: what the system says, where it has said something, else the error's text."""
    return printable(_system_error(error)[1] or str(error) or type(error).__name__)


def unusable(shown: str, error: BaseException, meaning: BrokerUnavailable) -> BrokerUnavailable:
    """Return what a start raises that has failed. `shown` is the broker's URL without its secrets."""
    is_nobody = _system_error(error)[0] in _NOBODY_THERE
    hint = "; does the server run, and listen there?" if is_nobody else ""
    text = str(meaning).rstrip(".") if hint else str(meaning)
    return BrokerUnavailable(f"the broker at {shown} cannot be used: {text}{hint}")


def _system_error(error: BaseException | None) -> tuple[int, str]:
    """Return the number and the text of the system's error that another goes back to; 0 and "" for none."""
    while error is not None:
        if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
            if error.filename is not None:
                return 0, ""  # it is about a file of this machine, whose name the text has
            # An event loop that has tried several addresses says all their errors in one.
            several = [int(found) for found in _ERRNO.findall(str(error))] or [error.errno or 0]
            number = next((each for each in several if each in _NOBODY_THERE), several[0])
            if number:
                return number, os.strerror(number) if number > 0 else error.strerror or ""
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return 0, ""


class Reconnecting(ABC):
    """What a feed has beside its connection. `explain` returns what an error means, `lost` is called when a
    connection has broken, `back` when all that is wanted comes again. Event loop only.
    """

    def __init__(
        self,
        explain: Callable[[BaseException], BrokerUnavailable],
        lost: Callable[[], None],
        back: Callable[[], None],
    ) -> None:
        self._explain, self._on_lost, self._on_back = explain, lost, back
        self._delay_s = FIRST_DELAY_S
        self.is_silent: bool = False
        """Whether the server owes a sign of life."""
        self.connections: int = 0
        """How many connections there have been: the present one's number."""

    def _count_connection(self) -> None:
        """Note that the present connection is another than before."""
        self.connections += 1

    @abstractmethod
    async def _connect(self) -> None:
        """Connect, and wait until all that is wanted is confirmed."""

    @abstractmethod
    async def _drop(self) -> None:
        """Close what there is of a connection."""

    @abstractmethod
    async def _until_broken(self) -> BaseException:
        """Use the connection until something about it fails; return what that was."""

    @abstractmethod
    def _go_down(self) -> None:
        """Learn that the connection is given up."""

    @abstractmethod
    def _give_up(self, why: str) -> None:
        """Tell those who wait for something that it does not come."""

    @property
    @abstractmethod
    def _heard(self) -> int:
        """How often anything has come by the connection."""

    @abstractmethod
    async def _ask_for_a_sign(self) -> None:
        """Have the server say that it is there."""

    async def _run(self) -> None:
        """Use one connection after another."""
        loop = asyncio.get_running_loop()
        while True:
            since = loop.time()
            why = self._explain(await self._until_broken())
            logger.warning("the connection to the broker is lost: %s", why)
            self._go_down()
            self._give_up(AWAY)
            self._on_lost()
            if loop.time() - since > LONGEST_DELAY_S:
                self._delay_s = FIRST_DELAY_S
            await self._come_back(why)
            self._on_back()

    async def _come_back(self, why: BrokerUnavailable | None = None) -> None:
        while True:
            await self._drop()
            await asyncio.sleep(self._delay_s * (0.5 + random.random() / 2))
            self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
            try:
                await self._connect()
            except Exception as error:
                before, why = why, self._explain(error)
                is_new = isinstance(why, OtherFormat) and not isinstance(before, OtherFormat)
                level = logging.WARNING if is_new else logging.DEBUG
                logger.log(level, "the broker cannot be reached: %s", why)
            else:
                self.is_silent = False
                logger.info("the connection to the broker is there again")
                return

    async def _watch(self) -> None:
        """See that the server is there; raise `TimeoutError` when it was silent for too long."""
        while True:
            heard = self._heard
            await asyncio.sleep(PING_S)
            if heard == self._heard:
                await self._ask_for_a_sign()
                await asyncio.sleep(PING_S)
                for _ in range(max(1, round(SILENCE_S / LOOK_S))):
                    if heard != self._heard:
                        break
                    self.is_silent = True
                    await asyncio.sleep(LOOK_S)
                else:
                    raise TimeoutError
            self.is_silent = False
