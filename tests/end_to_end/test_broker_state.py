"""How soon a hub says that its broker is silent or away, with the times that applications have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import nats_server
from broker_hubs import hubs_on, member, state
from hubbub import BrokerUnavailable, Hub
from hubbub.asgi.health import Health
from hubbub.brokers import reconnecting
from started_hub import until
from valkey_server import Server, mended_server, own_server

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

AnyServer = Server | nats_server.NatsServer

one_server, valkey = own_server, mended_server
nats = nats_server.own_server

OWED_S = 1.0
"""Within how many seconds the guide promises it."""
SLACK_S = 0.4
"""How much longer it may take here: a process that has less than a core is a little late at each step."""
TICK_S = 0.005
STALL_S = 0.05
"""A sleep of a tick that takes longer than this is the machine's doing, and does not count."""


@pytest.fixture(params=["valkey", "nats"])
def server(request: pytest.FixtureRequest) -> AnyServer:
    found: AnyServer = request.getfixturevalue(request.param)
    return found


async def seconds_until(condition: Callable[[], bool]) -> float:
    """Return how long something took, without the time in which the machine did not let this process run."""
    spent_s, seen = 0.0, time.monotonic()
    while not condition():
        await asyncio.sleep(TICK_S)
        now = time.monotonic()
        spent_s += min(now - seen, STALL_S)
        seen = now
        assert spent_s < 10 * OWED_S, "waited in vain"
    return spent_s


@pytest.fixture
async def busy(server: AnyServer) -> AsyncIterator[Hub]:
    """A hub to which something comes from its broker all the time, so that the server is heard until its end."""
    async with hubs_on(server.url, 1) as (hub,):
        peer = await member(hub, "news")

        async def publish() -> None:
            while True:
                try:
                    await hub.publish("news", "x")
                except BrokerUnavailable:
                    await asyncio.sleep(TICK_S)
                await asyncio.sleep(0)

        talking = asyncio.create_task(publish())
        await until(lambda: len(peer.received) > 100)
        yield hub
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)


def health(hub: Hub) -> Any:
    return Health(hub).facts()["broker_state"]


def test_the_looks_are_as_often_as_the_guide_promises() -> None:
    """One in which something was heard, one without, and one for the sign of life."""
    assert 3 * reconnecting.PING_S < OWED_S


async def test_a_server_that_stands_still_is_said_to_be_silent(
    busy: Hub, server: AnyServer
) -> None:
    assert (health(busy), busy.stats()["broker_state"]) == ("up", "up")
    server.freeze()
    try:
        took_s = await seconds_until(state(busy, "silent"))
        assert health(busy) == "silent"
        assert took_s < OWED_S + SLACK_S
    finally:
        server.thaw()
    assert await seconds_until(state(busy, "up")) < OWED_S + SLACK_S
    assert health(busy) == "up"


async def test_a_server_that_is_killed_is_said_to_be_away(busy: Hub, server: AnyServer) -> None:
    server.kill()
    took_s = await seconds_until(state(busy, "away"))
    assert health(busy) == "away"
    assert took_s < OWED_S + SLACK_S
