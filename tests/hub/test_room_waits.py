"""RoomWaits: who waits for a room needs what is published to it, and nobody else's counting."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from assigned_rooms import RULES
from exchange import Exchange, cluster
from hubbub import BrokerUnavailable, CommandError
from hubbub.brokers.broker import RoomsRefused
from hubbub.hub.core import core_of
from hubbub.hub.room_waits import Ready

pytestmark = pytest.mark.anyio


async def test_one_that_waits_over_a_restart_takes_nothing_from_those_of_the_next_run() -> None:
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (hub, _):
        joining = core_of(hub).joining
        waits = joining._waits
        old, new = Ready("log:a", None), Ready("log:a", None)
        waits.begin(old)
        joining.reset()
        waits.begin(new)
        waits.end(old)
        assert joining.is_awaited("log:a")
        waits.end(new)
        assert not joining.is_awaited("log:a")


async def test_a_room_is_awaited_until_the_last_who_waits_for_it_has_ended() -> None:
    async with cluster(Exchange(), room_rules=RULES) as (hub, _):
        waits = core_of(hub).joining._waits
        one, other = Ready("log:a", None), Ready("log:a", None)
        waits.begin(one)
        waits.begin(other)
        waits.drop([one])
        waits.drop([one])
        assert waits.is_awaited("log:a")
        waits.drop([other])
        assert not waits.is_awaited("log:a")


@pytest.mark.parametrize("rooms", [("good", "bad"), ("bad", "good")])
async def test_who_waits_for_several_rooms_of_which_one_is_refused_is_let_into_none(
    rooms: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = Exchange()
    async with cluster(exchange) as (hub, _):

        def refuses(asked: Sequence[str]) -> asyncio.Future[None]:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(RoomsRefused({"bad": BrokerUnavailable("no right")}))
            return future

        monkeypatch.setattr(exchange.brokers[0], "subscribe", refuses)
        joining = core_of(hub).joining
        with pytest.raises(CommandError, match="try again later"):
            await joining.ready(rooms, {})
        assert not any(map(joining.is_awaited, rooms))
