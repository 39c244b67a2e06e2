"""The rows of brokers: what is published in one worker and reaches the clients of several.

All workers and the broker's server run on one core, the generator on another: a wall clock then says what
the work costs, whatever else the machine has, and the CPU time of the workers and of the broker's server are
read apart. A run in which a client has missed a message, or has one twice or late, raises `RowFailed`.

Not here: servers (`broker_servers.py`), the clients (`broker_load.py`), work without sockets
(`broker_work.py`), tables (`room_report.py`). Called by `run.py`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress

from . import measure, servers
from .broker_servers import BROKERS, CHANNELS, CONTENDERS, HUBBUB, SOCKETIO, Contender, Fleet, fleet
from .measure import GENERATOR_TIMEOUT_S, answer, pinned
from .rooms import REMEMBERING, Context, Figure, Found, RoomRow, RowFailed, run_module
from .servers import ROOT

WORKERS = (1, 2, 4)
SPREAD = ("--rooms", "16", "--each", "1", "--spread")
"""Rooms with one client at each worker, published to at all workers: the work is nearly all the broker's."""
LARGE = ("--rooms", "1", "--each", "250")
SMALL = ("--rooms", "100", "--each", "3", "--spread")
LEAST_TIMES = 20.0


def run_load(
    context: Context, contender: Contender, running: Fleet, words: Sequence[str], seconds: float
) -> Found:
    """Do a run; return its figures, and what it has cost. Raises `RowFailed`."""
    dialect = "socketio" if contender is SOCKETIO else "plain"
    ports = ",".join(map(str, running.ports))
    command = [
        *(str(servers.PYTHON), "-m", f"{__package__}.broker_load", "--ports", ports),
        *("--path", contender.path, "--dialect", dialect, "--seconds", str(seconds), *words),
        *(() if contender is HUBBUB else ("--any-order",)),
    ]
    generator = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=pinned(context.cores.generator),
    )
    try:
        return watch(running, generator)
    finally:
        generator.kill()
        with suppress(OSError):
            generator.communicate(timeout=GENERATOR_TIMEOUT_S)


def watch(running: Fleet, generator: subprocess.Popen[str]) -> Found:
    """Read all clocks at "begin" and "end"; return what a run has cost with its result."""
    assert generator.stdout is not None
    workers: list[float] = []
    broker = 0.0
    for line in generator.stdout:
        event = json.loads(line)
        if event["event"] == "error":
            raise RowFailed(f"{event['message']}; the logs end with: {running.last_log_line()}")
        if event["event"] == "result":
            return costs(event, workers, broker)
        now, broker = running.workers_cpu_s(), running.broker_cpu_s() - broker
        workers = [b - a for a, b in zip(workers, now, strict=True)] if workers else now
        answer(generator)
    raise RowFailed(f"the generator ended without a result: {running.last_log_line()}")


def costs(result: Found, workers: Sequence[float], broker: float) -> Found:
    """Return the figures of a run: microseconds of CPU time for each publication among them."""
    published, delivered = result["published"], result["delivered"]
    if not published:
        raise RowFailed("nothing was published")
    return {
        "per_s": published / result["wall_s"],
        "per_core_s": published / (sum(workers) + broker),
        "disordered": result["disordered"],
        "deliveries_per_cpu_s": delivered / sum(workers),
        "workers_us": sum(workers) / published * 1e6,
        "publisher_us": workers[0] / published * 1e6,
        "other_us": sum(workers[1:]) / max(1, len(workers) - 1) / published * 1e6,
        "broker_us": broker / published * 1e6,
        "generator_us": result["generator_s"] / delivered * 1e6,
        "p50_ms": result["lag_p50_ms"],
        "p99_ms": result["lag_p99_ms"],
    }


def prefixed(prefix: str, found: Found, names: Sequence[str]) -> Found:
    return {f"{prefix}_{name}": found[name] for name in names}


def seconds_of(context: Context) -> float:
    return 0.6 if context.is_quick else 3.0


# Rounds


THROUGH = ("per_s", "per_core_s", "workers_us", "broker_us", "generator_us")


def through_each(context: Context) -> Found:
    """Publish through each broker with one worker, two and four, one at a time and in bursts."""
    found: Found = {}
    for broker in BROKERS.values():
        for workers in WORKERS:
            if workers > (broker.most_workers or workers):
                continue
            with fleet(HUBBUB, broker, workers, context.cores.server) as running:
                for burst in (1, 64):
                    words = (*SPREAD, "--burst", str(burst))
                    run = run_load(context, HUBBUB, running, words, seconds_of(context))
                    key = f"{broker.name}_{workers}_{burst}"
                    found |= prefixed(key, run, THROUGH)
    return found


LAG_RATES = (100, 400, 1600)
"""Publications a second, all rooms together."""


