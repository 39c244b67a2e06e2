"""Scenarios: more connections than there should be.

What must not live here: how a scenario is run and checked (`scenario.py`). `run.py` and the tests run
them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from .raw_client import Denied, RawClient, abort_all, connect, open_connection
from .scenario import Harness, Outcome, Scale, connect_control_client, in_waves, scenario


async def connects_and_disconnects(scale: Scale) -> Outcome:
    """Clients come and go: every second one sends a close frame, the others reset."""
    count = scale.pick(1500, 50_000)
    async with scenario(
        "connects and disconnects",
        f"{count} times, half of them with a close frame",
        moves=["total_clients"],
    ) as harness:
        failures: Counter[str] = Counter()

        async def come_and_go(number: int) -> None:
            try:
                # Sources of their own, so that the ports of one address do not run out.
                one = await connect(harness.port, source=f"127.0.0.{2 + number % 8}")
                if number % 2:
                    await one.close()
                else:
                    one.abort()
            except OSError as error:
                failures[str(error)] += 1

        await in_waves(count, 50, come_and_go)
        harness.outcome.expect(not failures, f"some did not come in: {failures.most_common(3)}")
        stats = await harness.server.stats()
        came = stats["total_clients"] - len(harness.control_clients)
        harness.outcome.found["came"] = came
        return harness.outcome


async def sends_nothing(scale: Scale) -> Outcome:
    """Sockets are opened and send nothing; they are closed when their time is over."""
    # Not shorter: those who behave have to be heard in this time too, on a busy machine.
    count, timeout_s = scale.pick(200, 1000), scale.pick(4.0, 10.0)
    async with scenario(
        "connects and sends nothing",
        f"{count} sockets, handshake timeout {timeout_s:g} s",
        settings={"handshake_timeout_s": timeout_s},
        moves=["slow_handshakes"],
    ) as harness:
        writers: list[asyncio.StreamWriter] = []
        ends: list[asyncio.Task[bytes]] = []

        async def open_one(number: int) -> None:
            reader, writer = await open_connection("127.0.0.1", harness.port)
            writers.append(writer)
            ends.append(asyncio.create_task(reader.read()))

        await in_waves(count, 50, open_one)
        done, _ = await asyncio.wait(ends, timeout=timeout_s + 20)
        for task in done:
            with suppress(ConnectionError):
                task.result()
        harness.outcome.expect(len(done) == count, f"{count - len(done)} sockets were not closed")
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*ends, return_exceptions=True)
        return harness.outcome


async def over_max_clients(scale: Scale) -> Outcome:
    """More clients ask for a place than there are; when some close, others get theirs."""
    places, count = scale.pick(40, 1000), scale.pick(120, 3000)
    async with scenario(
        "more sockets than max_clients",
        f"{count} handshakes for {places} places",
        moves=["refused.too_many_clients"],
        settings={"max_clients": places},
    ) as harness:
        free = places - len(harness.control_clients)
        await _exceed(harness, count, free, 503, "too_many_clients")
        return harness.outcome


async def over_clients_per_address(scale: Scale) -> Outcome:
    """One address asks for more places than one may have; the control clients come from another."""
    places, count = scale.pick(25, 100), scale.pick(100, 3000)
    async with scenario(
        "more sockets than one address may have",
        f"{count} handshakes from one address that may have {places}",
        moves=["refused.too_many_from_address"],
        settings={"max_clients_per_address": places},
    ) as harness:
        await _exceed(harness, count, places, 503, "too_many_from_address", "127.0.0.5")
        harness.outcome.expect(await _lets_in_again(harness), "another address was refused")
        return harness.outcome


async def _exceed(
    harness: Harness, count: int, free: int, status: int, code: str, source: str | None = None
) -> None:
    """Let `count` ask for `free` places, then see a place that was given back be taken."""
    clients: list[RawClient] = []
    denials: list[Denied] = []

    async def ask(number: int) -> None:
        try:
            clients.append(await connect(harness.port, source=source))
        except Denied as denied:
            denials.append(denied)

    with abort_all(clients):
        await in_waves(count, 50, ask)
        outcome = harness.outcome
        outcome.found["let in"] = len(clients)
        outcome.expect(len(clients) == free, f"{len(clients)} were let in, not {free}")
        outcome.expect(len(denials) == count - free, "some had no answer")
        right = [one for one in denials if one.status == status and code in one.body]
        outcome.expect(len(right) == len(denials), f"other answers: {denials[:3]}")
        polite = [one for one in denials if "retry-after:" in one.head.lower()]
        outcome.expect(len(polite) == len(denials), "refused without Retry-After")
        clients.pop().abort()
        total = len(harness.control_clients) + free
        await harness.server.until(
            lambda facts: facts["stats"]["clients"] < total, "a place to be free"
        )
        clients.append(await connect(harness.port, source=source))


async def out_of_descriptors(scale: Scale) -> Outcome:
    """More sockets come than the process may have descriptors; then they go again."""
    limit, count = scale.pick(128, 1024), scale.pick(300, 3000)
    async with scenario(
        "more sockets than descriptors",
        f"{count} handshakes, RLIMIT_NOFILE {limit}",
        moves=["total_clients"],
        descriptors=limit,
    ) as harness:
        clients: list[RawClient] = []

        async def ask(number: int) -> None:
            with suppress(OSError, asyncio.IncompleteReadError):
                clients.append(await connect(harness.port))

        with abort_all(clients):
            asking = asyncio.ensure_future(in_waves(count, count, ask))
            for _ in range(600):  # however slow the machine is
                if asking.done() or len(clients) > limit / 2:
                    break
                await asyncio.sleep(0.05)
            await asyncio.wait([asking], timeout=scale.pick(3, 10))
            asking.cancel()
            await asyncio.wait([asking])
            stats = await harness.server.stats()
            harness.outcome.found["let in"] = len(clients)
            harness.outcome.expect(len(clients) < limit, "the limit was not reached")
            harness.outcome.expect(stats["clients"] > limit / 2, "few were let in")
        harness.outcome.expect(await _lets_in_again(harness), "the listener did not recover")
        return harness.outcome


async def _lets_in_again(harness: Harness) -> bool:
    """Try until a new client gets in; the sockets that are gone may not be closed yet."""
    for _ in range(100):
        try:
            late = await connect_control_client(harness.server.host, harness.port)
        except (OSError, InvalidHandshake, ConnectionClosed):
            await asyncio.sleep(0.1)
        else:
            await late.end()
            return True
    return False
