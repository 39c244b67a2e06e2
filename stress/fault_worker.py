"""Scenarios: a worker of a fleet is killed, stands still, and all are replaced one after another.

What must not live here: how a fleet is run and judged (`fleet.py`). `brokers.py` and the tests run them.
"""

from __future__ import annotations

import asyncio
import signal
import time

from .fleet import BrokerServer, Fleet, under_load
from .scenario import Outcome


async def killed(fleet: Fleet[BrokerServer]) -> Outcome:
    """A worker is killed: its clients go on at others, and presence is right when its lease is over."""
    first, other, *_ = fleet.workers
    async with under_load(fleet, "worker killed", "SIGKILL") as load:
        there = sum(client.port == first.port for client in load.clients)
        load.mended()
        first.signal(signal.SIGKILL)
        await first.wait()
        await load.elsewhere(first, load.mended_at)
        await load.all_present(other, load.mended_at)
        await first.start()
    gone = load.outcome.found["disconnected"]
    load.outcome.expect(gone == there, f"{gone} were disconnected of {there} there")
    load.recovers_all()
    return load.outcome


async def replaced(fleet: Fleet[BrokerServer]) -> Outcome:
    """All workers end by SIGTERM and start again, one after another."""
    async with under_load(fleet, "rolling restart", "SIGTERM, one after another") as load:
        for worker in fleet.workers:
            worker.signal(signal.SIGTERM)
            await worker.wait()
            await load.elsewhere(worker, time.time())
            await worker.start()
        load.mended()
        await load.all_present(fleet.workers[0], load.mended_at)
    load.recovers_all()
    return load.outcome


async def stopped(fleet: Fleet[BrokerServer]) -> Outcome:
    """A worker's process stands still for longer than its lease, and goes on. Half of its clients have left it by then."""
    stopped_s = fleet.scale.pick(5.0, 30.0)
    first, other, *_ = fleet.workers
    lease_s = fleet.size.constants["hubbub.hub.rules.LEASE_S"]
    fault = f"SIGSTOP for {stopped_s:g} s, lease {lease_s:g} s"
    async with under_load(fleet, "worker stood still", fault) as load:
        first.signal(signal.SIGSTOP)
        began, until = time.time(), time.monotonic() + stopped_s
        leaving = [client for client in load.clients if client.port == first.port][::2]
        for client in leaving:
            client.cut()
        await load.elsewhere(first, began, leaving)
        await load.all_present(other, began, without=first, name="left out after, s")
        await asyncio.sleep(max(0.0, until - time.monotonic()))
        first.signal(signal.SIGCONT)
        load.mended()
        await load.all_present(other, load.mended_at)
    gone = load.outcome.found["disconnected"]
    load.outcome.expect(
        gone == len(leaving), f"{gone} were disconnected of {len(leaving)} that left"
    )
    load.recovers_all()
    return load.outcome


WORKER = {"worker_killed": killed, "rolling_restart": replaced, "worker_stood_still": stopped}
