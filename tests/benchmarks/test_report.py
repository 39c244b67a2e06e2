"""The runner's own arithmetic: clocks, ratios, goals, and the page made of them."""

from __future__ import annotations

import json
import os
import re
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from benchmarks import (
    install,
    measure,
    page_parts,
    plot,
    report,
    room_report,
    rooms,
    rows,
    run,
    servers,
    text,
)
from benchmarks.rows import Run
from benchmarks.servers import BENCH


def run_of(**changes: Any) -> Run:
    """Return a run in which nothing went wrong: a million deliveries for two CPU-seconds."""
    errors = dict.fromkeys(rows.ERRORS, 0)
    return {
        **errors,
        "event": "result",
        "clients": 1000,
        "delivered": 1_000_000,
        "handshakes": 0,
        "unfinished": 0,
        "cpu_s": 2.0,
        "wall_s": 2.5,
        "server_share": 0.8,
        "limit": "neither",
        "memory_before_kib": 50_000,
        "memory_begin_kib": 52_000,
        "memory_most_kib": 53_024,
        "latency_us": {"p50": 1000, "p90": 2000, "p99": 4000, "p99_9": 5000, "max": 9000},
        **changes,
    }


def pair(peer: str | None, ours: Run, theirs: Run | None) -> dict[str, Any]:
    both = {"ours": {"": ours}, "theirs": {} if theirs is None else {"": theirs}}
    return {"repeat": 0, "peer": peer, **both}


def results_of(**row_pairs: Any) -> dict[str, Any]:
    return {
        "date": "2026-11-23T12:00:00+00:00",
        "is_quick": False,
        "repeats": 5,
        "machine": {"kernel": "Linux 6"},
        "commit": "abc1234",
        "versions": {"hubbub": {"hubbub": "0.1.0"}},
        "missing": {"wse-server": "no wheel"},
        "rows": row_pairs,
        "series": {},
    }


def test_the_clock_of_a_process_is_its_cpu_time() -> None:
    before = measure.process_cpu_s(os.getpid())
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    assert measure.process_cpu_s(os.getpid()) - before == pytest.approx(0.05, abs=0.04)


def test_ratios_are_taken_within_a_pair_and_their_median_counts() -> None:
    pairs = [
        pair("kernel", run_of(delivered=ours), run_of(delivered=theirs))
        for ours, theirs in ((100, 50), (300, 100), (90, 10))
    ]
    found = report.ratios(pairs, "kernel", rows.DELIVERIES)
    assert found == [2.0, 3.0, 9.0]
    assert report.middle(found) == 3.0


def test_less_memory_is_better() -> None:
    ours, theirs = run_of(memory_begin_kib=52_000), run_of(memory_begin_kib=60_000)
    assert report.ratios([pair("ws", ours, theirs)], "ws", rows.MEMORY) == [5.0]


def test_a_failed_run_is_said_and_counts_nowhere() -> None:
    pairs = [pair("ws", run_of(), {"error": "it died; its last line"})]
    assert report.ratios(pairs, "ws", rows.DELIVERIES) == []
    assert report.remarks(report.runs_of(pairs, "ws")) == "it died"


def test_a_loss_stands_in_the_row() -> None:
    row = next(row for row in rows.ROWS if row.key == "one")
    lines = report.row_table(row, [pair("ws", run_of(), run_of(lost=1234))])
    assert "**1,234 lost**" in next(line for line in lines if "Node.js" in line)
    assert "lost" not in next(line for line in lines if "Hubbub" in line)


def test_goals_are_judged() -> None:
    good = [pair("kernel", run_of(delivered=80), run_of(delivered=100))]
    rooms_ = [
        pair("gorilla", run_of(delivered=80), run_of(delivered=20)),
        pair("kernel-joined", run_of(delivered=80), run_of(delivered=90)),
    ]
    bad = [pair("kernel", run_of(delivered=2400), run_of(delivered=100))]
    lines = report.goal_lines(results_of(one=good, burst64=bad, rooms=rooms_))
    verdicts = {line[0]: line[2:] for line in lines}
    assert verdicts["one at a time, to kernel `send()`"] == ("0.80", "yes", "–")
    assert verdicts["bursts of 64, to kernel `send()`"] == ("24.0", "**no**", "–")
    assert verdicts["echo, to kernel `send()`"] == ("–", "not measured", "–")
    assert verdicts["rooms of 10, to gorilla (DMMVC's hub), Go"] == ("4.00", "**no**", "4.50")


def test_every_goal_names_a_row_that_runs_its_peer() -> None:
    by_key = {row.key: row for row in rows.ROWS}
    for goal in rows.GOALS:
        assert goal.peer in by_key[goal.row].peers
    named = {name for row in (*rows.ROWS, *rows.SERIES) for name in row.peers}
    assert named == {peer.name for peer in servers.PEERS}


