"""Scenarios: handlers that block, raise, are cancelled, or never return.

What must not live here: how a scenario is run and checked (`scenario.py`). `run.py` and the tests run
them.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

from .raw_client import TEXT, Denied, RawClient, abort_all, connect, frame
from .scenario import Outcome, Scale, scenario


def command(kind: str, **details: Any) -> bytes:
    """Return the frame that asks the server for a fault."""
    return frame(TEXT, json.dumps({"type": kind, **details}).encode())


async def blocks(scale: Scale) -> Outcome:
    """A handler holds up the event loop. New sockets are refused while that lasts."""
    times, seconds = scale.pick(2, 10), 1.3
    async with scenario(
        "a handler blocks",
        f"{times} times for {seconds:g} s, shedding above 0.2 s",
        moves=["loop_stalls", "refused.overloaded"],
        settings={"max_loop_lag_s": 0.2},
    ) as harness:
        client = await _admitted(harness.port)  # a machine that stands still counts too
        lags: list[float] = []
        denials: list[Denied] = []
        with abort_all([client]):
            for _ in range(times):
                client.writer.write(command("block", seconds=seconds))
                await asyncio.sleep(seconds)
                stats = await harness.server.stats()
                lags.append(stats["loop_lag_s"])
                try:
                    (await connect(harness.port)).abort()
                except Denied as denied:
                    denials.append(denied)
        (await _admitted(harness.port)).abort()
        harness.outcome.found["loop_lag_s"] = max(lags)
        harness.outcome.found["refused"] = len(denials)
        harness.outcome.expect(
            all(one.status == 503 and "retry-after:" in one.head.lower() for one in denials),
            "refused in another way than 503 with Retry-After",
        )
        return harness.outcome


async def _admitted(port: int) -> RawClient:
    """Return a client, as soon as one is let in."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await connect(port)
            except Denied:
                await asyncio.sleep(0.2)


async def raises(scale: Scale) -> Outcome:
    """Handlers raise, at once and after a wait; their clients are closed with 1011."""
    count = scale.pick(20, 1000)
    async with scenario(
        "a handler raises",
        f"{count} times, half of them after a wait",
        moves=["handler_errors"],
    ) as harness:
        codes = await _ask_many(harness.port, count, "raise")
        harness.outcome.found["close codes"] = sorted(codes)
        harness.outcome.expect(set(codes) == {1011}, f"closed with {dict(codes)}")
        return harness.outcome


async def _ask_many(port: int, count: int, kind: str) -> Counter[int]:
    codes: Counter[int] = Counter()
    for number in range(count):
        client = await connect(port)
        with abort_all([client]):
            client.writer.write(command(kind, later=bool(number % 2)))
            codes[await asyncio.wait_for(client.close_code(), 30)] += 1
    return codes


async def is_cancelled(scale: Scale) -> Outcome:
    """Handlers are cancelled by somebody, in a task and in place; their clients are served on."""
    count = scale.pick(10, 500)
    async with scenario(
        "a handler is cancelled",
        f"{count} tasks cancelled, {count} plain functions that raise CancelledError",
        moves=["handler_errors"],
    ) as harness:
        alive = 0
        for kind in ("cancel", "cancel_at_once"):
            for _ in range(count):
                client = await connect(harness.port)
                with abort_all([client]):
                    client.writer.write(command(kind) + command("mark", seen=True))
                    alive += await _gets_mark(client)
        harness.outcome.found["served on"] = alive
        harness.outcome.expect(alive == 2 * count, f"{2 * count - alive} were not served on")
        return harness.outcome


async def _gets_mark(client: RawClient) -> bool:
    try:
        async with asyncio.timeout(10):
            while True:
                opcode, payload = await client.recv()
                if opcode == TEXT and b'"seen"' in payload:
                    return True
                if opcode == 0x8:
                    return False
    except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
        return False


async def never_returns(scale: Scale) -> Outcome:
    """Handlers wait for ever; their clients go on receiving, and then they go, and the handlers too."""
    count = scale.pick(20, 500)
    async with scenario(
        "a handler never returns",
        f"{count} clients, each with a handler that waits for ever",
        moves=["handlers_cancelled"],
        settings={"ping_interval_s": 1.0, "pong_timeout_s": 3.0},
    ) as harness:
        clients: list[RawClient] = []
        with abort_all(clients):
            for _ in range(count):
                client = await connect(harness.port, "/ws?room=control")
                client.writer.write(command("forever") + command("mark", seen=True))
                clients.append(client)
            got = await asyncio.gather(*(_gets_numbers(one, 20) for one in clients))
            harness.outcome.expect(all(got), f"{got.count(False)} received no more")
            harness.outcome.found["went on receiving"] = got.count(True)
        controls = len(harness.control_clients)
        facts = await harness.server.until(
            lambda facts: facts["stats"]["clients"] == controls and not facts["stats"]["handlers"],
            "their clients and the handlers to be gone",
        )
        harness.outcome.found["handlers cancelled"] = facts["stats"]["handlers_cancelled"]
        harness.outcome.expect(
            facts["stats"]["handlers_cancelled"] == count, "not every handler was cancelled"
        )
        return harness.outcome


async def _gets_numbers(client: RawClient, count: int) -> bool:
    try:
        async with asyncio.timeout(20):
            while count:
                opcode, payload = await client.recv()
                count -= opcode == TEXT and b'"n"' in payload
    except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
        return False
    return True
