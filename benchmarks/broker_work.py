"""The rows of brokers that need no sockets of clients: what interest costs, and what packing saves.

    python -m benchmarks.broker_work packed valkey://127.0.0.1:6379

prints what one round measured, as JSON, with a server that is there. Clients are those of `hubbub.testing`.
Each run ends by checking what its clients were sent. Not here: targets, tables (`brokers.py`). Called by
`brokers.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping

import redis.asyncio

from hubbub import Hub
from hubbub.testing import MemoryClient, connect

from .room_work import Found, check, forget, found_or_wrong

TEXT = "x" * 128
PATIENCE_S = 60.0


class Size:
    """How much is done: `rooms` of interest, `turns` that publish, `burst` in a turn where they are packed."""

    def __init__(self, *, is_quick: bool) -> None:
        self.rooms = 2000 if is_quick else 10_000
        self.turns = 300 if is_quick else 2000
        self.burst = 64


class Bench:
    """A hub on a broker, and the CPU time of the broker's server."""

    def __init__(self, url: str, hub: Hub) -> None:
        self.hub = hub
        self._server = redis.asyncio.Redis.from_url(
            "redis" + url[url.index(":") :].partition("?")[0]
        )

    async def server_s(self) -> float:
        """Return the CPU time of the server so far."""
        info = await self._server.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    async def close(self) -> None:
        await self._server.aclose()
        await self.hub.stop()

    async def publish(self, room: str, turns: int, burst: int) -> tuple[float, float]:
        """Publish `burst` messages in each of some turns; return the CPU seconds here and at the server."""
        forget(self.hub)
        server_s, began = await self.server_s(), time.process_time()
        for _ in range(turns):
            await asyncio.gather(*(self.hub.publish(room, TEXT) for _ in range(burst)))
        here_s = time.process_time() - began
        return here_s, await self.server_s() - server_s


async def joined(hub: Hub, rooms: int) -> MemoryClient:
    """Return a client that has joined rooms, and is told what is published to them."""
    client = connect(hub)
    for number in range(rooms):
        client.client.join(f"room:{number}")
    async with asyncio.timeout(PATIENCE_S):
        while True:
            forget(hub)
            await hub.publish(f"room:{rooms - 1}", "there")
            if client.received:
                return client


async def interest(url: str, size: Size) -> Found:
    """Join many rooms, and publish to one of them before and after."""
    hub = Hub(broker=url, max_rooms_per_client=size.rooms + 10)
    await hub.start()
    bench = Bench(url, hub)
    client = await joined(hub, 1)
    few_s, few_server_s = await bench.publish("room:0", size.turns, 1)
    check_all(client, size.turns)
    cpu_s, began = time.process_time(), time.perf_counter()
    await joined(hub, size.rooms)
    taken_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    client.close()
    many_s, many_server_s = await bench.publish(f"room:{size.rooms - 1}", size.turns, 1)
    await bench.close()
    return {
        "taken_s": taken_s,
        "join_us": cpu_s / size.rooms * 1e6,
        "few_us": few_s / size.turns * 1e6,
        "many_us": many_s / size.turns * 1e6,
        "growth": many_s / few_s,
        "few_broker_us": few_server_s / size.turns * 1e6,
        "many_broker_us": many_server_s / size.turns * 1e6,
    }


def check_all(client: MemoryClient, count: int) -> None:
    check(client.received[-count:] == [TEXT] * count, f"{len(client.received)} of {count} came")


async def packed(url: str, size: Size) -> Found:
    """Publish one message in a turn, and many."""
    hub = Hub(broker=url)
    await hub.start()
    bench = Bench(url, hub)
    client = await joined(hub, 1)
    turns = max(1, size.turns // 16)
    single_s, single_server_s = await bench.publish("room:0", size.turns, 1)
    check_all(client, size.turns)
    packed_s, packed_server_s = await bench.publish("room:0", turns, size.burst)
    check_all(client, turns * size.burst)
    await bench.close()
    single_us, packed_us = single_s / size.turns * 1e6, packed_s / turns / size.burst * 1e6
    return {
        "single_us": single_us,
        "packed_us": packed_us,
        "times": single_us / packed_us,
        "single_broker_us": single_server_s / size.turns * 1e6,
        "packed_broker_us": packed_server_s / turns / size.burst * 1e6,
    }


WORK: Mapping[str, Callable[[str, Size], Awaitable[Found]]] = {
    "interest": interest,
    "packed": packed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure one row of brokers, once.")
    parser.add_argument("row", choices=WORK)
    parser.add_argument("url", help="of a Valkey server")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    work = WORK[options.row](options.url, Size(is_quick=options.quick))
    print(json.dumps(asyncio.run(found_or_wrong(work))))


if __name__ == "__main__":
    main()
