"""Measures: the table is whole, named by Prometheus' rules, and reads what scripted events have counted."""

from __future__ import annotations

import asyncio
import re

import pytest

from hubbub import Client, Close, CommandError, Hub, MemoryBroker, RoomRules
from hubbub.brokers.broker import Condition
from hubbub.hub.core import core_of
from hubbub.hub.measures import COUNTED_AS_CLOSES, MEASURES, Measure
from hubbub.stats import Histogram, Stats
from hubbub.testing import FakeClock, connect, set_clock, settle
from started_hub import started

pytestmark = pytest.mark.anyio

BY_NAME = {measure.name: measure for measure in MEASURES}
BASE_UNITS = ("_seconds", "_bytes")


def number(hub: Hub, name: str, *labels: str) -> float:
    """Return one number; that it is there is part of what is asked."""
    found = BY_NAME[name].read(core_of(hub))[labels]
    assert not isinstance(found, Histogram)
    return found


def test_each_name_is_there_once() -> None:
    assert len(BY_NAME) == len(MEASURES)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_names_follow_the_rules_of_prometheus(measure: Measure) -> None:
    assert re.fullmatch(r"hubbub(_[a-z]+)+", measure.name)
    assert measure.name.endswith("_total") == (measure.kind == "counter")
    assert measure.kind != "histogram" or measure.name.endswith("_seconds")
    base = measure.name.removesuffix("_total")
    assert not re.search(r"_(s|ms|milliseconds|kib|count|sum|bucket|info_info)$", base)
    for unit in BASE_UNITS:
        assert unit not in base or base.endswith(unit)
    assert all(re.fullmatch(r"[a-z]+", label) and label != "le" for label in measure.labels)
    assert measure.text.endswith(".")
    assert not {"hub", "worker"} & set(measure.labels)


async def test_every_row_can_be_read_before_during_and_after_the_hubs_life() -> None:
    hub = Hub()
    for _ in range(2):
        for measure in MEASURES:
            for labels in measure.read(core_of(hub)):
                assert len(labels) == len(measure.labels)
        assert number(hub, "hubbub_ready") == number(hub, "hubbub_broker_up") == 0
        await hub.start()
        assert number(hub, "hubbub_ready") == number(hub, "hubbub_broker_up") == 1
        await hub.stop()


def test_every_counter_of_the_stats_has_a_row() -> None:
    """Each is set to a number of its own, and found again in what is read."""
    hub = Hub()
    stats = core_of(hub).stats
    plain = [name for name in Stats.__slots__ if type(getattr(stats, name)) is int]
    for place, name in enumerate(plain):
        setattr(stats, name, 1000 + place)
    read = {
        value
        for measure in MEASURES
        for value in measure.read(core_of(hub)).values()
        if isinstance(value, int)
    }
    missing = {name for place, name in enumerate(plain) if 1000 + place not in read}
    assert missing == COUNTED_AS_CLOSES
    histograms = [name for name in Stats.__slots__ if isinstance(getattr(stats, name), Histogram)]
    assert len(histograms) == 3
    for name in histograms:
        assert BY_NAME[f"hubbub_{name}_seconds"].read(core_of(hub)) == {(): getattr(stats, name)}


async def test_what_clients_do_is_counted() -> None:
    hub = await started(messages_per_second=1000)

    @hub.on_message
    def said(client: Client, text: str) -> None:
        if text == "no":
            raise CommandError("no", "no")
        client.send(text)

    ann, bob = connect(hub, user="ann"), connect(hub, user="bob")
    ann.client.join("red")
    ann.client.join("red")
    bob.client.join("red")
    bob.client.join("blue")
    assert number(hub, "hubbub_clients") == number(hub, "hubbub_rooms") == 2
    assert number(hub, "hubbub_joins_total") == number(hub, "hubbub_room_members") == 3
    hub.room("red").broadcast("four")
    hub.broadcast("all")
    ann.send("hello")
    await settle(hub)
    assert number(hub, "hubbub_publications_total") == 2
    assert number(hub, "hubbub_received_messages_total") == 1
    assert number(hub, "hubbub_received_bytes_total") == 5
    assert number(hub, "hubbub_sent_messages_total") == 5
    assert number(hub, "hubbub_sent_bytes_total") == 2 * 6 + 2 * 5 + 7
    lag = core_of(hub).stats.delivery_lag
    assert sum(lag.counts) == 3
    bob.client.close(4123, "enough")
    ann.transport.drop_connection()
    assert number(hub, "hubbub_closes_total", "application", "hub") == 1
    assert sum(core_of(hub).stats.closes_by_peer.values()) == 1
    await hub.stop()
    assert number(hub, "hubbub_connections_total") == 2


async def test_a_drop_says_whether_there_was_no_place_or_nobody_any_more() -> None:
    hub = await started(outbox_max_entries=2, slow_policy="drop_newest")
    slow = connect(hub)
    slow.transport.block()
    for text in "abcde":
        hub.broadcast(text)
        await settle(hub)
    name = "hubbub_dropped_messages_total"
    assert (number(hub, name, "outbox_full"), number(hub, name, "client_gone")) == (3, 0)
    slow.transport.drop_connection()
    await settle(hub)
    assert (number(hub, name, "outbox_full"), number(hub, name, "client_gone")) == (3, 2)
    await hub.stop()


