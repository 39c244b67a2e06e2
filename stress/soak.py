"""The soak: many clients that join, leave, talk and die for a long time, and what is left after it.

What must not live here: how the server is run (`scenario.py`). `run.py` and the tests call `soak`.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from .raw_client import CLOSE, PING, PONG, TEXT, RawClient, connect, frame
from .scenario import ServerProcess, ask_when_ended, leaks

ROOMS_PER_CLIENTS = 50
"""One room for so many clients."""
SAYS_PER_SECOND = 100.0
"""How much all clients together say."""
SAMPLE_S = 1.0
WRITE_TIMEOUT_S = 5.0
SMALL_BYTES = 4096
"""The receive buffer of a client that will not read."""
ENDS = (("close frame", "reset", "half a frame", "not reading"), (50, 30, 10, 10))
"""How clients end, and how many of a hundred."""
_STEP_S = 0.5
"""What a client does next, it does after this long on the average."""


@dataclass
class Ledger:
    """What the clients have done and got, and what did not hold."""

    lives: int = 0
    received: int = 0
    missing: int = 0
    """Messages that a client should have got, by the numbers of its rooms."""
    ends: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)


class Life:
    """One client, from its handshake to its end."""

    def __init__(self, client: RawClient, way: str, rooms: Sequence[str], ledger: Ledger) -> None:
        self._client = client
        self._way = way
        self._all_rooms = rooms
        self._ledger = ledger
        self._last: dict[str, int] = {}
        self._is_over = asyncio.Event()
        self._bye = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    def ask(self, kind: str, **details: Any) -> None:
        """Send one message."""
        text = json.dumps({"type": kind, **details}).encode()
        self._client.writer.write(frame(TEXT, text))

    async def live(self, seconds: float, rate: float) -> None:
        """Enter rooms, leave rooms and talk for `seconds`."""
        self.ask("enter", room=random.choice(self._all_rooms))
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._is_over.is_set():
            await asyncio.sleep(random.expovariate(1 / _STEP_S))
            self._do_something(rate * _STEP_S)

    def _do_something(self, say_chance: float) -> None:
        if random.random() < say_chance:
            self.ask("say", room=random.choice(self._all_rooms), text="." * random.randint(1, 200))
        elif random.random() < 0.05:
            room = random.choice(self._all_rooms)
            self.ask("exit" if room in self._last else "enter", room=room)

    async def end(self) -> None:
        """End in the way that was chosen at the beginning."""
        way = self._way
        if self._is_over.is_set():
            way = "the server"
        elif way == "close frame":
            await self._close()
        elif way == "half a frame":
            self._client.writer.write(frame(TEXT, b"." * 100)[:50])
            await asyncio.sleep(0.1)
        elif way == "not reading":
            self._client.stop_reading()
            await asyncio.sleep(random.uniform(0, 2 * WRITE_TIMEOUT_S))
        self._ledger.ends[way] += 1
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader
        self._client.abort()

    async def _close(self) -> None:
        """Ask for the numbers of all rooms, so that nothing is missing unseen; then send a close frame."""
        self.ask("bye")
        try:
            await asyncio.wait_for(self._bye.wait(), 30)
            if self._is_over.is_set():
                return
            self._client.writer.write(frame(CLOSE, (1000).to_bytes(2)))
            await asyncio.wait_for(self._is_over.wait(), 30)
        except TimeoutError:
            self._ledger.troubles["a close frame was not answered within 30 s"] += 1

    async def _read(self) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                opcode, payload = await self._client.recv()
                if opcode == CLOSE:
                    break
                if opcode == PING:
                    self._client.writer.write(frame(PONG, payload))
                elif opcode == TEXT:
                    self._ledger.received += 1
                    self._take(json.loads(payload))
        self._is_over.set()
        self._bye.set()

    def _take(self, message: dict[str, Any]) -> None:
        if "in" in message:
            room = message["in"]
            self._expect(room, message["k"] - 1)
            self._last[room] = message["k"]
        elif "entered" in message:
            # Twice into one room is no error, and says its number again.
            self._last.setdefault(message["entered"], message["k"])
        elif "left" in message:
            self._expect(message["left"], message["k"])
            self._last.pop(message["left"], None)
        elif "bye" in message:
            for room, number in message["bye"].items():
                self._expect(room, number)
            self._bye.set()

    def _expect(self, room: str, number: int) -> None:
        """See that the room's last message that came was that of `number`."""
        if room in self._last:
            self._ledger.missing += abs(number - self._last[room])


