"""The messages between `hubbub bench` and its worker processes: JSON lines on two pipes.

What must not live here: what anybody does with them. `run` sends a command to each `worker`, which
answers it with one event; between them it reports its progress. Headers and tokens go this way,
so that no list of processes shows them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from .accounting import Counters, Expect


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A load: who connects where, who sends how often and how much, and for how long.

    `url` may contain `{room}` and `{client}`, which are replaced by numbers from 0. `publishers` None
    means one for each room, or all clients where each gets only its own messages. `rate` is in
    messages per second of all publishers together; None: each publisher sends its next message when
    its last has come back. `size` is in bytes, `seconds` and `warm_s` in seconds (0: no warm-up).
    """

    url: str
    clients: int = 100
    publishers: int | None = None
    rate: float | None = None
    size: int = 128
    rooms: int = 1
    seconds: float = 10.0
    warm_s: float = 2.0
    processes: int = 1
    headers: dict[str, str] = {}
    origin: str | None = None
    subprotocols: tuple[str, ...] = ()
    expect: Expect = "room"
    connecting_at_once: int = 64
    handshake_timeout_s: float = 10.0
    patience_s: float = 3.0


class Connect(msgspec.Struct, tag=True, frozen=True):
    """Connect this process's share of the clients. Answer: `Connected`."""

    plan: Plan
    index: int
    run: int
    epoch_ns: int


class Arm(msgspec.Struct, tag=True, frozen=True):
    """Begin a phase with counters at zero. Answer: `Armed`."""

    phase: int


class Run(msgspec.Struct, tag=True, frozen=True):
    """Let the publishers send from `start_us` to `end_us`. Answer: `RunDone`."""

    publishers: tuple[int, ...]
    start_us: int
    end_us: int


class Settle(msgspec.Struct, tag=True, frozen=True):
    """Wait for what all processes have sent, while more of it comes. Answer: `Settled`."""

    sent: dict[int, int]
    patience_s: float


class Leave(msgspec.Struct, tag=True, frozen=True):
    """Close all sockets and end. Answer: `Left`."""


class Connected(msgspec.Struct, tag=True, frozen=True):
    """Which clients are connected, who was refused with which status, what else went wrong."""

    clients: list[int]
    refused: dict[int, int]
    failed: dict[str, int]
    seconds: float


class Armed(msgspec.Struct, tag=True, frozen=True):
    """The phase has begun."""


class RunDone(msgspec.Struct, tag=True, frozen=True):
    """How much each publisher sent, what had come by then, and what it cost this process."""

    sent: dict[int, int]
    counters: Counters
    wall_s: float
    cpu_s: float


class Settled(msgspec.Struct, tag=True, frozen=True):
    """The phase is over; these are its counters."""

    counters: Counters
    disconnected: dict[int, int]


class Left(msgspec.Struct, tag=True, frozen=True):
    """All sockets are closed."""


class Progress(msgspec.Struct, tag=True, frozen=True):
    """How far this process is: no answer to anything."""

    clients: int
    counters: Counters
    cpu_share: float
    disconnected: dict[int, int]


Command = Connect | Arm | Run | Settle | Leave
Answer = Connected | Armed | RunDone | Settled | Left
Event = Answer | Progress

LINE_BYTES = 16 * 1024**2
"""No line is longer."""

read_command: Callable[[bytes | str], Any] = msgspec.json.Decoder(Command).decode
read_event: Callable[[bytes | str], Any] = msgspec.json.Decoder(Event).decode


def line_of(message: Command | Event) -> bytes:
    """Return a command or an event as a line."""
    return msgspec.json.encode(message) + b"\n"
