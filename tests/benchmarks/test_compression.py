"""The measurement of compression: what its generator counts, and the page made of its figures."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from benchmarks import compression, measure
from benchmarks.measure import serving
from hubbub.wire.deflate import slack_bytes

SERVERS = {server.name: server for server in compression.SERVERS}


@pytest.mark.parametrize("size", compression.SIZES)
def test_messages_have_their_size_and_differ(size: int) -> None:
    messages = list(compression.texts(size, 5))
    assert {len(text) for text in messages} == {size}
    assert len(set(messages)) == 5
    assert messages == list(compression.texts(size, 5)), "every run sends the same"
    assert len(zlib.compress(messages[0])) <= size + slack_bytes(size)


@pytest.mark.parametrize("name", SERVERS)
def test_a_run_counts_what_arrives(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "BUILD", tmp_path)
    monkeypatch.setattr(compression, "CLIENTS", 5)
    monkeypatch.setattr(compression, "MESSAGES", 4)
    with serving(SERVERS[name], None) as server:
        run = compression.run_on(server, 1024)
    assert run["deliveries"] == 20
    is_on = not name.endswith("-off")
    assert run["negotiated"] == is_on
    if is_on:
        assert run["wire_bytes"] < 600
    else:
        assert run["wire_bytes"] == 1024 + 4
    assert run["cpu_us"] > 0


def test_the_page_shows_the_figures_that_are_kept() -> None:
    results = json.loads(compression.RESULTS.read_text(encoding="utf-8"))
    page = compression.PAGE.read_text(encoding="utf-8")
    assert compression.page_part(results) in page
    for server in compression.SERVERS:
        for size in compression.SIZES:
            assert len(results["runs"][f"{server.name} {size}"]) == results["repeats"]


def test_the_shares_are_measured_by_deflating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "SHARE_SIZES", (64, 256, 1024))
    rows = compression.shares()
    assert [row["size"] for row in rows] == [64, 256, 1024]
    left = [row["left"] for row in rows]
    assert left == sorted(left, reverse=True)
    assert all(0 < share < 1 for share in left)
