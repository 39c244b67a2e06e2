"""wse-server: its Rust engine with the drain loop that its documentation recommends.

Its handlers see the cookies of a handshake and not the URL, so the room comes in a cookie.

Run:  python wse_peer.py PORT
"""

import sys

from wse_server import RustWSEServer

BATCH = 1024
WAIT_MS = 1000


def deliver(server: RustWSEServer, client: str, room: str, text: str) -> None:
    if room == "mode=echo":
        server.send(client, text)
    elif room:
        server.broadcast_local(room, text)
    else:
        server.broadcast_all(text)


def serve(port: int) -> None:
    server = RustWSEServer(
        "127.0.0.1",
        port,
        max_connections=100_000,
        rate_limit_capacity=1e9,
        rate_limit_refill=1e9,
    )
    server.enable_drain_mode()
    server.start()
    rooms: dict[str, str] = {}
    while True:
        for kind, client, data in server.drain_inbound(BATCH, WAIT_MS):
            if client is None:
                continue
            if kind == "connect":
                rooms[client] = data or ""
                if rooms[client].startswith("room="):
                    server.subscribe_connection(client, [rooms[client]])
            elif kind == "disconnect":
                rooms.pop(client, None)
            elif kind == "raw":
                deliver(server, client, rooms[client], data)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
