"""Trials: more sockets than there should be.

What must not live here: how a trial is run and judged (`scenario.py`). `run.py` and the tests run them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from .raw_client import Denied, Stranger, all_vanish, dial, meet
from .scenario import Arena, Outcome, Scale, arena, be_healthy, in_waves


async def connects_and_disconnects(scale: Scale) -> Outcome:
    """Clients come and go: every second one says goodbye, the others reset."""
    count = scale.pick(1500, 50_000)
    async with arena(
        "connects and disconnects",
        f"{count} times, half of them with a goodbye",
        moves=["total_clients"],
    ) as stage:
        failures: Counter[str] = Counter()

        async def come_and_go(number: int) -> None:
            try:
                # Sources of their own, so that the ports of one address do not run out.
                one = await meet(stage.port, source=f"127.0.0.{2 + number % 8}")
                if number % 2:
                    await one.leave()
                else:
                    one.vanish()
            except OSError as error:
                failures[str(error)] += 1

        await in_waves(count, 50, come_and_go)
        stage.outcome.expect(not failures, f"some did not come in: {failures.most_common(3)}")
        stats = await stage.victim.stats()
        came = stats["total_clients"] - len(stage.healthy)
        stage.outcome.found["came"] = came
        return stage.outcome


async def half_open(scale: Scale) -> Outcome:
    """Sockets are opened and never say a word; they are cut when their time is over."""
    count, timeout_s = scale.pick(200, 1000), scale.pick(1.0, 10.0)
    async with arena(
        "half-open connections",
        f"{count} sockets that send nothing, handshake timeout {timeout_s:g} s",
        settings={"handshake_timeout_s": timeout_s},
        moves=["slow_handshakes"],
    ) as stage:
        writers: list[asyncio.StreamWriter] = []
        ends: list[asyncio.Task[bytes]] = []

        async def open_one(number: int) -> None:
            reader, writer = await dial("127.0.0.1", stage.port)
            writers.append(writer)
            ends.append(asyncio.create_task(reader.read()))

        await in_waves(count, 50, open_one)
        done, _ = await asyncio.wait(ends, timeout=timeout_s + 20)
        for task in done:
            with suppress(ConnectionError):
                task.result()
        stage.outcome.expect(len(done) == count, f"{count - len(done)} sockets were not cut")
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*ends, return_exceptions=True)
        return stage.outcome


async def over_max_clients(scale: Scale) -> Outcome:
    """More clients ask for a place than there are; when some leave, others get theirs."""
    places, count = scale.pick(40, 1000), scale.pick(120, 3000)
    async with arena(
        "more sockets than max_clients",
        f"{count} handshakes for {places} places",
        moves=["refused.too_many_clients"],
        settings={"max_clients": places},
    ) as stage:
        free = places - len(stage.healthy)
        await _crowd(stage, count, free, 503, "too_many_clients")
        return stage.outcome


async def over_clients_per_address(scale: Scale) -> Outcome:
    """One address asks for more places than one may have; the healthy come from another."""
    places, count = scale.pick(25, 100), scale.pick(100, 3000)
    async with arena(
        "more sockets than one address may have",
        f"{count} handshakes from one address that may have {places}",
        moves=["refused.too_many_from_address"],
        settings={"max_clients_per_address": places},
    ) as stage:
        await _crowd(stage, count, places, 503, "too_many_from_address", "127.0.0.5")
        stage.outcome.expect(await _lets_in_again(stage), "another address was refused")
        return stage.outcome


async def _crowd(
    stage: Arena, count: int, free: int, status: int, code: str, source: str | None = None
) -> None:
    """Let `count` ask for `free` places, then see a place that was given back be taken."""
    strangers: list[Stranger] = []
    denials: list[Denied] = []

    async def ask(number: int) -> None:
        try:
            strangers.append(await meet(stage.port, source=source))
        except Denied as denied:
            denials.append(denied)

    with all_vanish(strangers):
        await in_waves(count, 50, ask)
        outcome = stage.outcome
        outcome.found["let in"] = len(strangers)
        outcome.expect(len(strangers) == free, f"{len(strangers)} were let in, not {free}")
        outcome.expect(len(denials) == count - free, "some had no answer")
        right = [one for one in denials if one.status == status and code in one.body]
        outcome.expect(len(right) == len(denials), f"other answers: {denials[:3]}")
        polite = [one for one in denials if "retry-after:" in one.head.lower()]
        outcome.expect(len(polite) == len(denials), "refused without Retry-After")
        strangers.pop().vanish()
        total = len(stage.healthy) + free
        await stage.victim.until(
            lambda facts: facts["stats"]["clients"] < total, "a place to be free"
        )
        strangers.append(await meet(stage.port, source=source))


async def out_of_descriptors(scale: Scale) -> Outcome:
    """More sockets come than the process may have descriptors; then they go again."""
    limit, count = scale.pick(128, 1024), scale.pick(300, 3000)
    async with arena(
        "more sockets than descriptors",
        f"{count} handshakes, RLIMIT_NOFILE {limit}",
        moves=["total_clients"],
        descriptors=limit,
    ) as stage:
        strangers: list[Stranger] = []

        async def ask(number: int) -> None:
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                async with asyncio.timeout(scale.pick(3, 10)):
                    strangers.append(await meet(stage.port))

        with all_vanish(strangers):
            await in_waves(count, count, ask)
            stats = await stage.victim.stats()
            stage.outcome.found["let in"] = len(strangers)
            stage.outcome.expect(len(strangers) < limit, "the limit was not reached")
            stage.outcome.expect(stats["clients"] > limit / 2, "few were let in")
        stage.outcome.expect(await _lets_in_again(stage), "the listener did not recover")
        return stage.outcome


async def _lets_in_again(stage: Arena) -> bool:
    """Try until a new client gets in; the sockets that are gone may not be closed yet."""
    for _ in range(100):
        try:
            late = await be_healthy(stage.victim.host, stage.port)
        except (OSError, InvalidHandshake, ConnectionClosed):
            await asyncio.sleep(0.1)
        else:
            await late.end()
            return True
    return False
