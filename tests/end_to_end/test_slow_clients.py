"""Slow, dead and many: what others' slowness costs, who is found dead, a thousand at once."""

from __future__ import annotations

import asyncio
import json
import sys
import tracemalloc
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from hubbub import Client, Close, Hub
from hubbub.hub.client import session_of
from hubbub.room_rules import SlowPolicy
from rawsocket import BINARY, PING, PONG, TEXT, frame, raw_connect
from serving import PATIENCE_S, WAYS, take, until, venue

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

MIB = 2**20


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """The transport and the event loop of a test."""
    return str(request.param)


class Reader:
    """A client that reads as fast as it can, and checks the order of numbered messages."""

    def __init__(self, socket: ClientConnection) -> None:
        self.count = 0
        self._task = asyncio.create_task(self._read(socket))

    async def _read(self, socket: ClientConnection) -> None:
        async for message in socket:
            number = int.from_bytes(message[:4])  # type: ignore[arg-type]
            assert number == self.count, "lost, repeated or out of order"
            self.count += 1

    def check(self) -> None:
        """Raise what went wrong, if anything."""
        if self._task.done():
            self._task.result()


@pytest.mark.parametrize(
    ("policy", "total_bytes"),
    [
        ("disconnect", 64 * MIB),
        ("disconnect", 12 * MIB),
        ("drop_oldest", 12 * MIB),
        ("drop_newest", 12 * MIB),
        ("latest", 12 * MIB),
    ],
)
async def test_s23_one_that_never_reads_costs_only_itself(
    way: str, policy: SlowPolicy, total_bytes: int
) -> None:
    size = 64 * 1024
    hub = Hub(slow_policies={"room": policy}, write_timeout_s=None, outbox_max_bytes=MIB)
    missed: list[int] = []
    hub.on_drop(lambda client, count: missed.append(count))
    gone: list[Close] = []
    hub.on_disconnect(lambda client, close: gone.append(close))
    async with venue(hub, way) as here, raw_connect(here.served, limit=2**24) as stuck:
        stuck.stop_reading()
        (slow_client,) = hub
        readers = [Reader(socket) for socket in await here.crowd(50)]
        for client in hub:
            client.join("room")
        count = total_bytes // size
        body = bytes(size - 4)
        tracemalloc.start()
        for number in range(count):
            hub.room("room").broadcast(number.to_bytes(4) + body)
            # The publisher keeps step with the readers: at most 8 messages ahead of them.
            await until(lambda floor=number - 8: all(r.count > floor for r in readers))  # type: ignore[misc]
        await until(lambda: all(reader.count == count for reader in readers))
        for reader in readers:
            reader.check()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # One outbox, what the readers have in flight, and no trace of the 64 MiB.
        assert peak < 40 * MIB
        stats = hub.stats()
        if policy == "disconnect":
            assert [close.code for close in gone] == [3008]
            assert stats["slow_disconnects"] == 1
            assert stats["dropped"] > 0
            assert len(hub) == 50
            return
        assert gone == []
        assert slow_client.dropped == stats["dropped"] > 0
        outbox = session_of(slow_client).outbox
        assert outbox is not None
        assert outbox.nbytes <= MIB
        got = await _wake_up(stuck, until_last=count - 1 if policy != "drop_newest" else None)
        assert got == sorted(set(got))
        assert len(got) + slow_client.dropped == count
        if policy == "drop_newest":
            # What fitted came first; the kernel's buffer may grow and let a later one in.
            assert got[:16] == list(range(16))
        else:
            assert got[-1] == count - 1
        await until(lambda: missed == [slow_client.dropped])


async def _wake_up(stuck: Any, until_last: int | None) -> list[int]:
    """Read what a slow client got, to its end, and return the numbers of the messages."""
    stuck.read_on()
    await stuck.send(frame(PING, b"end?"))
    numbers: list[int] = []
    has_pong = False
    while not has_pong or (until_last is not None and numbers[-1] != until_last):
        try:
            opcode, payload = await asyncio.wait_for(stuck.recv(), 2)
        except TimeoutError:
            break
        if opcode == PONG:
            has_pong = until_last is not None
        elif opcode == BINARY:
            numbers.append(int.from_bytes(payload[:4]))
    return numbers


