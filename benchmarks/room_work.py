"""The rows of rooms that remember which need no sockets: what the hub's own code costs, in one process.

    python -m benchmarks.room_work mixed

prints what one round measured, as JSON. It needs an environment with `hubbub` in it. Clients are those of
`hubbub.testing`: all of the hub is at work but the system calls, so that what a room adds is not hidden
behind them. Two kinds of room are measured by turns, many times, and the best of each counts; each run
ends by checking what its clients were sent. Not here: targets, tables (`rooms.py`). Called by `rooms.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Mapping, Sequence

from hubbub import Hub, RoomRules
from hubbub.hub.core import core_of
from hubbub.testing import MemoryClient, connect, settle

TEXT = json.dumps({"type": "position", "id": "0123456789ab", "x": 12.25, "y": -7.5, "at": 1234567})
"""What is published: some 80 bytes."""
SIZES = (16, 64, 256, 1024, 4096)
AUDIENCES = (0, 1, 10, 100)
BURSTS = (1, 16, 64)

Found = dict[str, float]


class Wrong(AssertionError):
    """What the clients were sent is not what was published."""


class Rounds:
    """How long a measurement takes: `repeats` of each kind of room, of `turns` turns with a publication each."""

    def __init__(self, *, is_quick: bool) -> None:
        self.repeats = 5 if is_quick else 30
        self.turns = 50 if is_quick else 200
        self.clients = 100 if is_quick else 1000
        self.joins = 1000 if is_quick else 10_000
        self.entries = 2000 if is_quick else 20_000


async def best_of(
    hub: Hub, rooms: Sequence[str], rounds: Rounds, turns: int, burst: int
) -> dict[str, float]:
    """Return for each room the CPU time of a turn that has `burst` publications for it, in seconds.

    The fan-out is called as the event loop would call it at the end of the turn.
    """
    flush = core_of(hub).fanout.flush
    best = dict.fromkeys(rooms, float("inf"))
    for _ in range(rounds.repeats):
        for name in rooms:
            broadcast = hub.room(name).broadcast
            began = time.process_time()
            for _ in range(turns):
                for _ in range(burst):
                    broadcast(TEXT)
                flush()
            best[name] = min(best[name], (time.process_time() - began) / turns)
            forget(hub)
            await asyncio.sleep(0)  # the calls that the turns had scheduled
    return best


def forget(hub: Hub) -> None:
    """Let go of all that clients in memory were sent."""
    for session in core_of(hub).registry.sessions.values():
        transport = session.transport
        transport.writes.clear()  # type: ignore[attr-defined]
        transport.wire_writes.clear()  # type: ignore[attr-defined]


def check(is_right: bool, what: str) -> None:
    """Raise `Wrong` unless something holds."""
    if not is_right:
        raise Wrong(what)


async def check_delivery(hub: Hub, rooms: Mapping[str, Sequence[MemoryClient]]) -> None:
    """Publish three messages to each room, and see that its clients have them, once and in order."""
    for name, clients in rooms.items():
        forget(hub)
        texts = [json.dumps({"n": number}) for number in range(3)]
        for text in texts:
            await hub.publish(name, text)
        await settle(hub)
        for client in clients:
            check(said_in(client) == texts, f"a client of {name} has {client.received!r:.100}")
        if not name.startswith("bare"):
            newest = await hub.history(name, limit=3, reverse=True)
            kept = [each.data.decode() for each in newest.publications]
            check(kept == texts[::-1], f"the history of {name} has {kept!r:.100}")


def said_in(client: MemoryClient) -> list[str]:
    """Return the messages that a client was sent, whatever its dialect wraps them in."""
    found: list[str] = []
    for message in client.received:
        for line in str(message).splitlines():
            said = json.loads(line)
            found.append(json.dumps(said["push"]["pub"]["data"]) if "push" in said else line)
    return found


async def history(rounds: Rounds) -> Found:
    """Publish to rooms with a history and without."""
    hub = Hub(room_rules=[RoomRules("kept:*", history=100)])
    await hub.start()
    found: Found = {}
    for audience in AUDIENCES:
        rooms = {
            f"{kind}:{audience}": [connect(hub) for _ in range(audience)]
            for kind in ("bare", "kept")
        }
        for name, clients in rooms.items():
            for client in clients:
                client.client.join(name)
        bare, kept = (await best_of(hub, list(rooms), rounds, rounds.turns, 1)).values()
        found |= {f"bare_{audience}_us": bare * 1e6, f"kept_{audience}_us": kept * 1e6}
        found[f"speed_{audience}"] = bare / kept
        await check_delivery(hub, rooms)
    await hub.stop()
    return found


async def mixed(rounds: Rounds) -> Found:
    """Publish to a room of plain clients, to one of SDK clients, and to one of half each."""
    hub = Hub(room_rules=[RoomRules("room:*", history=100)])
    await hub.start()
    count = rounds.clients
    plain = [connect(hub) for _ in range(count)]
    sdk = [connect(hub, dialect="centrifuge") for _ in range(count)]
    for client in sdk:
        client.send('{"id":1,"connect":{}}')
    await settle(hub)
    rooms = {
        "room:plain": plain,
        "room:sdk": sdk,
        "room:mixed": [*plain[: count // 2], *sdk[: count // 2]],
    }
    for name, clients in rooms.items():
        for client in clients:
            client.client.join(name)
    await settle(hub)
    found: Found = {}
    for burst in BURSTS:
        costs = await best_of(hub, list(rooms), rounds, 5, burst)
        for name, cost in costs.items():
            found[f"{name[5:]}_{burst}_us"] = cost * 1e6
        dearer = max(costs["room:plain"], costs["room:sdk"])
        found[f"ratio_{burst}"] = costs["room:mixed"] / dearer
    await check_delivery(hub, rooms)
    await hub.stop()
    return found


async def presence(rounds: Rounds) -> Found:
    """Let clients join one room, one in a turn, and compare the last tenth of them with the first."""
    found: Found = {}
    for key, tells in (("quiet", False), ("told", True)):
        rules = RoomRules("hall*", presence=True, join_leave=tells)
        hub = Hub(room_rules=[rules], shutdown_timeout_s=0.2)
        await hub.start()
        clients = [connect(hub) for _ in range(rounds.joins)]
        tenth = rounds.joins // 10
        await cost_of_joins(hub, "hall: another", clients[:tenth])  # what is done once is done
        costs: list[float] = []
        told: list[str | bytes] = []
        for start in range(0, rounds.joins, tenth):
            costs.append(await cost_of_joins(hub, "hall", clients[start : start + tenth]))
            told += clients[0].received
            forget(hub)
        first, middle, last = costs[0], costs[len(costs) // 2], costs[-1]
        found |= {f"{key}_first_us": first, f"{key}_middle_us": middle, f"{key}_last_us": last}
        found[f"{key}_growth"] = last / first
        stats = await hub.presence_stats("hall")
        check(stats.clients == rounds.joins, f"{stats.clients} are in the room")
        there = set(await hub.presence("hall"))
        check(there == {client.client.id for client in clients}, "others are in the room")
        check_told(told, clients, rules.join_leave_max_members if tells else 0)
        await hub.stop()
    return found


async def cost_of_joins(hub: Hub, room: str, clients: Sequence[MemoryClient]) -> float:
    """Return what a join costs, in microseconds of CPU time, all that follows from it included."""
    await settle(hub)
    forget(hub)
    began = time.process_time()
    for client in clients:
        client.client.join(room)
        for _ in range(3):  # the broker is asked, it answers, and the members are told
            await asyncio.sleep(0)
    await settle(hub)
    return (time.process_time() - began) / len(clients) * 1e6


def check_told(told: Sequence[str | bytes], clients: Sequence[MemoryClient], most: int) -> None:
    """See that the first member was told of each join once, until there were `most`, and then of a pause."""
    changes = [json.loads(each) for each in told]
    joined = [info["client"] for change in changes for info in change["joined"]]
    check(joined == [client.client.id for client in clients[:most]], f"told of {len(joined)} joins")
    pauses = [change for change in changes if change.get("paused")]
    check(len(pauses) == (0 < most < len(clients)), f"told of {len(pauses)} pauses")


async def entry(rounds: Rounds) -> Found:
    """Keep many messages of several sizes, and see what the process has allocated for each."""
    found: Found = {}
    for size in SIZES:
        limit = 2 * rounds.entries * (size + 200)
        rules = RoomRules("log", history=rounds.entries, history_bytes=limit)
        hub = Hub(room_rules=[rules], history_max_bytes=limit)
        await hub.start()
        await hub.publish("log", "the first")  # the tables of the room are there
        await hub.history("log")
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(rounds.entries):
            hub.room("log").broadcast(f"{number:0{size}d}")
            core_of(hub).fanout.flush()
        await settle(hub)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        found[f"beside_{size}_bytes"] = grown / rounds.entries - size
        kept = [each.data.decode() for each in (await hub.history("log")).publications]
        wanted = [f"{number:0{size}d}" for number in range(rounds.entries)]
        check(kept == wanted, f"of {len(wanted)} messages {len(kept)} are kept, or others")
        await hub.stop()
    return found


WORK: Mapping[str, Callable[[Rounds], Awaitable[Found]]] = {
    "history": history,
    "mixed": mixed,
    "presence": presence,
    "entry": entry,
}


async def found_or_wrong(work: Awaitable[Found]) -> Found | dict[str, str]:
    """Return what was measured, or what was wrong, as a program of a row prints it."""
    try:
        return await work
    except Wrong as wrong:
        return {"error": f"wrong: {wrong}"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure one row of rooms that remember, once.")
    parser.add_argument("row", choices=WORK)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    work = WORK[options.row](Rounds(is_quick=options.quick))
    print(json.dumps(asyncio.run(found_or_wrong(work))))


if __name__ == "__main__":
    main()
