"""Draining: waves, by waits that the test ends; what is told to who is closed, and to who comes."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import Client, Hub, HubNotRunning, Refused, SettingsError
from hubbub.errors import retry_after_of
from hubbub.hub.admission import RETRY_AFTER_S
from hubbub.hub.core import core_of
from hubbub.hub.lifecycle import WAVE_S, pace
from hubbub.testing import MemoryClient, connect
from started_hub import code_of, started

pytestmark = pytest.mark.anyio


class Waits:
    """The pauses of a shutdown, each of which ends when the test says so."""

    def __init__(self, hub: Hub) -> None:
        self._asked: asyncio.Queue[tuple[float, asyncio.Future[None]]] = asyncio.Queue()
        core_of(hub).lifecycle.sleep = self._sleep

    async def _sleep(self, seconds: float) -> None:
        over = asyncio.get_running_loop().create_future()
        await self._asked.put((seconds, over))
        await over

    async def until_paused(self) -> tuple[float, asyncio.Future[None]]:
        """Wait for the next pause; return its length, and what ends it."""
        return await self._asked.get()


def open_among(peers: list[MemoryClient]) -> int:
    return sum(peer.closed is None for peer in peers)


async def test_clients_are_closed_in_even_waves_over_the_time_that_is_set() -> None:
    hub = await started(drain_s=2, shutdown_timeout_s=10)
    waits = Waits(hub)
    peers = [connect(hub) for _ in range(100)]
    draining = asyncio.create_task(hub.drain())
    left, times = [], [0.0]
    for _ in range(20):
        pause_s, over = await waits.until_paused()
        left.append(open_among(peers))
        times.append(times[-1] + pause_s)
        assert not draining.done()
        over.set_result(None)
    await draining
    assert left == list(range(95, -1, -5))
    assert times == pytest.approx([WAVE_S * number for number in range(21)])
    assert {code_of(peer) for peer in peers} == {1012}
    assert hub.is_running, "what else it does goes on"
    await hub.stop()


@pytest.mark.parametrize("count", [0, 1, 3, 7])
async def test_few_clients_are_spread_over_all_of_the_time_and_nobody_takes_it_too(
    count: int,
) -> None:
    hub = await started(drain_s=1, shutdown_timeout_s=10)
    waits = Waits(hub)
    peers = [connect(hub) for _ in range(count)]
    draining = asyncio.create_task(hub.drain())
    total = 0.0
    for wave in range(1, 11):
        pause_s, over = await waits.until_paused()
        total += pause_s
        assert open_among(peers) == count - count * wave // 10
        over.set_result(None)
    await draining
    assert total == pytest.approx(1)
    await hub.stop()


async def test_without_a_time_they_go_at_once_and_many_a_little_apart() -> None:
    hub = await started(shutdown_timeout_s=10)
    waits = Waits(hub)
    peers = [connect(hub) for _ in range(30)]
    draining = asyncio.create_task(hub.drain())
    for left in (20, 10):
        pause_s, over = await waits.until_paused()
        assert pause_s == pytest.approx(0.02)
        assert open_among(peers) == left
        over.set_result(None)
    await draining
    assert open_among(peers) == 0
    await hub.stop()


async def test_who_hurries_makes_no_more_pauses() -> None:
    hub = await started(drain_s=5, shutdown_timeout_s=10)
    waits = Waits(hub)
    peers = [connect(hub) for _ in range(10)]
    draining = asyncio.create_task(hub.drain())
    _, over = await waits.until_paused()
    core_of(hub).lifecycle.hurry()
    over.set_result(None)
    await draining
    assert open_among(peers) == 0
    await hub.stop()


@given(
    count=st.integers(0, 100_000),
    drain_s=st.one_of(st.just(0.0), st.floats(0.01, 300)),
    timeout_s=st.floats(0.0, 600),
)
def test_all_waves_take_the_time_that_is_set_whatever_the_numbers_are(
    count: int, drain_s: float, timeout_s: float
) -> None:
    waves, pause_s = pace(count, drain_s, timeout_s)
    if drain_s:
        assert waves * pause_s == pytest.approx(drain_s)
        assert pause_s <= 2 * WAVE_S
    else:
        assert (waves > 0) == (count > 0)
        assert (waves - 1) * pause_s <= timeout_s / 2 + 1e-9


@pytest.mark.parametrize(("drain_s", "timeout_s"), [(5.1, 10), (1, 1)])
def test_a_drain_that_leaves_no_time_for_the_rest_is_an_error(
    drain_s: float, timeout_s: float
) -> None:
    with pytest.raises(SettingsError, match="at most half of shutdown_timeout_s") as caught:
        Hub(drain_s=drain_s, shutdown_timeout_s=timeout_s)
    assert caught.value.field == "drain_s"
    Hub(drain_s=timeout_s / 2, shutdown_timeout_s=timeout_s)


async def test_each_is_told_to_come_back_when_the_drain_is_over_and_there_is_a_server() -> None:
    hub = await started(drain_s=4, come_back_s=3, shutdown_timeout_s=10)
    waits = Waits(hub)
    lifecycle = core_of(hub).lifecycle
    now = [1000.0]
    assert lifecycle.loop is not None
    peers = [connect(hub) for _ in range(40)]
    lifecycle.loop = FixedClock(lifecycle.loop, now)  # type: ignore[assignment]
    draining = asyncio.create_task(hub.drain())
    await asyncio.sleep(0)
    lifecycle._drained_at = now[0] + 4  # by the clock of the test
    told = []
    for number in range(40):
        pause_s, over = await waits.until_paused()
        closed = peers[number].closed
        assert closed is not None
        assert closed.reason.startswith("service restart; retry after ")
        told.append(retry_after_of(closed.reason))
        now[0] += pause_s
        if number == 0:
            with pytest.raises(Refused, match="shutting_down") as caught:
                connect(hub)
            assert caught.value.headers["Retry-After"] == "7"
        over.set_result(None)
    assert told == pytest.approx([7 - 0.1 * number for number in range(40)])
    await draining
    await hub.stop()


class FixedClock:
    """An event loop whose time is the test's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: list[float]) -> None:
        self._loop = loop
        self._now = now

    def time(self) -> float:
        return self._now[0]

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)


