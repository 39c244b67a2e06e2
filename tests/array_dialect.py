"""A dialect for tests: every message is a JSON array.

    client: ["connect", 1, "token"]  ["connect", 1, "token", {"red": [7, "epoch"]}]
            ["subscribe", 2, "red"]  ["unsubscribe", 3, "red"]
            ["publish", 4, "red", "text"]  ["send", "text"]  ["refresh", 5, "token"]  ["pong"]
            ["history", 6, "red"]  ["presence", 7, "red"]  ["presence_stats", 8, "red"]; several commands
            stand in one array of arrays
            ["subscribe", 2, "red", 7, "epoch"] comes back with a position, and so does
            ["history", 6, "red", limit, 7, "epoch", reverse]
    server: ["connected", 1, "id", ["red", [9, "epoch"], recovered, [["text", 8], …]], …]  ["ok", 2]
            ["error", 3, "code", "message"]  ["published", "red", "text"]
            ["subscribed", 2, "red", [9, "epoch"], recovered, [["text", 8], ["text", 9]]]
            ["page", 6, [["text", 8]], [9, "epoch"]]  ["published", "red", "text", 9]
            ["server_unsubscribed", "red", "gap"]
            ["present", 7, {"id": "user"}]  ["counted", 8, clients, users]
            ["joined", "red", ["user", "info"]]  ["left", "red", …]  ["paused", "red", true]
            ["message", "text"]  ["server_unsubscribed", "red"]  ["refresh", 29.9]; those of one turn are joined

It has all that a dialect can have, and no more; binary messages are written as their characters.
`PackedDialect` says the same in bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from hubbub import CommandError, Frame, Position, ProtocolError, Publication
from hubbub.dialects.dialect import (
    Command,
    Connect,
    Connected,
    ErrorReply,
    Event,
    Given,
    History,
    Joined,
    Left,
    Message,
    Page,
    Pong,
    Presence,
    PresencePaused,
    PresenceStats,
    Present,
    Publish,
    Published,
    Refresh,
    RefreshDue,
    Reply,
    Send,
    ServerSubscribed,
    ServerUnsubscribed,
    Subscribe,
    Unsubscribe,
)
from hubbub.model import PresenceStats as Counts
from hubbub.wire.publication import Subscribed


def text(frame: Frame) -> str:
    return frame.payload.decode("utf-8" if frame.is_text else "latin-1")


def rows(publications: Sequence[Publication]) -> list[tuple[str, int]]:
    """Return the texts of publications, and their offsets."""
    found = []
    for publication in publications:
        assert publication.position is not None
        found.append((text(publication.frame), publication.position.offset))
    return found


def place(position: Position | None) -> list[Any] | None:
    """Return a position as this dialect writes it."""
    return None if position is None else [position.offset, position.epoch]


def given(room: Given) -> list[Any]:
    """Return what a client is told of a room that the server has put it into."""
    answer = room.answer
    found = rows(answer.publications) if answer.recovered else []
    return [answer.room, place(answer.position), answer.recovered, found]


def array(*values: Any) -> Frame:
    return Frame(msgspec.json.encode(values), True)


class ArrayDialect:
    """See the module; `encoded` counts what was made of each kind of event."""

    name: str = "array"
    subprotocols: tuple[str, ...] = ("array.v2", "array.v1")
    is_plain: bool = False

    def __init__(self) -> None:
        self.encoded: dict[str, int] = {}

    def parse(self, frame: Frame) -> Sequence[Command]:
        """Read one command, or several."""
        try:
            value = msgspec.json.decode(frame.payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(1003, "this is no JSON") from error
        if not isinstance(value, list) or not value:
            raise ProtocolError(1003, "this is no array")
        rows = value if isinstance(value[0], list) else [value]
        return [self._command(row) for row in rows]

    def _command(self, row: Any) -> Command:
        match row:
            case ["connect", int() as number, str() | None as token]:
                return Connect(number, token)
            case ["connect", int() as number, str() as token, dict() as places]:
                positions = {room: Position(*place) for room, place in places.items()}
                return Connect(number, token, positions=positions)
            case ["connect", int() as number]:
                return Connect(number)
            case ["subscribe", int() as number, str() as room]:
                return Subscribe(number, room)
            case ["subscribe", int() as number, str() as room, int() as offset, str() as epoch]:
                return Subscribe(number, room, Position(offset, epoch))
            case ["unsubscribe", int() as number, str() as room]:
                return Unsubscribe(number, room)
            case ["publish", int() as number, str() as room, str() as message]:
                return Publish(number, room, Frame(message.encode(), True))
            case ["send", str() as message]:
                return Send(Frame(message.encode(), True))
            case ["history", int() as number, str() as room]:
                return History(number, room)
            case ["history", int() as number, str() as room, limit, offset, epoch, reverse]:
                since = None if offset is None else Position(offset, epoch)
                return History(number, room, limit, since, reverse)
            case ["presence", int() as number, str() as room]:
                return Presence(number, room)
            case ["presence_stats", int() as number, str() as room]:
                return PresenceStats(number, room)
            case ["refresh", int() as number, str() as token]:
                return Refresh(number, token)
            case ["pong"]:
                return Pong()
        raise CommandError("unknown_command", f"there is no command {row!r}"[:100])

    def encode(self, event: Event) -> Frame | None:
        """Write one event."""
        kind = type(event).__name__
        self.encoded[kind] = self.encoded.get(kind, 0) + 1
        match event:
            case Published(publication):
                position = publication.position
                offset = [] if position is None else [position.offset]
                return array("published", publication.room, text(publication.frame), *offset)
            case Message(message):
                return array("message", text(message))
            case Connected(number, client_id, _, rooms):
                return array("connected", number, client_id, *map(given, rooms))
            case Reply(number, _, Subscribed() as answer) if answer.position is not None:
                found = rows(answer.publications)
                return array(
                    "subscribed",
                    number,
                    answer.room,
                    place(answer.position),
                    answer.recovered,
                    found,
                )
            case Reply(number, _, Page(publications, position)):
                return array("page", number, rows(publications), place(position))
            case Reply(number, _, Present(clients)):
                return array("present", number, {each: info.user for each, info in clients.items()})
            case Reply(number, PresenceStats(), Counts(count, users)):
                return array("counted", number, count, users)
            case Joined(room, infos):
                return array("joined", room, *([info.user, info.info] for info in infos))
            case Left(room, infos):
                return array("left", room, *([info.user, info.info] for info in infos))
            case PresencePaused(room, is_paused):
                return array("paused", room, is_paused)
            case Reply(number):
                return None if number is None else array("ok", number)
            case ErrorReply(number, error):
                return array("error", number, error.code, error.message)
            case ServerSubscribed(room):
                return array("server_subscribed", room)
            case ServerUnsubscribed(room, is_gap):
                return array("server_unsubscribed", room, *(["gap"] if is_gap else []))
            case RefreshDue(left_s):
                return array("refresh", round(left_s, 1))
        return None

    def merge(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Write several events as one array of arrays."""
        if len(frames) == 1:
            return frames
        return [Frame(b"[" + b",".join(frame.payload for frame in frames) + b"]", True)]


