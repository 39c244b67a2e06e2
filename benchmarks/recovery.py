"""Clients that are cut off all at once, and come back at once: the generator of the row "recovery".

    python -m benchmarks.recovery --port 8000 --clients 1000 --missed 100

It drives `peers/remembering_server.py`, prints one line of JSON, and needs the standard library only. The
clients speak the Centrifuge protocol over bare sockets, all in one thread. What each is sent is read and
checked: a run in which anything was lost, came twice or out of order says so. Called by `rooms.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import struct
import time
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from .bare_socket import Broken, check_handshake, handshake, masked

ROOM = "feed"
PATH = "/connection/websocket"
PATIENCE_S = 60.0
FIRST = 10
"""How many publications all have seen before the cut."""
TRICKLE_MS = 20
"""How long after a publication the next one comes, while the clients come back."""
AT_A_TIME = 50
"""How many clients join at a time, before the cut."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: a close that sends no FIN, as a connection that breaks."""


class Peer:
    """One client: its connection of the moment, and all that it was sent over all of them."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.epoch = ""
        self.is_joined = False
        self.has_recovered = False
        self._head = b""
        self._rest = b""
        self._is_open = False

    def connect(self, port: int) -> None:
        """Begin to connect."""
        self.is_joined = self._is_open = False
        self._head = self._rest = b""
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", port))

    def shake_hands(self, port: int) -> None:
        """Send the request, when the connection is there."""
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise Broken(f"no connection: {os.strerror(error)}")
        self.socket.send(handshake(port, PATH, "Sec-WebSocket-Protocol: centrifuge-json"))

    def cut(self) -> None:
        """Break the connection."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.socket.close()

    def take(self) -> None:
        """Read what is there."""
        more = self.socket.recv(2**20)
        if not more:
            raise Broken("the server has closed a connection")
        if not self._is_open:
            self._head += more
            if b"\r\n\r\n" not in self._head:
                return
            head, _, more = self._head.partition(b"\r\n\r\n")
            check_handshake(head)
            self._is_open = True
            self.socket.send(masked(self._commands()))
        self._read(self._rest + more)

    def _commands(self) -> bytes:
        """Return what a client of this protocol says first: both commands in one message."""
        subscribe: dict[str, Any] = {"channel": ROOM}
        if self.epoch:
            subscribe |= {"recover": True, "epoch": self.epoch, "offset": self.offsets[-1]}
        commands = ({"id": 1, "connect": {}}, {"id": 2, "subscribe": subscribe})
        return b"\n".join(json.dumps(command).encode() for command in commands)

    def _read(self, data: bytes) -> None:
        position, end = 0, len(data)
        while end - position >= 2:
            length, start = data[position + 1], position + 2
            if length >= 126:
                start += 2 if length == 126 else 8
                length = int.from_bytes(data[position + 2 : start])
            if start + length > end:
                break
            if data[position] != 0x81:
                raise Broken(f"a frame that is no text: {data[position : start + length]!r:.80}")
            for line in data[start : start + length].splitlines():
                self._hear(json.loads(line))
            position = start + length
        self._rest = data[position:]

    def _hear(self, said: dict[str, Any]) -> None:
        if "push" in said:
            self.offsets.append(said["push"]["pub"]["offset"])
        elif "subscribe" in said:
            answer = said["subscribe"]
            self.offsets += [each["offset"] for each in answer.get("publications", ())]
            self.has_recovered = answer.get("recovered", False)
            self.epoch, self.is_joined = answer["epoch"], True
        elif "error" in said:
            raise Broken(f"an error: {said['error']}")

    def has(self, offset: int) -> bool:
        """Tell whether it has everything up to an offset, if nothing was lost."""
        return self.is_joined and bool(self.offsets) and self.offsets[-1] >= offset


def until(peers: Sequence[Peer], is_done: Callable[[Peer], bool], port: int) -> float:
    """Serve the sockets until all are done; return how late the last one was, in seconds from here."""
    poll = select.epoll()
    waiting = {peer.socket.fileno(): peer for peer in peers if not is_done(peer)}
    writing = {number for number, peer in waiting.items() if not peer.is_joined}
    for number in waiting:
        poll.register(number, select.EPOLLOUT if number in writing else select.EPOLLIN)
    began = time.perf_counter()
    while waiting:
        if time.perf_counter() - began > PATIENCE_S:
            raise Broken(f"{len(waiting)} clients have not got everything")
        for number, _ in poll.poll(1.0):
            peer = waiting[number]
            if number in writing:
                writing.discard(number)
                peer.shake_hands(port)
                poll.modify(number, select.EPOLLIN)
                continue
            peer.take()
            if is_done(peer):
                poll.unregister(number)
                del waiting[number]
    poll.close()
    return time.perf_counter() - began


def ask(port: int, what: str) -> dict[str, Any]:
    """Have the server do something; return its answer."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{what}", timeout=PATIENCE_S) as answer:
        return dict(json.loads(answer.read()))


def errors_of(peers: Sequence[Peer], top: int) -> dict[str, int]:
    """Count what went wrong: what is lost, what came twice, and who has something out of order."""
    wanted = set(range(1, top + 1))
    return {
        "lost": sum(len(wanted.difference(peer.offsets)) for peer in peers),
        "twice": sum(len(peer.offsets) - len(set(peer.offsets)) for peer in peers),
        "disordered": sum(peer.offsets != sorted(peer.offsets) for peer in peers),
        "refused": sum(not peer.has_recovered for peer in peers),
    }


def run(port: int, clients: int, missed: int) -> dict[str, Any]:
    """Cut all clients, publish `missed` messages, and let all come back at once."""
    peers = [Peer() for _ in range(clients)]
    for start in range(0, clients, AT_A_TIME):
        some = peers[start : start + AT_A_TIME]
        for peer in some:
            peer.connect(port)
        until(some, lambda peer: peer.is_joined, port)
    top = ask(port, f"publish?count={FIRST}")["top"]
    until(peers, lambda peer: peer.has(top), port)
    for peer in peers:
        peer.cut()
    while ask(port, "")["clients"]:
        time.sleep(0.01)
    top = ask(port, f"publish?count={missed}")["top"]
    ask(port, f"trickle?ms={TRICKLE_MS}")
    ask(port, "holds")
    began = time.perf_counter()
    for peer in peers:
        peer.connect(port)
    opened_s = time.perf_counter() - began
    whole_s = opened_s + until(peers, lambda peer: peer.has(top), port)
    holds = ask(port, "holds")
    last = ask(port, "quiet")
    until(peers, lambda peer: peer.has(last["top"]), port)
    for peer in peers:
        peer.cut()
    errors = errors_of(peers, last["top"])
    errors["refused"] += abs(clients - last["recoveries"])
    return {"whole_s": whole_s, "clients": clients, "missed": missed, **holds, **errors}


def main() -> None:
    parser = argparse.ArgumentParser(description="Cut clients off, and let them come back.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--missed", type=int, default=100)
    options = parser.parse_args()
    try:
        result = run(options.port, options.clients, options.missed)
    except (Broken, OSError) as error:
        result = {"error": str(error)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
