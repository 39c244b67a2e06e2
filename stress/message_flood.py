"""Scenarios: clients that send as much as they can: pings, tiny fragments, messages.

What must not live here: how a scenario is run and checked (`scenario.py`). `run.py` and the tests run
them.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from typing import Any

from .raw_client import BINARY, CONTINUATION, PING, TEXT, RawClient, abort_all, connect, frame
from .scenario import Harness, Outcome, Scale, scenario

CHUNK_FRAMES = 8192
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"


async def pings(scale: Scale, *, portable: bool = False) -> Outcome:
    """Clients send pings as fast as they go, and read no pong."""
    return await _flood(
        scale,
        "floods pings",
        frame(PING) * CHUNK_FRAMES,
        moves=["bytes_out"],
        portable=portable,
    )


async def limited_pings(scale: Scale) -> Outcome:
    """Clients send pings as fast as they go, where a rate is set: they are closed."""
    return await _flood(
        scale,
        "floods pings, closed over 50 a second",
        frame(PING) * CHUNK_FRAMES,
        moves=["rate_limited"],
        codes=[3013, 1006],
        settings={"messages_per_second": 50},
    )


async def limited_fragments(scale: Scale) -> Outcome:
    """Clients send tiny fragments as fast as they go, where a rate is set: they are closed."""
    return await _flood(
        scale,
        "floods empty fragments, closed over 50 a second",
        frame(CONTINUATION, fin=False) * CHUNK_FRAMES,
        opening=frame(TEXT, fin=False),
        moves=["rate_limited"],
        codes=[3013, 1006],
        settings={"messages_per_second": 50},
    )


async def empty_fragments(scale: Scale) -> Outcome:
    """Clients begin a message, and continue it with empty fragments without an end."""
    return await _flood(
        scale,
        "floods empty fragments",
        frame(CONTINUATION, fin=False) * CHUNK_FRAMES,
        opening=frame(TEXT, fin=False),
        moves=["total_clients"],
    )


async def tiny_fragments(scale: Scale) -> Outcome:
    """Clients send messages of 400 fragments with one byte each, over and over."""
    message = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", fin=False) * 398
    message += frame(CONTINUATION, b"c")
    return await _flood(scale, "floods fragments of one byte", message * 20, moves=["messages_in"])


async def oversized_fragments(scale: Scale) -> Outcome:
    """Clients send fragments of one byte until the message is larger than is allowed."""
    chunk = frame(CONTINUATION, b"b", fin=False) * CHUNK_FRAMES
    return await _flood(
        scale,
        "floods one message past max_message_bytes",
        chunk,
        opening=frame(TEXT, b"a", fin=False),
        moves=["protocol_errors"],
        codes=[1009, 1006],
    )


async def messages(scale: Scale) -> Outcome:
    """Clients send messages as fast as they go, where a rate is set: they are closed."""
    return await _flood(
        scale,
        "floods messages, closed over 50 a second",
        frame(TEXT, b"{}") * CHUNK_FRAMES,
        moves=["rate_limited"],
        codes=[3013, 1006],
        settings={"messages_per_second": 50},
    )


async def told_messages(scale: Scale) -> Outcome:
    """Clients send messages as fast as they go, where a rate is set: they are told, at most once a second."""
    return await _flood(
        scale,
        "floods messages, told over 50 a second",
        frame(TEXT, b"{}") * CHUNK_FRAMES,
        moves=["rate_limited"],
        settings={"messages_per_second": 50, "on_rate_limit": "reply"},
    )


async def unlimited_messages(scale: Scale) -> Outcome:
    """Clients send messages as fast as they go, and no rate is set."""
    return await _flood(
        scale,
        "floods messages, no limit set",
        frame(TEXT, b"{}") * CHUNK_FRAMES,
        moves=["messages_in"],
    )


async def compression_bombs(scale: Scale) -> Outcome:
    """Clients send messages that are small on the wire and far too large when inflated."""
    mib = scale.pick(50, 500)
    return await _flood(
        scale,
        f"compression bombs of {mib} MiB",
        frame(TEXT, deflated(mib), rsv=4),
        moves=["protocol_errors"],
        codes=[1009, 1006],
        headers=DEFLATE,
        settings={"compression": "shared", "max_message_bytes": 2**20},
    )


async def allowed_bombs(scale: Scale) -> Outcome:
    """Clients send messages of a thousand bytes that inflate to the megabyte that is allowed."""
    return await _flood(
        scale,
        "floods messages that inflate to 1 MiB each",
        frame(BINARY, deflated(1), rsv=4) * 64,
        moves=["messages_in"],
        headers=DEFLATE,
        settings={"compression": "shared", "max_message_bytes": 2**20, "on_invalid": "ignore"},
    )


def deflated(mib: int) -> bytes:
    """Return so many MiB of zeros as the payload of a message (RFC 7692 section 7.2.1)."""
    deflater = zlib.compressobj(9, wbits=-15)
    parts = [deflater.compress(bytes(2**20)) for _ in range(mib)]
    return (b"".join(parts) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


async def _flood(
    scale: Scale,
    title: str,
    chunk: bytes,
    *,
    moves: Sequence[str],
    opening: bytes = b"",
    codes: Sequence[int] = (),
    headers: str = "",
    **told: Any,
) -> Outcome:
    """Let clients flood; `codes` are those with which they may find themselves closed (none: not)."""
    count, seconds = scale.pick(3, 10), scale.pick(2.0, 15.0)
    # What the kernels have taken is worked off after the flood: these are many tiny frames.
    most_bytes = scale.pick(300_000, 500_000)
    tried = f"{count} clients for {seconds:g} s, at most {most_bytes / 1e6:g} MB each"
    async with scenario(title, tried, moves=moves, **told) as harness:
        clients: list[RawClient] = []
        with abort_all(clients):
            for _ in range(count):
                one = await connect(harness.port, headers=headers)
                one.writer.write(opening)
                if not codes:
                    one.stop_reading()
                clients.append(one)
            ends = [asyncio.create_task(one.close_code()) for one in clients] if codes else []
            sent = sum(
                await asyncio.gather(*(one.flood(chunk, seconds, most_bytes) for one in clients))
            )
            await _note_codes(harness, ends, codes)
        harness.outcome.found["MB sent"] = round(sent / 1e6, 1)
        harness.outcome.expect(sent >= len(chunk), "the flood did not flow")
        return harness.outcome


async def _note_codes(
    harness: Harness, ends: Sequence[asyncio.Task[int]], codes: Sequence[int]
) -> None:
    if not ends:
        return
    got = await asyncio.wait_for(asyncio.gather(*ends), 30)
    harness.outcome.found["close codes"] = sorted(set(got))
    harness.outcome.expect(set(got) <= set(codes), f"closed with {sorted(set(got))}")
