"""Trials: clients that do not read, or read or send one byte a second.

What must not live here: how a trial is run and judged (`scenario.py`). `run.py` and the tests run them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from .raw_client import TEXT, Stranger, all_vanish, dial, frame, meet, request
from .scenario import Outcome, Scale, arena, in_waves

SMALL_BYTES = 4096
"""A receive buffer that fills soon."""
PAD_BYTES = 8 * 1024


async def never_reads(scale: Scale, *, portable: bool = False) -> Outcome:
    """Clients in the room of the healthy take nothing from their sockets."""
    count, write_timeout_s = scale.pick(10, 100), scale.pick(1.0, 10.0)
    async with arena(
        "never reads",
        f"{count} clients in the room of the healthy, write timeout {write_timeout_s:g} s",
        moves=["slow_disconnects", "dropped"],
        settings={"write_timeout_s": write_timeout_s, "outbox_max_bytes": 256 * 1024},
        pad_bytes=PAD_BYTES,
        portable=portable,
    ) as stage:
        strangers: list[Stranger] = []
        with all_vanish(strangers):
            for _ in range(count):
                one = await meet(stage.port, "/ws?room=healthy", receive_bytes=SMALL_BYTES)
                one.stop_reading()
                strangers.append(one)
            healthy = len(stage.healthy)
            facts = await stage.victim.until(
                lambda facts: facts["stats"]["clients"] == healthy, "the deaf to be cut"
            )
        stage.outcome.found["cut"] = facts["stats"]["slow_disconnects"]
        stage.outcome.expect(facts["stats"]["slow_disconnects"] == count, "not all were cut")
        return stage.outcome


async def reads_one_byte_a_second(scale: Scale) -> Outcome:
    """Clients in the room of the healthy take one byte of all that in a second."""
    count, write_timeout_s = scale.pick(10, 100), scale.pick(1.0, 10.0)
    async with arena(
        "reads one byte a second",
        f"{count} clients in the room of the healthy, write timeout {write_timeout_s:g} s",
        moves=["slow_disconnects", "dropped"],
        settings={"write_timeout_s": write_timeout_s, "outbox_max_bytes": 256 * 1024},
        pad_bytes=PAD_BYTES,
    ) as stage:
        strangers: list[Stranger] = []
        with all_vanish(strangers):
            for _ in range(count):
                one = await meet(stage.port, "/ws?room=healthy", receive_bytes=SMALL_BYTES)
                strangers.append(one)
            sippers = [asyncio.create_task(_sip(one)) for one in strangers]
            healthy = len(stage.healthy)
            facts = await stage.victim.until(
                lambda facts: facts["stats"]["clients"] == healthy, "the slow to be cut"
            )
            for task in sippers:
                task.cancel()
        stage.outcome.expect(facts["stats"]["slow_disconnects"] == count, "not all were cut")
        return stage.outcome


async def _sip(one: Stranger) -> None:
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
    async with arena(
        "sends one byte a second of a frame",
        f"{count} clients, {seconds} s, then a reset",
        moves=["total_clients"],
    ) as stage:
        strangers: list[Stranger] = []
        message = frame(TEXT, b"x" * 500)

        async def join(number: int) -> None:
            strangers.append(await meet(stage.port))

        with all_vanish(strangers):
            await in_waves(count, 50, join)
            for second in range(seconds):
                for one in strangers:
                    one.writer.write(message[second : second + 1])
                await asyncio.sleep(1.0)
            stats = await stage.victim.stats()
            stage.outcome.expect(stats["messages_in"] == 0, "a message that is not whole was taken")
            stage.outcome.expect(
                stats["clients"] == count + len(stage.healthy), "one that sends was cut"
            )
        return stage.outcome


async def sends_handshake_slowly(scale: Scale) -> Outcome:
    """Sockets send a handshake one byte a second; they are cut when their time is over."""
    count, timeout_s = scale.pick(50, 1000), scale.pick(1.0, 10.0)
    async with arena(
        "sends one byte a second of a handshake",
        f"{count} sockets, handshake timeout {timeout_s:g} s",
        settings={"handshake_timeout_s": timeout_s},
        moves=["slow_handshakes"],
    ) as stage:
        writers: list[asyncio.StreamWriter] = []
        readers: list[asyncio.StreamReader] = []

        async def join(number: int) -> None:
            reader, writer = await dial("127.0.0.1", stage.port)
            readers.append(reader)
            writers.append(writer)

        await in_waves(count, 50, join)
        bytes_ = request("127.0.0.1", stage.port)
        for second in range(round(timeout_s) * 3):
            for writer in writers:
                if not writer.is_closing():
                    writer.write(bytes_[second : second + 1])
            await asyncio.sleep(1.0)
        cut = sum(reader.at_eof() or reader.exception() is not None for reader in readers)
        stage.outcome.found["cut"] = cut
        stage.outcome.expect(cut == count, f"{count - cut} sockets were not cut")
        for writer in writers:
            writer.transport.abort()
        return stage.outcome
