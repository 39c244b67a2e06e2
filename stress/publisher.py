"""A process of publishers, without clients: each publishes numbered messages, one after another, until it is told to end.

What must not live here: who reads them (`room_client.py`). `fleet.py` starts it with its broker's URL, and says by
lines of JSON on stdin what to do: {"rooms": {"7": "log:1"}, "per_second": 5} to begin, `null` to end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from typing import Any

import uvloop

from hubbub import AsyncPublisher, BrokerUnavailable

AGAIN_S = 0.05
"""How long a publisher waits before it tries what was refused again."""


async def publish(url: str, number: int, room: str, pause_s: float, over: asyncio.Event) -> Any:
    """Publish until it is over; what is refused is tried again, with the same key, until it is taken.

    Returns how many messages that were, how often one was refused, and the longest that one took, in seconds.
    """
    count = refused = 0
    longest_s = 0.0
    async with AsyncPublisher(url) as publisher:
        while not over.is_set():
            count, began = count + 1, time.time()
            message = {"p": number, "n": count, "t": began}
            while True:
                try:
                    await publisher.publish(room, message, key=f"{number}:{count}")
                    break
                except BrokerUnavailable:
                    refused += 1
                    await asyncio.sleep(AGAIN_S)
            longest_s = max(longest_s, time.time() - began)
            await asyncio.sleep(pause_s)
    return {"count": count, "refused": refused, "longest_s": round(longest_s, 2)}


async def read_line(reader: asyncio.StreamReader) -> Any:
    """Return what the next line says; `None` at the end of the input."""
    line = await reader.readline()
    return json.loads(line) if line else None


async def run(url: str) -> None:
    """Publish whenever the input says so, and print what came of it."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("ready", flush=True)
    while (told := await read_line(reader)) is not None:
        over = asyncio.Event()
        rooms = {int(number): room for number, room in told["rooms"].items()}
        tasks = [
            asyncio.create_task(publish(url, number, room, 1 / told["per_second"], over))
            for number, room in rooms.items()
        ]
        await read_line(reader)
        over.set()
        print(json.dumps(dict(zip(rooms, await asyncio.gather(*tasks), strict=True))), flush=True)


if __name__ == "__main__":
    logging.getLogger("hubbub").setLevel(logging.CRITICAL)
    uvloop.run(run(sys.argv[1]))
