"""Control: what cannot be said to other nodes is logged, and hurts nobody here."""

from __future__ import annotations

import asyncio

import pytest

from exchange import Exchange, ExchangeBroker
from hubbub import BrokerUnavailable, Hub
from hubbub.brokers.broker import Control
from hubbub.hub.core import core_of
from hubbub.testing import connect, settle
from started_hub import PATIENCE_S

pytestmark = pytest.mark.anyio


async def test_the_clients_here_are_disconnected_though_the_others_cannot_be_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exchange = Exchange()
    (hub,) = exchange.hubs(1)
    await hub.start()
    ann = connect(hub, user="ann")
    exchange.brokers[0].cut()
    assert hub.disconnect("ann") == 1
    assert ann.closed is not None
    assert "the other nodes could not be told 'disconnect'" in caplog.text
    assert [(info.clients, info.rooms) for info in await hub.nodes(wait_s=0.0)] == [(0, 0)]
    exchange.brokers[0].mend()
    await hub.stop()


async def test_a_word_that_fails_later_is_logged_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_later(self: ExchangeBroker, control: Control) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_exception(BrokerUnavailable("gone"))
        return future

    monkeypatch.setattr(ExchangeBroker, "send_control", fail_later)
    exchange = Exchange()
    (hub,) = exchange.hubs(1)
    await hub.start()
    assert hub.kick("somebody elsewhere") is False
    await settle(hub)
    assert "the other nodes could not be told 'kick': gone" in caplog.text
    await hub.stop()


async def test_a_word_that_the_broker_gives_up_is_raised_to_who_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[asyncio.Future[None]] = []

    def keep(self: ExchangeBroker, control: Control) -> asyncio.Future[None]:
        sent.append(asyncio.get_running_loop().create_future())
        return sent[-1]

    monkeypatch.setattr(ExchangeBroker, "send_control", keep)
    (hub,) = Exchange().hubs(1)
    await hub.start()
    said = [core_of(hub).control.say("kick") for _ in range(3)]
    assert not any(each.done() for each in said)
    sent[0].set_result(None)
    sent[1].cancel()
    said[2].cancel()
    sent[2].set_result(None)
    await said[0]
    with pytest.raises(BrokerUnavailable, match="has stopped"):
        await said[1]
    await hub.stop()


async def test_what_is_raised_to_who_waits_is_not_logged_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exchange = Exchange()
    (hub,) = exchange.hubs(1)
    await hub.start()
    exchange.brokers[0].cut()
    with pytest.raises(BrokerUnavailable):
        await core_of(hub).control.say("kick")
    with pytest.raises(BrokerUnavailable):
        await core_of(hub).control.nodes(1000.0, must_ask=True)
    await settle(hub)
    assert "could not be told" not in caplog.text
    await hub.stop()


@pytest.mark.parametrize("is_later", [False, True])
async def test_a_question_that_cannot_be_sent_is_not_waited_for(
    is_later: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ExchangeBroker, control: Control) -> asyncio.Future[None]:
        if not is_later:
            raise BrokerUnavailable("gone")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, BrokerUnavailable("gone"))
        return future

    monkeypatch.setattr(ExchangeBroker, "send_control", fail)
    (hub,) = Exchange().hubs(1)
    await hub.start()
    async with asyncio.timeout(PATIENCE_S):
        assert len(await hub.nodes(wait_s=1e6)) == 1
        assert await core_of(hub).control.has_members("red", 1e6)
    await hub.stop()


async def test_an_answer_that_comes_too_late_is_no_error() -> None:
    exchange = Exchange()
    (hub,) = exchange.hubs(1)
    await hub.start()
    found = await hub.nodes(wait_s=0.0)
    core_of(hub).control.handle_control(
        Control("counted", "other", {"question": "1", "clients": 1, "rooms": 1})
    )
    assert len(found) == 1
    await hub.stop()


async def test_a_node_of_an_older_version_says_less_of_itself() -> None:
    exchange = Exchange()
    (hub,) = exchange.hubs(1)
    await hub.start()
    connect(hub, user="ann")
    control, facts = core_of(hub).control, {"question": "1", "clients": 5, "rooms": 2}
    core_of(hub).lifecycle.schedule(
        lambda: control.handle_control(Control("counted", "old", facts))
    )
    own, old = await hub.nodes(wait_s=0.05)
    assert (own.clients, own.users, own.subscriptions) == (1, 1, 0)
    assert (old.id, old.clients, old.rooms, old.users, old.uptime_s) == ("old", 5, 2, 0, 0)
    await hub.stop()


async def test_a_broker_that_raises_anything_keeps_nobody_here_from_being_disconnected(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: ExchangeBroker, control: Control) -> None:
        raise RuntimeError

    monkeypatch.setattr(ExchangeBroker, "send_control", fail)
    (hub,) = Exchange().hubs(1)
    await hub.start()
    ann = connect(hub, user="ann")
    assert hub.disconnect("ann") == 1
    assert ann.closed is not None
    assert "could not be told 'disconnect': RuntimeError" in caplog.text
    assert len(await hub.nodes(wait_s=0.0)) == 1
    await hub.stop()


@pytest.mark.parametrize(
    "control",
    [
        Control("disconnect", "other", {"user": "ann", "code": float("inf"), "reason": ""}),
        Control("disconnect", "other", {"user": "ann", "code": 1000, "reason": "x" * 1000}),
        Control("kick", 5, {"client": "c"}),  # type: ignore[arg-type]
        Control("kick", "other", None),  # type: ignore[arg-type]
        Control("count", "other", {}),
        Control("counted", "other", {"question": "1", "clients": []}),
        Control("a verb of next year", "other", {}),
    ],
)
async def test_a_word_that_makes_no_sense_raises_nothing_into_the_broker(control: Control) -> None:
    (hub,) = Exchange().hubs(1)
    await hub.start()
    connect(hub, user="ann")
    core_of(hub).control.handle_control(control)
    await hub.stop()


async def test_another_node_says_that_a_room_has_members() -> None:
    exchange = Exchange()
    here, there = exchange.hubs(2)
    for hub in (here, there):
        await hub.start()
    connect(there).client.join("red")
    control = core_of(here).control
    assert await control.has_members("red", 10.0)
    assert not await control.has_members("blue", 0.0)
    control.handle_control(Control("sought", "other", {"question": "2"}))
    for hub in (here, there):
        await hub.stop()


async def test_where_nobody_can_be_asked_a_room_may_have_members(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exchange = Exchange()
    (cut_off,) = exchange.hubs(1)
    await cut_off.start()
    exchange.brokers[0].cut()
    assert await core_of(cut_off).control.has_members("red", 0.0)
    await cut_off.stop()
    alone = Hub()
    assert not await core_of(alone).control.has_members("red", 10.0)
    monkeypatch.setattr(ExchangeBroker, "abilities", frozenset())
    (hub,) = Exchange().hubs(1)
    assert await core_of(hub).control.has_members("red", 10.0)
