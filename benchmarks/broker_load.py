"""Clients of several workers, and what they publish: the generator of the rows about brokers.

    python -m benchmarks.broker_load --ports 8000,8001 --path "/ws?room={room}" --rooms 1 --each 10 --burst 64

Each room has `--each` clients at each worker; one of them, at worker 0 or with `--spread` at worker 0, 1, 2 …
in turn, publishes. With `--rate` each room gets so many messages a second whatever happens; without, a burst
follows when all of the room have the one before. Every client of a room has to get every message, once and in
order; with `--any-order` it is counted what was not in order. What is printed and when it waits for an answer
on stdin is as in `load.c`: "begin", "end", "result". One thread, standard library only. Called by `brokers.py`.
"""

from __future__ import annotations

import argparse
import json
import re
import select
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .bare_socket import Broken, check_handshake, handshake, masked

PATIENCE_S = 60.0
AT_A_TIME = 50
"""How many clients connect at a time."""
WARM_S = 0.5
QUIET_S = 0.3
"""For how long nothing happens before and after what is counted."""
MARKER = re.compile(rb"n=(\d{9});")
MARKER_BYTES = 12
PING = re.compile(rb"\x89([\x00-\x14])|\x81\x012")
"""A ping of WebSocket with up to 20 bytes, or of engine.io. No length of a message of ours looks so."""
HELLO = b"hello"
"""What is published until everybody has heard it, and so is known to be in its room."""
GREETINGS = {"plain": b"", "socketio": b"40"}
NAMES: list[bytes] = []
"""The numbers as they are written, by number: as many as have been needed."""


def name_of(number: int) -> bytes:
    while number >= len(NAMES):
        NAMES.extend(b"%09d" % each for each in range(len(NAMES), len(NAMES) + 10_000))
    return NAMES[number]


@dataclass
class Room:
    """What is published to a room: how many messages there were, when each was sent, who has all of them."""

    number: int
    clients: list[Client]
    sent: int = 0
    complete: int = 0
    next_s: float = 0.0

    def __post_init__(self) -> None:
        self.times: list[float] = []


