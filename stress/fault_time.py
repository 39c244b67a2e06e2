"""Scenarios: the process is suspended, and the wall clock jumps.

What must not live here: how a scenario is run and checked (`scenario.py`). `run.py` and the tests run
them.
"""

from __future__ import annotations

import asyncio
import signal

from .scenario import Outcome, Scale, scenario


async def suspended(scale: Scale, *, portable: bool = False) -> Outcome:
    """The server sleeps for longer than the pong timeout, as a machine does that is suspended."""
    ping_s, pong_s, sleep_s = scale.pick((1.5, 3.0, 4.5), (54.0, 60.0, 70.0))
    async with scenario(
        "suspended and woken",
        f"SIGSTOP for {sleep_s:g} s, pong timeout {pong_s:g} s, then {pong_s:g} s of watching",
        moves=["loop_stalls"],
        control_count=scale.pick(20, 200),
        settings={"ping_interval_s": ping_s, "pong_timeout_s": pong_s},
        portable=portable,
    ) as harness:
        harness.server.signal(signal.SIGSTOP)
        await asyncio.sleep(sleep_s)
        harness.server.signal(signal.SIGCONT)
        await asyncio.sleep(pong_s)
        stats = await harness.server.stats()
        harness.outcome.found["closed"] = len(harness.control_clients) - stats["clients"]
        harness.outcome.expect(stats["dead"] == 0, f"{stats['dead']} were taken for dead")
        return harness.outcome


async def clock_jumps(scale: Scale) -> Outcome:
    """The wall clock goes forward by a year and back by two, in the server's process."""
    ping_s, pong_s = scale.pick((1.0, 3.0), (5.0, 10.0))
    year_s = 365 * 86_400
    async with scenario(
        "the wall clock jumps",
        f"a year ahead, two years back, one ahead; pong timeout {pong_s:g} s",
        moves=["messages_out"],
        settings={
            "ping_interval_s": ping_s,
            "pong_timeout_s": pong_s,
            "messages_per_second": 10,
        },
    ) as harness:
        for seconds in (year_s, -2 * year_s, year_s):
            await harness.server.ask(f"/jump?seconds={seconds}")
            await asyncio.sleep(pong_s / 2)
        await asyncio.sleep(pong_s)
        stats = await harness.server.stats()
        harness.outcome.expect(stats["dead"] == 0, f"{stats['dead']} were taken for dead")
        return harness.outcome
