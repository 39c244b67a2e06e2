"""Metrics: what hubs measure, as Prometheus reads it: a collector, and an ASGI application for scrapes.

What must not live here: what is measured (`hub.measures`). `Hub.metrics` imports it when it is used, and
`hubbub serve --metrics`. It needs prometheus-client, the extra `metrics`.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.asgi import make_asgi_app
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from ..errors import Refused
from ..hub.core import core_of
from ..hub.measures import MEASURES, Measure
from ..stats import BOUNDS_S, Histogram
from ..transports.asgi import ASGIApp, Receive, Scope, Send
from .responses import answer_refusal, refuse_method

if TYPE_CHECKING:
    from ..hub.hub import Hub

LABELS = ("hub", "worker")
"""Labels that every number has beside its own: the name that the hub was given, and the process."""


class HubCollector(Collector):
    """What hubs measure, by names that tell them apart. To be registered in a registry of prometheus-client.

    It reads what the hubs have at that moment, and costs nothing between two scrapes. A single hub needs
    no name: an empty label counts as none.
    """

    def __init__(self, hubs: Mapping[str, Hub]) -> None:
        self._cores = {name: core_of(hub) for name, hub in hubs.items()}

    def collect(self) -> Iterator[Metric]:
        """Yield each family with the numbers of all hubs."""
        worker = str(os.getpid())
        for measure in MEASURES:
            family = _family(measure)
            cores = list(self._cores.items())
            if measure.is_of_process:
                cores = [("", core) for _, core in cores[:1]]
            for name, core in cores:
                for values, number in measure.read(core).items():
                    _add(family, [*values, name, worker], number)
            yield family


def _family(measure: Measure) -> Metric:
    labels = [*measure.labels, *LABELS]
    if measure.kind == "counter":
        return CounterMetricFamily(measure.name, measure.text, labels=labels)
    if measure.kind == "histogram":
        return HistogramMetricFamily(measure.name, measure.text, labels=labels)
    return GaugeMetricFamily(measure.name, measure.text, labels=labels)


def _add(family: Metric, labels: list[str], number: float | Histogram) -> None:
    if isinstance(family, HistogramMetricFamily):
        assert isinstance(number, Histogram)
        family.add_metric(labels, _buckets(number), number.sum_s)
    else:
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
        assert not isinstance(number, Histogram)
        family.add_metric(labels, float(number))


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return how many were no longer than each bound, as Prometheus counts them."""
    found, total = [], 0
    bounds = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
    for bound, count in zip(bounds, histogram.counts.copy(), strict=True):
        total += count
        found.append((bound, float(total)))
    return found


class Metrics:
    """An ASGI application that answers a scrape, whatever the path is.

    `token` is asked for as `Authorization: Bearer …` (None: anybody is answered). `registry` is one of
    prometheus-client's in which the hubs are registered, beside what it has already (None: a new one).
    """

    def __init__(
        self,
        hubs: Mapping[str, Hub],
        token: str | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        if token is not None and not (isinstance(token, str) and token.strip()):
            raise ValueError("token is the text that a scraper sends, or None for no protection")
        registry = CollectorRegistry() if registry is None else registry
        registry.register(HubCollector(hubs))
        self._answer: ASGIApp = make_asgi_app(registry)
        self._token = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be an ASGI application."""
        if await refuse_method(scope, receive, send):
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        if self._token is not None and not hmac.compare_digest(given, self._token):
            refusal = Refused(401, headers={"WWW-Authenticate": "Bearer"})
            await answer_refusal(send, scope, refusal)
            return
        await self._answer(scope, receive, send)
