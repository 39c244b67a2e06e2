"""Right and wrong uses of a hub, for `test_decorator_types`, which runs mypy and pyright over them.

A line that both must refuse ends in `# wrong:` and the kind of error; the test knows what each
checker calls it. All other lines must pass in their strictest modes. The file is never imported.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, assert_type

import msgspec

from hubbub import (
    ApiKey,
    Client,
    ClientInfo,
    Close,
    Connection,
    Frame,
    Handshake,
    Hub,
    Identity,
    MemoryBroker,
    Position,
    RoomConnection,
    RoomMessage,
    RoomPage,
    Settings,
    Subscription,
    TokenVerifier,
    connect,
)


class Say(msgspec.Struct, tag="say"):
    text: str


class Move(msgspec.Struct, tag="move"):
    x: int


@dataclass
class Point:
    x: int


hub = Hub()
seen: list[str] = []


# Handlers of messages: any annotation of the message, sync and async


@hub.on_message
def takes_text(client: Client, text: str) -> None: ...
@hub.on_message
async def takes_text_later(client: Client, text: str) -> None: ...
@hub.on_message
def takes_bytes(client: Client, data: bytes) -> None: ...
@hub.on_message
def takes_frame(client: Client, frame: Frame) -> None: ...
@hub.on_message
def takes_either(client: Client, data: str | bytes) -> None: ...
@hub.on_message
def takes_struct(client: Client, message: Say) -> None: ...
@hub.on_message
def takes_union(client: Client, message: Say | Move) -> None: ...
@hub.on_message
async def takes_dataclass(client: Client, message: Point) -> None: ...
@hub.on_message
def takes_dict(client: Client, message: dict[str, Any]) -> None: ...
@hub.on_message
def takes_any(client: Client, message: Any) -> None: ...
@hub.on_message
def takes_more(client: Client, message: str, own: int = 7, *rest: Any, key: int = 0) -> None: ...
@hub.on_message
def takes_anything(*arguments: Any) -> None: ...
@hub.on_message
def answers(client: Client, text: str) -> bool:
    return client.send(text)


@hub.on_message
def gives_work(client: Client, text: str) -> Awaitable[None]:
    return takes_text_later(client, text)


@hub.on_message
def raises(client: Client, text: str) -> NoReturn:
    raise ValueError(text)


@hub.on_message
def gives_any(client: Client, text: str) -> Any: ...
@hub.on("say")
def typed(client: Client, message: Say) -> None: ...
@hub.on("say")
@hub.on("shout")
async def typed_twice(client: Client, message: dict[str, str]) -> None: ...


hub.on_message(lambda client, text: client.send(text.upper()))
hub.on_message(lambda client, text: seen.append(text))
hub.on("say")(lambda client, message: client.send(message["text"]))
hub.on_message(lambda client, text: client.sned(text))  # wrong: attribute
hub.on_message(lambda client, text: text.nothing())  # wrong: attribute
hub.on("say")(lambda client, message: message.text)  # wrong: attribute
hub.on_message(functools.partial(takes_more, own=3))


@hub.on_message  # wrong: argument
def too_few(client: Client) -> None: ...
@hub.on_message  # wrong: argument
def too_many(client: Client, text: str, more: int) -> None: ...
@hub.on_message  # wrong: argument
def swapped(text: str, client: Client) -> None: ...
@hub.on_message  # wrong: argument
def keyword_only(client: Client, *, text: str) -> None: ...
@hub.on_message  # wrong: argument
def replies(client: Client, text: str) -> str:
    return text


@hub.on_message  # wrong: argument
async def replies_later(client: Client, text: str) -> dict[str, str]:
    return {"got": text}


@hub.on_message  # wrong: argument
def generator(client: Client, text: str) -> Iterator[None]:
    yield


@hub.on_message  # wrong: argument
async def async_generator(client: Client, text: str) -> AsyncIterator[None]:
    yield


@hub.on_message  # wrong: argument
def request(handshake: Handshake, text: str) -> None: ...
@hub.on  # wrong: argument
def without_parentheses(client: Client, message: Say) -> None: ...
@hub.on("say")  # wrong: argument
def typed_too_few(client: Client) -> None: ...


hub.on_message("takes_text")  # wrong: argument
hub.on(5)  # wrong: argument
hub.on_message(takes_text_later)  # what the decorator gives back is the function, to be used again


# The function stays what it was


async def use(client: Client) -> None:
    takes_text(client, text="by name")
    await takes_text_later(client, text="by name")
    assert_type(typed(client, message=Say("hi")), None)
    takes_text(client, words="no such name")  # wrong: call


# Coming and going: one or two parameters


@hub.on_connect
def joined(client: Client) -> None: ...
@hub.on_connect
async def met(client: Client, handshake: Handshake) -> None: ...
@hub.on_connect
def greeted(client: Client, greeting: str = "hello") -> None: ...
@hub.on_disconnect
def left(client: Client) -> None: ...
@hub.on_disconnect
async def gone(client: Client, close: Close) -> None: ...


hub.on_connect(lambda client: client.join("lobby"))
hub.on_connect(lambda client, handshake: client.join(handshake.query["room"]))
hub.on_disconnect(lambda client: seen.remove(client.id))
hub.on_disconnect(lambda client, close: seen.append(close.reason))


@hub.on_connect  # wrong: overload
def joined_by_text(client: Client, room: str) -> None: ...
@hub.on_connect  # wrong: overload
def joined_alone() -> None: ...
@hub.on_disconnect  # wrong: overload
def left_with_code(client: Client, code: int) -> None: ...
@hub.on_disconnect  # wrong: overload
def left_with_more(client: Client, code: int, reason: str) -> None: ...
@hub.on_disconnect  # wrong: overload
def left_to_meet(client: Client, handshake: Handshake) -> None: ...
@hub.on_drop
def missed(client: Client, count: int) -> None: ...
@hub.on_drop  # wrong: argument
def missed_nothing(client: Client) -> None: ...


hub.on_drop(lambda client, count: client.send({"missed": count + 1}))


# Who is in a room


@hub.on_join
def in_room(room: str, info: ClientInfo) -> None: ...
@hub.on_leave
async def out_of_room(room: str, info: ClientInfo) -> None: ...
@hub.on_join  # wrong: argument
def in_without_info(room: str) -> None: ...
@hub.on_leave  # wrong: argument
def out_with_client(client: Client, room: str) -> None: ...
@hub.presence_info
def seen_as(client: Client, room: str) -> dict[str, str | None]:
    return {"name": client.user}


@hub.presence_info  # wrong: argument
def seen_without_room(client: Client) -> str: ...


hub.on_join(lambda room, info: seen.append(f"{room} {info.client}"))
hub.presence_info(lambda client, room: {"name": client.user, "room": room})


# Who it is, and whether it may


@hub.authenticate
def who(handshake: Handshake) -> Identity | None: ...
@hub.authenticate
async def who_by_name(handshake: Handshake) -> str | None: ...
@hub.authenticate
def nobody(handshake: Handshake) -> None: ...
@hub.authenticate
def refuses(handshake: Handshake) -> Literal[False]:
    return False


@hub.authenticate  # wrong: argument
def yes_or_no(handshake: Handshake) -> bool: ...
@hub.authenticate  # wrong: argument
async def by_number(handshake: Handshake) -> int: ...
@hub.authenticate  # wrong: argument
def of_client(client: Client) -> str: ...


hub.authenticate(lambda handshake: handshake.token)
hub.authenticate(TokenVerifier(hmac_secret=["new", b"old"]).authenticate)
hub.authenticate(lambda handshake: handshake.tokn)  # wrong: attribute

# The HTTP API

hub.mount(hub.api("/api", keys=["x" * 16, ApiKey("y" * 16, rooms=["news:*"], per_second=5)]), "/ws")
hub.api(keys=5)  # wrong: argument


@hub.validate
def polite(client: Client, text: str) -> bool: ...
@hub.validate
async def polite_later(client: Client, message: Say) -> bool: ...
@hub.validate
def checks(client: Client, message: dict[str, Any]) -> None: ...
@hub.validate  # wrong: argument
def says_why(client: Client, text: str) -> str: ...


# Tickers


@hub.every(5)
def tick() -> None: ...
@hub.every(0.5, while_connected=True)
async def tick_later() -> None: ...


hub.every(5)(lambda: hub.broadcast("tick"))


@hub.every(5)  # wrong: bound
def tick_of(client: Client) -> None: ...
@hub.every  # wrong: argument
def tick_without_period() -> None: ...
@hub.every("5")  # wrong: argument
def tick_by_text() -> None: ...


# Empty brackets, and brackets without what belongs into them


hub.on_connect()  # wrong: overloads
hub.on_message()  # wrong: call
hub.on_disconnect()  # wrong: overloads
hub.on_drop()  # wrong: call
hub.authenticate()  # wrong: call
hub.validate()  # wrong: call
hub.on()  # wrong: call
hub.every()  # wrong: call
hub.every(while_connected=True)  # wrong: call


# Methods and objects


class Chat:
    def __init__(self, hub: Hub) -> None:
        hub.on_connect(self.joined)
        hub.on_message(self.said)
        hub.every(5)(self.tick)
        hub.on_message(Chat.said)  # wrong: argument
        hub.on_message(self.joined)  # wrong: argument
        hub.on_message(self)

    def joined(self, client: Client) -> None: ...
    async def said(self, client: Client, text: str) -> None: ...
    def tick(self) -> None: ...
    def __call__(self, client: Client, message: bytes) -> None: ...


# Settings are named and typed


Hub(max_clients=5, origins=["https://app.example"], slow_policy="latest", pong_timeout_s=30)
Hub(origins="*", max_message_bytes=None, broker=MemoryBroker(), slow_policies={"x:*": "latest"})
Hub(Settings(max_clients=5))
Hub(Settings.load({}, max_clients=5))
Settings.load(on_invalid="close")
Hub(max_client=5)  # wrong: call
Hub(max_clients="5")  # wrong: argument
Hub(slow_policy="drop")  # wrong: argument
Hub(pong_timeout_s=None)  # wrong: argument
Hub("/ws")  # wrong: argument
Settings.load(on_invalid="drop")  # wrong: argument
Settings.load(max_client=5)  # wrong: call


# The dialect says which connection it is, and `kind` what its messages are


async def talk(given: str) -> None:
    assert_type(connect("ws://h/"), Connection)
    assert_type(connect("ws://h/", dialect="plain", max_queue_bytes=5), Connection)
    connection = connect("ws://h/", dialect="centrifuge", token=lambda: "t", timeout_s=1)
    assert_type(connection, RoomConnection)
    connect("ws://h/", token="t")  # wrong: overloads
    connect("ws://h/", dialect="centrifuge", max_queue_bytes=5)  # wrong: nearest
    connect("ws://h/", dialect=given)  # wrong: overloads
    async with connection as entered, entered.subscribe("r", kind=Say) as room:
        assert_type(room, Subscription[Say])
        async for message in room:
            assert_type(message, RoomMessage[Say])
            seen.append(message.data.text)
            seen.append(message.data.texts)  # wrong: attribute
        position = room.position
        assert_type(position, Position | None)
        assert_type(entered.subscribe("r", since=position), Subscription[Any])
        entered.subscribe("r", since={"offset": 1, "epoch": "e"}, token="t")
        entered.subscribe("r", since="5")  # wrong: nearest
        entered.subscribe("r", kind=Say | Move)
        assert_type(await entered.history("r", limit=5), RoomPage)
        await room.publish(Say("hello"))