def test_a_key_names_one_thing() -> None:
    kinds = (*rows.ROWS, *rows.SERIES, *rooms.ROOM_ROWS)
    keys = [kind.key for kind in kinds] + list(servers.BY_NAME)
    assert len(keys) == len(set(keys))


def test_the_page_has_everything_in_it() -> None:
    stalled = {"calm": run_of(), "stalled": run_of()}
    stall = [{"repeat": 0, "peer": "ws", "ours": stalled, "theirs": stalled}]
    results = results_of(one=[pair("kernel", run_of(), run_of())], stall=stall)
    run = run_of()
    results["series"]["by_clients"] = [
        {"repeat": 0, "x": x, "name": name, "run": run}
        for x in (100, 1000)
        for name in ("hubbub", "kernel")
    ]
    page = report.page(results)
    assert "| Hubbub | 0.500 |" in page
    assert "p99 stalled / calm" in page
    assert "**missing** (no wheel)" in page
    assert "images/bench-by_clients.svg" in page
    assert "within 15% | 0% | yes | – |" in page
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in page.splitlines() if line[:1] == "|"]
    assert min(widths) > 2


def test_a_part_of_the_rows_says_nothing_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "KEPT", tmp_path / "benchmarks.json")
    both = [pair("kernel", run_of(), run_of())]
    old = results_of(one=both, echo=both)
    run.keep(old, is_whole=True)
    later = {"date": "2026-11-29T12:00:00+00:00", "commit": "def5678", "is_quick": True}
    run.keep({**results_of(one=both), **later}, is_whole=False)
    kept = run.kept_at(run.KEPT)
    page = report.page(kept)
    assert "are of 2026-11-23 to 2026-11-29,\ncommit `abc1234`, `def5678`" in page
    assert text.QUICK not in page
    titles = {row.key: row.title for row in rows.ROWS}
    one, echo = (page.partition(f"### {titles[key]}\n")[2][:1000] for key in ("one", "echo"))
    assert "Measured on 2026-11-29 at commit `def5678`. **A quick run**" in one
    assert "Measured on 2026-11-23 at commit `abc1234`.\n" in echo
    assert "Measured on" not in report.page(old)


def test_the_page_of_the_kept_results_is_the_page_that_is_there() -> None:
    kept = json.loads((BENCH / "results" / "benchmarks.json").read_text(encoding="utf-8"))
    written = (BENCH.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    of_rooms = json.loads((BENCH / "results" / "rooms.json").read_text(encoding="utf-8"))
    of_brokers = json.loads((BENCH / "results" / "brokers.json").read_text(encoding="utf-8"))
    parts = [*room_report.section(of_rooms), *room_report.broker_section(of_brokers)]
    assert report.page(kept, parts) == written
    readme = (BENCH.parent / "README.md").read_text(encoding="utf-8")
    assert page_parts.part_of(readme, "benchmark") == report.readme_part(kept)


def test_a_part_of_a_page_is_replaced_and_the_rest_stays() -> None:
    begin, end = page_parts.marks("x")
    page = page_parts.replaced(f"before {begin}old{end} after", "x", " new\n")
    assert page == f"before {begin}\n\nnew\n\n{end} after"
    assert page_parts.part_of(page, "x") == "new"
    for wrong in ("nothing", page + page):
        with pytest.raises(ValueError, match="'x'"):
            page_parts.replaced(wrong, "x", "new")


def test_a_chart_is_well_formed_and_within_its_frame() -> None:
    lines = [("ours & theirs", [(10, 5e5), (10_000, 2e6)]), ("nothing", [])]
    root = ElementTree.fromstring(plot.chart("a < b", "clients", "rate", lines))
    space = "{http://www.w3.org/2000/svg}"
    circles = root.findall(f"{space}circle")
    assert len(circles) == 2
    for circle in circles:
        assert plot.LEFT <= float(circle.attrib["cx"]) <= plot.WIDTH - plot.RIGHT
        assert plot.TOP <= float(circle.attrib["cy"]) <= plot.HEIGHT - plot.BOTTOM
    words = [element.text for element in root.findall(f"{space}text")]
    assert {"a < b", "ours & theirs", "10 k", "1 M"} <= set(words)


def test_pins_have_no_addresses_and_no_lock_file_is_kept() -> None:
    assert all("==" in pin for pin in install.requirements())
    assert "://" not in (BENCH / "package.json").read_text(encoding="utf-8")
    assert not (BENCH / "package-lock.json").exists()


def test_every_python_peer_has_a_pin_for_what_it_names() -> None:
    pins = {pin.partition("==")[0] for pin in install.requirements()} | {
        "hubbub",
        "python-engineio",
    }
    for spec in (servers.OURS, *servers.PEERS):
        if spec.kind == "python":
            assert set(spec.packages) <= pins, spec.name