def lag(context: Context) -> Found:
    """Publish at a rate in one worker, and see how late the clients of another get it."""
    found: Found = {}
    for broker in BROKERS.values():
        if broker.most_workers == 1:
            continue
        with fleet(HUBBUB, broker, 2, context.cores.server) as running:
            for rate in LAG_RATES:
                words = ("--rooms", "16", "--each", "1", "--rate", str(rate / 16))
                run = run_load(context, HUBBUB, running, words, 2 * seconds_of(context))
                found |= prefixed(f"{broker.name}_{rate}", run, ("p50_ms", "p99_ms"))
    return found


COST_POINTS = tuple(
    (workers, each, burst)
    for workers, each in ((1, 1), (2, 1), (4, 1), (2, 100))
    for burst in (1, 64)
)


def cost(context: Context) -> Found:
    """Publish in one worker to the clients of one room, and see what each process has done for it."""
    found: Found = {}
    for workers in (1, 2, 4):
        with fleet(HUBBUB, BROKERS["valkey"], workers, context.cores.server) as running:
            for count, each, burst in COST_POINTS:
                if count == workers:
                    words = ("--rooms", "1", "--each", str(each), "--burst", str(burst))
                    run = run_load(context, HUBBUB, running, words, seconds_of(context))
                    key = f"w{workers}_c{each}_b{burst}"
                    found |= prefixed(key, run, ("publisher_us", "other_us", "broker_us"))
    return found


RIVAL_LOADS = {
    "large_1": (*LARGE, "--burst", "1"),
    "large_64": (*LARGE, "--burst", "64"),
    "small_1": (*SMALL, "--burst", "1"),
    "small_16": (*SMALL, "--burst", "16"),
}


def rivals(context: Context) -> Found:
    """Do the same work with Hubbub, python-socketio and Channels, by turns."""
    found: Found = {}
    workers = 2 if context.is_quick else 4
    for contender in CONTENDERS.values():
        with fleet(contender, BROKERS["valkey"], workers, context.cores.server) as running:
            for key, words in RIVAL_LOADS.items():
                run = run_load(context, contender, running, words, seconds_of(context))
                name = f"{contender.spec.name}_{key}"
                found |= prefixed(name, run, ("deliveries_per_cpu_s", "broker_us", "disordered"))
    for peer in (SOCKETIO, CHANNELS):
        for key in RIVAL_LOADS:
            ours = found[f"{HUBBUB.spec.name}_{key}_deliveries_per_cpu_s"]
            found[f"times_{peer.spec.name}_{key}"] = (
                ours / found[f"{peer.spec.name}_{key}_deliveries_per_cpu_s"]
            )
    return found


STORMS = ((250, 0), (250, 100), (1000, 100))
"""How many clients come back, and how many messages each has missed."""


def storm(context: Context) -> Found:
    """Let clients come back all at once, few and many, with nothing missed and with much."""
    found: Found = {}
    for clients, missed in STORMS:
        with measure.serving(REMEMBERING, context.cores.server) as server:
            words = ["--port", str(server.port), "--clients", str(clients), "--missed", str(missed)]
            run = run_module("recovery", words, context.cores.generator, str(servers.PYTHON))
        for name in ("lost", "twice", "disordered", "refused"):
            if run[name]:
                raise RowFailed(f"storm: {run[name]:.0f} {name}")
        found |= prefixed(f"back_{clients}_{missed}", run, ("cpu_s", "whole_s"))
    return found


def in_one_process(row: str) -> Callable[[Context], Found]:
    """Return what runs a row of `broker_work` on a Valkey server of its own."""

    def measure(context: Context) -> Found:
        with fleet(HUBBUB, BROKERS["valkey"], 0, context.cores.server) as running:
            words = [row, running.url, *(["--quick"] if context.is_quick else [])]
            return run_module("broker_work", words, context.cores.server, str(servers.PYTHON))

    return measure


# The rows

LOAD_TITLES = {
    "large_1": "one room of 1,000, one message at a time",
    "large_64": "one room of 1,000, bursts of 64",
    "small_1": "100 rooms of 12, one message at a time in each",
    "small_16": "100 rooms of 12, bursts of 16 in each",
}
RIVAL_TITLES = {each.spec.name: each.spec.title for each in CONTENDERS.values()}


def through_figures() -> tuple[Figure, ...]:
    return tuple(
        Figure(
            f"{broker.name}_{workers}_{burst}_{name}",
            f"`{broker.name}`, {count}, {what}: {title}",
            unit,
            digits,
        )
        for broker in BROKERS.values()
        for workers, count in zip(WORKERS, ("1 worker", "2 workers", "4 workers"), strict=True)
        if workers <= (broker.most_workers or workers)
        for burst, what in ((1, "one at a time"), (64, "bursts of 64"))
        for name, title, unit, digits in (
            ("per_core_s", "publications in a second of the core", "1/CPU-s", 0),
            ("per_s", "publications in a second by the clock", "1/s", 0),
            ("workers_us", "the workers, for each", "µs", 1),
            ("broker_us", "the broker's server, for each", "µs", 1),
        )
        if not (name == "broker_us" and broker.name == "memory")
    )