async def test_a_hub_may_mix_policies_and_keeps_the_order(way: str) -> None:
    hub = Hub(slow_policies={"cursor:*": "latest"}, write_timeout_s=None)
    async with venue(hub, way) as here, raw_connect(here.served) as stuck:
        stuck.stop_reading()
        (slow_client,) = hub
        slow_client.join("cursor:1")
        slow_client.join("talk")
        while session_of(slow_client).transport.writable or session_of(slow_client).outbox is None:
            slow_client.send(bytes(64 * 1024))
            await asyncio.sleep(0)
        for number in range(50):
            hub.room("cursor:1").broadcast(f"cursor {number}")
            hub.room("talk").broadcast(f"talk {number}")
            await asyncio.sleep(0)
        stuck.read_on()
        texts: list[str] = []
        while len(texts) < 51:
            opcode, payload = await stuck.recv()
            if opcode == TEXT:
                texts.append(payload.decode())
        assert [text for text in texts if text.startswith("talk")] == [
            f"talk {number}" for number in range(50)
        ]
        assert [text for text in texts if text.startswith("cursor")] == ["cursor 49"]
        assert texts.index("cursor 49") == len(texts) - 2
        assert slow_client.dropped == 49


async def test_a_socket_that_takesnothing_is_cut_after_the_write_timeout(way: str) -> None:
    hub = Hub(write_timeout_s=0.3, outbox_max_bytes=64 * MIB)
    gone: list[int] = []
    hub.on_disconnect(lambda client, close: gone.append(close.code))
    async with venue(hub, way) as here, raw_connect(here.served) as stuck:
        stuck.stop_reading()
        (slow_client,) = hub
        for _ in range(200):
            slow_client.send(bytes(64 * 1024))
            await asyncio.sleep(0)
        await until(lambda: gone == [3008])
        assert hub.stats()["slow_disconnects"] == 1
        assert hub.stats()["dropped"] > 0


async def test_a_slow_reader_that_takes_something_now_and_then_is_not_cut(way: str) -> None:
    hub = Hub(write_timeout_s=1.5, outbox_max_bytes=64 * MIB)
    async with venue(hub, way) as here, raw_connect(here.served) as slow:
        (slow_client,) = hub
        size = 64 * 1024
        for number in range(150):
            slow_client.send(number.to_bytes(4) + bytes(size - 4))
            await asyncio.sleep(0)
        assert session_of(slow_client).outbox is not None
        loop = asyncio.get_running_loop()
        end = loop.time() + 4.0
        got = 0
        # A window's worth ten times a second keeps the socket moving.
        while loop.time() < end and got < 100:
            for _ in range(4):
                assert int.from_bytes((await slow.recv())[1][:4]) == got
                got += 1
            await asyncio.sleep(0.1)
        while got < 150:
            assert int.from_bytes((await slow.recv())[1][:4]) == got
            got += 1
        assert len(hub) == 1


@pytest.mark.parametrize("way", ["native-uvloop", "native-asyncio"])
async def test_s14_a_dead_peer_is_closed_within_the_pong_timeout(way: str) -> None:
    hub = Hub(ping_interval_s=0.4, pong_timeout_s=0.8)
    gone: list[tuple[float, int]] = []
    loop = asyncio.get_running_loop()
    hub.on_disconnect(lambda client, close: gone.append((loop.time(), close.code)))
    async with venue(hub, way) as here, raw_connect(here.served) as silent:
        start = loop.time()
        alive = await here.join()
        assert await silent.recv() == (PING, b"")
        await until(lambda: bool(gone))
        # Found in time although nothing was sent to it; only pings, which the other answered.
        assert gone[0][1] == 3012
        assert 0.5 < gone[0][0] - start < 1.2
        assert await silent.recv_close() == (3012, "no pong")
        assert hub.stats()["dead"] == 1
        await alive.send("still here")
        assert await take(alive, 1) == ["still here"]


