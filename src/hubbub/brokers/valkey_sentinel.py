"""Sentinel: which of several servers is the primary now, as Sentinels say.

What must not live here: connections (`valkey_connections`), and when it is asked (`valkey_link`).
"""

from __future__ import annotations

import asyncio

from ..errors import BrokerUnavailable
from .valkey_address import Address
from .valkey_connections import TIMEOUT_S, Connections, close_line, hear, probe, tell, unavailable

SWITCHED = "+switch-master"
"""Where a Sentinel says which primary has a successor, when the successor is one."""


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
            said = None
            while said != self._name.encode():
                _, _, data = await hear(line)
                said = data.split(b" ", 1)[0]
        finally:
            await close_line(line)
