"""Lifecycle: start, stop, shutdown, and the event loop that a hub belongs to."""

from __future__ import annotations

import asyncio
import time

import pytest

from exchange import Exchange, ExchangeBroker
from hubbub import (
    BrokerUnavailable,
    Client,
    Close,
    Handshake,
    Hub,
    HubNotRunning,
    Identity,
    MemoryBroker,
    Refused,
)
from hubbub.brokers.broker import Node
from hubbub.hub.admission import RETRY_AFTER_S
from hubbub.testing import (
    MemoryClient,
    MemoryTransport,
    connect,
    open_client,
    settle,
)
from started_hub import code_of, started, until

pytestmark = pytest.mark.anyio


async def test_start_and_stop_and_start_again() -> None:
    hub = Hub()
    await hub.stop()
    for _ in range(2):
        await asyncio.gather(hub.start(), hub.start())
        await hub.start()
        assert hub.is_running
        peer = connect(hub)
        peer.client.join("red")
        hub.broadcast("hello")
        await settle(hub)
        assert peer.received == ["hello"]
        await asyncio.gather(hub.stop(), hub.stop())
        await hub.stop()
        assert not hub.is_running
        assert code_of(peer) == 1012
        assert (len(hub), hub.rooms) == (0, {})
    assert hub.stats()["total_clients"] == 2


def test_a_hub_belongs_to_one_loop_at_a_time() -> None:
    hub = Hub()
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(hub.start())
        second.run(hub.start())

        async def both() -> None:
            with pytest.raises(HubNotRunning, match="another event loop"):
                await asyncio.to_thread(asyncio.run, hub.start())

        second.run(both())
        second.run(hub.stop())


def test_a_hub_whose_loop_died_forgets_what_it_left_behind() -> None:
    hub = Hub()

    async def dies() -> MemoryClient:
        await hub.start()
        peer = connect(hub, client_id="ann")
        peer.client.join("red")
        return peer

    old = asyncio.run(dies())
    assert len(hub) == 1

    async def lives() -> None:
        await hub.start()
        stats = hub.stats()
        assert (stats["clients"], stats["rooms"], stats["broadcast"]) == (0, 0, 0)
        peer = connect(hub, client_id="ann")
        hub.broadcast("1")
        await settle(hub)
        assert peer.received == ["1"]
        assert old.received == []
        await hub.stop()

    asyncio.run(lives())


