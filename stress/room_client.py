"""Clients of a room that remembers: they number what they get, and come back to another worker with their position.

What must not live here: what is done to the workers (`fault_broker.py`, `fault_worker.py`), and the verdict
(`fleet.py`). They speak the JSON of Centrifuge's clients by bare sockets, so that one process has hundreds of them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from .raw_client import CLOSE, PING, PONG, TEXT, Denied, RawClient, connect, frame

AGAIN_S = 0.1
"""How long a client waits before it connects, or asks for its room, again; twice as long each time, at random,
up to `LONGEST_AGAIN_S`."""
LONGEST_AGAIN_S = 1.0
CONNECT = {"id": 1, "connect": {}}

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Account:
    """What one client got: each publisher's messages are numbered from 1. Nothing here knows of sockets."""

    def __init__(self) -> None:
        self.order: list[tuple[int, int]] = []
        """All that came: the number of the publisher, and that of its message."""
        self.last: dict[int, int] = {}
        self.missing: set[tuple[int, int]] = set()
        self.twice = 0
        self.late = 0
        """How many came behind one that was published after them."""
        self.told = 0
        """How often it was told that something may be missing."""
        self.missed = 0
        """How many did not come, of which it was told."""
        self._excused: set[int] = set()

    def take(self, publisher: int, number: int) -> None:
        """Note a message."""
        last = self.last.get(publisher, 0)
        self.order.append((publisher, number))
        if number <= last:
            is_late = (publisher, number) in self.missing
            self.missing.discard((publisher, number))
            self.late += is_late
            self.twice += not is_late
            return
        between = range(last + 1, number)
        if publisher in self._excused:
            self._excused.discard(publisher)
            self.missed += len(between)
        else:
            self.missing |= {(publisher, each) for each in between}
        self.last[publisher] = number

    def tell(self, publishers: Sequence[int]) -> None:
        """Note that it was told: what does not come of these until their next message is not lost in silence."""
        self.told += 1
        self._excused |= set(publishers)

    def lost(self, published: dict[int, int]) -> int:
        """Return how many did not come in silence, of so many that each publisher published."""
        end = sum(
            count - self.last.get(publisher, 0)
            for publisher, count in published.items()
            if publisher not in self._excused
        )
        return len(self.missing) + end

    def has_all(self, published: dict[int, int]) -> bool:
        """Tell whether the last message of each publisher has come."""
        return all(self.last.get(each, 0) >= count for each, count in published.items())


class RoomClient:
    """A client of one room, which `run` keeps connected to one of several workers.

    `publishers` are the numbers of those that publish in its room.
    """

    def __init__(
        self, room: str, ports: Sequence[int], turn: int, publishers: Sequence[int]
    ) -> None:
        self.room = room
        self.account = Account()
        self.publishers = publishers
        self.is_in: bool = False
        """Whether it is in its room."""
        self.disconnected = 0
        self.recovered = 0
        self.mark = float("inf")
        self.whole_at = 0.0
        """When the first message came that was published after `mark`."""
        self.since = 0
        """How many of those have come."""
        self._ports, self._turn = ports, turn
        self._offset, self._epoch = 0, ""
        self._socket: RawClient | None = None
        self._again_s = AGAIN_S

    @property
    def port(self) -> int:
        """The port of its worker."""
        return self._ports[self._turn % len(self._ports)]

    def cut(self) -> None:
        """Lose the connection."""
        if self._socket is not None:
            self._socket.abort()

    async def run(self) -> None:
        """Connect, and again whenever the connection has ended, until cancelled."""
        while True:
            with suppress(OSError, EOFError, Denied, TimeoutError):
                await self._live()
            self.disconnected += self.is_in
            self.is_in = False
            self._turn += 1
            await asyncio.sleep(self._pause_s())

    def _pause_s(self) -> float:
        pause_s = self._again_s * (0.5 + random.random() / 2)
        self._again_s = min(2 * self._again_s, LONGEST_AGAIN_S)
        return pause_s

    async def _live(self) -> None:
        self._socket = socket = await connect(self.port, "/rooms")
        try:
            self._send(CONNECT, self._subscribe())
            while True:
                opcode, payload = await socket.recv()
                if opcode == TEXT:
                    for line in payload.split(b"\n"):
                        self._take(_decode(line))
                elif opcode == PING:
                    socket.writer.write(frame(PONG, payload))
                elif opcode == CLOSE:
                    return
        finally:
            self._socket = None
            socket.abort()

    def _send(self, *commands: dict[str, Any]) -> None:
        if self._socket is not None:
            self._socket.writer.write(frame(TEXT, b"\n".join(map(_encode, commands))))

    def _subscribe(self) -> dict[str, Any]:
        asked: dict[str, Any] = {"channel": self.room}
        if self._epoch:
            asked |= {"recover": True, "offset": self._offset, "epoch": self._epoch}
        return {"id": 2, "subscribe": asked}

    def _take(self, reply: dict[str, Any]) -> None:
        if not reply:
            self._send({})
        elif "push" in reply:
            push = reply["push"]
            if "pub" in push:
                self._take_publication(push["pub"])
            elif "unsubscribe" in push:
                self._ask_again()
        elif reply["id"] == 2:
            if "error" in reply:
                self._ask_again()
            else:
                self._take_place(reply["subscribe"])

    def _ask_again(self) -> None:
        self.is_in = False
        asyncio.get_running_loop().call_later(self._pause_s(), self._send, self._subscribe())

    def _take_place(self, place: dict[str, Any]) -> None:
        self.is_in, self._again_s = True, AGAIN_S
        is_whole = place.get("recovered", False)
        if self._epoch and not is_whole:
            self.account.tell(self.publishers)
        if not is_whole:
            self._offset = place.get("offset", 0)
        self.recovered += bool(is_whole and place.get("publications"))
        self._epoch = place["epoch"]
        for publication in place.get("publications", ()):
            self._take_publication(publication)

    def _take_publication(self, publication: dict[str, Any]) -> None:
        self._offset = publication["offset"]
        data = publication["data"]
        self.account.take(data["p"], data["n"])
        if data["t"] >= self.mark:
            self.since += 1
            self.whole_at = self.whole_at or time.time()
