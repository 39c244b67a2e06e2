"""A client that comes back, for tests: it does what SDKs do, over a connection in memory.

It remembers its position in one room. When its connection or its subscription ends, it subscribes again
with that, and goes on; where it is told that something is missing it begins anew from where the room
stands. It checks what it gets against what was promised, whenever something comes.
"""

from __future__ import annotations

import asyncio

import msgspec

from array_dialect import ArrayDialect, events_of
from hubbub import Hub
from hubbub.testing import MemoryClient, connect, settle

DIALECT = ArrayDialect()
PATIENCE_TURNS = 2000


class Recovering:
    """One client of one room. `got` is what it got since it last began anew, each with its offset."""

    def __init__(self, room: str, *, fast: bool = True) -> None:
        self.room = room
        self.got: list[tuple[str, int]] = []
        self.offset = 0
        self.epoch = ""
        self.began_anew = 0
        """How often it was told that something is missing."""
        self.recovered = 0
        self.gaps = 0
        self.is_subscribed = False
        self._has_left = False
        self._number = 100
        self._fast = fast
        self._hub: Hub | None = None
        self._peer: MemoryClient | None = None
        self._read = 0

    @property
    def peer(self) -> MemoryClient:
        """Its connection."""
        assert self._peer is not None
        return self._peer

    @property
    def is_connected(self) -> bool:
        """Whether it has a connection."""
        return self._peer is not None and self._peer.closed is None

    def come_back(self, hub: Hub) -> None:
        """Connect to a hub, and subscribe."""
        self._hub, self._read = hub, 0
        self._has_left = False
        self._peer = connect(hub, dialect=DIALECT, fast=self._fast)
        self._say("connect", 1)
        self._subscribe()

    def cut(self) -> None:
        """Lose the connection, and what is on its way."""
        self.read()
        if self._peer is not None:
            self._peer.transport.drop_connection()
        self._peer = None
        self.is_subscribed = False

    def leave_and_return(self) -> None:
        """Leave the room, and come back to it in the same moment."""
        self.is_subscribed, self._has_left = False, True
        self._say("unsubscribe", 7, self.room)
        self._subscribe()

    def read(self) -> None:
        """Take what has come."""
        if self._peer is None:
            return
        events = events_of(self._peer.received)
        new, self._read = events[self._read :], len(events)
        for event in new:
            self._take(event)

    def _say(self, *words: object) -> None:
        assert self._peer is not None
        if self._peer.closed is None:
            self._peer.send(msgspec.json.encode(words).decode())

    def _subscribe(self) -> None:
        since = [self.offset, self.epoch] if self.epoch else []
        self._number += 1
        self._say("subscribe", self._number, self.room, *since)

    def _take(self, event: list[object]) -> None:
        match event:
            case [
                "subscribed",
                int() as number,
                self.room,
                [int() as top, str() as epoch],
                recovered,
                list() as rows,
            ]:
                if number == self._number:  # else it has asked again since
                    self._begin(top, epoch, bool(recovered), rows)
            case ["published", self.room, _, _] if self._has_left:
                pass  # as in an SDK: it was on its way
            case ["published", self.room, str() as text, int() as offset]:
                assert self.is_subscribed, f"{text} came before the subscription, or after its end"
                self._add(text, offset)
            case ["server_unsubscribed", self.room, "gap"]:
                self.gaps += 1
                self.is_subscribed = False
                self._subscribe()
            case ["error", number, code, _]:
                assert code in ("unavailable", "joining", "already_subscribed"), event
                if number == self._number:
                    self.leave_and_return()
            case ["connected", 1, _]:
                pass
            case ["ok", 7]:
                pass
            case _:
                raise AssertionError(f"{event} was not expected")

    def _begin(self, top: int, epoch: str, recovered: bool, rows: list[tuple[str, int]]) -> None:
        self.is_subscribed, self._has_left = True, False
        if recovered:
            self.recovered += 1
            assert epoch.split("~")[0] == self.epoch.split("~")[0]
            for text, offset in rows:
                self._add(text, offset)
            assert self.offset == top
        else:
            assert rows == [], "a part was given as if it were all"
            self.began_anew += bool(self.epoch)
            self.got, self.offset = [], top
        self.epoch = epoch

    def _add(self, text: str, offset: int) -> None:
        assert offset == self.offset + 1, f"{text} has the offset {offset} after {self.offset}"
        self.offset = offset
        self.got.append((text, offset))


async def read_all(clients: list[Recovering], hubs: list[Hub]) -> None:
    """Have what is on its way arrive, and take it, until nothing more comes."""
    quiet = 0
    while quiet < 10:
        before = [len(client.got) for client in clients]
        for hub in hubs:
            await settle(hub)
        await asyncio.sleep(0)
        for client in clients:
            client.read()
        quiet = quiet + 1 if before == [len(client.got) for client in clients] else 0
