"""Liveness: the silent and the stuck, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest

from hubbub import Client, Close, Hub
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.hub.liveness import PULSE_S, TURN_TOKENS, LivenessMonitor
from hubbub.hub.outbox import Entry
from hubbub.stats import BOUNDS_S
from hubbub.testing import FakeClock, MemoryClient, advance_time, connect, set_clock, settle
from hubbub.wire.frame import Batch, encode
from started_hub import until

pytestmark = pytest.mark.anyio


async def started(**settings: Any) -> tuple[Hub, FakeClock]:
    hub, clock = Hub(**settings), FakeClock()
    set_clock(hub, clock)
    await hub.start()
    return hub, clock


def queue(peer: MemoryClient, text: str = "x") -> None:
    """Give a blocked client something that waits in its outbox."""
    session_of(peer.client).enqueue([Entry(Batch([encode(text)]), "disconnect", "")])


async def test_s14_a_silent_client_is_closed_in_time_though_nothing_is_sent_to_it() -> None:
    hub, _ = await started()
    dead, alive = connect(hub), connect(hub)
    dead.transport.answers_pings = False
    advance_time(hub, 50.0)
    assert dead.transport.pings == alive.transport.pings == 0
    advance_time(hub, 10.0)
    assert dead.transport.pings == alive.transport.pings == 1
    assert dead.closed is not None
    assert (dead.closed.code, dead.closed.reason) == (3012, "no pong")
    assert hub.stats()["dead"] == 1
    advance_time(hub, 600.0)
    assert alive.closed is None
    await hub.stop()


async def test_s14_any_message_is_a_sign_of_life() -> None:
    hub, _ = await started()
    peer = connect(hub)
    peer.transport.answers_pings = False
    for _ in range(20):
        advance_time(hub, 50.0)
        peer.send("still here")
    assert peer.transport.pings == 0
    assert peer.closed is None
    await hub.stop()


async def test_a_transport_without_pings_is_left_to_its_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub, _ = await started()
    peer = connect(hub)
    monkeypatch.setattr(peer.transport, "ping", lambda: False)
    advance_time(hub, 600.0)
    assert peer.closed is None
    await hub.stop()


async def test_fault_02_a_client_whose_handler_runs_is_dead_when_it_is_silent() -> None:
    hub, _ = await started()
    gate = asyncio.Event()

    @hub.on_message
    async def slow(client: Client, message: str) -> None:
        await gate.wait()

    silent, alive = connect(hub), connect(hub)
    silent.transport.answers_pings = False
    for peer in (silent, alive):
        peer.send("work")
    await settle(hub)
    advance_time(hub, 70.0)
    assert silent.closed == Close(3012, "no pong", by_server=True)
    assert alive.closed is None
    gate.set()
    await hub.stop()


async def test_fault_02_who_is_not_read_from_is_closed_when_no_handler_of_it_ends() -> None:
    hub, _ = await started(inbox_max_messages=4)
    gates = [asyncio.Event() for _ in range(8)]
    heard: list[int] = []

    @hub.on_message
    async def slow(client: Client, message: str) -> None:
        heard.append(int(message))
        await gates[int(message)].wait()

    peer = connect(hub)
    for number in range(8):
        peer.send(str(number))
    await settle(hub)
    assert not peer.transport.is_reading
    peer.transport.answers_pings = False  # nobody reads its pongs
    advance_time(hub, 50.0)
    gates[0].set()
    await settle(hub)
    advance_time(hub, 50.0)
    assert peer.closed is None, "a handler has ended meanwhile"
    advance_time(hub, 20.0)
    assert peer.closed == Close(1013, "the handler takes too long", by_server=True)
    assert heard == [0, 1]
    stats = hub.stats()
    assert (stats["stuck_handlers"], stats["unhandled"]) == (1, 3), "what was read and not handled"
    for gate in gates:
        gate.set()
    await hub.stop()


async def test_a_machine_that_slept_cuts_nobody() -> None:
    hub, clock = await started()
    silent, stuck = connect(hub), connect(hub)
    silent.transport.answers_pings = stuck.transport.answers_pings = False
    stuck.transport.block()
    queue(stuck)
    advance_time(hub, 5.0)
    clock.advance(3600.0)
    advance_time(hub, 1.0)
    assert silent.closed is None
    assert stuck.client.is_connected
    advance_time(hub, 10.0)
    assert not stuck.client.is_connected
    advance_time(hub, 60.0)
    assert silent.closed is not None
    await hub.stop()


async def test_a_socket_that_takes_nothing_is_closed_after_the_write_timeout() -> None:
    hub, _ = await started(write_timeout_s=3.0)
    peer = connect(hub)
    peer.transport.block()
    queue(peer)
    advance_time(hub, 2.0)
    assert peer.client.is_connected
    advance_time(hub, 1.5)
    close = session_of(peer.client).close
    assert close is not None
    assert close.code == 3008
    stats = hub.stats()
    assert (stats["slow_disconnects"], stats["dropped"], stats["slow"]) == (1, 1, 0)
    await hub.stop()


async def test_a_socket_that_was_full_before_the_last_message_is_closed_all_the_same() -> None:
    hub, _ = await started(write_timeout_s=3.0)
    peer = connect(hub)
    peer.transport.block()
    advance_time(hub, 2.0)
    assert peer.client.is_connected
    advance_time(hub, 1.5)
    assert not peer.client.is_connected
    assert peer.closed == Close(3008, "slow consumer", by_server=True)
    await hub.stop()


async def test_a_socket_that_takes_a_little_is_slow_but_not_stuck_and_not_dead() -> None:
    """A socket that is never writable gets no ping; what its peer takes shows that it lives."""
    hub, _ = await started(write_timeout_s=3.0)
    peer = connect(hub)
    peer.transport.answers_pings = False
    peer.transport.block()
    queue(peer)
    for _ in range(100):
        advance_time(hub, 2.0)
        peer.transport.accept_some()
    assert peer.client.is_connected
    assert hub.stats()["slow"] == 1
    peer.transport.unblock()
    advance_time(hub, 4.0)
    assert hub.stats()["slow"] == 0
    assert peer.received == ["x"]
    await hub.stop()


async def test_without_a_write_timeout_only_pings_find_dead_clients() -> None:
    hub, _ = await started(write_timeout_s=None)
    peer = connect(hub)
    peer.transport.answers_pings = False
    peer.transport.block()
    queue(peer)
    advance_time(hub, 50.0)
    assert peer.client.is_connected
    advance_time(hub, 10.0)
    close = session_of(peer.client).close
    assert close is not None
    assert close.code == 3012
    peer.transport.unblock()
    assert peer.received == ["x"]
    assert peer.closed is not None
    await hub.stop()


async def test_who_is_closed_because_another_was_stuck_is_looked_at_no_more() -> None:
    hub, _ = await started(write_timeout_s=3.0)
    peers = [connect(hub) for _ in range(3)]

    @hub.on_disconnect
    def all_go(client: Client) -> None:
        for peer in peers:
            peer.client.close()
        session_of(peers[1].client).outbox = None
        peers[2].transport.accept_some()

    for peer in peers:
        peer.transport.block()
        queue(peer)
    advance_time(hub, 10.0)
    stats = hub.stats()
    assert (stats["clients"], stats["slow_disconnects"], stats["slow"]) == (0, 1, 0)
    for peer in peers:
        peer.transport.unblock()
    await hub.stop()


@pytest.mark.parametrize(
    ("write_timeout_s", "period_s"), [(None, 1.0), (10.0, 1.0), (3.0, 0.5), (0.1, 0.025)]
)
def test_a_look_is_made_every_tick_or_even_part_of_one(
    write_timeout_s: float | None, period_s: float
) -> None:
    watch = core_of(Hub(write_timeout_s=write_timeout_s)).liveness
    assert watch.period_s == pytest.approx(period_s)


async def test_looks_do_not_drift_against_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timers fire late by a little; hundreds of looks later the silent are still found in time."""
    clock = FakeClock()
    hub = Hub()
    set_clock(hub, clock)
    watch = LivenessMonitor(core_of(hub))
    loop = asyncio.get_running_loop()
    delays: list[float] = []
    real = loop.call_later

    def call_later(delay: float, *arguments: Any, **options: Any) -> asyncio.TimerHandle:
        delays.append(delay)
        return real(1000.0, *arguments, **options)

    monkeypatch.setattr(loop, "call_later", call_later)
    start = clock.now
    for number in range(1, 500):
        watch.start()
        clock.advance(delays[-1] + 0.004)
        late = clock.now - start - number * watch.period_s
        assert 0 < late < 0.01
        watch.stop()
    clock.now = start + 500 * watch.period_s - 0.0005
    watch.start()
    assert delays[-1] < 0.004, "a timer that was early is not a whole period late"
    watch.stop()


