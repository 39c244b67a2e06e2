"""RoomClient: a client in memory that comes back to a room, as the SDKs do, for the tests of applications.

What must not live here: clients in memory (`memory`), what the hub does for who comes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..hub.hub import Hub
from ..model import Position, check_position
from .memory import MemoryClient, connect, settle

ALREADY_IN = 105
"""The error of who asks for a room that the server has put it into."""
COMES_BACK = 2500
"""Unsubscribed with this or more, a client subscribes again."""


class RoomClient:
    """A client of one room, made by `follow`. It speaks the Centrifuge protocol, and reads what has come
    whenever it is asked something. Event loop only.

    `messages` is all that it got, in order. `recovered` says whether it was given all that it had missed
    when it last came back (None: it has not come back); `gaps` counts how often it was not. `error` is the
    code of the error that refused it (None: it was not). A room of the client's Identity, or one that a
    connect handler puts the client into, is followed in the same way.
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
        self._error: int | None = None
        self._is_in = False
        self._stays_out = False
        """Whether the server has taken it out for good: SDKs do not ask for the room again."""
        self.room: str = room

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
    def error(self) -> int | None:
        """The code of the error that refused the connection or the room last; None: it was let in."""
        self._take_all()
        return self._error

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

        One that the server has taken out of the room (`client.leave`) stays out, as SDKs do, unless the server puts
        it in again. It waits until the hub has answered. Raises `RuntimeError` if the connection was refused; a room
        that was refused is no exception: see `error`.
        """
        if self._peer is not None and self._peer.closed is None:
            return
        self._peer = connect(self._hub, dialect="centrifuge", **self._options)
        self._read = 0
        self._error, self._is_in = None, False
        place = self._place()
        is_back = place and not self._stays_out
        self._send("connect", {**self._request, "subs": {self.room: place} if is_back else {}})
        if not self._stays_out:
            self._subscribe()
        await settle(self._hub)
        self._take_all()
        if self._peer.closed is not None:
            raise RuntimeError(f"{self!r} was not let in: {self._peer.closed}")

    def _place(self) -> dict[str, Any]:
        """Return from where it comes back: nothing without a position."""
        if self._position is None:
            return {}
        return {"recover": True, "offset": self._position.offset, "epoch": self._position.epoch}

    def _subscribe(self) -> None:
        self._send("subscribe", {"channel": self.room, **self._place()})

    def _send(self, method: str, request: dict[str, Any]) -> None:
        self._last_id += 1
        if self.memory.closed is None:  # else the connection ended before it was heard of
            self.memory.send({"id": self._last_id, method: request})

    def _take_all(self) -> None:
        lines = [line for each in self.memory.received for line in str(each).split("\n")]
        new, self._read = lines[self._read :], len(lines)
        for line in new:
            self._take(msgspec.json.decode(line))

    def _take(self, message: dict[str, Any]) -> None:
        given = message.get("connect", {}).get("subs", {})
        push = message.get("push", {})
        if "error" in message:
            code = message["error"]["code"]
            if not (code == ALREADY_IN and self._is_in):
                self._error = code
        elif "subscribe" in message:
            self._subscribed(message["subscribe"])
        elif self.room in given:
            self._subscribed(given[self.room])
        elif push.get("channel") == self.room:
            self._told(push)

    def _told(self, push: dict[str, Any]) -> None:
        if "pub" in push:
            self._deliver(push["pub"])
        elif "subscribe" in push:
            self._subscribed(push["subscribe"])
        elif "unsubscribe" in push:
            self._is_in = False
            self._stays_out = push["unsubscribe"]["code"] < COMES_BACK
            if not self._stays_out:
                self._subscribe()

    def _subscribed(self, answer: dict[str, Any]) -> None:
        self._is_in, self._stays_out, self._error = True, False, None
        position = None
        if answer.get("recoverable"):
            position = Position(answer.get("offset", 0), answer["epoch"])
        if self._position is not None:
            is_same = _is_same(position, self._position)  # in a push only what is true is said
            self._recovered = answer.get("recovered", is_same)
            self._gaps += not self._recovered
        self._position = position
        for each in answer.get("publications", ()):
            self._deliver(each)

    def _deliver(self, publication: dict[str, Any]) -> None:
        self._messages.append(publication["data"])
        if self._position is not None and "offset" in publication:
            self._position = Position(publication["offset"], self._position.epoch)


def _is_same(one: Position | None, other: Position) -> bool:
    """Tell whether nothing came between two positions. Behind a tilde an epoch has who the client was."""
    epochs = {each.epoch.partition("~")[0] for each in (one, other) if each is not None}
    return one is not None and one.offset == other.offset and len(epochs) == 1


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
    in `connect`. Raises `RuntimeError` if the connection is refused; a refused room is the client's `error`.
    """
    check_position(since)
    request = {"token": token, "data": data}
    options = {"query": query, "headers": headers, "address": address}
    client = RoomClient(hub, room, request, options, since)
    await client.heal()
    return client