class Population:
    """Clients, always about the same number of them."""

    def __init__(self, server: ServerProcess, count: int, life_s: float) -> None:
        self.ledger = Ledger()
        self._server = server
        self._count = count
        self._life_s = life_s
        self._rooms = [f"room-{number}" for number in range(max(1, count // ROOMS_PER_CLIENTS))]
        self._is_ending = False

    async def run(self, seconds: float) -> None:
        """Live for `seconds`."""
        tasks = [asyncio.create_task(self._succession(number)) for number in range(self._count)]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            # Much at once for one room, so that a client that does not read becomes slow.
            room = random.choice(self._rooms)
            await self._server.ask(f"/bulk?room={room}&count=10&bytes=20000")
            await asyncio.sleep(0.5)
        self._is_ending = True
        await asyncio.gather(*tasks)

    async def _succession(self, number: int) -> None:
        """Be one client after another."""
        await asyncio.sleep(random.random() * min(5.0, self._life_s))
        rate = SAYS_PER_SECOND / self._count
        while not self._is_ending:
            way = random.choices(*ENDS)[0]
            try:
                client = await connect(
                    self._server.port,
                    source=f"127.0.0.{2 + number % 8}",
                    receive_bytes=SMALL_BYTES if way == "not reading" else None,
                )
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.ledger.troubles[f"no socket: {error!r}"] += 1
                await asyncio.sleep(1.0)
                continue
            self.ledger.lives += 1
            life = Life(client, way, self._rooms, self.ledger)
            await life.live(min(random.expovariate(1 / self._life_s), 4 * self._life_s), rate)
            await life.end()


@dataclass
class Soaked:
    """What came out of a soak."""

    clients: int
    seconds: float
    lives: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    published: int = 0
    owed: int = 0
    """Published times members, and what was sent to one client each."""
    handed_on: int = 0
    dropped: int = 0
    undelivered: int = 0
    received: int = 0
    missing: int = 0
    slope_kib_per_minute: float = 0.0
    """Of the memory, over the second half."""
    rss_kib: list[int] = field(default_factory=list)
    """Before, then samples, then after."""
    block_ms: float = 0.0
    block_cpu_ms: float = 0.0
    most_clients: int = 0
    leaks: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, as JSON can carry it."""
        return asdict(self)


async def soak(clients: int, seconds: float, *, life_s: float = 20.0) -> Soaked:
    """Keep `clients` clients alive for `seconds`, each for `life_s` on the average."""
    soaked = Soaked(clients, seconds)
    settings = {
        "write_timeout_s": WRITE_TIMEOUT_S,
        "ping_interval_s": 5.0,
        "pong_timeout_s": 20.0,
        "outbox_max_bytes": 64 * 1024,
    }
    server = ServerProcess(
        {"settings": settings, "descriptors": clients * 2 + 1000, "interval_s": 3600}
    )
    try:
        await server.start()
        before = await server.ask("/facts?settle")
        await server.ask("/facts?reset")
        soaked.rss_kib.append(before["rss_kib"])
        population = Population(server, clients, life_s)
        samples = asyncio.create_task(_sample(server, soaked))
        await population.run(seconds)
        samples.cancel()
        await asyncio.gather(samples, return_exceptions=True)
        with suppress(TimeoutError):
            await server.until(
                lambda facts: (
                    facts["stats"]["clients"] == 0 and facts["descriptors"] <= before["descriptors"]
                ),
                "all to be gone",
            )
        after = await ask_when_ended(server, before)
        _conclude(soaked, population.ledger, before, after)
        return soaked
    finally:
        server.end()


async def _sample(server: ServerProcess, soaked: Soaked) -> None:
    moments: list[tuple[float, int]] = []
    began = time.monotonic()
    while True:
        await asyncio.sleep(max(SAMPLE_S, soaked.seconds / 100))
        facts = await server.ask("/facts")
        soaked.rss_kib.append(facts["rss_kib"])
        soaked.most_clients = max(soaked.most_clients, facts["stats"]["clients"])
        moments.append((time.monotonic() - began, facts["rss_kib"]))
        late = moments[len(moments) // 2 :]
        soaked.slope_kib_per_minute = round(60 * slope(late), 1)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the line that fits best; 0 for fewer than two points."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / max(1, count)
    mean_y = sum(y for _, y in points) / max(1, count)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def _conclude(
    soaked: Soaked, ledger: Ledger, before: dict[str, Any], after: dict[str, Any]
) -> None:
    stats = after["stats"]
    soaked.lives, soaked.ends = ledger.lives, dict(ledger.ends)
    soaked.received, soaked.missing = ledger.received, ledger.missing
    soaked.published = after["published"] - before["published"]
    soaked.owed = after["owed"] - before["owed"]
    soaked.handed_on, soaked.dropped = stats["messages_out"], stats["dropped"]
    soaked.rss_kib.append(after["rss_kib"])
    soaked.block_ms, soaked.block_cpu_ms = after["block_ms"], after["block_cpu_ms"]
    soaked.leaks = leaks(before, after)
    names = ("slow_disconnects", "dead", "protocol_errors", "handler_errors", "loop_stalls")
    soaked.counters = {name: stats[name] for name in names}
    soaked.undelivered = stats["undelivered"]
    accounts = soaked.owed - soaked.handed_on - soaked.dropped - soaked.undelivered
    for holds, what in (
        (not soaked.leaks, f"left behind: {soaked.leaks}"),
        (not ledger.troubles, f"troubles: {ledger.troubles.most_common(3)}"),
        (ledger.missing == 0, f"{ledger.missing} messages did not reach who should have them"),
        (soaked.published > 0, "nothing was published"),
        (accounts == 0, f"{accounts} of {soaked.owed} deliveries are not accounted for"),
        (stats["handler_errors"] == 0, "a handler failed"),
    ):
        if not holds:
            soaked.faults.append(what)
