"""The page at /channels: rooms that remember, for the Centrifuge SDK as others wrote it."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from ... import Client, CommandError, Handshake, Identity, RoomRules
from ..models.channels import (
    ROOMS,
    TALK_PREFIX,
    TALKS,
    TICKER,
    TYPING_PREFIX,
    Channels,
)
from ..models.names import clean_name, invent_name
from ..models.pace import Pace
from ..views import Views
from .page import Page, spoken

SDK_VERSION = "5.8.0"
SDK = f"/static/vendor/centrifuge-{SDK_VERSION}/centrifuge.js"
TICK_S = 0.25
GRACE_S = 3.0
"""Who reloads the page has that long to come back, and has not left."""
CUT_S = 10
MAX_CUT_S = 60
MAX_LINE_BYTES = 512
MAX_COMMAND_BYTES = 2048
"""A line as JSON, with the channel that it is for."""
COMMANDS_PER_SECOND = 20
LINES, LINES_WITHIN_S = 10, 5.0
TYPINGS, TYPINGS_WITHIN_S = 5, 5.0
"""How often one client may say that it is typing; the page says it every two seconds."""

RULES = [
    RoomRules(
        f"{TALK_PREFIX}*",
        history=200,
        history_bytes=256 * 1024,
        publish="server",
        presence=True,
        join_leave=True,
        leave_grace_s=GRACE_S,
    ),
    RoomRules(
        TICKER,
        history=600,
        history_ttl_s=150,
        history_bytes=256 * 1024,
        publish="server",
        presence=True,
        join_leave=True,
        leave_grace_s=GRACE_S,
    ),
    RoomRules(f"{TYPING_PREFIX}*", publish="server", slow_policy="drop_oldest"),
]
"""Nobody publishes by a command of a client: what is said comes by the function `say`, which knows
who said it, cleans the text and numbers it."""


class Said(msgspec.Struct):
    """What the function `say` is called with."""

    channel: str
    text: str


class Typing(msgspec.Struct):
    """The message {"type": "typing", "channel": …}."""

    channel: str


class ChannelsPage(Page):
    """Rooms get {"number", "name", "text", "time"}; who is typing comes as {"name"} in rooms of its own.

    All of it is in the Centrifuge protocol. A client says its name in the data of its connect command.
    """

    name = "channels"
    title = "Channels"
    summary = "Rooms that remember, and the Centrifuge SDK. Cut the wire and count what is missing."

    def __init__(self, views: Views) -> None:
        super().__init__(
            views,
            room_rules=RULES,
            max_message_bytes=MAX_COMMAND_BYTES,
            messages_per_second=COMMANDS_PER_SECOND,
        )
        self.channels: Channels = Channels()
        self.hub.authenticate(self.who)
        self.hub.authorize(self.may)
        self.hub.on_connect(self.connected)
        self.hub.rpc("say")(self.say)
        self.hub.on("typing")(self.typing)
        self.hub.on_disconnect(self.gone)
        self.hub.every(TICK_S)(self.tick)

    @property
    def max_line_bytes(self) -> int:
        """A line is a part of a command."""
        return MAX_LINE_BYTES

    def routes(self) -> list[BaseRoute]:
        """Return the routes; those of the hub are for the SDK."""
        page = Route(self.path, self.show, name=self.name)
        return [page, *self.hub.routes(self.socket_path, dialect="centrifuge")]

    def context(self, request: Request) -> dict[str, Any]:
        """Give the page its channels. `?cut=3` makes a cut three seconds long."""
        cut = request.query_params.get("cut", "")
        seconds = int(cut) if cut.isdecimal() and len(cut) < 4 else CUT_S
        return {
            "sdk": SDK,
            "sdk_version": SDK_VERSION,
            "talks": TALKS,
            "ticker": TICKER,
            "talk_prefix": TALK_PREFIX,
            "typing_prefix": TYPING_PREFIX,
            "cut_s": min(max(seconds, 1), MAX_CUT_S),
            "username": clean_name(request.query_params.get("username", "")),
        }

    def who(self, handshake: Handshake) -> Identity:
        """Take everybody at their word: a name is a user here."""
        wish = handshake.data.get("username") if isinstance(handshake.data, dict) else None
        name = clean_name(wish if isinstance(wish, str) else "") or invent_name()
        paces = {
            "lines": Pace(LINES, LINES_WITHIN_S),
            "typings": Pace(TYPINGS, TYPINGS_WITHIN_S),
        }
        return Identity(user=name, meta={"name": name, **paces})

    def may(self, client: Client, action: str, room: str) -> bool:
        """Let everybody listen, in the rooms that there are."""
        return room in ROOMS and action != "publish"

    def connected(self, client: Client) -> None:
        client.send({"type": "you", "name": client.meta["name"]})

    async def say(self, client: Client, message: Said) -> dict[str, int]:
        """Publish a line of a client that is in the channel; return the line's number."""
        room = _room_of(client, TALK_PREFIX, message.channel)
        if not client.meta["lines"].allows(time.monotonic()):
            text = f"{LINES} lines in {LINES_WITHIN_S:g} seconds are enough"
            raise CommandError("too_many_messages", text, temporary=True)
        line = spoken(message.text)
        if not line:
            raise CommandError("invalid_message", "there is nothing in it")
        said = self.channels.say(message.channel, client.meta["name"], line)
        await self.hub.publish(room, said)
        return {"number": said.number}

    def typing(self, client: Client, message: Typing) -> None:
        """Tell the others in the channel, if not too often."""
        room = _room_of(client, TYPING_PREFIX, message.channel)
        if client.meta["typings"].allows(time.monotonic()):
            self.hub.room(room).broadcast({"name": client.meta["name"]}, exclude=client)

    def gone(self, client: Client) -> None:
        self.channels.left(time.monotonic())

    def tick(self) -> None:
        tick = self.channels.tick(self.hub.client_count, time.monotonic())
        if tick is not None:
            self.hub.room(TICKER).broadcast(tick)


def _room_of(client: Client, prefix: str, channel: str) -> str:
    """Return the room of a channel that a client is in; raise `CommandError` for one that it is not in."""
    room = prefix + channel
    if room not in client.rooms:
        raise CommandError("forbidden", "you are not in this channel")
    return room
