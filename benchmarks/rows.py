"""What is measured: the rows of the tables, the growth series, the goals.

Only data and the small functions that read a value out of a run. Not here: running (`run.py`),
writing (`report.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .servers import EVERYBODY, IN_FASTAPI, JOINED

Run = dict[str, Any]


@dataclass(frozen=True)
class Metric:
    """A value of a run: how to read it, and how to write it."""

    title: str
    of: Callable[[Run], float]
    unit: str = ""
    scale: float = 1.0
    digits: int = 2
    is_less_better: bool = False

    def shown(self, value: float | None) -> str:
        """Write a value as the tables have it."""
        return "–" if value is None else f"{value / self.scale:,.{self.digits}f}"

    def ratio(self, ours: float, theirs: float) -> float | None:
        """Return how many times better ours is; None where there is nothing to compare."""
        above, below = (theirs, ours) if self.is_less_better else (ours, theirs)
        return above / below if above > 0 and below > 0 else None


DELIVERIES = Metric(
    "deliveries per CPU-second", lambda run: run["delivered"] / run["cpu_s"], "M", 1e6, 3
)
HANDSHAKES = Metric(
    "handshakes per CPU-second", lambda run: run["clients"] / run["connect_cpu_s"], "k", 1e3, 2
)
CONNECTIONS = Metric(
    "connections per CPU-second", lambda run: run["handshakes"] / run["cpu_s"], "k", 1e3, 2
)
MEMORY = Metric(
    "memory of an idle client",
    lambda run: (run["memory_begin_kib"] - run["memory_before_kib"]) / run["clients"],
    "KiB",
    digits=1,
    is_less_better=True,
)
P99 = Metric(
    "p99 of the latency",
    lambda run: run["latency_us"]["p99"],
    "ms",
    1e3,
    2,
    is_less_better=True,
)
CORE = Metric(
    "share of a core",
    lambda run: run["server_share"],
    "%",
    0.01,
    2,
    is_less_better=True,
)


@dataclass(frozen=True)
class Row:
    """One kind of work.

    `load` is what the generator is told; `variants` are runs of the same server that belong
    together; `seconds` is (warm-up, measured), `quick` the same for a quick run, which may have
    fewer clients; `shows_latency` asks for a table of latencies and losses; `runs_of` names the row
    whose runs are read for this one too; `shares_server` lets rows of the same peers have one
    server between them.
    """

    key: str
    title: str
    metric: Metric
    load: tuple[str, ...]
    peers: tuple[str, ...] = EVERYBODY
    seconds: tuple[float, float] = (1.0, 3.0)
    quick: tuple[float, float] = (0.2, 0.6)
    quick_clients: int | None = None
    variants: tuple[tuple[str, tuple[str, ...]], ...] = (("", ()),)
    shows_latency: bool = False
    note: str = ""
    runs_of: str | None = None
    shares_server: bool = False


SHORT = (0.3, 1.0)
BOUNDED = ("--drain", "4")
"""How long a server that has fallen behind may take for what is in flight, in seconds."""
STRONG = ("kernel", "gorilla", "gorilla-prepared", "picows", "ws", "wse-server")
READERS = ("gorilla", "picows", "ws", "websockets", "aiohttp", "fastapi", "wse-server")

ROWS = (
    Row(
        "one",
        "One room, 1,000 clients, one message at a time",
        DELIVERIES,
        ("--mode", "fanout", "--clients", "1000", *BOUNDED),
        seconds=SHORT,
        shares_server=True,
        note="The next message is sent when all clients have the last one.",
    ),
    Row(
        "burst64",
        "One room, 1,000 clients, bursts of 64",
        DELIVERIES,
        ("--mode", "fanout", "--clients", "1000", "--window", "64", *BOUNDED),
        peers=(*EVERYBODY, JOINED),
        seconds=SHORT,
        shares_server=True,
        note="64 messages leave the publisher in one write; the next 64 when all clients have them.",
    ),
    Row(
        "rooms",
        "100 rooms of 10, everybody publishes",
        DELIVERIES,
        ("--mode", "rooms", "--clients", "1000", "--room-size", "10", *BOUNDED),
        peers=(*EVERYBODY, JOINED),
        seconds=SHORT,
        shares_server=True,
        note="Each client sends its next message when its last one has come back to it.",
    ),
    Row(
        "echo",
        "Echo, 100 clients",
        DELIVERIES,
        ("--mode", "echo", "--clients", "100", *BOUNDED),
        seconds=SHORT,
        shares_server=True,
        note="Each client has one message in flight.",
    ),
    Row(
        "memory",
        "Memory of an idle client: growth of RSS over 10,000 clients in one room",
        MEMORY,
        ("--mode", "idle", "--clients", "10000"),
        (*EVERYBODY, IN_FASTAPI),
        seconds=(0, 0.5),
        quick=(0, 0.2),
        quick_clients=1000,
        note="The server's memory only; the kernel takes about 4 KiB more for each socket.",
    ),
    Row(
        "handshakes",
        "Handshakes: connect and upgrade",
        HANDSHAKES,
        ("--mode", "idle", "--clients", "10000"),
        (*EVERYBODY, IN_FASTAPI),
        note="What the 10,000 connections of the row before cost the server, 64 at a time.",
        runs_of="memory",
    ),
    Row(
        "lives",
        "Connections: connect, upgrade, close",
        CONNECTIONS,
        ("--mode", "handshakes", "--clients", "64"),
        seconds=SHORT,
        shares_server=True,
        note="64 clients at a time; a connection counts when the closing handshake is done too.",
    ),
    Row(
        "paced_1m",
        "1,000 messages a second to 1,000 clients, by the clock",
        P99,
        ("--mode", "fanout", "--clients", "1000", "--rate", "1000", "--drain", "3"),
        (JOINED, *STRONG),
        shows_latency=True,
        note="A million deliveries a second. A message is timed from when it was due.",
    ),
    Row(
        "paced_5m",
        "5,000 messages a second to 1,000 clients, by the clock",
        P99,
        ("--mode", "fanout", "--clients", "1000", "--rate", "5000", "--drain", "3"),
        (JOINED, "gorilla", "wse-server"),
        shows_latency=True,
        note="Five million deliveries a second.",
    ),
    Row(
        "burst512",
        "Bursts of 512 messages in one turn to 1,000 clients",
        DELIVERIES,
        ("--mode", "burst", "--clients", "1000"),
        ("kernel", *READERS),
        shows_latency=True,
        note="Who disconnects a client that reads, or loses a message, is no hub for bursts.",
    ),
    Row(
        "stall",
        "1 % of 1,000 clients stop reading; the others",
        P99,
        ("--mode", "fanout", "--clients", "1000", "--rate", "50", "--size", "4096"),
        READERS,
        seconds=(1.0, 6.0),
        quick=(0.2, 1.0),
        variants=(("calm", ()), ("stalled", ("--stall", "1"))),
        shows_latency=True,
        note="50 messages of 4 KiB a second, first without and then with the clients that stall.",
    ),
    Row(
        "idle_cpu",
        "15,000 idle clients: share of a core",
        CORE,
        ("--mode", "idle", "--clients", "15000"),
        (),
        seconds=(0, 60.0),
        quick=(0, 2.0),
        quick_clients=2000,
        note="Over a minute, so that a heartbeat of every client (54 s) is in it.",
    ),
)


@dataclass(frozen=True)
class Series:
    """How a value grows with one number.

    `points` pairs that number with what it tells the generator; a quick run has the first few.
    """

    key: str
    title: str
    x_title: str
    metric: Metric
    points: tuple[tuple[int, tuple[str, ...]], ...]
    peers: tuple[str, ...]
    quick_points: int
    note: str = ""


def by_clients(count: int) -> tuple[int, tuple[str, ...]]:
    return count, ("--mode", "fanout", "--clients", str(count))


def by_rooms(count: int) -> tuple[int, tuple[str, ...]]:
    size = str(10_000 // count)
    return count, (
        "--mode",
        "rooms",
        "--clients",
        "10000",
        "--room-size",
        size,
        "--publishers",
        "1",
    )


def by_size(count: int) -> tuple[int, tuple[str, ...]]:
    return count, ("--mode", "fanout", "--clients", "200", "--size", str(count))


def by_churn(count: int) -> tuple[int, tuple[str, ...]]:
    return count, ("--mode", "echo", "--clients", str(count), "--path", "/ws?churn=1")


SERIES = (
    Series(
        "by_clients",
        "One room, one message at a time, by clients",
        "clients",
        DELIVERIES,
        tuple(by_clients(count) for count in (100, 300, 1000, 3000, 10_000, 15_000)),
        ("kernel", "gorilla"),
        3,
    ),
    Series(
        "by_rooms",
        "10,000 clients, one publisher in each room, by rooms",
        "rooms",
        DELIVERIES,
        tuple(by_rooms(count) for count in (1, 10, 100, 1000, 10_000)),
        ("kernel", "gorilla"),
        1,
        note="With 10,000 rooms a room is one client, and the work is an echo.",
    ),
    Series(
        "by_size",
        "200 clients, one message at a time, by the size of a message",
        "bytes of a message",
        DELIVERIES,
        tuple(by_size(count) for count in (16, 128, 1024, 8192, 65_536)),
        ("kernel",),
        4,
    ),
    Series(
        "by_churn",
        "Rooms joined and left, by clients",
        "clients",
        Metric(
            "joins and leaves per CPU-second",
            lambda run: run["delivered"] / run["cpu_s"],
            "k",
            1e3,
            1,
        ),
        tuple(by_churn(count) for count in (100, 1000, 10_000)),
        (),
        2,
        note="Each message makes its sender join a room or leave it, and is answered.",
    ),
)

ERRORS = ("lost", "duplicated", "reordered", "damaged", "stray", "foreign", "disconnected")
"""What the generator counts that must not be."""

OTHER_PYTHON = ("websockets", "aiohttp", "fastapi", "wse-server")
SLOW_PYTHON = ("python-socketio", "channels")
FOUR = ("one", "burst64", "rooms", "echo")


@dataclass(frozen=True)
class Goal:
    """A ratio to a peer that must hold: ours at least `least` times theirs."""

    row: str
    peer: str
    least: float


GOALS = (
    Goal("one", "kernel", 0.75),
    Goal("one", "gorilla", 1.4),
    Goal("one", "fastapi", 2),
    Goal("burst64", "kernel", 25),
    Goal("burst64", "gorilla", 6),
    Goal("rooms", "kernel", 2.5),
    Goal("rooms", "gorilla", 4.5),
    Goal("echo", "kernel", 0.55),
    Goal("echo", "gorilla", 0.75),
    Goal("echo", "fastapi", 3),
    Goal("handshakes", "fastapi", 2.5),
    *(
        Goal(row, peer, 1.4)
        for peer in OTHER_PYTHON
        for row in FOUR
        if (row, peer)
        not in {
            ("one", "fastapi"),
            ("echo", "fastapi"),
        }
    ),
    *(Goal(row, peer, 10) for peer in SLOW_PYTHON for row in FOUR),
)

MOST_MEMORY_KIB = 5.0
MOST_P99_MS = 10.0
MOST_STALL_RATIO = 1.2
MOST_IDLE_SHARE = 0.01
MOST_GROWTH_SPREAD = 0.15
