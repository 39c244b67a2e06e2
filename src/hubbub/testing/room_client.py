"""RoomClient: a client in memory that comes back to a room, as the SDKs do, for the tests of applications.

What must not live here: clients in memory (`memory`), what the hub does for who comes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..hub.hub import Hub
from ..model import Position
from .memory import MemoryClient, connect, settle

COMES_BACK = 2500
"""Unsubscribed with this or more, a client subscribes again."""


class RoomClient:
    """A client of one room, made by `follow`. It speaks the Centrifuge protocol, and reads what has come
    whenever it is asked something. Event loop only.

    `messages` is all that it got, in order. `recovered` says whether it was given all that it had missed
    when it last came back (None: it has not come back); `gaps` counts how often it was not. `error` is the
    code of the error that refused it (None: it was not).
    """

    def __init__(
        self,
        hub: Hub,
        room: str,
        request: Mapping[str, Any],
        options: Mapping[str, Any],
        since: Position | None,
    ) -> None:
        self._hub = hub
        self._request = request
        self._options = options
        self._peer: MemoryClient | None = None
        self._read = 0
        self._last_id = 0
        self._position = since
        self._messages: list[Any] = []
        self._recovered: bool | None = None
        self._gaps = 0
        self.room: str = room
        self.error: int | None = None

    def __repr__(self) -> str:
        return f"<RoomClient of {self.room!r}: {len(self._messages)} messages>"

    @property
    def messages(self) -> list[Any]:
        """All that the client got of the room, decoded, in order."""
        self._take_all()
        return self._messages

    @property
    def recovered(self) -> bool | None:
        """Whether it was given all that it had missed when it last came back; None: it never came back."""
        self._take_all()
        return self._recovered

    @property
    def gaps(self) -> int:
        """How often it came back and was not given all that it had missed."""
        self._take_all()
        return self._gaps

    @property
    def position(self) -> Position | None:
        """After its last message; None in a room that keeps nothing."""
        self._take_all()
        return self._position

    @property
    def memory(self) -> MemoryClient:
        """The present connection, or the last. Raises `RuntimeError` before there is one."""
        if self._peer is None:
            raise RuntimeError("this client has not connected: await follow(hub, room)")
        return self._peer

    def cut(self) -> None:
        """Lose the connection as by accident. Twice is no error."""
        self._take_all()
        self.memory.transport.drop_connection()

    async def heal(self) -> None:
        """Connect again, and come back with the position; nothing while it is connected.

        It waits until the hub has answered. Raises `RuntimeError` if it was refused.
        """
        if self._peer is not None and self._peer.closed is None:
            return
        self._peer = connect(self._hub, dialect="centrifuge", **self._options)
        self._read = 0
        self._send("connect", dict(self._request))
        self._subscribe()
        await settle(self._hub)
        self._take_all()
        if self._peer.closed is not None:
            raise RuntimeError(f"{self!r} was not let in: {self._peer.closed}")

    def _subscribe(self) -> None:
        request: dict[str, Any] = {"channel": self.room}
        if self._position is not None:
            place = {"offset": self._position.offset, "epoch": self._position.epoch}
            request |= {"recover": True, **place}
        self._send("subscribe", request)

    def _send(self, method: str, request: dict[str, Any]) -> None:
        self._last_id += 1
        self.memory.send({"id": self._last_id, method: request})

    def _take_all(self) -> None:
        lines = [line for each in self.memory.received for line in str(each).split("\n")]
        new, self._read = lines[self._read :], len(lines)
        for line in new:
            self._take(msgspec.json.decode(line))

    def _take(self, message: dict[str, Any]) -> None:
        push = message.get("push", {})
        if "error" in message:
            self.error = message["error"]["code"]
        elif "subscribe" in message:
            self._subscribed(message["subscribe"])
        elif push.get("channel") == self.room and "pub" in push:
            self._deliver(push["pub"])
        elif push.get("channel") == self.room and (
            push.get("unsubscribe", {}).get("code", 0) >= COMES_BACK
        ):
            self._subscribe()

    def _subscribed(self, answer: dict[str, Any]) -> None:
        if answer.get("was_recovering"):
            self._recovered = answer["recovered"]
            self._gaps += not self._recovered
        if answer.get("recoverable"):
            self._position = Position(answer.get("offset", 0), answer["epoch"])
        for each in answer.get("publications", ()):
            self._deliver(each)

    def _deliver(self, publication: dict[str, Any]) -> None:
        self._messages.append(publication["data"])
        if self._position is not None and "offset" in publication:
            self._position = Position(publication["offset"], self._position.epoch)


async def follow(
    hub: Hub,
    room: str,
    *,
    since: Position | None = None,
    token: str = "",
    data: Any = None,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    address: str | None = "127.0.0.1",
) -> RoomClient:
    """Connect a client that is in a room, and comes back to it with `heal` after a `cut`.

    `token` and `data` are what its connect command has for the authenticate handler, `since` the position
    that it begins with (None: it wants nothing of what was before); `query`, `headers` and `address` are as
    in `connect`. Raises `RuntimeError` if it is not let in.
    """
    request = {"token": token, "data": data}
    options = {"query": query, "headers": headers, "address": address}
    client = RoomClient(hub, room, request, options, since)
    await client.heal()
    return client