async def test_a_message_that_no_handler_saw_says_why() -> None:
    hub = Hub(messages_per_second=5, on_rate_limit="reply")
    set_clock(hub, FakeClock())
    await hub.start()
    gate = asyncio.Event()

    @hub.on_message
    async def said(client: Client, message: int) -> None:
        await gate.wait()

    peer = connect(hub)
    for text in ["no number", *"123456789", "10", "11", "12"]:
        peer.send(text)
    await settle(hub)
    name = "hubbub_rejected_messages_total"
    reasons = "invalid", "rate_limited", "client_gone"
    assert [number(hub, name, reason) for reason in reasons] == [1, 3, 0]
    peer.client.close()
    gate.set()
    assert [number(hub, name, reason) for reason in reasons] == [1, 3, 8]
    await hub.stop()


async def test_a_close_has_the_name_of_its_code_and_who_closed() -> None:
    hub = await started()
    for code in (1000, 1001, 3008, 4000, 2999):
        connect(hub)
        core_of(hub).stats.end(code, by_server=True)
    core_of(hub).stats.end(1006, by_server=False)
    read = BY_NAME["hubbub_closes_total"].read(core_of(hub))
    assert read == {
        ("normal", "hub"): 1,
        ("going_away", "hub"): 1,
        ("slow_consumer", "hub"): 1,
        ("application", "hub"): 1,
        ("other", "hub"): 1,
        ("abnormal", "peer"): 1,
    }
    await hub.stop()


async def test_presence_and_history_are_told_of() -> None:
    hub = await started(room_rules=[RoomRules("team:*", history=5, presence=True)])
    peer = connect(hub)
    await peer.client.subscribe("team:a")
    await hub.publish("team:a", "kept")
    await settle(hub)
    assert number(hub, "hubbub_presence_rooms") == number(hub, "hubbub_presence_members") == 1
    assert number(hub, "hubbub_history_publications") == number(hub, "hubbub_history_rooms") == 1
    assert number(hub, "hubbub_history_bytes") > 0
    await hub.stop()


async def test_what_waits_for_a_slow_client_is_told_in_bytes() -> None:
    hub = await started()
    peer = connect(hub)
    peer.transport.block()
    hub.broadcast("x" * 100)
    hub.broadcast("y" * 200)
    await settle(hub)
    assert number(hub, "hubbub_slow_clients") == 1
    assert number(hub, "hubbub_outbox_bytes") == 102 + 204
    peer.transport.unblock()
    assert number(hub, "hubbub_outbox_bytes") == number(hub, "hubbub_slow_clients") == 0
    await hub.stop()


class Reporting(MemoryBroker):
    """A broker that says how it is."""

    now = Condition()

    @property
    def condition(self) -> Condition:
        return self.now


async def test_a_broker_says_how_it_is_or_nothing_is_told_of_it() -> None:
    names = ("lag_seconds", "waiting_messages", "waiting_bytes")
    broker = Reporting()
    hub = Hub(broker=broker)
    await hub.start()
    for name in names:
        assert BY_NAME[f"hubbub_broker_{name}"].read(core_of(hub)) == {}
    broker.now = Condition("away", 7, 700, 0.25)
    assert number(hub, "hubbub_broker_up") == 0
    assert [number(hub, f"hubbub_broker_{name}") for name in names] == [0.25, 7, 700]
    assert hub.stats()["broker_state"] == "away"
    broker.now = Condition("silent", 7)
    assert number(hub, "hubbub_broker_up") == 1
    assert hub.stats()["broker_state"] == "silent"
    broker.now = Condition()
    assert hub.stats()["broker_state"] == "up"
    await hub.stop()
    assert number(hub, "hubbub_broker_up") == 0
    assert core_of(hub).condition == Condition("away")
    assert hub.stats()["broker_state"] == "away"


async def test_the_hub_says_what_it_runs_on() -> None:
    hub = await started()
    (labels,) = BY_NAME["hubbub_info"].read(core_of(hub))
    told = dict(zip(BY_NAME["hubbub_info"].labels, labels, strict=True))
    assert (told["broker"], told["loop"], told["server"]) == ("memory", "asyncio", "")
    assert number(hub, "hubbub_workers") == 1
    await hub.stop()


async def test_the_end_of_a_client_by_itself_is_the_peers() -> None:
    hub = await started()
    ended: list[Close] = []
    hub.on_disconnect(lambda client, close: ended.append(close))
    peer = connect(hub)
    peer.transport.drop_connection()
    await settle(hub)
    word = "no_status" if ended[0].code == 1005 else "abnormal"
    assert ended[0].by_server is False
    assert number(hub, "hubbub_closes_total", word, "peer") == 1
    await hub.stop()
