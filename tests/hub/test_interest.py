"""Interest: what a broker is asked for, through a hub on the exchange; see tests/contracts too."""

from __future__ import annotations

import asyncio

import pytest

from exchange import Exchange, carried
from hubbub import BrokerUnavailable, Hub
from hubbub.hub import interest as interest_module
from hubbub.hub.core import core_of
from hubbub.testing import connect

pytestmark = pytest.mark.anyio


async def started() -> tuple[Hub, Exchange]:
    exchange = Exchange()
    (hub,) = exchange.hubs(1)
    await hub.start()
    await carried(exchange)
    return hub, exchange


async def test_a_broker_that_receives_all_is_asked_for_nothing() -> None:
    hub = Hub()
    await hub.start()
    client = connect(hub, user="ann").client
    await client.subscribe("red")
    assert len(core_of(hub).interest) == 0
    assert core_of(hub).interest.ready("red") is None
    await hub.stop()


async def test_a_room_is_ready_when_the_broker_has_said_so() -> None:
    hub, exchange = await started()
    interest = core_of(hub).interest
    exchange.hold()
    interest.add("red")
    interest.add("red")
    ready = interest.ready("red")
    assert ready is not None
    assert not ready.done()
    exchange.release()
    await asyncio.wait_for(ready, 5)
    assert interest.ready("red") is None
    assert exchange.brokers[0].calls[1:] == [("subscribe", ("red",))]
    await hub.stop()


async def test_a_room_that_is_left_before_it_is_ready_fails_for_who_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interest_module, "MOST_LINGERING", 0)
    hub, exchange = await started()
    interest = core_of(hub).interest
    exchange.hold()
    interest.add("red")
    await asyncio.sleep(0)
    ready = interest.ready("red")
    assert ready is not None
    interest.remove("red")
    with pytest.raises(BrokerUnavailable):
        await ready
    interest.remove("red")
    interest.remove("never wanted")
    exchange.release()
    await hub.stop()


async def test_a_refusal_is_told_in_the_log_and_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(interest_module, "RETRY_S", 0.01)
    hub, exchange = await started()
    (broker,) = exchange.brokers
    broker.cut()
    client = connect(hub).client
    client.join("red")
    await asyncio.sleep(0.05)
    assert "does not send what is published to 1 rooms (red first)" in caplog.text
    broker.mend()
    for _ in range(100):
        await asyncio.sleep(0.005)
        if "red" in broker.rooms:
            break
    assert broker.rooms == {"", "red"}
    await hub.stop()


async def test_after_the_stop_nothing_is_asked_whatever_was_to_be_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interest_module, "RETRY_S", 0.01)
    monkeypatch.setattr(interest_module, "LINGER_S", 0.01)
    hub, exchange = await started()
    (broker,) = exchange.brokers
    client = connect(hub).client
    client.join("blue")
    await carried(exchange)
    client.leave("blue")
    broker.cut()
    client.join("red")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    before = core_of(hub).interest
    await hub.stop()
    count = len(broker.calls)
    broker.mend()
    await hub.start()
    await carried(exchange)
    await asyncio.sleep(0.05)
    assert core_of(hub).interest is not before
    assert broker.calls[count:] == [("subscribe", ("",))]
    await hub.stop()
