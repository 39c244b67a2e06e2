"""Surveys: which rooms there are on all nodes, in parts, bounded, and from those that answer in time."""

from __future__ import annotations

from typing import Any

import pytest

from exchange import EXCHANGES, Exchange, cluster
from hubbub import BrokerUnavailable, CommandError, Hub
from hubbub.brokers.broker import Control
from hubbub.hub import surveys
from hubbub.hub.core import core_of
from hubbub.testing import connect

pytestmark = pytest.mark.anyio

WAIT_S = 0.05


def fill(hub: Hub, *rooms: str) -> None:
    for room in rooms:
        connect(hub, user="ann").client.join(room)


async def test_one_process_answers_at_once() -> None:
    hub = Hub()
    await hub.start()
    fill(hub, "a", "a", "b:1")
    found = core_of(hub).surveys
    assert await found.rooms("", 600.0) == {"a": 2, "b:1": 1}
    assert await found.rooms("b:*", 600.0) == {"b:1": 1}
    await hub.stop()


@pytest.mark.parametrize("travels", EXCHANGES)
async def test_the_members_of_all_nodes_are_added_up(
    travels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveys, "ROOMS_A_MESSAGE", 2)
    async with cluster(EXCHANGES[travels](), count=3) as hubs:
        for hub in hubs:
            fill(hub, "both", "news:1", "news:2", "x")
        fill(hubs[2], "news:3", "both")
        ask = core_of(hubs[0]).surveys.rooms
        assert await ask("", WAIT_S) == {"both": 4, "news:1": 3, "news:2": 3, "x": 3, "news:3": 1}
        assert await ask("news:[23]", WAIT_S) == {"news:2": 3, "news:3": 1}
        assert await ask("nothing", WAIT_S) == {}


async def test_what_comes_too_late_or_for_nobody_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exchange = Exchange()
    async with cluster(exchange) as (here, there):
        fill(there, "a")
        exchange.hold()
        assert await core_of(here).surveys.rooms("", 0.0) == {}
        exchange.release()
        assert await core_of(here).surveys.rooms("", WAIT_S) == {"a": 1}
    assert caplog.text == ""


async def test_a_node_with_too_many_rooms_makes_it_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(surveys, "MOST_ROOMS", 3)
    async with cluster(Exchange()) as (here, there):
        fill(there, "a1", "a2", "a3", "b1")
        ask = core_of(here).surveys.rooms
        assert await ask("a*", WAIT_S) == {"a1": 1, "a2": 1, "a3": 1}
        for hub in (here, there):
            with pytest.raises(CommandError, match="more than 3 rooms") as caught:
                await core_of(hub).surveys.rooms("", WAIT_S)
            assert caught.value.code == "too_many_rooms"
        with pytest.raises(CommandError, match="256 characters"):
            await ask("x" * 257, WAIT_S)


async def test_where_the_others_cannot_be_asked_there_is_no_answer() -> None:
    exchange = Exchange()
    async with cluster(exchange) as (here, _):
        fill(here, "a")
        exchange.brokers[0].cut()
        with pytest.raises(BrokerUnavailable):
            await core_of(here).surveys.rooms("", 600.0)
        exchange.brokers[0].mend()
        assert await core_of(here).surveys.rooms("", WAIT_S) == {"a": 1}


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("list", {"question": "1"}),
        ("list", {"question": "1", "pattern": 5}),
        ("listed", {"question": "1", "rooms": 5}),
        ("listed", {"question": "1", "rooms": {"a": "many"}}),
        ("listed", {"question": "1"}),
        ("listed", {}),
    ],
)
async def test_an_answer_that_makes_no_sense_counts_for_nothing(
    verb: str, arguments: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster(Exchange(), count=1) as (hub,):
        fill(hub, "a")
        core = core_of(hub)
        said = Control(verb, "other", arguments)
        core.lifecycle.schedule(lambda: core.control.handle_control(said))
        assert await core.surveys.rooms("", WAIT_S) == {"a": 1}
        assert f"a control message '{verb}' that makes no sense" in caplog.text
