"""Scenarios: clients that do not read, or read or send one byte a second.

What must not live here: how a scenario is run and checked (`scenario.py`). `run.py` and the tests run
them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from .raw_client import TEXT, RawClient, abort_all, connect, frame, open_connection, request
from .scenario import Outcome, Scale, in_waves, scenario

SMALL_BYTES = 4096
"""A receive buffer that fills soon."""
PAD_BYTES = 8 * 1024


async def never_reads(scale: Scale, *, portable: bool = False) -> Outcome:
    """Clients in the control room take nothing from their sockets."""
    return await _falls_behind(scale, "never reads", _stop, portable=portable)


async def reads_one_byte_a_second(scale: Scale) -> Outcome:
    """Clients in the control room take one byte of all that in a second."""
    return await _falls_behind(scale, "reads one byte a second", _sip)


async def _falls_behind(
    scale: Scale,
    title: str,
    reads: Callable[[RawClient], Coroutine[Any, Any, None]],
    *,
    portable: bool = False,
) -> Outcome:
    """Let clients read as `reads` does, until all of them are closed."""
    count, write_timeout_s = scale.pick(10, 100), scale.pick(1.0, 10.0)
    async with scenario(
        title,
        f"{count} clients in the control room, write timeout {write_timeout_s:g} s",
        moves=["slow_disconnects", "dropped"],
        settings={"write_timeout_s": write_timeout_s, "outbox_max_bytes": 256 * 1024},
        pad_bytes=PAD_BYTES,
        portable=portable,
    ) as harness:
        clients: list[RawClient] = []
        reading: list[asyncio.Task[None]] = []
        with abort_all(clients):
            for _ in range(count):
                one = await connect(harness.port, "/ws?room=control", receive_bytes=SMALL_BYTES)
                clients.append(one)
                reading.append(asyncio.create_task(reads(one)))
            controls = len(harness.control_clients)
            facts = await harness.server.until(
                lambda facts: facts["stats"]["clients"] == controls, "the slow to be closed"
            )
            for task in reading:
                task.cancel()
        harness.outcome.found["closed"] = facts["stats"]["slow_disconnects"]
        harness.outcome.expect(facts["stats"]["slow_disconnects"] == count, "not all were closed")
        return harness.outcome


async def _stop(one: RawClient) -> None:
    one.stop_reading()


async def _sip(one: RawClient) -> None:
    one.stop_reading()
    sock = one.transport.get_extra_info("socket")
    with suppress(ConnectionError):
        while True:
            with suppress(BlockingIOError):
                sock.recv(1)
            await asyncio.sleep(1.0)


async def sends_frame_slowly(scale: Scale) -> Outcome:
    """Clients send a message of 500 bytes, one byte a second, and then break it off."""
    count, seconds = scale.pick(50, 1000), scale.pick(3, 30)
    async with scenario(
        "sends one byte a second of a frame",
        f"{count} clients, {seconds} s, then a reset",
        moves=["total_clients"],
    ) as harness:
        clients: list[RawClient] = []
        message = frame(TEXT, b"x" * 500)

        async def join(number: int) -> None:
            clients.append(await connect(harness.port))

        with abort_all(clients):
            await in_waves(count, 50, join)
            for second in range(seconds):
                for one in clients:
                    one.writer.write(message[second : second + 1])
                await asyncio.sleep(1.0)
            stats = await harness.server.stats()
            harness.outcome.expect(
                stats["messages_in"] == 0, "a message that is not whole was taken"
            )
            harness.outcome.expect(
                stats["clients"] == count + len(harness.control_clients),
                "one that sends was closed",
            )
        return harness.outcome


async def sends_handshake_slowly(scale: Scale) -> Outcome:
    """Sockets send a handshake one byte a second; they are closed when their time is over."""
    count, timeout_s = scale.pick(50, 1000), scale.pick(4.0, 10.0)
    async with scenario(
        "sends one byte a second of a handshake",
        f"{count} sockets, handshake timeout {timeout_s:g} s",
        settings={"handshake_timeout_s": timeout_s},
        moves=["slow_handshakes"],
    ) as harness:
        writers: list[asyncio.StreamWriter] = []
        readers: list[asyncio.StreamReader] = []

        async def join(number: int) -> None:
            reader, writer = await open_connection("127.0.0.1", harness.port)
            readers.append(reader)
            writers.append(writer)

        await in_waves(count, 50, join)
        bytes_ = request("127.0.0.1", harness.port)
        for second in range(round(timeout_s) * 3):
            for writer in writers:
                if not writer.is_closing():
                    writer.write(bytes_[second : second + 1])
            await asyncio.sleep(1.0)
        closed = sum(reader.at_eof() or reader.exception() is not None for reader in readers)
        harness.outcome.found["closed"] = closed
        harness.outcome.expect(closed == count, f"{count - closed} sockets were not closed")
        for writer in writers:
            writer.transport.abort()
        return harness.outcome
