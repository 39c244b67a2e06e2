"""Health: 200 and 503 by the state of a hub, and what the body says."""

from __future__ import annotations

from typing import Literal

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from asgi.handshakes import get
from hubbub import Hub, MemoryBroker
from hubbub.asgi.health import Health
from hubbub.brokers.broker import Condition
from hubbub.hub.core import core_of
from hubbub.hub.lifecycle import State
from serving import serve

pytestmark = pytest.mark.anyio


def application(hub: Hub, *, lifespan: bool = True) -> Starlette:
    routes = [
        Route("/readyz", hub.health()),
        Route("/healthz", hub.health(live=True)),
        Route("/strict", hub.health(needs_broker=True)),
    ]
    return Starlette(routes=routes, lifespan=hub.lifespan if lifespan else None)


async def test_a_hub_is_ready_from_its_start_to_its_draining(native: bool) -> None:
    hub = Hub()
    app = application(hub, lifespan=False)
    async with serve(app, native=native) as server:
        seen = []
        for act in (None, hub.start, hub.drain, hub.stop, hub.start, hub.stop):
            if act is not None:
                await act()
            ready, live = await get(server, "/readyz"), await get(server, "/healthz")
            assert ready.json() == live.json()
            assert ready.headers["Cache-Control"] == "no-store"
            assert live.status_code == 200
            assert ready.json()["ready"] is (ready.status_code == 200)
            seen.append((ready.status_code, ready.json()["state"]))
    assert seen == [
        (503, "new"),
        (200, "running"),
        (503, "draining"),
        (503, "stopped"),
        (200, "running"),
        (503, "stopped"),
    ]


STATES: list[Literal["up", "silent", "away"]] = ["up", "away", "silent", "up"]


class Away(MemoryBroker):
    """A broker that can be away."""

    state: Literal["up", "silent", "away"] = "up"

    @property
    def condition(self) -> Condition:
        return Condition(self.state)


async def test_a_broker_that_is_away_counts_where_it_is_asked_for(native: bool) -> None:
    broker = Away()
    hub = Hub(broker=broker)
    async with serve(application(hub), native=native) as server:
        for state in STATES:
            broker.state = state
            ready, strict = await get(server, "/readyz"), await get(server, "/strict")
            assert ready.json() == strict.json()
            assert ready.json()["broker_state"] == state
            assert ready.json()["broker_is_up"] is (state != "away")
            assert ready.status_code == 200
            assert strict.status_code == (503 if state == "away" else 200)


async def test_only_questions_are_answered() -> None:
    hub = Hub()
    async with serve(application(hub)) as server:
        assert (await get(server, "/readyz", method="POST")).status_code == 405
        head = await get(server, "/readyz", method="HEAD")
        assert (head.status_code, head.content) == (200, b"")


async def test_a_hub_that_starts_is_not_ready_yet() -> None:
    hub = Hub()
    await hub.start()
    lifecycle = core_of(hub).lifecycle
    lifecycle.state = State.STARTING
    assert not lifecycle.is_up
    lifecycle.state = State.RUNNING
    assert lifecycle.is_up
    await hub.stop()


async def test_of_several_hubs_all_have_to_be_ready(native: bool) -> None:
    red, blue = Hub(), Hub()
    app = Starlette(routes=[Route("/readyz", Health(red, blue))])
    async with serve(app, native=native) as server:
        await red.start()
        answer = await get(server, "/readyz")
        assert (answer.status_code, answer.json()["state"]) == (503, "new")
        await blue.start()
        assert (await get(server, "/readyz")).status_code == 200
        await red.drain()
        assert (await get(server, "/readyz")).json()["state"] == "draining"
        await red.stop()
        await blue.stop()


async def test_where_a_server_has_no_lifespan_the_question_starts_the_hub(native: bool) -> None:
    """As daphne has none: a load balancer that waits for readiness would wait for ever."""
    hub = Hub()
    app = hub.mount(hub.health(live=True), "/ws", routes={"/readyz": hub.health()})
    async with serve(app, native=native, lifespan="off") as server:
        assert (await get(server, "/readyz")).json()["state"] == "running"
        await hub.stop()
