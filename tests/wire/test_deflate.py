"""Inflating within limits."""

from __future__ import annotations

import os
import tracemalloc

import pytest
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode

from hubbub.wire.deflate import Inflater, inflate, slack_bytes
from rawsocket import deflate

LIMIT = 1000
SLACK = slack_bytes(LIMIT)


def inflated(data: bytes, *, limit: int = LIMIT) -> bytes:
    slack = slack_bytes(limit)
    frame = WireFrame(Opcode.BINARY, data, rsv1=True)
    return bytes(Inflater(slack).decode(frame, max_size=limit + slack).data)


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("size", [0, 1, LIMIT - 1, LIMIT])
def test_what_is_within_the_limit_is_inflated_whatever_it_has_grown_to(
    size: int, level: int
) -> None:
    for payload in (bytes(size), os.urandom(size)):
        data = deflate(payload, level=level)
        assert len(data) <= LIMIT + SLACK
        assert inflated(data) == payload


@pytest.mark.parametrize("size", [LIMIT + 1, LIMIT + SLACK, LIMIT + SLACK + 1, 100 * LIMIT])
def test_what_is_over_the_limit_is_refused_and_the_limit_is_named(size: int) -> None:
    with pytest.raises(PayloadTooBig, match=f"{LIMIT} bytes"):
        inflated(deflate(bytes(size)))


def test_the_limit_counts_plain_frames_too() -> None:
    inflater = Inflater(SLACK)
    for size in (LIMIT, LIMIT + 1):
        frame = WireFrame(Opcode.TEXT, bytes(size))
        if size == LIMIT:
            assert inflater.decode(frame, max_size=LIMIT + SLACK) is frame
        else:
            with pytest.raises(PayloadTooBig, match=f"{LIMIT} bytes"):
                inflater.decode(frame, max_size=LIMIT + SLACK)


def test_without_a_limit_everything_is_inflated() -> None:
    frame = WireFrame(Opcode.BINARY, deflate(bytes(10**6)), rsv1=True)
    assert Inflater(0).decode(frame).data == bytes(10**6)


def test_a_bomb_never_unfolds() -> None:
    bomb = deflate(bytes(60 * 2**20), level=9)
    limit = 2**16
    assert len(bomb) < limit, "it is small enough to be let in"
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooBig):
            inflated(bomb, limit=limit)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 10 * limit


@pytest.mark.parametrize("payload", [b"", b"a" * 1000, bytes(range(250)) * 4])
def test_a_whole_message_is_inflated_up_to_its_limit(payload: bytes) -> None:
    data = deflate(payload)
    for limit in (None, len(payload), len(payload) + 1, 10**6):
        assert inflate(data, limit) == payload
    if payload:
        assert inflate(data, len(payload) - 1) is None
    assert inflate(b"\xff" * 20, None) is None


def test_a_whole_message_that_is_a_bomb_never_unfolds() -> None:
    bomb = deflate(bytes(60 * 2**20), level=9)
    tracemalloc.start()
    try:
        assert inflate(bomb, 512) is None
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 5 * len(bomb)


def test_noise_is_no_deflated_data() -> None:
    with pytest.raises(ProtocolError, match="decompression"):
        inflated(b"\xff" * 20)
