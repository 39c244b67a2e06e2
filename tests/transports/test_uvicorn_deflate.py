"""The native transport of clients that negotiated permessage-deflate, over real sockets."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal

import pytest
from websockets.exceptions import InvalidStatus

import hubbub
from hubbub import Client, Hub
from hubbub.hub.client import session_of
from hubbub.limits import TURN_INFLATED_BYTES
from places import ROOT
from rawsocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    RawSocket,
    assert_it_fails_alone,
    deflate,
    frame,
    raw_connect,
)
from serving import PATIENCE_S, Served, echo_hub, nothing, serve, take, until
from transports.loops import both_loops

pytestmark = pytest.mark.anyio


anyio_backend = both_loops


OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
LONG = "all work and no play " * 20


@asynccontextmanager
async def deflating_echo(**settings: Any) -> AsyncIterator[tuple[Hub, Served, RawSocket]]:
    hub = echo_hub(compression="shared", **settings)
    async with (
        serve(hub.mount(nothing)) as served,
        raw_connect(served, headers=OFFER) as socket,
    ):
        assert "\r\nSec-WebSocket-Extensions: permessage-deflate;" in socket.head
        yield hub, served, socket


@pytest.mark.parametrize(
    ("setting", "headers", "is_deflated"),
    [
        ("shared", OFFER, True),
        ("shared", OFFER.replace("client_max", "server_max").replace("bits", "bits=15"), True),
        ("shared", OFFER.replace("client_max", "server_max").replace("bits", "bits=9"), False),
        ("shared", "Sec-WebSocket-Extensions: x-webkit-deflate-frame\r\n", False),
        ("shared", "", False),
        ("off", OFFER, False),
    ],
)
async def test_deflate_is_what_both_sides_want(
    setting: Literal["off", "shared"], headers: str, is_deflated: bool
) -> None:
    hub = Hub(compression=setting)
    async with (
        serve(hub.mount(nothing), ws_per_message_deflate=False) as served,
        raw_connect(served, headers=headers) as socket,
    ):
        assert ("Extensions" in socket.head) == is_deflated
        hub.broadcast(LONG)
        assert await socket.recv_deflated() == (TEXT, LONG.encode(), is_deflated)
        hub.broadcast("short")
        assert await socket.recv_deflated() == (TEXT, b"short", False)
        hub.broadcast(bytes(5000))
        assert await socket.recv_deflated() == (BINARY, bytes(5000), is_deflated)
        noise = random.Random(1).randbytes(5000)
        hub.broadcast(noise)
        assert await socket.recv_deflated() == (BINARY, noise, False)


async def test_offers_that_cannot_be_read_are_refused() -> None:
    hub = Hub(compression="shared")
    async with serve(hub.mount(nothing), ws_per_message_deflate=False) as served:
        headers = {"Sec-WebSocket-Extensions": "permessage-deflate; ="}
        with pytest.raises(InvalidStatus) as refused:
            async with served.connect(additional_headers=headers):
                pass
        assert refused.value.response.status_code == 400
        assert b'"bad_request"' in refused.value.response.body
        assert hub.stats()["refused"] == {"bad_request": 1}
        assert len(hub) == 0


async def test_clients_with_and_without_deflate_get_the_same() -> None:
    hub = Hub(compression="shared")
    async with (
        serve(hub.mount(nothing)) as served,
        served.connect(compression="deflate") as one,
        served.connect(compression=None) as two,
        served.connect(compression="deflate") as three,
    ):
        await until(lambda: len(hub) == 3)
        texts = [LONG, "short", "é" * 3000, ""]
        for text in texts:
            hub.broadcast(text)
        for socket in (one, two, three):
            assert await take(socket, 4) == texts
        assert hub.stats()["messages_out"] == 12


async def test_deflated_messages_arrive_whole_in_any_cut_and_between_others() -> None:
    async with deflating_echo(max_message_bytes=5000) as (_, _, socket):
        text = LONG.encode()
        data = b"".join(
            [
                frame(TEXT, deflate(text), rsv=4),
                frame(TEXT, b"plain"),
                frame(BINARY, deflate(bytes(5000)), rsv=4),
                frame(TEXT, deflate(text)[:20], rsv=4, fin=False),
                frame(PING, b"?"),
                frame(0, deflate(text)[20:]),
                frame(TEXT, b"", fin=False),
                frame(0, b"plain fragments"),
                frame(TEXT, deflate(b""), rsv=4),
                frame(TEXT, b"", rsv=4),
            ]
        )
        for cut in (1, 7, len(data)):
            for start in range(0, len(data), cut):
                await socket.send(data[start : start + cut])
                await asyncio.sleep(0)
            got = [await socket.recv_deflated() for _ in range(8)]
            # The pong is written at once, the answers at the end of the turn.
            got.remove((PONG, b"?", False))
            assert got == [
                (TEXT, text, True),
                (TEXT, b"plain", False),
                (BINARY, bytes(5000), True),
                (TEXT, text, True),
                (TEXT, b"plain fragments", False),
                (TEXT, b"", False),
                (TEXT, b"", False),
            ]


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (frame(TEXT, deflate(bytes(513)), rsv=4), 1009, "512"),
        (frame(BINARY, deflate(bytes(400_000)), rsv=4), 1009, "512"),
        (frame(BINARY, deflate(bytes(2**20), level=0), rsv=4), 1009, "max_message_bytes"),
        (
            frame(BINARY, deflate(bytes(300), final=False), rsv=4, fin=False)
            + frame(0, deflate(bytes(300))),
            1009,
            "512",
        ),
        (frame(TEXT, bytes(513)), 1009, "512"),
        (frame(TEXT, deflate(b"\xff\xfe"), rsv=4), 1007, "UTF-8"),
        (frame(TEXT, b"\xff" * 20, rsv=4), 1002, "decompression"),
        (frame(TEXT, b"no mask", masked=False, rsv=4), 1002, "mask"),
        (frame(TEXT, b"rsv2", rsv=2), 1002, "reserved"),
        (frame(TEXT, deflate(b"rsv3"), rsv=5), 1002, "reserved"),
        (frame(PING, deflate(b"x"), rsv=4), 1002, "reserved"),
        (frame(CLOSE, b"", rsv=4), 1002, "reserved"),
        (frame(0, b"continues nothing", rsv=4), 1002, ""),
        (
            frame(TEXT, deflate(LONG.encode())[:9], rsv=4, fin=False)
            + frame(0, deflate(LONG.encode())[9:], rsv=4),
            1002,
            "continuation",
        ),
    ],
)
async def test_what_breaks_deflate_is_closed_with_the_right_code(
    data: bytes, code: int, reason: str
) -> None:
    async with deflating_echo() as (hub, served, socket), served.connect() as other:
        await socket.send(frame(TEXT, deflate(b"before"), rsv=4) + data)
        assert await socket.recv_deflated() == (TEXT, b"before", False)
        await assert_it_fails_alone(hub, socket, other, code, reason)


async def test_a_client_without_deflate_may_not_use_it() -> None:
    hub = echo_hub(compression="shared")
    async with serve(hub.mount(nothing)) as served, raw_connect(served) as socket:
        await socket.send(frame(TEXT, deflate(b"hello"), rsv=4))
        assert (await socket.recv_close())[0] == 1002


async def test_our_close_is_answered_on_a_deflated_connection() -> None:
    async with deflating_echo() as (hub, _, socket):
        client = next(iter(hub))
        client.send(LONG)
        client.close(4000, "enough")
        assert await socket.recv_deflated() == (TEXT, LONG.encode(), True)
        assert await socket.recv_close() == (4000, "enough")
        await socket.send(frame(TEXT, deflate(b"too late"), rsv=4))
        await socket.send(frame(CLOSE, (4000).to_bytes(2)))
        assert await socket.at_end()


async def test_an_idle_deflated_client_holds_no_more_than_another() -> None:
    async with deflating_echo() as (hub, _, socket):
        await socket.send(frame(TEXT, deflate(LONG.encode()), rsv=4))
        assert (await socket.recv_deflated())[2]
        transport: Any = session_of(next(iter(hub))).transport
        assert transport.deflates
        assert not hasattr(transport, "__dict__")
        assert transport._reader is None, "what inflates is gone with the message"


async def test_the_ws_package_of_node_understands_it() -> None:
    hub = echo_hub(compression="shared", max_message_bytes=2**16)
    script = """
        const { WebSocket } = require("ws");
        const socket = new WebSocket(process.argv[1], {
          perMessageDeflate: { threshold: 0 },
        });
        const texts = ["short", "all work ".repeat(2000), "\u00e9".repeat(999), ""];
        let count = 0;
        socket.on("open", () => texts.forEach((text) => socket.send(text)));
        socket.on("message", (data) => {
          if (data.toString() !== texts[count]) process.exit(2);
          count += 1;
          if (count === texts.length) socket.close(1000, socket.extensions);
        });
        socket.on("close", (code) => process.exit(code === 1000 ? 0 : 3));
        socket.on("error", () => process.exit(4));
    """
    reasons = []
    hub.on_disconnect(lambda client, close: reasons.append(close.reason))
    async with serve(hub.mount(nothing)) as served:
        process = await asyncio.create_subprocess_exec("node", "-e", script, served.ws(), cwd=ROOT)
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
        await until(lambda: reasons == ["permessage-deflate"])
    assert hub.stats()["bytes_out"] < 1000


async def test_the_python_client_negotiates_it_by_itself() -> None:
    hub = echo_hub(compression="shared", max_message_bytes=2**16)
    async with (
        serve(hub.mount(nothing)) as served,
        hubbub.connect(served.ws(), proxy=None) as connection,
    ):
        for text in (LONG * 50, "short"):
            await connection.send(text)
            assert await asyncio.wait_for(anext(connection), PATIENCE_S) == text
        assert session_of(next(iter(hub))).transport.deflates
        assert hub.stats()["bytes_out"] < 1000


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "in fragments"])
async def test_one_turn_inflates_a_bounded_number_of_bytes_of_all_clients(is_whole: bool) -> None:
    """A thousand bytes may become a megabyte: many clients that send such would take a turn for long."""
    clients, each, size = 8, 4, 2**20
    hub = Hub(compression="shared", max_message_bytes=size)
    turns: list[int] = [0]
    seen: list[str] = []

    @hub.on_message
    def take_one(client: Client, message: bytes) -> None:
        assert len(message) == size
        turns[-1] += 1
        seen.append(client.id)

    def tick() -> None:
        turns.append(0)
        asyncio.get_running_loop().call_soon(tick)

    payload = deflate(bytes(size))
    message = frame(BINARY, payload, rsv=4)
    if not is_whole:
        message = frame(BINARY, payload[:500], rsv=4, fin=False) + frame(0, payload[500:])
    async with serve(hub.mount(nothing)) as served, AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(raw_connect(served, headers=OFFER))
            for _ in range(clients)
        ]
        tick()
        await asyncio.gather(*(socket.send(message * each) for socket in sockets))
        await until(lambda: len(seen) == clients * each)
    assert Counter(seen) == dict.fromkeys(set(seen), each)
    # A turn may have two shares: what waited for it, and what came in it.
    assert max(turns) * size <= 2 * (TURN_INFLATED_BYTES + size)