class Client:
    """A client of a room at a worker; it counts what it gets."""

    def __init__(self, room: Room, worker: int, dialect: str, *, any_order: bool) -> None:
        self.room = room
        self.worker = worker
        self.got = 0
        self.disordered = 0
        self.has_heard = False
        self._dialect = dialect
        self._rest = b""
        self._seen: set[bytes] | None = set() if any_order else None

    def connect(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(handshake(port, path.format(room=self.room.number)))

    def open(self) -> None:
        """Wait for the end of the handshake, and of the dialect's own."""
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        check_handshake(head)
        if greeting := GREETINGS[self._dialect]:
            self.socket.sendall(masked(greeting))
            while b'40{"sid"' not in self._rest:
                self._more()
        self._rest = b""
        self.socket.setblocking(False)

    def _more(self) -> None:
        more = self.socket.recv(2**16)
        if not more:
            raise Broken("the server has closed a connection")
        self._rest += more

    def say_hello(self) -> None:
        """Publish a word that has no number."""
        self.socket.send(masked(b'42["m","hello"]' if self._dialect == "socketio" else HELLO))

    def say(self, size: int, count: int) -> None:
        """Publish messages, all in one write."""
        room = self.room
        frames = []
        for number in range(room.sent, room.sent + count):
            text = b"n=%s;" % name_of(number)
            text += b"x" * (size - len(text))
            is_named = self._dialect == "socketio"
            frames.append(masked(b'42["m","%s"]' % text if is_named else text))
        room.sent += count
        room.times += [time.perf_counter()] * count
        self.socket.setblocking(True)
        self.socket.sendall(b"".join(frames))
        self.socket.setblocking(False)

    def take(self) -> int:
        """Read what is there; return how many messages. Raises `Broken` for what is not the next."""
        more = self.socket.recv(2**20)
        if not more:
            raise Broken("the server has closed a connection")
        data = self._rest + more
        self.has_heard = self.has_heard or HELLO in data
        found = MARKER.findall(data)
        self._rest = data[data.rfind(b";") + 1 :][-MARKER_BYTES:]
        if found:
            self._check(found)
            self.got += len(found)
        for ping in PING.finditer(more):
            self._answer(ping, more)
        return len(found)

    def _answer(self, ping: re.Match[bytes], data: bytes) -> None:
        """Answer a ping of WebSocket with its own bytes, one of engine.io with its word."""
        if ping[1] is None:
            self.socket.send(masked(b"3"))
            return
        payload = data[ping.end() : ping.end() + ping[1][0]]
        self.socket.send(b"\x8a" + bytes([0x80 | len(payload)]) + bytes(4) + payload)

    def _check(self, found: Sequence[bytes]) -> None:
        """Raise `Broken` unless these are the next; where any order will do, unless they are new."""
        name_of(self.got + len(found))
        is_next = found == NAMES[self.got : self.got + len(found)]
        if self._seen is None:
            if not is_next:
                where = f"of room {self.room.number} number {self.got}"
                raise Broken(f"{where} is lost, late or twice")
            return
        self.disordered += not is_next
        for name in found:
            if name in self._seen:
                raise Broken(f"of room {self.room.number} number {int(name)} came twice")
            self._seen.add(name)


class Load:
    """All clients, and the phases of a run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        ports = [int(port) for port in options.ports.split(",")]
        self.rooms = [Room(number, []) for number in range(options.rooms)]
        for room in self.rooms:
            room.clients = [
                Client(room, worker, options.dialect, any_order=options.any_order)
                for _ in range(options.each)
                for worker in range(len(ports))
            ]
        self.clients: dict[int, Client] = {}
        self.poll = select.epoll()
        everybody = [client for room in self.rooms for client in room.clients]
        for start in range(0, len(everybody), AT_A_TIME):
            some = everybody[start : start + AT_A_TIME]
            for client in some:
                client.connect(ports[client.worker], options.path)
            for client in some:
                client.open()
                self.clients[client.socket.fileno()] = client
                self.poll.register(client.socket, select.EPOLLIN)
        self.workers = len(ports)
        self.lags: list[float] = []
        self.is_noting = False

    def publisher(self, room: Room) -> Client:
        return room.clients[room.number % self.workers if self.options.spread else 0]

    def settle(self) -> None:
        """Say hello in each room until everybody has heard it. Raises `Broken`."""
        end = time.perf_counter() + self.options.patience
        while deaf := [each for each in self.clients.values() if not each.has_heard]:
            if time.perf_counter() > end:
                raise Broken(f"{len(deaf)} of {len(self.clients)} clients hear nothing")
            for room in {each.room.number: each.room for each in deaf}.values():
                self.publisher(room).say_hello()
            again = time.perf_counter() + QUIET_S
            while time.perf_counter() < again:
                self.serve(0.05)
        for room in self.rooms:
            room.complete = len(room.clients)

    def until_complete(self) -> None:
        end = time.perf_counter() + self.options.patience
        while any(room.complete < len(room.clients) for room in self.rooms):
            self.serve(0.1)
            if time.perf_counter() > end:
                late = sum(client.got < client.room.sent for client in self.clients.values())
                raise Broken(f"{late} of {len(self.clients)} clients have not got everything")

    def serve(self, patience_s: float) -> None:
        """Read from all who have something."""
        for number, _ in self.poll.poll(patience_s):
            client = self.clients[number]
            room, before = client.room, client.got
            if client.take() and self.is_noting and client.worker != self.publisher(room).worker:
                now = time.perf_counter()
                self.lags += [now - at for at in room.times[before : client.got]]
            if before < room.sent <= client.got:
                room.complete += 1

    def run(self, seconds: float) -> None:
        """Publish for some seconds, and wait until all have it."""
        options, now = self.options, time.perf_counter()
        end = now + seconds
        for room in self.rooms:
            room.next_s = now + room.number / max(options.rate, 1.0) / len(self.rooms)
        while (now := time.perf_counter()) < end:
            for room in self.rooms:
                self.publish_if_due(room, now)
            due_s = min(room.next_s for room in self.rooms) - now if options.rate else 0.1
            self.serve(max(0.0, min(0.1, due_s)))
        self.until_complete()

    def publish_if_due(self, room: Room, now: float) -> None:
        options = self.options
        if options.rate:
            count = 0
            while room.next_s <= now:
                room.next_s += 1.0 / options.rate
                count += 1
        else:
            count = options.burst if room.complete >= len(room.clients) else 0
        if count:
            room.complete = 0
            self.publisher(room).say(options.size, count)

    def result(self, wall_s: float, before: int) -> dict[str, object]:
        published = sum(room.sent for room in self.rooms) - before
        lags = sorted(self.lags)
        return {
            "event": "result",
            "wall_s": wall_s,
            "published": published,
            "delivered": published * len(self.clients) // len(self.rooms),
            "disordered": sum(client.disordered for client in self.clients.values()),
            "lag_p50_ms": quantile(lags, 0.50) * 1e3,
            "lag_p99_ms": quantile(lags, 0.99) * 1e3,
        }


def quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile of sorted values; 0 of none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def phases(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Do a run; yield its events, each when nothing is in flight."""
    load = Load(options)
    load.settle()
    load.run(options.warm)
    time.sleep(QUIET_S)
    before = sum(room.sent for room in load.rooms)
    yield {"event": "begin"}
    load.is_noting = True
    began, cpu_s = time.perf_counter(), time.process_time()
    load.run(options.seconds)
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    time.sleep(QUIET_S)
    yield {"event": "end"}
    yield {**load.result(wall_s, before), "generator_s": cpu_s}


def main() -> None:
    parser = argparse.ArgumentParser(description="Publish to clients of several workers.")
    parser.add_argument("--ports", required=True, metavar="A,B", help="of the workers")
    parser.add_argument("--path", required=True, help="with {room} in it")
    parser.add_argument("--dialect", choices=GREETINGS, default="plain")
    parser.add_argument("--rooms", type=int, default=1)
    parser.add_argument("--each", type=int, default=1, help="clients of a room at each worker")
    parser.add_argument("--spread", action="store_true", help="the publishers over the workers")
    parser.add_argument("--any-order", action="store_true", help="a message may overtake another")
    parser.add_argument("--burst", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0, help="messages a second and room")
    parser.add_argument("--size", type=int, default=128, help="bytes of a message")
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="for what is late")
    parser.add_argument("--warm", type=float, default=WARM_S)
    parser.add_argument("--seconds", type=float, default=2.0)
    try:
        for event in phases(parser.parse_args()):
            print(json.dumps(event), flush=True)
            if event["event"] != "result":
                sys.stdin.readline()
    except (Broken, OSError) as error:
        print(json.dumps({"event": "error", "message": str(error)}), flush=True)


if __name__ == "__main__":
    main()
