"""What every transport owes to messages: their order, their sizes, bytes that are shared."""

from __future__ import annotations

import gc
import uuid
import weakref

import pytest
from websockets.exceptions import ConnectionClosed

from hubbub import Frame, Hub
from serving import take, until, venue

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("pieces", [["x" * 101], ["x" * 60, "x" * 60]], ids=["whole", "pieces"])
async def test_fault_18_a_message_over_the_limit_is_told_which_setting_says_so(
    way: str, pieces: list[str]
) -> None:
    hub = Hub(max_message_bytes=100)
    async with venue(hub, way) as here:
        one = await here.join()
        await one.send(pieces if len(pieces) > 1 else pieces[0])
        with pytest.raises(ConnectionClosed) as caught:
            await take(one, 1)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (
            1009,
            "the message is larger than max_message_bytes, which is 100",
        )


async def test_s13_a_message_over_the_limit_closes_with_1009(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub(max_message_bytes=100)
    async with venue(hub, way) as here:
        one, two = await here.crowd(2)
        await one.send("x" * 100)
        await one.send("é" * 51)
        assert await take(one, 1) == ["x" * 100]
        with pytest.raises(ConnectionClosed):
            await take(one, 1)
        assert one.close_code == 1009
        reason = "the message is larger than max_message_bytes, which is 100"
        assert one.close_reason == reason
        [line] = [record for record in caplog.records if reason in record.getMessage()]
        assert (line.name, line.levelname) == ("hubbub", "WARNING")
        await until(lambda: len(hub) == 1)
        hub.broadcast("after")
        assert await take(two, 2) == ["x" * 100, "after"]
        assert hub.stats()["protocol_errors"] == 1


async def test_s23_a_message_is_encoded_once_for_all_and_nothing_is_left_behind(way: str) -> None:
    hub = Hub()
    encoded = 0

    class Counted:
        def model_dump(self, mode: str) -> str:
            nonlocal encoded
            encoded += 1
            return "counted"

    async with venue(hub, way) as here:
        sockets = await here.crowd(20)
        hub.broadcast(Counted())
        for socket in sockets:
            assert await take(socket, 1) == ['"counted"']
        assert encoded == 1
        clients = [weakref.ref(client) for client in hub]
        assert len(clients) == 20
    gc.collect()
    assert [client() for client in clients] == [None] * 20


async def test_order_is_the_order_of_publication_across_rooms_and_direct_sends(way: str) -> None:
    hub = Hub()
    async with venue(hub, way) as here:
        one, two = await here.crowd(2)
        first, second = hub
        first.join("a")
        for client in (first, second):
            client.join("b")
        expected: list[list[str | bytes]] = [[], []]
        for number in range(300):
            kind = number % 5
            text = f"{kind} {number}"
            if kind == 0:
                hub.broadcast(text)
            elif kind == 1:
                hub.room("a").broadcast(text)
            elif kind == 2:
                hub.room("b").broadcast(text, exclude=second)
            elif kind == 3:
                first.send(text)
            else:
                hub.room("b").broadcast(text)
            expected[0].append(text)
            if kind in (0, 4):
                expected[1].append(text)
        assert await take(one, 300) == expected[0]
        assert await take(two, 120) == expected[1]


async def test_a_burst_in_one_turn_disconnects_nobody(way: str) -> None:
    hub = Hub()
    async with venue(hub, way) as here:
        sockets = await here.crowd(10)
        payload = "x" * 128
        for _ in range(2000):
            hub.broadcast(payload)
        for socket in sockets:
            assert len(await take(socket, 2000)) == 2000
        assert hub.stats()["dropped"] == 0
        assert len(hub) == 10


async def test_a_frame_can_be_made_once_and_sent_often(way: str) -> None:
    hub = Hub()
    frame = Frame(str(uuid.uuid4()).encode(), True)
    async with venue(hub, way) as here:
        socket = await here.join()
        hub.broadcast(frame)
        hub.broadcast(frame)
        assert await take(socket, 2) == [frame.text, frame.text]
