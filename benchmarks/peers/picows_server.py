"""picows on uvloop: a set of transports and `send()` for each.

Run:  python picows_server.py PORT
"""

import asyncio
import logging
import sys
from collections import defaultdict
from urllib.parse import parse_qs, urlsplit

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

groups: defaultdict[str, set[WSTransport]] = defaultdict(set)


class Talk(WSListener):
    def __init__(self, request: WSUpgradeRequest) -> None:
        query = parse_qs(urlsplit(request.path.decode()).query)
        self.is_echo = "mode" in query
        self.group = groups[query.get("room", [""])[0]]

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.group.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.group.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif self.is_echo:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())
        else:
            payload = frame.get_payload_as_bytes()
            for other in self.group:
                other.send(WSMsgType.TEXT, payload)


async def main(port: int) -> None:
    server = await ws_create_server(Talk, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    logging.disable(logging.INFO)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
