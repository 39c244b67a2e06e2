"""Lags: what is noted of a turn, and what two hubs on one server say of what goes from one to the other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import nats_server
from broker_hubs import hubs_on, member, texts
from hubbub import Frame, Hub, Publication, RoomRules
from hubbub.hub import lags as lags_module
from hubbub.hub.core import core_of
from hubbub.hub.fanout import LAG_SAMPLE
from hubbub.hub.lags import note_lags
from hubbub.hub.room import Membership
from hubbub.hub.variant import ENCODED, Row
from hubbub.stats import Stats
from hubbub.testing import connect, settle
from hubbub.wire.publication import Kind
from started_hub import started, until
from valkey_server import fresh_prefix, server_url

pytestmark = pytest.mark.anyio

NOW_S = 1_700_000_000.0


ROOM = Membership.__new__(Membership)


def row(age_ms: int | None = None, *, kind: Kind = Kind.MESSAGE, to: object = ROOM) -> Row:
    """Return a row of a publication that is so old by its publisher's clock; None: it has no time."""
    time_ms = None if age_ms is None else int(NOW_S * 1000) - age_ms
    frame = Frame(b"", True)
    return to, frame, (), Publication("red", frame, kind=kind, time_ms=time_ms)


def lags_of(monkeypatch: pytest.MonkeyPatch, lag_s: float, *rows: Row) -> Stats:
    """Return what is noted of a turn whose first publication came so long ago."""
    monkeypatch.setattr(lags_module, "time", lambda: NOW_S)
    stats = Stats()
    note_lags(stats, lag_s, rows)
    return stats


def test_each_publication_is_as_old_as_its_publisher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    stats = lags_of(monkeypatch, 0.002, row(30), row(700), row(4000))
    assert stats.delivery_lag.snapshot() == {"count": 3, "sum_s": 0.006}
    assert stats.publication_lag.snapshot() == {"count": 3, "sum_s": 4.73}
    assert [count for count in stats.publication_lag.counts if count] == [1, 1, 1]


def test_what_one_client_is_given_of_a_history_was_not_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stats = lags_of(monkeypatch, 0.002, row(3_600_000, to=object()), row(to=object()), row(20))
    assert stats.delivery_lag.snapshot()["count"] == 3
    assert stats.publication_lag.snapshot() == {"count": 1, "sum_s": 0.02}


@pytest.mark.parametrize("age_ms", [-3_600_000, -1, 0, 1, 2])
def test_a_clock_that_is_ahead_makes_none_younger_than_it_is_here(
    monkeypatch: pytest.MonkeyPatch, age_ms: int
) -> None:
    stats = lags_of(monkeypatch, 0.002, row(age_ms))
    assert stats.publication_lag.snapshot() == {"count": 1, "sum_s": 0.002}


def test_what_has_no_time_was_published_here(monkeypatch: pytest.MonkeyPatch) -> None:
    stats = lags_of(monkeypatch, 0.25, row(), row(1000), row())
    assert stats.publication_lag.snapshot() == {"count": 3, "sum_s": 1.5}


def test_sends_and_who_comes_and_goes_are_no_publications(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = Frame(b"", True)
    sends: list[Row] = [(None, frame, (), None), (None, frame, (), ENCODED)]
    told = [row(kind=Kind.JOIN), row(9000, kind=Kind.LEAVE)]
    stats = lags_of(monkeypatch, 0.5, *sends, *told)
    assert stats.delivery_lag.snapshot() == {"count": 4, "sum_s": 2.0}
    assert stats.publication_lag.snapshot() == {"count": 0, "sum_s": 0.0}


async def test_in_one_process_it_is_what_the_delivery_takes() -> None:
    hub = await started(room_rules=[RoomRules("log", history=5)])
    peer = connect(hub)
    await peer.client.subscribe("log")
    hub.broadcast("plain")
    await hub.publish("log", "kept")
    await settle(hub)
    stats = core_of(hub).stats
    assert stats.publication_lag.snapshot()["count"] == 2
    assert stats.publication_lag.sum_s >= stats.delivery_lag.sum_s
    assert hub.stats()["publication_lag"] == stats.publication_lag.snapshot()
    await hub.stop()


@pytest.mark.parametrize("room", ["news", "log"])
@pytest.mark.parametrize("url", [server_url, nats_server.nats_url])
async def test_between_processes_it_has_the_way_through_the_broker(
    url: Any, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one hub publishes is held up before it is given to the members, there and here."""
    held_s = 0.05

    def hold_up(hub: Hub) -> None:
        fanout, loop = core_of(hub).fanout, asyncio.get_running_loop()
        publish = fanout.publish

        def later(*arguments: Any) -> None:
            loop.call_later(held_s, publish, *arguments)

        monkeypatch.setattr(fanout, "publish", later)

    async with hubs_on(f"{url()}?prefix={fresh_prefix()}") as (here, there):
        peers = [await member(hub, room) for hub in (here, there)]
        for hub in (here, there):
            hold_up(hub)
        for number in range(2 * LAG_SAMPLE):
            await here.publish(room, f"{number}")
        await until(lambda: all(len(texts(peer)) == 2 * LAG_SAMPLE for peer in peers))
        for hub in (here, there):
            stats = core_of(hub).stats
            count = stats.publication_lag.snapshot()["count"]
            assert count >= 1
            assert stats.publication_lag.sum_s >= count * (held_s - 0.001)
            assert stats.delivery_lag.sum_s < stats.publication_lag.sum_s