class SlowBroker(MemoryBroker):
    """A broker whose start takes as long as the test likes, and may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.error: Exception | None = None
        self.starts = 0

    async def start(self, node: Node) -> None:
        self.starts += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        await super().start(node)


async def test_all_who_start_wait_for_the_one_start() -> None:
    broker = SlowBroker()
    hub = Hub(broker=broker)
    starts = [asyncio.create_task(hub.start()) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert not any(start.done() for start in starts)
    broker.gate.set()
    await asyncio.gather(*starts)
    assert broker.starts == 1
    await hub.stop()


async def test_a_start_that_fails_fails_for_all_and_can_be_tried_again() -> None:
    broker = SlowBroker()
    broker.error = BrokerUnavailable("no route")
    broker.gate.set()
    hub = Hub(broker=broker)
    answers = await asyncio.gather(hub.start(), hub.start(), return_exceptions=True)
    assert [type(answer) for answer in answers] == [BrokerUnavailable] * 2
    assert not hub.is_running
    broker.error = None
    await hub.start()
    assert hub.is_running
    await hub.stop()


async def test_s10_tickers_run_while_the_hub_does_and_only_while_somebody_is_there_if_told_so() -> (
    None
):
    hub = Hub()
    ticks: list[str] = []
    hub.every(0.002)(lambda: ticks.append("always"))
    hub.every(0.002, while_connected=True)(lambda: ticks.append("connected"))
    await asyncio.sleep(0.01)
    assert ticks == []
    await hub.start()
    hub.every(0.002)(lambda: ticks.append("late"))
    await until(lambda: {"always", "late"} <= set(ticks))
    assert "connected" not in ticks
    peer = connect(hub)
    await until(lambda: "connected" in ticks)
    peer.close()
    await hub.stop()
    ticks.clear()
    await asyncio.sleep(0.01)
    assert ticks == []


async def test_a_shutdown_says_1012_to_everybody_paced() -> None:
    hub = await started()
    peers = [connect(hub) for _ in range(45)]
    start = time.monotonic()
    await hub.stop()
    assert {peer.closed for peer in peers} == {Close(1012, "service restart", by_server=True)}
    assert 4 * 10 * 0.002 <= time.monotonic() - start < 5


class Hanging(MemoryTransport):
    """A transport whose close never ends, until it is cut."""

    def close(self, code: int, reason: str) -> None:
        return

    def abort(self) -> None:
        self.closed = Close(1006)
        self._session.connection_lost()


async def test_a_shutdown_has_a_bound_and_cuts_who_hangs() -> None:
    hub = await started(shutdown_timeout_s=0.2)
    quick = [connect(hub) for _ in range(1000)]
    transport = Hanging()
    open_client(hub, transport, Identity(), Handshake("/ws", {}))
    start = time.monotonic()
    await hub.stop()
    assert 0.16 <= time.monotonic() - start < 2, "the rest of the time is the handlers'"
    assert transport.closed == Close(1006)
    assert {code_of(peer) for peer in quick} == {1012}


async def test_a_shutdown_without_time_cuts_at_once() -> None:
    hub = await started(shutdown_timeout_s=0)
    transport = Hanging()
    open_client(hub, transport, Identity(), Handshake("/ws", {}))
    start = time.monotonic()
    await hub.stop()
    assert time.monotonic() - start < 1
    assert transport.closed is not None


async def test_nobody_comes_in_while_it_closes_and_handlers_may_finish() -> None:
    hub = Hub()
    log: list[str] = []

    @hub.on_disconnect
    async def left(client: Client) -> None:
        with pytest.raises(Refused) as error:
            connect(hub)
        assert error.value.code == "shutting_down"
        assert error.value.headers == {"Retry-After": str(RETRY_AFTER_S)}
        await asyncio.sleep(0.01)
        log.append("left")

    await hub.start()
    connect(hub)
    await hub.stop()
    assert log == ["left"]


async def test_disconnect_handlers_run_after_a_handler_that_had_to_be_cancelled() -> None:
    hub = Hub(shutdown_timeout_s=0)
    said: list[str] = []

    @hub.on_message
    async def endless(client: Client, text: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            said.append("cancelled")

    hub.on_disconnect(lambda client: said.append("left"))
    await hub.start()
    connect(hub).send("work")
    await asyncio.sleep(0)
    await hub.stop()
    assert said == ["cancelled", "left"]


async def test_fault_03_what_a_client_sent_before_it_left_does_not_outlive_the_hub() -> None:
    hub = Hub(shutdown_timeout_s=0.4)
    said: list[str] = []

    @hub.on_message
    async def slow(client: Client, text: str) -> None:
        await asyncio.sleep(0.01 if text == "quick" else 60)
        said.append(text)

    hub.on_disconnect(lambda client: said.append("left"))
    await hub.start()
    peer = connect(hub)
    for text in ("quick", "quick", "slow", "quick"):
        peer.send(text)
    peer.close()
    await hub.stop()
    assert said == ["quick", "quick", "left"]
    assert hub.stats()["unhandled"] == 1
    assert hub.stats()["handlers"] == 0


class StuckBroker(MemoryBroker):
    """A broker whose connection breaks at the end."""

    async def stop(self) -> None:
        raise OSError("gone")


async def test_a_broker_that_cannot_stop_leaves_a_hub_that_can_start_again() -> None:
    hub = Hub(broker=StuckBroker())
    await hub.start()
    with pytest.raises(OSError, match="gone"):
        await hub.stop()
    assert not hub.is_running
    with pytest.raises(HubNotRunning):
        hub.broadcast("nobody is there")
    await hub.start()
    peer = connect(hub)
    hub.broadcast("again")
    await settle(hub)
    assert peer.received == ["again"]
    with pytest.raises(OSError, match="gone"):
        await hub.stop()


class LateBroker(ExchangeBroker):
    """Starts when `gate` is set."""

    gate: asyncio.Event

    async def start(self, node: Node) -> None:
        await self.gate.wait()
        await super().start(node)


@pytest.mark.parametrize("starts_again", [False, True])
async def test_a_hub_that_is_stopped_while_it_starts_has_not_started(starts_again: bool) -> None:
    exchange = Exchange()
    broker = LateBroker(exchange)
    exchange.brokers.append(broker)
    broker.gate = asyncio.Event()
    hub = Hub(broker=broker, shutdown_timeout_s=1)
    starts = [asyncio.create_task(hub.start()) for _ in range(2)]
    await asyncio.sleep(0)
    await hub.stop()
    again = asyncio.create_task(hub.start() if starts_again else asyncio.sleep(0))
    await asyncio.sleep(0)
    broker.gate.set()
    errors = await asyncio.wait_for(asyncio.gather(*starts, return_exceptions=True), 5)
    assert [type(error) for error in errors] == [HubNotRunning, HubNotRunning]
    await again
    assert hub.is_running is starts_again
    assert (broker.node is not None) is starts_again
    await hub.stop()
    await hub.start()
    await connect(hub).client.subscribe("red")
    await hub.stop()


async def test_a_broker_that_never_stops_holds_up_no_shutdown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Endless(MemoryBroker):
        async def stop(self) -> None:
            await asyncio.Event().wait()

    hub = Hub(broker=Endless(), shutdown_timeout_s=0.2)
    await hub.start()
    await asyncio.wait_for(hub.stop(), 5)
    assert "the broker did not stop in time" in caplog.text
    assert not hub.is_running


async def test_a_stop_that_is_given_up_at_any_moment_can_be_made_again() -> None:
    for turns in range(12):
        (hub,) = Exchange().hubs(1, shutdown_timeout_s=2)

        @hub.on_disconnect
        async def gone(client: Client) -> None:
            await asyncio.sleep(0.01)

        await hub.start()
        connect(hub)
        stop = asyncio.create_task(hub.stop())
        for _ in range(turns):
            await asyncio.sleep(0)
        stop.cancel()
        await asyncio.gather(stop, return_exceptions=True)
        await asyncio.wait_for(hub.stop(), 5)
        await hub.start()
        await connect(hub).client.subscribe("red")
        await hub.stop()


async def test_a_second_stop_that_takes_longer_does_not_end_the_next_run() -> None:
    class Lingering(MemoryBroker):
        stops = 0

        async def stop(self) -> None:
            self.stops += 1
            number = self.stops
            await super().stop()
            for _ in range(10 * number):
                await asyncio.sleep(0)

    hub = Hub(broker=Lingering())
    await hub.start()
    first, second = asyncio.create_task(hub.stop()), asyncio.create_task(hub.stop())
    await first
    await hub.start()
    peer = connect(hub)
    await second
    assert hub.is_running
    hub.broadcast("x")
    await settle(hub)
    assert peer.received == ["x"]
    assert hub.stats()["loop"] == "asyncio"  # it still knows what it runs on
    await hub.stop()
