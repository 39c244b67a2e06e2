"""Sentinel: which of several servers is the primary now, as Sentinels say.

What must not live here: connections (`valkey_connections`), and when it is asked (`valkey_link`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from ..errors import BrokerUnavailable
from .valkey_address import Address
from .valkey_connections import (
    TIMEOUT_S,
    Connections,
    close_line,
    hear,
    library,
    probe,
    tell,
    unavailable,
)

SWITCHED = "+switch-master"
"""Where a Sentinel says which primary has a successor, when the successor is one."""
SIGN_S = 10.0
"""How long nothing may be heard there before the Sentinel is asked for a sign of life, and how long it has for that."""


class Sentinels:
    """A `Locator` that asks Sentinels, the one first that has answered last. Event loop only."""

    def __init__(self, address: Address) -> None:
        self._name = address.primary
        self._each = address.of_sentinels()

    async def find(self) -> tuple[str, int]:
        """Return where the primary is. Raises `BrokerUnavailable`."""
        why = ""
        cause: Exception | None = None
        for sentinel in list(self._each):
            try:
                found = await probe(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
            except Exception as error:
                why, cause = f"{sentinel.shown}: {unavailable(error)}", error
                continue
            if found is None:
                why, cause = f"{sentinel.shown} knows no primary of that name", None
                continue
            self._each.remove(sentinel)
            self._each.insert(0, sentinel)
            return found[0].decode(), int(found[1])
        raise BrokerUnavailable(f"no Sentinel says where the primary is ({why})") from cause

    async def until_moved(self) -> None:
        """Wait until the Sentinel that has answered last says that another is the primary. Raises what `unavailable`
        understands where it cannot be heard."""
        line = Connections(self._each[0]).line()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await line.connect()
                await tell(line, "SUBSCRIBE", SWITCHED)
                await hear(line)
            await _until_said(line, self._name.encode())
        finally:
            await close_line(line)


async def _until_said(line: Any, name: bytes) -> None:
    """Read until it is said of a primary that it has a successor. Raises `TimeoutError` where the Sentinel is silent:
    a way on which nothing goes for hours may have ended, and neither side is told."""
    said, is_asked = None, False
    while said != name:
        try:
            async with asyncio.timeout(SIGN_S):
                *_, data = await hear(line)
        except TimeoutError:
            if is_asked:
                raise
            await tell(line, "PING")
            is_asked = True
        except library().ResponseError:
            if not is_asked:
                raise
            is_asked = False  # this user may not ask: that is a sign of life too
        else:
            said, is_asked = data.split(b" ", 1)[0], False
