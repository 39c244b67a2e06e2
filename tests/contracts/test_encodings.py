"""Other encodings and other ways: what a dialect of bytes, HTTP streaming and server-sent events need is there.

They are built of what anybody has: the contract of a dialect, and the hub as an ASGI application.
What must not live here: the contract itself (test_dialects).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from array_dialect import PackedDialect, packed, unpacked
from hubbub import Hub, RoomRules
from serving import DEFLATED_WAYS, Served, nothing, serve, take, until
from streaming import Stream, Streaming, as_it_is, as_server_sent, stream

pytestmark = pytest.mark.anyio

RULES = [RoomRules("red", history=10, publish="members")]
ROUTES = {
    "/stream": ("/packed", "application/octet-stream", as_it_is),
    "/sse": ("/centrifuge", "text/event-stream", as_server_sent),
}


@asynccontextmanager
async def place(hub: Hub, way: str) -> AsyncIterator[Served]:
    """Serve a hub by plain sockets, by the two dialects, and by streams before them."""
    app = hub.mount(hub.mount(nothing), "/packed", dialect=PackedDialect())
    app = hub.mount(app, "/centrifuge", dialect="centrifuge")
    async with serve(Streaming(app, ROUTES), native=DEFLATED_WAYS[way][0]) as served:
        yield served


async def ask(socket: ClientConnection, count: int, *commands: Any) -> list[Any]:
    """Send commands in one message; return the next `count` events, however many messages they are in."""
    await socket.send(packed(*commands))
    found: list[Any] = []
    while len(found) < count:
        (message,) = await take(socket, 1)
        assert isinstance(message, bytes)
        found += unpacked(message)
    assert len(found) == count
    return found


def events(opened: Stream) -> list[Any]:
    """Return the lines of the events that have come whole, each read from JSON."""
    whole = opened.data[: opened.data.rfind(b"\n\n") + 1].decode()
    lines = [line.removeprefix("data: ") for line in whole.splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_what_is_packed_is_read_back() -> None:
    rows = [["a"], ["x" * 126], ["x" * 20_000], [1, None, {}]]
    assert unpacked(packed(*rows)) == rows
    for size in range(1, len(packed(rows[1]))):
        with pytest.raises((IndexError, ValueError)):
            unpacked(packed(rows[1])[:size])


async def test_a_dialect_of_bytes_has_all_that_there_is(way: str) -> None:
    hub = Hub(room_rules=RULES)
    async with place(hub, way) as served:
        async with served.connect("/packed", subprotocols=["packed.v1"]) as socket:
            assert socket.subprotocol == "packed.v1"
            first, second = await ask(socket, 2, ["connect", 1], ["subscribe", 2, "red"])
            assert (first[:2], second[:3]) == (["connected", 1], ["subscribed", 2, "red"])
            place_then = second[3]
            found = await ask(socket, 3, ["publish", 3, "red", "ä"], ["history", 4, "red"])
            assert ["published", "red", "ä", 1] in found
            assert ["ok", 3] in found
            (page,) = (row for row in found if row[0] == "page")
            assert page[1:3] == [4, [["ä", 1]]]
            (refused,) = await ask(socket, 1, ["publish", 5, "blue", "x"])
            assert refused[:3] == ["error", 5, "forbidden"]
        await hub.publish("red", "b" * 300)
        async with served.connect("/packed") as socket:
            back = ["subscribe", 2, "red", 1, place_then[1]]
            _, answer = await ask(socket, 2, ["connect", 1], back)
            assert (answer[3][0], *answer[4:]) == (2, True, [["b" * 300, 2]])
        async with served.connect("/packed") as socket:
            await socket.send(packed(["connect", 1])[:-1])
            await socket.wait_closed()
            assert socket.close_code == 1003


async def test_streams_and_sockets_of_three_encodings_meet_in_a_room(way: str) -> None:
    hub = Hub(room_rules=RULES)
    hub.on_connect(lambda client: client.join("red"))
    async with place(hub, way) as served, AsyncExitStack() as stack:
        plain = await stack.enter_async_context(served.connect())
        rows: list[dict[str, Any]] = [{"id": 1, "connect": {}}]
        lines = "\n".join(map(json.dumps, rows)).encode()
        sse = await stack.enter_async_context(stream(served, "/sse", lines))
        bare = await stack.enter_async_context(stream(served, "/stream", packed(["connect", 1])))
        await until(lambda: len(hub.room("red")) == 3)
        await hub.publish("red", '{"n":1}')
        assert await take(plain, 1) == ['{"n":1}']
        await bare.say(packed(["publish", 2, "red", '{"n":2}']))
        await sse.say(b'{"id":2,"publish":{"channel":"red","data":{"n":3}}}')
        assert sorted(await take(plain, 2)) == ['{"n":2}', '{"n":3}']

        def published() -> list[Any]:
            found = [line.get("push", {}).get("pub", {}).get("data") for line in events(sse)]
            return [each for each in found if each]

        await until(lambda: sorted(each["n"] for each in published()) == [1, 2, 3])

        def unframed() -> list[Any]:
            return [row[2] for row in unpacked(bare.data) if row[0] == "published"]

        await until(lambda: sorted(unframed()) == [f'{{"n":{n}}}' for n in (1, 2, 3)])
        assert {"id": 2, "publish": {}} in events(sse)
        assert ["ok", 2] in unpacked(bare.data)


async def test_a_stream_ends_as_a_socket_does(way: str) -> None:
    hub = Hub(room_rules=RULES)
    async with place(hub, way) as served:
        async with (
            stream(served, "/sse", b'{"id":1,"connect":{}}') as sse,
            stream(served, "/stream", packed(["connect", 1])) as bare,
        ):
            await until(lambda: hub.client_count == 2)
            for client in hub:
                client.close(4500, "stay away")
            await until(lambda: sse.is_over and bare.is_over)
            assert b"event: close\n" in sse.data
            assert events(sse)[-1] == {"code": 4500, "reason": "stay away"}
        async with stream(served, "/stream", packed(["connect", 1])):
            await until(lambda: hub.client_count == 1)
        await until(lambda: hub.client_count == 0, "who goes away is gone")
