"""What compression costs and saves: Hubbub's shared deflate, and uvicorn's for each client.

python -m benchmarks.compression measures, keeps `results/compression.json` and writes the tables
of `docs/guides/compression.md`; --page writes the tables alone. It needs an environment with
`hubbub` in it, and Linux. Not here: starting and reading servers (`measure.py`).

The generator is this process: bare sockets that offer permessage-deflate and count frames by their
headers. It inflates what one client gets, to know that it is right, and its work is not charged.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import random
import resource
import select
import socket
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from hubbub.wire.frame import deflate

from . import machine, page_parts
from .bare_socket import check_handshake, handshake, masked
from .measure import Cores, Server, serving
from .servers import BENCH, BUILD, ROOT, ServerSpec

RESULTS = BENCH / "results" / "compression.json"
PAGE = ROOT / "docs" / "guides" / "compression.md"

SIZES = (200, 1024, 8192)
SHARE_SIZES = (64, 128, 200, 256, 512, 1024, 8192, 65_536)
CLIENTS, MESSAGES, WARM = 1000, 30, 5
PATIENCE_S = 60.0
PACKAGES = ("hubbub", "uvicorn", "uvloop", "websockets", "fastapi")

UVICORN = (sys.executable, "-m", "uvicorn", "--port", "{port}", "--log-level", "warning")
LOOPS = ("--loop", "uvloop", "--http", "httptools")
HUB = (*UVICORN, *LOOPS, "--ws", "hubbub:Protocol", "hubbub_server:app")
BARE = (*UVICORN, *LOOPS, "--ws", "websockets-sansio", "--ws-ping-interval", "0")
DEFLATE = "--ws-per-message-deflate"
SHARED = ("env", "HUBBUB_COMPRESSION=shared", "HUBBUB_COMPRESSION_MIN_BYTES=0")
SERVERS = (
    ServerSpec("hubbub-off", "Hubbub, off", "python", HUB),
    ServerSpec("hubbub-shared", "Hubbub, shared", "python", (*SHARED, *HUB)),
    ServerSpec(
        "uvicorn-off", "uvicorn, off", "python", (*BARE, DEFLATE, "false", "asgi_server:app")
    ),
    ServerSpec(
        "uvicorn-deflate",
        "uvicorn, per client",
        "python",
        (*BARE, DEFLATE, "true", "asgi_server:app"),
    ),
)

Run = dict[str, Any]


def texts(size: int, count: int) -> Iterator[bytes]:
    """Yield different JSON messages of `size` bytes, such as an application sends to a map."""
    chance = random.Random(size)
    for _ in range(count):
        text = '{"type": "positions", "items": ['
        while len(text) < size:
            item = {
                "id": f"{chance.getrandbits(48):012x}",
                "user": chance.choice(("ann", "bob", "carol", "dave", "eve", "mallory")),
                "x": round(chance.uniform(-180, 180), 5),
                "y": round(chance.uniform(-90, 90), 5),
                "status": chance.choice(("online", "away", "typing")),
                "at": f"2026-11-25T{chance.randrange(24):02}:{chance.randrange(60):02}:00Z",
            }
            text += json.dumps(item) + ", "
        yield text[:size].encode()


class CountingClient:
    """One client: counts the frames that come, and keeps those of the first client."""

    def __init__(self, port: int, *, keeps: bool) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.frames = self.nbytes = 0
        self.kept: list[bytes] | None = [] if keeps else None
        self._rest = b""
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        self.socket.sendall(handshake(port, "/ws", offer))
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(65_536) or b"\r\n\r\n"
        self.answer, _, self._rest = head.partition(b"\r\n\r\n")
        check_handshake(self.answer)
        self.socket.setblocking(False)

    def take(self) -> None:
        """Read what is there, and count it."""
        more = self.socket.recv(2**20)
        if not more:
            raise RuntimeError("the server has closed a connection")
        data = self._rest + more
        position, end = 0, len(data)
        while end - position >= 2:
            length, start = data[position + 1], position + 2
            if length >= 126:
                start += 2 if length == 126 else 8
                length = int.from_bytes(data[position + 2 : start])
            if start + length > end:
                break
            if data[position] & 0x08:
                raise RuntimeError("a ping or a close, where only messages are counted")
            if self.kept is not None:
                self.kept.append(data[position : position + 1] + data[start : start + length])
            self.frames += 1
            self.nbytes += start + length - position
            position = start + length
        self._rest = data[position:]

    def inflated(self) -> list[bytes]:
        """Return the messages of the kept frames."""
        assert self.kept is not None
        is_shared = b"server_no_context_takeover" in self.answer
        found, inflater = [], zlib.decompressobj(-15)
        for frame in self.kept:
            if not frame[0] & 0x40:
                found.append(frame[1:])
                continue
            if is_shared:
                inflater = zlib.decompressobj(-15)
            found.append(inflater.decompress(frame[1:] + b"\x00\x00\xff\xff"))
        return found


@contextmanager
def connected(port: int, count: int) -> Iterator[list[CountingClient]]:
    with contextlib.ExitStack() as stack:
        clients = []
        for number in range(count):
            clients.append(CountingClient(port, keeps=number == 0))
            stack.enter_context(clients[-1].socket)
        yield clients


def publish(clients: list[CountingClient], text: bytes) -> None:
    """Have one client send `text`, plain; wait until all have what comes of it."""
    wanted = clients[0].frames + 1
    clients[-1].socket.sendall(masked(text))
    poll = select.epoll()
    by_number = {client.socket.fileno(): client for client in clients}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    end = time.monotonic() + PATIENCE_S
    while by_number:
        if time.monotonic() > end:
            raise RuntimeError(f"{len(by_number)} clients wait for a message")
        for number, _ in poll.poll(1.0):
            client = by_number[number]
            client.take()
            if client.frames == wanted:
                poll.unregister(number)
                del by_number[number]
    poll.close()


def run_on(server: Server, size: int) -> Run:
    """Send messages of `size` bytes, one at a time, to all clients of a fresh server."""
    messages = list(texts(size, WARM + MESSAGES))
    with connected(server.port, 50) as few:
        publish(few, messages[0])
    time.sleep(0.5)  # let the server see that they have gone
    before = server.memory_kib()
    with connected(server.port, CLIENTS) as clients:
        idle = server.memory_kib()
        for text in messages[:WARM]:
            publish(clients, text)
        frames, nbytes = sum(p.frames for p in clients), sum(p.nbytes for p in clients)
        cpu_s = -server.cpu_s()
        for text in messages[WARM:]:
            publish(clients, text)
        cpu_s += server.cpu_s()
        if clients[0].inflated() != messages:
            raise RuntimeError("what arrived is not what was sent")
        deliveries = sum(p.frames for p in clients) - frames
        return {
            "deliveries": deliveries,
            "wire_bytes": (sum(p.nbytes for p in clients) - nbytes) / deliveries,
            "cpu_us": cpu_s / deliveries * 1e6,
            "idle_kib": (idle - before) / CLIENTS,
            "busy_kib": (server.memory_kib() - before) / CLIENTS,
            "negotiated": b"permessage-deflate" in clients[0].answer,
        }


def shares() -> list[Run]:
    """Deflate alone messages of many sizes; return what is left of each, and what it took."""
    found = []
    for size in SHARE_SIZES:
        messages = list(texts(size, 20))
        best_s = float("inf")
        for _ in range(10):
            began = time.thread_time()
            deflated = [deflate(text) for text in messages]
            best_s = min(best_s, time.thread_time() - began)
        left = sum(map(len, deflated)) / sum(map(len, messages))
        found.append({"size": size, "left": left, "us": best_s / len(messages) * 1e6})
    return found


def measure_all(repeats: int) -> Run:
    BUILD.mkdir(exist_ok=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    cores = Cores.choose()
    runs: dict[str, list[Run]] = {}
    load, about = os.getloadavg()[0], machine.describe()
    if cores.generator is not None:
        os.sched_setaffinity(0, {cores.generator})
    for repeat in range(repeats):
        for size in SIZES:
            for spec in SERVERS:
                with serving(spec, cores.server) as server:
                    run = run_on(server, size)
                runs.setdefault(f"{spec.name} {size}", []).append(run)
                print(repeat, spec.name, size, run, flush=True)
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "repeats": repeats,
        "clients": CLIENTS,
        "messages": MESSAGES,
        "load_before": round(load, 1),
        "machine": about,
        "commit": machine.commit(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "runs": runs,
        "shares": shares(),
    }


def middle(results: Run, server: str, size: int, field: str) -> float:
    return float(median(run[field] for run in results["runs"][f"{server} {size}"]))


def table(results: Run, field: str, digits: int) -> list[str]:
    lines = ["| | " + " | ".join(f"{size:,} B" for size in SIZES) + " |", "|---" * 4 + "|"]
    for server in SERVERS:
        cells = [f"{middle(results, server.name, size, field):,.{digits}f}" for size in SIZES]
        lines.append(f"| {server.title} | " + " | ".join(cells) + " |")
    return lines


def memory_table(results: Run) -> list[str]:
    lines = ["| | idle | after messages of 8,192 B |", "|---|---|---|"]
    for server in SERVERS:
        idle = median(middle(results, server.name, size, "idle_kib") for size in SIZES)
        busy = middle(results, server.name, SIZES[-1], "busy_kib")
        lines.append(f"| {server.title} | {idle:.1f} | {busy:.1f} |")
    return lines


def share_table(results: Run) -> list[str]:
    lines = ["| bytes of a message | left on the wire | CPU of deflating it, µs |", "|---|---|---|"]
    for row in results["shares"]:
        lines.append(f"| {row['size']:,} | {row['left']:.0%} | {row['us']:.0f} |")
    return lines


def page_part(results: Run) -> str:
    """Return the generated part of the guide."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    about = (
        f"Measured on {results['date'][:10]} at commit {results['commit']}: "
        f"{results['clients']:,} clients, {results['messages']} different JSON messages one after "
        f"another, the median of {results['repeats']} runs on fresh servers, the servers by turns. "
        f"{results['machine']['processor']}; {results['machine']['kernel']}; Python "
        f"{results['machine']['Python']}; {versions}. The load average before was "
        f"{results['load_before']}."
    )
    blocks = [
        [about],
        ["**Bytes on the wire of one delivery**, headers of frames included:"],
        table(results, "wire_bytes", 0),
        ["**CPU of the server for one delivery**, in microseconds, all included:"],
        table(results, "cpu_us", 1),
        ["**Memory of the server for one client**, in KiB:"],
        memory_table(results),
        ["**Deflating one message**, whoever gets it:"],
        share_table(results),
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def write_page(results: Run) -> None:
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page_parts.replaced(text, "compression", page_part(results)), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure compression.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--page", action="store_true", help="only write the page again")
    options = parser.parse_args()
    if not options.page:
        results = measure_all(options.repeats)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_page(json.loads(RESULTS.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