class PackedDialect(ArrayDialect):
    """The same commands and events as Protobuf frames them: bytes, each behind its length as a varint.

    Several stand in one message, one after another. What is in them is MessagePack.
    """

    name: str = "packed"
    subprotocols: tuple[str, ...] = ("packed.v1",)

    def parse(self, frame: Frame) -> Sequence[Command]:
        """Read all commands of a message."""
        if frame.is_text:
            raise ProtocolError(1003, "a message is bytes")
        try:
            return [self._command(row) for row in unpacked(frame.payload)]
        except (msgspec.DecodeError, IndexError) as error:
            raise ProtocolError(1003, "these are no commands") from error

    def encode(self, event: Event) -> Frame | None:
        """Write one event."""
        frame = super().encode(event)
        return None if frame is None else Frame(packed(msgspec.json.decode(frame.payload)), False)

    def merge(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Write several events one after another."""
        return [Frame(b"".join(frame.payload for frame in frames), False)]


def packed(*rows: Any) -> bytes:
    """Write commands or events as the packed dialect does."""
    found = bytearray()
    for row in rows:
        data = msgspec.msgpack.encode(row)
        length = len(data)
        while length >= 128:
            found.append(length & 127 | 128)
            length >>= 7
        found.append(length)
        found += data
    return bytes(found)


def unpacked(data: bytes) -> list[Any]:
    """Read back what `packed` wrote. Raises `IndexError` or `msgspec.DecodeError` for a part of it."""
    rows, start = [], 0
    while start < len(data):
        length = shift = 0
        while data[start] >= 128:
            length |= (data[start] & 127) << shift
            start, shift = start + 1, shift + 7
        length |= data[start] << shift
        start += 1
        if start + length > len(data):
            raise IndexError
        rows.append(msgspec.msgpack.decode(data[start : start + length]))
        start += length
    return rows


def events_of(messages: Sequence[str | bytes]) -> list[list[Any]]:
    """Read back what a client of this dialect received."""
    found: list[list[Any]] = []
    for message in messages:
        value = msgspec.json.decode(message)
        found += value if value and isinstance(value[0], list) else [value]
    return found
