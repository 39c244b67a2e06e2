"""`websockets` with its `broadcast()`, on uvloop.

Run:  python websockets_server.py PORT
"""

import asyncio
import sys
from collections import defaultdict
from urllib.parse import parse_qs, urlsplit

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

groups: defaultdict[str, set[ServerConnection]] = defaultdict(set)


async def talk(connection: ServerConnection) -> None:
    assert connection.request is not None
    query = parse_qs(urlsplit(connection.request.path).query)
    if "mode" in query:
        async for message in connection:
            await connection.send(message)
        return
    group = groups[query.get("room", [""])[0]]
    group.add(connection)
    try:
        async for message in connection:
            broadcast(group, message)
    finally:
        group.discard(connection)


async def main(port: int) -> None:
    async with serve(talk, "127.0.0.1", port, compression=None):
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
