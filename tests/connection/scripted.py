"""A server of rooms that says what a test tells it to, and hears what a client says."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from connection.peers import server
from hubbub.connection import RoomConnection, Subscription, connect
from hubbub.errors import MessagesMissed, Unsubscribed
from hubbub.model import Position

PATIENCE_S = 10


class Peer:
    """One connection of a client. `frames` has the messages that came, each a list of commands."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.frames: list[list[dict[str, Any]]] = []
        self._heard: deque[dict[str, Any]] = deque()

    async def hear(self) -> dict[str, Any]:
        """Return the next command."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._heard:
                text = await self.socket.recv()
                self.frames.append([msgspec.json.decode(line) for line in str(text).split("\n")])
                self._heard.extend(self.frames[-1])
        return self._heard.popleft()

    async def take(self, method: str) -> tuple[int, dict[str, Any]]:
        """Return the number and the parameters of the next command, which is of that kind."""
        command = await self.hear()
        assert method in command, command
        return command.get("id", 0), command[method]

    async def say(self, *objects: object) -> None:
        """Send objects in one message."""
        await self.socket.send("\n".join(msgspec.json.encode(each).decode() for each in objects))

    async def answer(self, method: str, result: object) -> dict[str, Any]:
        """Answer the next command, which is of that kind; return its parameters."""
        number, params = await self.take(method)
        await self.say({"id": number, method: result})
        return params

    async def refuse(self, method: str, code: int, *, temporary: bool = False) -> dict[str, Any]:
        """Refuse the next command, which is of that kind; return its parameters."""
        number, params = await self.take(method)
        error = {"code": code, "message": "no", "temporary": temporary}
        await self.say({"id": number, "error": error})
        return params

    async def push(self, room: str, **what: object) -> None:
        """Say something of a room."""
        await self.say({"push": {"channel": room, **what}})

    async def publish(self, room: str, data: object, offset: int = 0) -> None:
        """Publish to a room."""
        await self.push(room, pub={"data": data, **({"offset": offset} if offset else {})})

    async def close(self, code: int, reason: str = "") -> None:
        await self.socket.close(code, reason)

    def cut(self) -> None:
        self.socket.transport.abort()


class Script:
    """The server: `await script.peer()` is the next connection."""

    def __init__(self) -> None:
        self.url = ""
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()

    async def serve(self, socket: ServerConnection) -> None:
        await self._peers.put(Peer(socket))
        with contextlib.suppress(ConnectionClosed):
            await socket.wait_closed()

    async def peer(self) -> Peer:
        """Return the next connection, before anything was said on it."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._peers.get()

    async def welcomed(self, **result: object) -> Peer:
        """Return the next connection, once it has been told that it is in."""
        peer = await self.peer()
        await peer.answer("connect", {"client": "c1", **result})
        return peer

    def connect(self, **options: Any) -> RoomConnection:
        quick: dict[str, Any] = {"fixed_delay_s": 0.01, "proxy": None}
        return connect(self.url, dialect="centrifuge", **{**quick, **options})


@contextlib.asynccontextmanager
async def scripted(**options: Any) -> AsyncIterator[Script]:
    """Serve a script on a free port."""
    script = Script()
    async with server(script.serve, compression=None, **options) as url:
        script.url = url
        yield script


@contextlib.asynccontextmanager
async def meeting(**options: Any) -> AsyncIterator[tuple[Script, RoomConnection, Peer]]:
    """A client that is connected, and its first peer."""
    async with scripted() as script:
        connection = script.connect(**options)
        entering = asyncio.create_task(connection.__aenter__())
        peer = await script.welcomed()
        await entering
        try:
            yield script, connection, peer
        finally:
            await connection.close()


# Rooms

PLACE: dict[str, Any] = {"recoverable": True, "epoch": "e"}


def at(offset: int, **more: object) -> dict[str, Any]:
    return {**PLACE, "offset": offset, **more}


def pubs(*offsets: int) -> list[dict[str, int]]:
    return [{"data": offset, "offset": offset} for offset in offsets]


async def entered(
    connection: RoomConnection, peer: Peer, answer: object, **options: Any
) -> Subscription[Any]:
    """Enter the room "r", which the server answers so."""
    room = connection.subscribe("r", **options)
    entering = asyncio.create_task(room.__aenter__())
    await peer.answer("subscribe", answer)
    await entering
    return room


async def data_of(room: Subscription[Any], count: int) -> list[Any]:
    async with asyncio.timeout(10):
        return [(await anext(room)).data for _ in range(count)]


async def gap_of(room: Subscription[Any]) -> Position | None:
    async with asyncio.timeout(10):
        with pytest.raises(MessagesMissed) as caught:
            await anext(room)
    return caught.value.position


async def end_of(room: Subscription[Any]) -> int:
    async with asyncio.timeout(10):
        with pytest.raises(Unsubscribed) as caught:
            await anext(room)
    return caught.value.code
