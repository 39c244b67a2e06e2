"""Any message, any query string, any name of a room: refused with a code or taken, never a crash."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from hubbub import Client, CommandError, Frame, Hub
from hubbub.testing import connect, settle

Check = Callable[[Hub], Awaitable[None]]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
texts = st.one_of(
    st.text(),
    json_values.map(json.dumps),
    st.dictionaries(st.sampled_from(["type", "text", "to"]), json_values).map(json.dumps),
    st.sampled_from(
        [
            "[" * 100_000,
            '{"type":' * 5000,
            '{"type": "say", "text": "\\ud800"}',
            '{"type": "\\ud800"}',
            '{"type": "say", "text": 1e999}',
            "1" * 5000,
            '{"type": "say", "type": "other"}',
            "\ufeff{}",
        ]
    ),
)
payloads = st.one_of(
    texts.map(lambda text: Frame(text.encode(), True)),
    texts.map(lambda text: Frame(text.encode(), False)),
    st.binary().map(lambda data: Frame(data, False)),
)


class Say(BaseModel):
    text: str


@dataclass
class Move:
    x: int
    to: list[float]


class Tagged(msgspec.Struct, tag="say"):
    text: str


def run(hub: Hub, check: Check) -> None:
    """Run `check` with the hub started; whatever reaches the loop's exception handler fails."""

    async def whole() -> None:
        errors: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        await hub.start()
        try:
            await check(hub)
        finally:
            await hub.stop()
        assert errors == []

    asyncio.run(whole())


def hubs() -> list[Hub]:
    """Return a hub for each way in which a handler may want its messages."""

    def with_message(annotation: Any) -> Hub:
        hub = Hub(max_message_bytes=None, on_handler_error="close")

        def handler(client: Client, message: Any) -> None:
            client.send(message)

        handler.__annotations__["message"] = annotation
        hub.on_message(handler)
        return hub

    made = [with_message(kind) for kind in (str, bytes, dict, Say, Move, Tagged, Frame)]
    typed = Hub(max_message_bytes=None)
    typed.on("say")(lambda client, message: client.send(message))
    return [*made, typed]


@settings(max_examples=40, deadline=None)
@given(st.lists(payloads, min_size=1, max_size=4))
def test_any_message_is_taken_or_refused_with_a_code(messages: list[Frame]) -> None:
    for hub in hubs():

        async def check(hub: Hub) -> None:
            client, other = connect(hub), connect(hub)
            for message in messages:
                client.send(message)
            await settle(hub)
            # Refused with a reply; a handler that fails would have closed it with 1011.
            assert client.closed is None
            hub.broadcast("still here")
            await settle(hub)
            assert other.received[-1] == "still here"
            assert hub.stats()["handler_errors"] == 0

        run(hub, check)


@settings(max_examples=150, deadline=None)
@given(
    st.text() | st.text(alphabet="@/:*%\n\0\ud800\u200b\U0001f600a", max_size=300) | st.integers()
)
def test_any_name_of_a_room_is_joined_or_refused(name: Any) -> None:
    async def check(hub: Hub) -> None:
        member = connect(hub)
        client = next(iter(hub))
        code = "joined"
        try:
            client.join(name)
        except CommandError as error:
            code = error.code
        if code == "joined":
            hub.room(name).broadcast("hello")
            await settle(hub)
            assert member.received == ["hello"]
            client.leave(name)
        else:
            assert code == "bad_room"
            assert name not in client.rooms

    run(Hub(), check)


queries = st.one_of(
    st.binary(),
    st.dictionaries(st.sampled_from(["id", "token", "username", "a"]), st.text()).map(
        lambda fields: urlencode(
            {key: value.encode("utf-8", "surrogatepass") for key, value in fields.items()}
        ).encode()
    ),
    st.sampled_from([b"id=", b"id=%00", b"id=%ff", b"id=a&id=b", b"%", b"&" * 1000, b"=" * 500]),
)


@settings(max_examples=100, deadline=None)
@given(queries, st.booleans())
def test_any_query_string_is_a_socket_or_a_status(query: bytes, asks_for_ids: bool) -> None:
    async def check(hub: Hub) -> None:
        sent: list[Any] = []
        gone = asyncio.Event()
        events = [{"type": "websocket.connect"}]

        async def receive() -> Any:
            if events:
                return events.pop()
            await gone.wait()
            return {"type": "websocket.disconnect", "code": 1000}

        async def send(event: Any) -> None:
            sent.append(event)
            gone.set()

        scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/ws",
            "query_string": query,
            "headers": [],
        }
        scope |= {"extensions": {"websocket.http.response": {}}, "client": ("127.0.0.1", 1)}
        await asyncio.wait_for(hub({**scope, "subprotocols": []}, receive, send), 10)
        kinds = [event["type"] for event in sent]
        assert kinds[0] in ("websocket.accept", "websocket.http.response.start")
        if kinds[0] != "websocket.accept":
            assert 400 <= sent[0]["status"] < 500
            json.loads(sent[1]["body"])

    hub = Hub(client_id_from_query=asks_for_ids)
    hub.authenticate(lambda handshake: handshake.token or handshake.query.get("username") or "ann")
    run(hub, check)
