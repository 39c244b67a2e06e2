"""Scenarios: the broker of a fleet is killed, frozen, full, a replica, locked, emptied, and a way to it is cut.

What must not live here: how a fleet is run and judged (`fleet.py`). `brokers.py` and the tests run them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from hubbub.brokers.reconnecting import LONGEST_DELAY_S
from valkey_server import Server

from .fleet import Fleet, Restarted, under_load
from .scenario import Outcome

OTHER_PASSWORD = "changed-meanwhile"
REFUSED = "the server refuses the user's name or the password"


async def killed(
    fleet: Fleet[Restarted], title: str = "broker killed and started again"
) -> Outcome:
    """The server is killed, and started again with what its file has."""
    away_s = fleet.scale.pick(0.5, 3.0)
    async with under_load(fleet, title, f"away for {away_s:g} s") as load:
        fleet.server.kill()
        await fleet.all_say("away")
        await asyncio.sleep(away_s)
        await asyncio.to_thread(fleet.server.restart)
        load.mended(LONGEST_DELAY_S)
    load.keeps_all()
    return load.outcome


async def forgot(fleet: Fleet[Server]) -> Outcome:
    """The server keeps no file: it is killed, and comes back empty. All members are told, and then go on."""
    away_s = fleet.scale.pick(0.5, 3.0)
    title = "broker killed that keeps no file"
    async with under_load(fleet, title, f"away for {away_s:g} s") as load:
        fleet.server.kill()
        await fleet.all_say("away")
        await asyncio.sleep(away_s)
        began = time.time()
        await asyncio.to_thread(fleet.server.restart)
        await load.all_told(began)
        load.mended(LONGEST_DELAY_S)
    load.keeps_connections()
    return load.outcome


async def frozen(fleet: Fleet[Server]) -> Outcome:
    """The server answers nothing for longer than its connections are kept."""
    frozen_s = fleet.scale.pick(2.0, 20.0)
    async with under_load(fleet, "broker frozen", f"SIGSTOP for {frozen_s:g} s") as load:
        fleet.server.freeze()
        await asyncio.sleep(frozen_s)
        await fleet.all_say("away")
        fleet.server.thaw()
        load.mended(LONGEST_DELAY_S)
    load.keeps_all()
    return load.outcome


async def cut(fleet: Fleet[Server]) -> Outcome:
    """One worker loses its way to the server; the others do not."""
    cut_s = fleet.scale.pick(0.5, 10.0)
    first, *others = fleet.workers
    async with under_load(fleet, "way of one worker cut", f"for {cut_s:g} s") as load:
        fleet.way.cut()
        await first.until(lambda facts: facts["stats"]["broker_state"] == "away", "away")
        await asyncio.sleep(cut_s)
        states = [(await each.stats())["broker_state"] for each in others]
        load.outcome.expect(set(states) == {"up"}, f"the others say {states}")
        fleet.way.mend()
        load.mended(LONGEST_DELAY_S)
    load.keeps_all()
    return load.outcome


async def silent(fleet: Fleet[Server]) -> Outcome:
    """Nothing comes through to one worker, and nothing breaks, for longer than its connections are kept."""
    held_s = fleet.scale.pick(1.5, 20.0)
    first = fleet.workers[0]
    async with under_load(fleet, "way of one worker silent", f"for {held_s:g} s") as load:
        fleet.way.hold()
        await first.until(lambda facts: facts["stats"]["broker_state"] == "silent", "silent")
        await asyncio.sleep(held_s)
        await first.until(lambda facts: facts["stats"]["broker_state"] == "away", "away")
        fleet.way.release()
        load.mended(LONGEST_DELAY_S)
    load.keeps_all()
    return load.outcome


async def full(fleet: Fleet[Server]) -> Outcome:
    """The server has no memory left, and says so to who publishes."""
    full_s = fleet.scale.pick(0.5, 10.0)
    title = "broker out of memory"
    async with under_load(fleet, title, f"`maxmemory`, `noeviction`, for {full_s:g} s") as load:
        fleet.server.command("CONFIG", "SET", "maxmemory", "1mb")
        await asyncio.sleep(full_s)
        states = [(await each.stats())["broker_state"] for each in fleet.workers]
        load.outcome.expect(set(states) == {"up"}, f"the workers say {states}")
        fleet.server.command("CONFIG", "SET", "maxmemory", "0")
        load.mended()
    load.keeps_all()
    load.outcome.expect(load.outcome.found["refused"] > 0, "no publisher was told")
    return load.outcome


async def read_only(fleet: Fleet[Server]) -> Outcome:
    """The server becomes a replica, which takes nothing, and a primary again."""
    replica_s = fleet.scale.pick(0.5, 10.0)
    async with under_load(fleet, "broker read-only", f"a replica for {replica_s:g} s") as load:
        fleet.server.command("REPLICAOF", "127.0.0.1", "1")
        await fleet.all_say("away")
        await asyncio.sleep(replica_s)
        fleet.server.command("REPLICAOF", "NO", "ONE")
        load.mended(LONGEST_DELAY_S)
    load.keeps_connections()
    return load.outcome


async def locked(fleet: Fleet[Server]) -> Outcome:
    """The server has another password, and ends all connections. That which the workers have is wrong until it has none again."""
    locked_s = fleet.scale.pick(0.5, 10.0)
    async with under_load(fleet, "password changed", f"and back after {locked_s:g} s") as load:
        fleet.server.command("CONFIG", "SET", "requirepass", OTHER_PASSWORD)
        for kind in ("normal", "pubsub"):
            fleet.server.command("CLIENT", "KILL", "TYPE", kind, password=OTHER_PASSWORD)
        await fleet.all_say("away")
        await asyncio.sleep(locked_s)
        fleet.server.command("CONFIG", "SET", "requirepass", "", password=OTHER_PASSWORD)
        load.mended(LONGEST_DELAY_S)
    load.keeps_all()
    load.logs_nothing_of(OTHER_PASSWORD)
    told = [any(REFUSED in line for line in worker.log()) for worker in fleet.workers]
    load.outcome.expect(all(told), "not each worker says that its password is refused")
    return load.outcome


async def emptied(fleet: Fleet[Server]) -> Outcome:
    """The server forgets everything: rooms begin new epochs, and all members are told."""
    async with under_load(fleet, "broker emptied", "`FLUSHALL`") as load:
        began = time.time()
        fleet.server.command("FLUSHALL")
        await load.all_told(began)
        load.mended()
    load.keeps_connections()
    return load.outcome


async def other_version(fleet: Fleet[Server]) -> Outcome:
    """A worker comes that writes another form; it is refused, and the others notice nothing."""
    newer = fleet.worker(**{"hubbub.brokers.valkey_link.FORMAT": "2"})
    why = "writes format 1, and this one writes 2"
    async with under_load(fleet, "worker of another version", "refused with the reason") as load:
        try:
            await newer.start()
            load.outcome.faults.append("it was let in")
        except RuntimeError as error:
            load.outcome.expect(why in str(error), f"it was not told why: {error}")
        finally:
            newer.end()
    load.keeps_all()
    return load.outcome


BROKER: dict[str, Callable[[Fleet[Server]], Coroutine[Any, Any, Outcome]]] = {
    "broker_killed": killed,
    "broker_forgot": forgot,
    "broker_frozen": frozen,
    "way_cut": cut,
    "way_silent": silent,
    "broker_full": full,
    "broker_read_only": read_only,
    "password_changed": locked,
    "broker_emptied": emptied,
    "other_version": other_version,
}