async def test_where_nothing_is_set_nothing_is_told() -> None:
    hub = await started(drain_s=0.01)
    peer = connect(hub)
    await hub.drain()
    assert peer.closed is not None
    assert peer.closed.reason == "service restart"
    with pytest.raises(Refused, match="shutting_down") as caught:
        connect(hub)
    assert caught.value.headers["Retry-After"] == str(RETRY_AFTER_S)
    await hub.stop()


async def test_draining_begins_once_and_the_stop_goes_on_from_it() -> None:
    hub = await started()
    peer = connect(hub)
    await asyncio.gather(hub.drain(), hub.drain())
    assert code_of(peer) == 1012
    assert hub.stats()["state"] == "draining"
    await hub.drain()
    hub.broadcast("nobody is there, and it is no error")
    await hub.stop()
    assert hub.stats()["state"] == "stopped"
    await hub.start()
    assert connect(hub).closed is None
    await hub.stop()


async def test_a_hub_that_does_not_run_cannot_drain() -> None:
    with pytest.raises(HubNotRunning):
        await Hub().drain()


async def test_who_gives_up_waiting_does_not_end_the_drain() -> None:
    hub = await started(drain_s=1)
    waits = Waits(hub)
    peer = connect(hub)
    draining = asyncio.create_task(hub.drain())
    _, over = await waits.until_paused()
    draining.cancel()
    await asyncio.gather(draining, return_exceptions=True)
    assert hub.stats()["state"] == "draining"
    core_of(hub).lifecycle.hurry()
    over.set_result(None)
    await hub.stop()
    assert code_of(peer) == 1012


async def test_a_stop_long_after_the_drain_gives_handlers_their_time() -> None:
    hub = await started(shutdown_timeout_s=100)
    gate, done = asyncio.Event(), []

    @hub.on_disconnect
    async def left(client: Client) -> None:
        await gate.wait()
        done.append(client.id)

    peer = connect(hub, client_id="ann")
    await hub.drain()
    assert code_of(peer) == 1012
    core_of(hub).lifecycle._deadline -= 1000
    stopping = asyncio.create_task(hub.stop())
    for _ in range(5):
        await asyncio.sleep(0)
    gate.set()
    await stopping
    assert done == ["ann"]
