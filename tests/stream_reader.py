"""Streams, for tests: the rules of their rooms, one who reads a text as it grows, and who writes one."""

from __future__ import annotations

from typing import Any

from hubbub import Hub, Position, RoomRules, Stream
from hubbub.testing import MemoryClient, connect

RULES = [
    RoomRules("answer:*", stream=True, history=10_000),
    RoomRules("short", stream=True, history=3),
    RoomRules("lossy", stream=True, history=1000, slow_policy="drop_oldest"),
    RoomRules("chat", history=10),
]
ROOM = "answer:42"


class Reader:
    """A plain client of a stream: it does what a page does, and notes what it was told."""

    def __init__(self, room: str = ROOM) -> None:
        self.room = room
        self.text = ""
        self.begun = 0
        """How often it was given a whole text."""
        self.position: Position | None = None
        self.said: dict[str, Any] = {}
        self.messages: list[dict[str, Any]] = []
        self.gaps = 0
        self._peer: MemoryClient | None = None
        self._read = 0

    @property
    def peer(self) -> MemoryClient:
        assert self._peer is not None
        return self._peer

    async def come(self, hub: Hub, **options: Any) -> Reader:
        self._peer, self._read = connect(hub, **options), 0
        await self.peer.client.subscribe(self.room, since=self.position)
        return self

    def read(self) -> str:
        messages = self.peer.json()
        for message in messages[self._read :]:
            self._take(message)
        self._read = len(messages)
        return self.text

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "gap":
            self.gaps += 1
            return
        self.messages.append(message)
        assert message["room"] == self.room
        if message["type"] == "stream":
            self.text, self.begun, self.said = "", self.begun + 1, {}
        else:
            assert self.position is not None, "a piece came before the text"
            assert message["offset"] >= self.position.offset
        self.text += message["text"]
        self.said |= {name: True for name in message if name.startswith("is_")}
        before = "" if self.position is None else self.position.epoch
        self.position = Position(message["offset"], message.get("epoch", before))


async def append(stream: Stream, *texts: str) -> None:
    for text in texts:
        await stream.append(text)


async def finished(hub: Hub, *texts: str, room: str = ROOM) -> None:
    async with hub.room(room).stream() as s:
        await append(s, *texts)
