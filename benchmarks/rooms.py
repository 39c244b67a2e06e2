"""The rows of rooms that remember: what is measured, what is asked of it, and how a round of it is run.

Each row is a hub beside itself, without what the row is about: publishing with a history and without, a
room of two dialects and rooms of one, the commit before there were such rooms and this one. The two sides
run by turns, and what is compared was measured in the same round. A row that finds that anything was lost,
came twice or is wrong raises `RowFailed`: then there are no figures.

Not here: the work itself (`room_work.py`, `recovery.py`), tables (`room_report.py`). Called by `run.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import install, servers
from .measure import GENERATOR_TIMEOUT_S, Cores, ServerFailed, measure_on, pinned, serving
from .rows import ERRORS, FOUR, ROWS, Run
from .servers import OURS, ROOT, ServerSpec

Found = dict[str, float]

BEFORE = "79174c3"
"""The last commit before rooms had rules."""

KEEPING = replace(
    OURS,
    name="hubbub-keeping",
    title="Hubbub, rooms with a history",
    command=(
        "env",
        'HUBBUB_ROOM_RULES=[{{"pattern": "*", "history": 100}}]',
        *OURS.command,
    ),
)
BARE = replace(OURS, name="hubbub-bare", title="Hubbub, rooms without")
OLD = replace(
    OURS,
    name="hubbub-before",
    title="Hubbub before rooms that remember",
    command=("env", "PYTHONPATH={build}/before/src", *OURS.command),
)
REMEMBERING = ServerSpec(
    "remembering",
    "Hubbub for clients of the Centrifuge protocol",
    "python",
    (
        "{python}",
        "-m",
        "hubbub",
        "serve",
        "--port",
        "{port}",
        "--log-level",
        "warning",
        "remembering_server",
    ),
)

ONE_ROOM = ("--mode", "fanout", "--clients", "1000", "--path", "/ws?room=1", "--drain", "4")
HOT = {row.key: row.load for row in ROWS if row.key in FOUR}
"""The rows of small messages."""

TURNS = 3
"""How often the two servers of a pair have their turn in a round, each; the best of each counts."""


class RowFailed(RuntimeError):
    """A row has found something wrong, or could not be run."""


@dataclass(frozen=True)
class Figure:
    """One value of a row, by its name in a round.

    `least` and `most` are what is asked of it (None: nothing). `is_worst` says that the worst of all
    rounds counts, and not their median.
    """

    name: str
    title: str
    unit: str = ""
    digits: int = 2
    least: float | None = None
    most: float | None = None
    is_worst: bool = False


@dataclass(frozen=True)
class Context:
    """How rounds are run."""

    cores: Cores
    is_quick: bool


@dataclass(frozen=True)
class RoomRow:
    """One row: `measure` runs one round of it; where it returns nothing the row cannot be run here."""

    key: str
    title: str
    note: str
    figures: tuple[Figure, ...]
    measure: Callable[[Context], Found]


# Rounds


def run_module(module: str, words: Sequence[str], core: int | None, python: str) -> Found:
    """Run a module of this package on a core; return the JSON that it prints."""
    done = subprocess.run(
        [python, "-m", f"{__package__}.{module}", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=GENERATOR_TIMEOUT_S,
        preexec_fn=pinned(core),
    )
    if done.returncode:
        raise RowFailed(f"{module}: {done.stderr.strip()[-400:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    if "error" in found:
        raise RowFailed(f"{module}: {found['error']}")
    return found


def in_memory(row: str) -> Callable[[Context], Found]:
    """Return what runs a row of `room_work`."""

    def measure(context: Context) -> Found:
        words = [row, *(["--quick"] if context.is_quick else [])]
        return run_module("room_work", words, context.cores.server, str(servers.PYTHON))

    return measure


def recover(context: Context) -> Found:
    """Cut all clients, and let them come back."""
    clients = "200" if context.is_quick else "1000"
    with serving(REMEMBERING, context.cores.server) as server:
        words = ["--port", str(server.port), "--clients", clients]
        found = run_module("recovery", words, context.cores.generator, sys.executable)
    for name in ("lost", "twice", "disordered", "refused"):
        if found[name]:
            raise RowFailed(f"recovery: {found[name]:.0f} {name}")
    return found


def by_turns(
    context: Context, specs: Sequence[ServerSpec], loads: Mapping[str, tuple[str, ...]]
) -> Found:
    """Run loads on two servers; return for each load the speed of the second, as a part of the first's.

    Both are there all the time, and the one that is not measured idles. Which of them comes first changes
    from turn to turn; the best turn of each counts, since others on the machine only take.
    """
    first, second = specs
    speeds: dict[tuple[str, str], float] = {}
    with (
        serving(first, context.cores.server) as one,
        serving(second, context.cores.server) as other,
    ):
        for key, load in loads.items():
            pair = [(first, one), (second, other)]
            for turn in range(TURNS):
                for spec, server in pair if turn % 2 == 0 else pair[::-1]:
                    run = measure_on(server, spec, timed(context, load), context.cores)
                    best = speeds.get((spec.name, key), 0.0)
                    speeds[spec.name, key] = max(best, speed_of(spec, run))
    return {key: speeds[second.name, key] / speeds[first.name, key] for key in loads}


def timed(context: Context, load: Sequence[str]) -> list[str]:
    """Return what the generator is told: with fewer clients and for less time if it is to be quick."""
    words = list(load)
    if context.is_quick:
        words[words.index("--clients") + 1] = "100"
    return [*words, "--warm", "0.2", "--seconds", "0.3" if context.is_quick else "0.8"]


def speed_of(spec: ServerSpec, run: Run) -> float:
    """Return the deliveries per CPU-second of a run in which nothing went wrong."""
    if "error" in run:
        raise RowFailed(f"{spec.title}: {run['error']}")
    wrong = {name: run[name] for name in ERRORS if run[name]}
    if wrong or not run["delivered"]:
        raise RowFailed(f"{spec.title}: {wrong or 'nothing was delivered'}")
    return float(run["delivered"] / run["cpu_s"])


def compare_with_before(context: Context) -> Found:
    """Compare this commit with the one before there were rules for rooms."""
    return by_turns(context, (OLD, BARE), HOT) if bring_before() else {}


def bring_before() -> bool:
    """Unpack the sources of `BEFORE`; tell whether they are there."""
    folder = servers.BUILD / "before"
    if not (folder / BEFORE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        archive = folder / "src.tar"
        try:
            install.run(["git", "-C", ROOT, "archive", "-o", archive, BEFORE, "src"])
            install.run(["tar", "-xf", archive, "-C", folder])
        except RuntimeError:
            return False
        (folder / BEFORE).touch()
    return True


def keep_and_not(context: Context) -> Found:
    """Publish with a history and without, over sockets and in memory."""
    loads = {"sockets_one": ONE_ROOM, "sockets_burst64": (*ONE_ROOM, "--window", "64")}
    return by_turns(context, (BARE, KEEPING), loads) | in_memory("history")(context)


# The rows

LEAST_WITH_HISTORY = 0.6
LEAST_UNCHANGED = 0.97
MOST_HOLD_MS = 50.0
MOST_JOIN_GROWTH = 1.25
MOST_ENTRY_BYTES = 200.0
MOST_MIXED = 1.15
NONE = 0.0


def asked_of_history(name: str, title: str) -> Figure:
    return Figure(name, title, "times", least=LEAST_WITH_HISTORY)


def worst(name: str, title: str, unit: str = "", most: float | None = None) -> Figure:
    return Figure(name, title, unit, 1 if unit else 0, most=most, is_worst=True)


ROOM_ROWS = (
    RoomRow(
        "unchanged",
        "Without rules: the rows of small messages, beside the commit before",
        f"Deliveries per CPU-second of this commit, as a part of what `{BEFORE}` reaches, the last "
        "commit before rooms had rules. Over sockets; a server of each runs, and they are measured by turns.",
        tuple(
            Figure(key, title, "times", 3, least=LEAST_UNCHANGED)
            for key, title in (
                ("one", "one room of 1,000, one message at a time"),
                ("burst64", "one room of 1,000, bursts of 64"),
                ("rooms", "100 rooms of 10"),
                ("echo", "echo, 100 clients"),
            )
        ),
        compare_with_before,
    ),
    RoomRow(
        "history",
        "Publishing to a room with a history, beside one without",
        "The speed with `RoomRules(history=100)`, as a part of the speed without. Over sockets it is "
        "deliveries per CPU-second, all included. In memory it is one publication in a turn of the event "
        "loop, without any system call; there keeping a message is the same work however many get "
        "it, so the fewer they are, the more it is beside the rest. Where nobody is in the room the rest is "
        "finding out that nobody is.",
        (
            asked_of_history("sockets_one", "sockets, 1,000 clients, one message at a time"),
            asked_of_history("sockets_burst64", "sockets, 1,000 clients, bursts of 64"),
            asked_of_history("speed_100", "in memory, 100 clients"),
            asked_of_history("speed_10", "in memory, 10 clients"),
            asked_of_history("speed_1", "in memory, 1 client"),
            asked_of_history("speed_0", "in memory, nobody in the room"),
            Figure("bare_1_us", "a publication to 1 client, without", "µs"),
            Figure("kept_1_us", "a publication to 1 client, with", "µs"),
        ),
        keep_and_not,
    ),
    RoomRow(
        "recovery",
        "1,000 clients are cut off at once and come back at once",
        "Over sockets, by the Centrifuge protocol. All connections break, 100 messages are published, and "
        "all clients connect again in the same moment, with their positions, while a message more comes every "
        "20 ms. The time is from the first connection to when the last client has all that it missed, "
        "handshakes included. Each offset is checked at each client. A hold is a time in which the event loop "
        "of the server, `hubbub serve`, gave no turn to a timer of 1 ms; the longest of all rounds is shown. In CPU time it is what "
        "the server itself did in it; where that is less, the machine gave the core to somebody else.",
        (
            Figure("whole_s", "time until the last client is whole", "s", 3),
            worst("lost", "lost", most=NONE),
            worst("twice", "twice", most=NONE),
            worst("disordered", "clients with anything out of order", most=NONE),
            worst("hold_ms", "longest hold of the event loop", "ms", most=MOST_HOLD_MS),
            worst("hold_cpu_ms", "the same, in CPU time of its thread", "ms", most=MOST_HOLD_MS),
            worst("collector_ms", "longest run of Python's garbage collector", "ms"),
        ),
        recover,
    ),
    RoomRow(
        "presence",
        "10,000 clients join a room whose members are known",
        "In memory, one join in a turn of the event loop, all that follows from it included. The last "
        "thousand beside the first. With joins told, each of the first 500 is told to all who are there; "
        "then the room is too large for that (`join_leave_max_members`), and its members are told so.",
        (
            Figure(
                "quiet_growth",
                "presence: the last join to the first",
                "times",
                most=MOST_JOIN_GROWTH,
            ),
            Figure(
                "told_growth",
                "joins told too: the last to the first",
                "times",
                most=MOST_JOIN_GROWTH,
            ),
            Figure("quiet_first_us", "presence: a join of the first thousand", "µs", 1),
            Figure("quiet_middle_us", "presence: of the sixth", "µs", 1),
            Figure("quiet_last_us", "presence: of the last", "µs", 1),
            Figure("told_first_us", "joins told too: of the first", "µs", 1),
            Figure("told_last_us", "joins told too: of the last", "µs", 1),
        ),
        in_memory("presence"),
    ),
    RoomRow(
        "entry",
        "Memory of a message that is kept, beside the message",
        "What Python has allocated for each of 20,000 messages in a room's history, less the bytes of the "
        "message. `history_max_bytes` counts 200 for each.",
        tuple(
            Figure(
                f"beside_{size}_bytes",
                f"a message of {size:,} bytes",
                "bytes",
                1,
                most=MOST_ENTRY_BYTES,
            )
            for size in (16, 64, 256, 1024, 4096)
        ),
        in_memory("entry"),
    ),
    RoomRow(
        "mixed",
        "A room of 500 plain and 500 SDK clients, beside rooms of one dialect",
        "In memory, in a room with a history: what one turn of the event loop costs that has so many "
        "messages for the room, as a part of the same in a room of 1,000 clients of the dearer dialect.",
        (
            *(
                Figure(
                    f"ratio_{burst}",
                    f"{burst} in a turn: mixed to the dearer",
                    "times",
                    most=MOST_MIXED,
                )
                for burst in (1, 16, 64)
            ),
            *(
                Figure(f"{name}_16_us", f"16 in a turn: {title}", "µs", 0)
                for name, title in (
                    ("plain", "1,000 plain"),
                    ("sdk", "1,000 SDK"),
                    ("mixed", "500 of each"),
                )
            ),
        ),
        in_memory("mixed"),
    ),
)


def run_rows(rows: Sequence[RoomRow], repeats: int, *, is_quick: bool) -> dict[str, list[Found]]:
    """Run all rounds of rows. Raises `RowFailed`."""
    found: dict[str, list[Found]] = {row.key: [] for row in rows}
    context = Context(Cores.choose(), is_quick)
    for number in range(repeats):
        for row in rows:
            print(f"{row.key}: round {number + 1} of {repeats}", file=sys.stderr, flush=True)
            try:
                values = row.measure(context)
            except (ServerFailed, OSError, subprocess.TimeoutExpired) as error:
                raise RowFailed(f"{row.key}: {error}") from error
            found[row.key] += [values] if values else []
            shown = {figure.name: values.get(figure.name) for figure in row.figures}
            print(f"    {shown}", file=sys.stderr, flush=True)
    return found


def load_average() -> float:
    """Return how many processes wanted a core over the last minute."""
    return round(os.getloadavg()[0], 1)