async def test_s24_a_loop_that_something_blocks_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hubbub.hub.liveness.STALL_S", 0.02)
    monkeypatch.setattr("hubbub.hub.liveness.PULSE_S", 0.02)
    hub = Hub()
    await hub.start()
    await asyncio.sleep(0.01)
    time.sleep(0.1)  # noqa: ASYNC251
    while not hub.stats()["loop_stalls"]:
        await asyncio.sleep(0.001)
    assert "the event loop was blocked for about 0." in caplog.text
    await hub.stop()
    stalls = hub.stats()["loop_stalls"]
    time.sleep(0.1)  # noqa: ASYNC251
    await asyncio.sleep(0.05)
    assert hub.stats()["loop_stalls"] == stalls, "a hub that has stopped feels nothing"


async def test_fault_18_a_stall_is_told_with_its_length(caplog: pytest.LogCaptureFixture) -> None:
    """Looks are made once a second: one that is half a second late may follow a longer stall."""
    hub = Hub()
    begin = time.monotonic()
    await hub.start()
    time.sleep(1.5)  # noqa: ASYNC251
    while not hub.stats()["loop_stalls"]:
        await asyncio.sleep(0.001)
    took_s = time.monotonic() - begin
    found = re.search(r"the event loop was blocked for about ([0-9.]+) seconds", caplog.text)
    assert found is not None
    assert 1.3 <= float(found[1]) <= took_s + 0.1
    assert hub.stats()["loop_stalls"] == 1
    await hub.stop()


