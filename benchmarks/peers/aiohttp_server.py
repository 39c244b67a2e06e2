"""aiohttp: a set of sockets and `await ws.send_str()` for each, as its documentation has it.

Run:  python aiohttp_server.py PORT
"""

import sys
from collections import defaultdict

import uvloop
from aiohttp import WSMsgType, web

groups: defaultdict[str, set[web.WebSocketResponse]] = defaultdict(set)


async def talk(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    is_echo = "mode" in request.query
    group = groups[request.query.get("room", "")]
    group.add(socket)
    try:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            if is_echo:
                await socket.send_str(message.data)
                continue
            for other in list(group):
                await other.send_str(message.data)
    finally:
        group.discard(socket)
    return socket


def main(port: int) -> None:
    app = web.Application()
    app.router.add_get("/ws", talk)
    web.run_app(
        app,
        host="127.0.0.1",
        port=port,
        access_log=None,
        print=None,
        backlog=2048,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
