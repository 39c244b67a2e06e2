"""How connections end on every transport: by the server's end, and from a client's own handlers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from websockets.exceptions import ConnectionClosed

from hubbub import Client, Handshake, Hub
from serving import DEFLATED_WAYS, nothing, serve, take, until, venue

pytestmark = pytest.mark.anyio


async def test_a_client_may_close_itself_in_its_own_handlers(way: str) -> None:
    hub = Hub()

    @hub.on_connect
    def check(client: Client, handshake: Handshake) -> None:
        if "out" in handshake.query:
            client.send("not you")
            client.close(4500, "banned")

    async with venue(hub, way) as here:
        socket = await here.join("/ws?out")
        assert await take(socket, 1) == ["not you"]
        with pytest.raises(ConnectionClosed):
            await take(socket, 1)
        assert socket.close_code == 4500
        assert len(hub) == 0


async def test_shutdown_says_1012_to_everybody(way: str) -> None:
    hub = Hub()
    gone: list[int] = []
    hub.on_disconnect(lambda client, close: gone.append(close.code))
    async with AsyncExitStack() as stack:
        async with serve(hub.mount(nothing), native=DEFLATED_WAYS[way][0]) as served:
            sockets = [await stack.enter_async_context(served.connect()) for _ in range(30)]
            await until(lambda: len(hub) == 30)
        for socket in sockets:
            with pytest.raises(ConnectionClosed):
                await take(socket, 1)
            assert socket.close_code == 1012
    assert gone == [1012] * 30
    assert len(hub) == 0


async def test_a_hub_can_be_served_again_after_its_end(way: str) -> None:
    hub = Hub()
    for _ in range(2):
        async with venue(hub, way) as here:
            socket = await here.join()
            hub.broadcast("again")
            assert await take(socket, 1) == ["again"]


async def test_fault_21_disconnect_handlers_have_the_time_of_the_shutdown(way: str) -> None:
    hub, log = Hub(shutdown_timeout_s=8), list[str]()

    @hub.on_disconnect
    async def save(client: Client) -> None:
        log.append("begun")
        await asyncio.sleep(1.5)
        log.append("saved")

    async with venue(hub, way) as here:
        await here.join()
        here.served.stop()
        await until(lambda: log == ["begun", "saved"])
    assert log == ["begun", "saved"]


async def test_fault_21_a_disconnect_handler_that_is_cut_off_is_named_in_the_log(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub, log = Hub(shutdown_timeout_s=0.4), list[str]()

    @hub.on_disconnect
    async def save(client: Client) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cut off")

    async with venue(hub, way) as here:
        await here.join()
        [client] = hub
    assert log == ["cut off"]
    [line] = [record.getMessage() for record in caplog.records if "cancelled" in record.message]
    expected = (
        f"the hub stops: 1 tasks did not end in time and are cancelled: disconnect {client.id}"
    )
    assert line == expected
