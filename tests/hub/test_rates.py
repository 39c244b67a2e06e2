"""Rates: how fast a client may send messages and small frames, and what becomes of more."""

from __future__ import annotations

import pytest

from hub.dispatching import code_of, started
from hubbub import Hub
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.testing import FakeClock, connect, set_clock, settle

pytestmark = pytest.mark.anyio


async def test_who_sends_too_fast_is_closed() -> None:
    hub, clock = Hub(messages_per_second=5), FakeClock()
    set_clock(hub, clock)
    await started(hub)
    peer = connect(hub)
    for _ in range(10):
        peer.send("x")
    clock.advance(1.0)
    for _ in range(5):
        peer.send("x")
    assert peer.closed is None
    peer.send("too many")
    assert code_of(peer) == 3013
    stats = hub.stats()
    assert (stats["rate_limited"], stats["messages_in"]) == (1, 16)
    assert len(peer.received) == 15
    await hub.stop()


@pytest.mark.parametrize(("rate", "allowed"), [(3, 20), (50, 100)])
async def test_frames_that_are_no_messages_have_a_limit_of_their_own(
    rate: float, allowed: int
) -> None:
    """Never under ten a second: a slow talker's pings, and the pongs for ours, are no flood."""
    hub, clock = Hub(messages_per_second=rate), FakeClock()
    set_clock(hub, clock)
    await started(hub)
    peer = connect(hub)
    client = peer.client
    admitted = [
        core_of(hub).rates.charge_frame(session_of(client), droppable=True) for _ in range(allowed)
    ]
    assert all(admitted)
    peer.send("a message is counted apart")
    assert not core_of(hub).rates.charge_frame(session_of(client), droppable=True)
    assert code_of(peer) == 3013
    assert hub.stats()["rate_limited"] == 1
    await hub.stop()


async def test_frames_are_dropped_instead_where_messages_are_but_a_fragment_cannot_be() -> None:
    hub, clock = Hub(messages_per_second=10, on_rate_limit="reply"), FakeClock()
    set_clock(hub, clock)
    await started(hub)
    peer = connect(hub)
    admitted = [
        core_of(hub).rates.charge_frame(session_of(peer.client), droppable=True) for _ in range(30)
    ]
    assert admitted == [True] * 20 + [False] * 10
    assert peer.closed is None
    assert not core_of(hub).rates.charge_frame(session_of(peer.client), droppable=False)
    assert code_of(peer) == 3013
    await hub.stop()


async def test_without_a_rate_no_frame_is_counted() -> None:
    hub = Hub()
    await started(hub)
    client = connect(hub).client
    assert all(
        core_of(hub).rates.charge_frame(session_of(client), droppable=False) for _ in range(1000)
    )
    assert session_of(client).frame_bucket is None
    await hub.stop()


async def test_who_sends_too_fast_may_be_told_instead_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub, clock = Hub(messages_per_second=5, on_rate_limit="reply"), FakeClock()
    set_clock(hub, clock)
    seen: list[str] = []
    hub.on_message(lambda client, message: seen.append(message))
    await started(hub)
    peer = connect(hub)
    for number in range(110):
        peer.send(str(number))
    await settle(hub)
    assert seen == [str(number) for number in range(10)]
    assert peer.closed is None
    told = {
        "type": "error",
        "code": "too_many_messages",
        "message": "more than 5 messages per second; the message was dropped",
        "temporary": True,
    }
    assert peer.json() == [told], "a hundred messages too many cause one answer"
    assert "sent more than 5 messages per second; they are dropped" in caplog.text
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert hub.stats()["rate_limited"] == 100
    clock.advance(1.0)
    for number in range(200, 210):
        peer.send(str(number))
    await settle(hub)
    assert seen[10:] == [str(number) for number in range(200, 205)]
    assert peer.json() == [told, told]
    assert hub.stats()["rate_limited"] == 105
    await hub.stop()