@pytest.mark.parametrize("way", ["native-uvloop"])
async def test_s14_any_frame_is_a_sign_of_life_and_spares_the_ping(way: str) -> None:
    hub = Hub(ping_interval_s=0.4, pong_timeout_s=0.8)
    hub.on_message(lambda client, text: None)
    async with venue(hub, way) as here, raw_connect(here.served) as talker:
        for _ in range(12):
            await talker.send(frame(TEXT, b"hm"))
            await asyncio.sleep(0.1)
        assert len(hub) == 1
        assert hub.stats()["dead"] == 0
        next(iter(hub)).send("end")
        assert await talker.recv() == (TEXT, b"end")


@pytest.mark.parametrize("way", ["native-uvloop"])
async def test_s14_a_handler_that_takes_long_does_not_make_its_client_dead(way: str) -> None:
    hub = Hub(ping_interval_s=0.2, pong_timeout_s=0.4)

    @hub.on_message
    async def slow(client: Client, text: str) -> None:
        await asyncio.sleep(1.0)
        client.send("done")

    async with venue(hub, way) as here:
        socket = await here.join()
        await socket.send("work")
        assert await take(socket, 1) == ["done"]
        assert hub.stats()["dead"] == 0


@pytest.mark.parametrize("way", ["portable-uvloop"])
async def test_s14_under_the_portable_transport_the_server_finds_the_dead(way: str) -> None:
    hub = Hub()
    gone: list[int] = []
    hub.on_disconnect(lambda client, close: gone.append(close.code))
    config = {"ws_ping_interval": 0.2, "ws_ping_timeout": 0.2}
    async with venue(hub, way, **config) as here, raw_connect(here.served) as silent:
        assert (await silent.recv())[0] == PING
        await until(lambda: bool(gone))
        assert len(hub) == 0


CLIENTS, BROADCASTS = 1000, 100

_LOAD = f"""
import asyncio, json, sys
from websockets.asyncio.client import connect

async def listen(url, ready, go):
    async with connect(url, proxy=None, compression=None, ping_interval=None) as socket:
        ready.release()
        got = [int(await socket.recv()) for _ in range({BROADCASTS})]
        return got == list(range({BROADCASTS}))

async def main(url, count):
    ready = asyncio.Semaphore(0)
    tasks = []
    for _ in range(count):
        tasks.append(asyncio.create_task(listen(url, ready, None)))
        if len(tasks) % 50 == 0:
            for _ in range(50):
                await ready.acquire()
    print("ready", flush=True)
    print(json.dumps(sum(await asyncio.gather(*tasks))), flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.parametrize("way", ["native-uvloop", "portable-uvloop"])
async def test_s19_a_thousand_clients_get_a_hundred_broadcasts_each(way: str) -> None:
    hub = Hub()
    async with venue(hub, way) as here:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _LOAD,
            here.served.ws(),
            str(CLIENTS),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"
            assert len(hub) == CLIENTS
            for number in range(BROADCASTS):
                hub.broadcast(str(number))
                await asyncio.sleep(0)
            # Every one of the thousand has got all hundred, in order.
            answer = await asyncio.wait_for(process.stdout.readline(), 60)
            assert json.loads(answer) == CLIENTS
            stats = hub.stats()
            assert stats["messages_out"] == CLIENTS * BROADCASTS
            assert stats["dropped"] == stats["slow_disconnects"] == 0
        finally:
            if process.returncode is None and await _still_runs(process):
                process.kill()
            await process.wait()


async def _still_runs(process: asyncio.subprocess.Process) -> bool:
    try:
        await asyncio.wait_for(process.wait(), PATIENCE_S)
    except TimeoutError:
        return True
    return False
