"""The application for scrapes: its text parses, its numbers are right on both transports, and only rise."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from websockets.exceptions import ConnectionClosed, InvalidStatus

from asgi.handshakes import get
from hubbub import Client, Hub, Position, RoomRules
from hubbub.asgi.metrics import HubCollector
from hubbub.hub.measures import MEASURES
from hubbub.stats import BOUNDS_S
from serving import Served, serve, take, until

pytestmark = pytest.mark.anyio

Labels = frozenset[tuple[str, str]]
Numbers = dict[tuple[str, Labels], float]


def numbers(families: Iterable[Metric]) -> Numbers:
    """Return all samples, without the labels that every one has."""
    found: Numbers = {}
    for family in families:
        for sample in family.samples:
            labels = frozenset(
                (k, v) for k, v in sample.labels.items() if k not in ("hub", "worker")
            )
            key = sample.name, labels
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


async def scrape(server: Served, path: str = "/metrics") -> Numbers:
    answer = await get(server, path)
    assert answer.status_code == 200
    return numbers(parse(answer.text))


def of(found: Numbers, name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


def application(hub: Hub) -> Starlette:
    """Return an application with the hub, and what it measures at /metrics."""
    routes = [*hub.routes("/ws"), Route("/metrics", hub.metrics())]
    return Starlette(routes=routes, lifespan=hub.lifespan)


async def test_the_text_parses_and_every_family_is_explained(native: bool) -> None:
    hub = Hub()
    async with serve(application(hub), native=native) as server:
        answer = await get(server, "/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        families = {family.name: family for family in parse(answer.text)}
        expected = {measure.name.removesuffix("_total"): measure for measure in MEASURES}
        assert set(families) == set(expected)
        for name, measure in expected.items():
            assert families[name].type == measure.kind
            assert families[name].documentation == measure.text
        modern = await get(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert modern.text.endswith("# EOF\n")
        found = parse_openmetrics(modern.text)  # type: ignore[no-untyped-call]
        assert {family.name for family in found} == set(families)


async def test_every_number_names_its_process(native: bool) -> None:
    hub = Hub()
    async with serve(application(hub), native=native) as server:
        families = parse((await get(server, "/metrics")).text)
        samples = [sample for family in families for sample in family.samples]
        assert {sample.labels["worker"] for sample in samples} == {str(os.getpid())}
        assert {sample.labels["hub"] for sample in samples} == {""}


async def test_the_numbers_are_right_after_scripted_events_and_only_rise(native: bool) -> None:
    hub = Hub(origins="https://friend.example")

    @hub.on_message
    def said(client: Client, text: str) -> None:
        if text == "join":
            client.join("red")
        elif text == "leave":
            client.close(4000, "as you like")
        else:
            hub.room("red").broadcast(text)

    async with serve(application(hub), native=native) as server:
        before = await scrape(server)
        async with server.connect() as ann, server.connect() as bob:
            await ann.send("join")
            await bob.send("join")
            await until(lambda: hub.rooms.get("red") == 2)
            await ann.send("hello")
            assert await take(ann, 1) == await take(bob, 1) == ["hello"]
            with pytest.raises(InvalidStatus):
                await server.connect(origin="https://foe.example")
            during = await scrape(server)
            await bob.send("leave")
            with pytest.raises(ConnectionClosed):
                await take(bob, 1)
        await until(lambda: len(hub) == 0)
        after = await scrape(server)
    changes = {
        "hubbub_connections_total": 2,
        "hubbub_joins_total": 2,
        "hubbub_received_messages_total": 3,
        "hubbub_received_bytes_total": 13,
        "hubbub_publications_total": 1,
        "hubbub_sent_messages_total": 2,
        "hubbub_sent_bytes_total": 14,
        "hubbub_delivery_lag_seconds_count": 1,
        "hubbub_publication_lag_seconds_count": 1,
    }
    assert {name: of(during, name) - of(before, name) for name in changes} == changes
    assert (of(during, "hubbub_clients"), of(during, "hubbub_rooms")) == (2, 1)
    assert of(during, "hubbub_room_members") == 2
    refused = {"reason": "origin_refused"}
    assert of(during, "hubbub_refused_handshakes_total", **refused) == 1
    assert of(after, "hubbub_clients") == 0
    assert of(after, "hubbub_closes_total", cause="application", by="hub") == 1
    assert of(after, "hubbub_closes_total", cause="normal", by="peer") == 1
    info = next(labels for name, labels in during if name == "hubbub_info")
    assert ("transport", "native" if native else "portable") in info
    for (name, labels), value in before.items():
        if name.endswith(("_total", "_count", "_sum", "_bucket")):
            assert value <= during[name, labels] <= after[name, labels]


async def test_recoveries_are_counted_by_how_they_ended(native: bool) -> None:
    hub = Hub(room_rules=[RoomRules("log", history=5)], origins="*")

    @hub.on_message
    async def said(client: Client, text: str) -> None:
        now = await hub.cursor("log")
        since = now if text == "known" else Position(now.offset, "another")
        await client.subscribe("log", since=since)
        client.send("in")

    async with serve(application(hub), native=native) as server:
        for text in ("known", "known", "lost"):
            async with server.connect() as client:
                await client.send(text)
                assert await take(client, 1) == ["in"]
        found = await scrape(server)
    assert of(found, "hubbub_recoveries_total", result="whole") == 2
    assert of(found, "hubbub_recoveries_total", result="refused") == 1


async def test_histograms_are_whole() -> None:
    hub = Hub()
    async with serve(application(hub)) as server, server.connect() as client:
        for number in range(5):
            hub.broadcast(f"{number}")
        await take(client, 5)
        found = await scrape(server)
    name = "hubbub_delivery_lag_seconds"
    bounds = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
    buckets = [found[f"{name}_bucket", frozenset({("le", bound)})] for bound in bounds]
    assert buckets == sorted(buckets)
    assert buckets[-1] == of(found, f"{name}_count") == 5
    assert of(found, f"{name}_sum") > 0


async def test_frameworks_take_it_as_a_route_and_mounted() -> None:
    hub = Hub()
    app = FastAPI()
    app.include_router(hub.router("/ws"))
    app.routes.append(Route("/metrics", hub.metrics()))
    app.mount("/inside", Starlette(routes=[Mount("/numbers", hub.metrics())]))
    async with serve(app) as server:
        for path in ("/metrics", "/inside/numbers/"):
            assert of(await scrape(server, path), "hubbub_ready") == 1


async def test_beside_django_and_others_it_is_a_route_of_the_mount(native: bool) -> None:
    async def pages(scope: object, receive: object, send: object) -> None:
        raise AssertionError("nothing comes here")

    hub = Hub()
    app = hub.mount(pages, "/ws", routes={"/metrics": hub.metrics(), "/readyz/": hub.health()})
    async with serve(app, native=native, lifespan="on") as server:
        assert of(await scrape(server), "hubbub_ready") == 1
        assert (await get(server, "/readyz")).status_code == 200


async def test_only_who_has_the_token_is_answered() -> None:
    hub = Hub()
    app = hub.mount(hub.metrics(token="s3cret"), "/ws")
    async with serve(app, lifespan="on") as server:
        for headers in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "s3cret"}):
            answer = await get(server, "/metrics", **headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert "hubbub_" not in answer.text
        answer = await get(server, "/metrics", Authorization="Bearer s3cret")
        assert numbers(parse(answer.text))


@pytest.mark.parametrize("token", ["", "  ", 7])
def test_a_token_that_protects_nothing_is_an_error(token: object) -> None:
    with pytest.raises(ValueError, match="token"):
        Hub().metrics(token=token)  # type: ignore[arg-type]


async def test_nothing_is_written_by_a_scrape() -> None:
    hub = Hub()
    async with serve(hub.mount(hub.metrics(), "/ws")) as server:
        assert (await get(server, "/metrics", method="POST")).status_code == 405
        head = await get(server, "/metrics", method="HEAD")
        assert (head.status_code, head.content) == (200, b"")
        with pytest.raises(InvalidStatus, match="403"):
            await server.connect("/metrics")


async def test_a_registry_of_ones_own_has_the_hub_and_the_rest() -> None:
    registry = CollectorRegistry()
    Counter("orders", "Orders.", registry=registry).inc(3)
    hub = Hub()
    async with serve(hub.mount(hub.metrics(name="shop", registry=registry), "/ws")) as server:
        text = (await get(server, "/metrics")).text
    found = numbers(parse(text))
    assert (of(found, "orders_total"), of(found, "hubbub_ready")) == (3, 1)
    assert 'hub="shop"' in text


async def test_several_hubs_are_told_apart_by_name() -> None:
    red, blue = Hub(), Hub()
    registry = CollectorRegistry()
    registry.register(HubCollector({"red": red, "blue": blue}))
    await red.start()
    names = {"red": 1.0, "blue": 0.0}
    for name, ready in names.items():
        labels = {"hub": name, "worker": str(os.getpid())}
        assert registry.get_sample_value("hubbub_ready", labels) == ready
    await red.stop()


async def test_what_is_the_process_s_is_told_once() -> None:
    families = HubCollector({"red": Hub(), "blue": Hub()}).collect()
    found = {family.name: family.samples for family in families}
    labels = [each.labels for each in found["hubbub_handshakes_without_hub"]]
    assert [(each["hub"], each["reason"]) for each in labels] == [("", "slow"), ("", "malformed")]
    assert [each.labels["hub"] for each in found["hubbub_clients"]] == ["red", "blue"]


async def test_a_scrape_from_another_thread_is_answered_too() -> None:
    """As prometheus-client's own server does it."""
    hub = Hub()
    async with serve(hub.mount(hub.metrics(), "/ws")) as server, server.connect():
        found = await asyncio.to_thread(lambda: list(HubCollector({"": hub}).collect()))
        assert of(numbers(found), "hubbub_clients") == 1


def test_what_is_measured_needs_no_other_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "hubbub.asgi.metrics", None)
    with pytest.raises(ImportError, match=r"pip install 'hubbub\[metrics\]'"):
        Hub().metrics()
