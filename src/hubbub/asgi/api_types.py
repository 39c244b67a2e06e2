"""API types: what requests of the HTTP API have in them, and what answers have.

What must not live here: what a method does (`api_methods`). The fields are those of Centrifugo's server API, so that
its clients work; what a request has besides is passed over. The OpenAPI document is made from these classes.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

Channel = Annotated[str, Meta(description="The name of a room.")]
User = Annotated[str, Meta(description='A user; "" stands for all anonymous clients.')]
ClientId = Annotated[str, Meta(description="Of the user's clients only the one of this id.")]
Session = Annotated[
    str, Meta(description="No client here has a session: who names one means nobody.")
]
Data = Annotated[Raw | UnsetType, Meta(description="Any JSON value.")]
Binary = Annotated[str, Meta(description="Bytes, in base64, instead of `data`.")]
UnixTime = Annotated[int, Meta(description="A Unix time in seconds.")]


class StreamPosition(Struct):
    """Where a room's history stands. An empty epoch stands for the one that there is."""

    offset: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    epoch: str = ""


class Message(Struct, kw_only=True):
    """What is published."""

    data: Data = UNSET
    b64data: Binary | None = None
    skip_history: (
        Annotated[bool, Meta(description="Whether the room is not to keep it.")] | None
    ) = None
    idempotency_key: (
        Annotated[str, Meta(description="Within five minutes a room takes one message of a key.")]
        | None
    ) = None
    delta: Annotated[bool, Meta(description="Passed over: rules of rooms say so.")] | None = None
    tags: Annotated[dict[str, str], Meta(description="Not available.")] | None = None
    version: Annotated[int, Meta(description="Not available.")] | None = None
    version_epoch: Annotated[str, Meta(description="Not available.")] | None = None


class PublishRequest(Message, kw_only=True):
    """A message for one room."""

    channel: Channel


class BroadcastRequest(Message, kw_only=True):
    """A message for several rooms."""

    channels: Annotated[list[str], Meta(description="The names of rooms.")]


class UserRequest(Struct, kw_only=True):
    """Which connections are meant."""

    user: User
    client: ClientId | None = None
    session: Session | None = None


class SubscribeRequest(UserRequest, kw_only=True):
    """Connections, and a room that they are put into."""

    channel: Channel
    data: Annotated[
        Raw | UnsetType, Meta(description="What clients with commands are told beside it.")
    ] = UNSET
    b64data: Binary | None = None
    recover_since: (
        Annotated[StreamPosition, Meta(description="They are sent what came after it.")] | None
    ) = None
    expire_at: UnixTime | None = None
    info: Annotated[Raw | UnsetType, Meta(description="Not available.")] = UNSET
    b64info: Annotated[str, Meta(description="Not available.")] | None = None
    override: Annotated[dict[str, Any], Meta(description="Not available.")] | None = None


class UnsubscribeRequest(UserRequest, kw_only=True):
    """Connections, and a room that they are taken out of."""

    channel: Channel


class Disconnect(Struct):
    """How connections are closed: see the close codes. 0 stands for 3503."""

    code: int = 0
    reason: str = ""


class DisconnectRequest(UserRequest, kw_only=True):
    """Connections that are closed."""

    whitelist: Annotated[list[str], Meta(description="Ids of clients that stay.")] | None = None
    disconnect: Disconnect | None = None


class RefreshRequest(UserRequest, kw_only=True):
    """Connections that may stay, and until when."""

    expired: Annotated[bool, Meta(description="Close them: their time is over.")] | None = None
    expire_at: UnixTime | None = None
    info: Annotated[Raw | UnsetType, Meta(description="Not available.")] = UNSET


class ChannelRequest(Struct):
    """A room."""

    channel: Channel


class HistoryRequest(Struct, kw_only=True):
    """A part of a room's history."""

    channel: Channel
    limit: (
        Annotated[
            int,
            Meta(
                ge=-1,
                le=2**31 - 1,
                description="How many messages; 0: the position alone, -1: all.",
            ),
        ]
        | None
    ) = None
    since: StreamPosition | None = None
    reverse: Annotated[bool, Meta(description="The newest first.")] | None = None


class ChannelsRequest(Struct):
    """Which rooms."""

    pattern: (
        Annotated[str, Meta(description="`*` any text, `?` one character, `[ab]` one of several.")]
        | None
    ) = None


class InfoRequest(Struct):
    """Nothing is to be said."""


class BatchRequest(Struct):
    """Several methods at once."""

    commands: Annotated[
        list[dict[str, Raw]], Meta(description='Each `{"publish": {…}}`, say, with one method.')
    ]
    parallel: Annotated[bool, Meta(description="Whether their order does not matter.")] | None = (
        None
    )


class Nothing(Struct):
    """There is nothing to say but that it was done."""


class PublishResult(Struct):
    """The position of the message, in a room that keeps a history."""

    offset: int | UnsetType = UNSET
    epoch: str | UnsetType = UNSET


class Error(Struct):
    """What was wrong. The codes are those of the Centrifuge protocol."""

    code: int
    message: str


class PublishReply(Struct):
    """What became of the message in one of the rooms."""

    result: PublishResult | UnsetType = UNSET
    error: Error | UnsetType = UNSET


class BroadcastResult(Struct):
    """What became of the message in each room, in their order."""

    responses: list[PublishReply]


class ClientInfo(Struct):
    """A client, as others see it: what its connection says of it, and what is said of it in the room."""

    user: str
    client: str
    conn_info: Raw | UnsetType = UNSET
    chan_info: Raw | UnsetType = UNSET


class PresenceResult(Struct):
    """Who is in the room, by the ids of clients."""

    presence: dict[str, ClientInfo]


class PresenceStatsResult(Struct):
    """How many are in the room."""

    num_clients: int
    num_users: int


class Publication(Struct):
    """A message that was kept, and the client that published it, if one did."""

    data: Raw
    offset: int
    info: ClientInfo | UnsetType = UNSET


class HistoryResult(Struct):
    """What was kept, and where the room stands."""

    publications: list[Publication]
    offset: int
    epoch: str


class ChannelInfo(Struct):
    """A room."""

    num_clients: int


class ChannelsResult(Struct):
    """The rooms that have members, on all nodes."""

    channels: dict[str, ChannelInfo]


class Node(Struct):
    """A process."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_channels: int
    num_subs: int
    uptime: int


class InfoResult(Struct):
    """All processes that have answered, this one first."""

    nodes: list[Node]


class BatchResult(Struct):
    """What became of each, in their order: its result under the method's name, or an error."""

    replies: list[dict[str, Any]]