async def test_how_late_the_loop_was_is_in_its_histogram() -> None:
    hub = Hub()
    await hub.start()
    lag = core_of(hub).stats.loop_lag
    assert sum(lag.counts) == 0
    begin = time.monotonic()
    time.sleep(0.4)  # noqa: ASYNC251
    await until(lambda: sum(lag.counts) > 0)
    assert 0.4 - PULSE_S <= lag.sum_s <= time.monotonic() - begin
    assert sum(lag.counts[BOUNDS_S.index(0.5) :]) > 0, "over a quarter of a second"
    assert hub.stats()["loop_lag"] == lag.snapshot()
    await until(lambda: sum(lag.counts) > 3)
    await hub.stop()


async def test_it_looks_by_itself_until_it_is_stopped() -> None:
    hub = Hub(pong_timeout_s=0.05, ping_interval_s=0.02)
    await hub.start()
    alive, dead = connect(hub), connect(hub)
    dead.transport.answers_pings = False
    while dead.closed is None:
        await asyncio.sleep(0.001)
    assert alive.closed is None
    await hub.stop()
    pings = alive.transport.pings
    await asyncio.sleep(0.06)
    assert alive.transport.pings == pings


async def test_the_tokens_of_a_crowd_end_in_parts_and_others_have_their_turn_between() -> None:
    hub, clock = await started()
    watch = core_of(hub).liveness
    peers = [connect(hub) for _ in range(2 * TURN_TOKENS + 20)]
    for peer in peers:
        watch.expire_in(session_of(peer.client), 10.0)
    clock.advance(10.0)
    watch._check_and_go_on()
    counts = []
    for _ in range(4):
        counts.append(hub.stats()["expired"])
        await asyncio.sleep(0)
    assert counts == [TURN_TOKENS, 2 * TURN_TOKENS, len(peers), len(peers)]
    assert {peer.closed.code for peer in peers if peer.closed} == {3005}
    await hub.stop()


async def test_a_hub_that_stops_amid_a_crowd_looks_no_more() -> None:
    hub, clock = await started()
    watch = core_of(hub).liveness
    for peer in [connect(hub) for _ in range(TURN_TOKENS + 1)]:
        watch.expire_in(session_of(peer.client), 10.0)
    clock.advance(10.0)
    watch._check_and_go_on()
    watch.stop()
    await asyncio.sleep(0)
    assert hub.stats()["expired"] == TURN_TOKENS
    await hub.stop()


async def test_the_recent_lag_is_the_worst_of_three_looks_and_passes() -> None:
    hub, _ = await started()
    watch = core_of(hub).liveness
    assert watch.recent_lag_s == 0.0
    seen = []
    for lag_s in (2.0, 0.0, 0.1, 0.0, 0.0, 0.0):
        watch.note_lag(lag_s)
        seen.append((watch.lag_s, watch.recent_lag_s))
    assert seen == [(2.0, 2.0), (0.0, 2.0), (0.1, 2.0), (0.0, 0.1), (0.0, 0.1), (0.0, 0.0)]
    await hub.stop()
