"""The guide to metrics, its alerts and the dashboard name what there is; its examples do what they say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.testclient import TestClient

from hubbub.hub.core import core_of
from hubbub.hub.measures import MEASURES
from pages import blocks
from places import ROOT

PAGE = ROOT / "docs" / "guides" / "metrics.md"
DASHBOARD = ROOT / "examples" / "grafana.json"
LABELS = {measure.name: {*measure.labels, "hub", "worker"} for measure in MEASURES}
HISTOGRAMS = {measure.name for measure in MEASURES if measure.kind == "histogram"}


def unknown(expressions: Iterable[str]) -> set[str]:
    """Return what expressions name that no hub tells: metrics, and labels that their metrics have not."""
    found = set()
    for expression in expressions:
        names = {re.sub(r"_bucket$", "", n) for n in re.findall(r"hubbub_\w+", expression)}
        found |= names - set(LABELS)
        known = {"instance", "le"}.union(*(LABELS.get(name, set()) for name in names))
        grouped = re.findall(r"(?:by|ignoring) \(([^)]*)\)", expression)
        given = {label.strip() for group in grouped for label in group.split(",")}
        given |= set(re.findall(r"[{,](\w+)[!=]", expression))
        found |= given - known
    return found


def test_the_alerts_are_six_and_name_what_there_is() -> None:
    text = PAGE.read_text(encoding="utf-8")
    alerts = re.findall(r"^\s+expr: (.+)$", text, re.M)
    assert len(alerts) == 6
    inline = re.findall(r"`((?:sum|rate)[^`]*hubbub_[^`]*)`", text)
    assert len(inline) == 2
    assert unknown([*alerts, *inline]) == set()


def test_the_dashboard_is_json_and_names_what_there_is() -> None:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(expressions) > 10
    assert unknown(expressions) == set()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


def test_only_histograms_have_buckets() -> None:
    text = PAGE.read_text("utf-8") + DASHBOARD.read_text("utf-8")
    assert set(re.findall(r"(hubbub_\w+)_bucket", text)) == HISTOGRAMS
    for name, labels in LABELS.items():
        counter = name.endswith("_total")
        assert not re.search(rf"rate\({name}\b", text) or counter, name
        assert labels


def test_the_check_finds_what_is_not_there() -> None:
    assert unknown(["sum by (shoe) (hubbub_clients)"]) == {"shoe"}
    assert unknown(["rate(hubbub_client_total[5m])"]) == {"hubbub_client_total"}
    assert unknown(['hubbub_closes_total{why="x"}']) == {"why"}


@pytest.mark.parametrize("token", [None, "s3cret"])
def test_the_example_answers(load: Any, monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    if token is not None:
        monkeypatch.setenv("METRICS_TOKEN", token)
    app = load("docs/guides/metrics.md", "metrics_app.py")
    with TestClient(app.app) as client:
        assert client.get("/metrics").status_code == (200 if token is None else 401)
        answer = client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
        assert "hubbub_ready" in answer.text
        assert client.get("/readyz").status_code == client.get("/healthz").status_code == 200


def test_the_body_of_health_is_as_shown(load: Any) -> None:
    (shown,) = (json.loads(b.text) for b in blocks(PAGE) if b.info == ["json"])
    app = load("docs/guides/metrics.md", "metrics_app.py")
    with TestClient(app.app) as client:
        body = client.get("/readyz").json()
    assert {name: type(value) for name, value in body.items()} == {
        name: type(value) for name, value in shown.items()
    }


async def at_once(seconds: float) -> None:
    """Be how a drain waits between its waves, and wait for nothing."""


def test_draining_by_a_route(load: Any) -> None:
    app = load("docs/guides/deployment.md", "drain_app.py")
    core_of(app.hub).lifecycle.sleep = at_once
    with TestClient(app.app) as client:
        with client.websocket_connect("/ws") as socket:
            assert client.post("/internal/drain").json() == {"drained": True}
            closed = socket.receive()
            assert (closed["type"], closed["code"]) == ("websocket.close", 1012)
            assert closed["reason"].startswith("service restart; retry after ")
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["state"]) == (503, "draining")
        refused = client.get("/ws")
        assert (refused.status_code, refused.json()["code"]) == (503, "shutting_down")