def lag_figures() -> tuple[Figure, ...]:
    return tuple(
        Figure(
            f"{broker.name}_{rate}_{name}_ms", f"`{broker.name}`, {rate:,} a second: {name}", "ms"
        )
        for broker in BROKERS.values()
        if broker.most_workers != 1
        for rate in LAG_RATES
        for name in ("p50", "p99")
    )


def cost_figures() -> tuple[Figure, ...]:
    return tuple(
        Figure(
            f"w{workers}_c{each}_b{burst}_{name}",
            f"{workers} workers with {each} each, bursts of {burst}: {title}",
            "µs",
            1,
        )
        for workers, each, burst in COST_POINTS
        for name, title in (
            ("publisher_us", "where it is published"),
            ("other_us", "each other worker"),
            ("broker_us", "the broker's server"),
        )
        if not (workers == 1 and name == "other_us")
    )


def rival_figures() -> tuple[Figure, ...]:
    ratios = [
        Figure(
            f"times_{peer.spec.name}_{key}",
            f"{title}: to {peer.spec.title}",
            "times",
            1,
            least=LEAST_TIMES,
        )
        for key, title in LOAD_TITLES.items()
        for peer in (SOCKETIO, CHANNELS)
    ]
    values = [
        Figure(f"{name}_{key}_{value}", f"{title}: {shown}{what}", unit, digits)
        for key, title in LOAD_TITLES.items()
        for name, shown in RIVAL_TITLES.items()
        for value, what, unit, digits in (
            ("deliveries_per_cpu_s", "", "1/CPU-s", 0),
            ("broker_us", ", the Valkey server for a publication", "µs", 1),
            ("disordered", ", reads with a message that was overtaken", "", 0),
        )
    ]
    return (*ratios, *values)


BROKER_ROWS = (
    RoomRow(
        "through",
        "Publications through each broker, with 1, 2 and 4 workers",
        "16 rooms with one client at each worker, published to at all workers by turns, 128 bytes. Each "
        "room waits until all its clients have a message, or a burst, before the next. All workers and the "
        "broker's server share one core, so more workers are more work here, and not more cores: a publication costs "
        "what it costs where it is published, in the server, and in each worker that has members.",
        through_figures(),
        through_each,
    ),
    RoomRow(
        "lag",
        "Delivery lag between workers",
        "From the moment at which a client of one worker sends a message to that at which a client of "
        "another has read it, with two workers, the server and nothing else on one core. The generator is in it.",
        lag_figures(),
        lag,
    ),
    RoomRow(
        "cost",
        "What a publication costs, by process",
        "One room, published to at one of the workers through Valkey; CPU time for each publication. Numbers of "
        "clients tell a delivery from a publication, numbers of workers what one worker more costs.",
        cost_figures(),
        cost,
    ),
    RoomRow(
        "storm",
        "Clients that come back at once, few and many",
        "As the row of recovery above: all connections break, messages are missed, and all come back in one "
        "moment. CPU time of the server until all are whole, handshakes included.",
        tuple(
            Figure(
                f"back_{clients}_{missed}_{name}",
                f"{clients:,} clients, {missed} missed: {title}",
                "s",
                3,
            )
            for clients, missed in STORMS
            for name, title in (("cpu_s", "CPU time"), ("whole_s", "time by the clock"))
        ),
        storm,
    ),
    RoomRow(
        "interest",
        "10,000 rooms of interest",
        "In one process that joins 10,000 rooms through Valkey: how long until the last of them is wanted, and "
        "what a publication costs then, beside a process that has joined one. The server's own time is named apart.",
        (
            Figure("taken_s", "time until all rooms are wanted", "s", 3),
            Figure("join_us", "of the process, for each room", "µs", 1),
            Figure("few_us", "a publication, 1 room wanted", "µs", 1),
            Figure("many_us", "a publication, 10,000 rooms wanted", "µs", 1),
            Figure("growth", "the last to the one before", "times", most=1.25),
            Figure("few_broker_us", "the server for a publication, 1 room wanted", "µs", 1),
            Figure("many_broker_us", "the server for a publication, 10,000 rooms wanted", "µs", 1),
        ),
        in_one_process("interest"),
    ),
    RoomRow(
        "packed",
        "Packed and single publications",
        "What one turn of the event loop publishes to one room leaves as one message. Here 64 publications "
        "in one turn, beside 64 turns with one each, to one client in memory.",
        (
            Figure("single_us", "one in a turn", "µs", 1),
            Figure("packed_us", "64 in a turn, each", "µs", 1),
            Figure("times", "the first to the second", "times", 1),
            Figure("single_broker_us", "one in a turn, the server", "µs", 1),
            Figure("packed_broker_us", "64 in a turn, the server, each", "µs", 1),
        ),
        in_one_process("packed"),
    ),
    RoomRow(
        "rivals",
        "The same work with python-socketio and with Channels",
        "Four workers (in a quick run two, and half of the clients) and a Valkey server: Hubbub, python-socketio with its Redis manager, Channels with "
        "channels_redis. The same rooms, clients, messages and generator; deliveries per CPU-second of all workers "
        "together. The Valkey server's own time is named apart.",
        rival_figures(),
        rivals,
    ),
)
