"""The rows of rooms that remember: their work, what they find wrong, and their section of the page."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import about, measure, recovery, room_report, room_work, rooms, run, servers, text
from benchmarks.bare_socket import Broken
from benchmarks.brokers import BROKER_ROWS
from benchmarks.measure import Cores, serving
from benchmarks.rooms import ROOM_ROWS, Context, Figure, RoomRow, RowFailed
from benchmarks.rows import ERRORS
from hubbub import Hub
from hubbub.testing import connect, settle
from started_hub import started

BY_KEY = {row.key: row for row in ROOM_ROWS}
NOWHERE = Cores(None, None)


class Few(room_work.Rounds):
    """So little work that it takes no time."""

    def __init__(self) -> None:
        super().__init__(is_quick=True)
        self.repeats, self.turns, self.clients, self.joins, self.entries = 1, 2, 10, 30, 50


@pytest.fixture
def here(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the runner use the programs that the tests have compiled, and this Python."""
    monkeypatch.setattr(servers, "BUILD", build)
    monkeypatch.setattr(measure, "BUILD", build)
    monkeypatch.setattr(servers, "PYTHON", Path(sys.executable))


# The work


@pytest.mark.anyio
@pytest.mark.parametrize("key", room_work.WORK)
async def test_work_finds_the_figures_of_its_row(key: str) -> None:
    found = await room_work.WORK[key](Few())
    wanted = {figure.name for figure in BY_KEY[key].figures if "sockets" not in figure.name}
    assert wanted <= set(found)
    assert all(found[name] > 0 for name in wanted)


@pytest.mark.anyio
async def test_a_client_that_was_sent_less_or_more_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = await started()
    try:
        member, other = connect(hub), connect(hub)
        member.client.join("bare")
        await room_work.check_delivery(hub, {"bare": [member]})
        with pytest.raises(room_work.Wrong, match="a client of bare"):
            await room_work.check_delivery(hub, {"bare": [member, other]})

        async def settle_with_more(hub: Hub) -> None:
            member.client.send({"n": 2})
            await settle(hub)

        monkeypatch.setattr(room_work, "settle", settle_with_more)
        with pytest.raises(room_work.Wrong, match="a client of bare"):
            await room_work.check_delivery(hub, {"bare": [member]})
    finally:
        await hub.stop()


@pytest.mark.anyio
async def test_joins_that_were_told_twice_or_not_are_found() -> None:
    hub = await started()
    try:
        clients = [connect(hub) for _ in range(3)]
        told = [json.dumps({"joined": [{"client": each.client.id}]}) for each in clients]
        room_work.check_told(told, clients, 5)
        for wrong in (told[:2], [*told, told[0]]):
            with pytest.raises(room_work.Wrong, match="joins"):
                room_work.check_told(wrong, clients, 5)
        with pytest.raises(room_work.Wrong, match="pauses"):
            room_work.check_told(told[:2], clients, 2)
    finally:
        await hub.stop()


@pytest.mark.usefixtures("here")
def test_what_the_work_finds_wrong_fails_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    found = rooms.run_module("room_work", ["entry", "--quick"], None, sys.executable)
    assert found["beside_64_bytes"] > 0
    with pytest.raises(RowFailed, match="invalid choice"):
        rooms.run_module("room_work", ["nothing"], None, sys.executable)


# Recovery


@pytest.mark.usefixtures("here")
def test_clients_that_are_cut_off_come_back_whole() -> None:
    with serving(rooms.REMEMBERING, None) as server:
        found = recovery.run(server.port, 30, 20)
    assert {name: found[name] for name in ("lost", "twice", "disordered", "refused")} == {
        "lost": 0,
        "twice": 0,
        "disordered": 0,
        "refused": 0,
    }
    assert found["whole_s"] > 0
    assert {figure.name for figure in BY_KEY["recovery"].figures} <= set(found)


def test_what_a_client_lacks_or_has_twice_is_counted() -> None:
    whole, lacking, twice, disordered = (recovery.Peer() for _ in range(4))
    whole.offsets, lacking.offsets = [1, 2, 3], [1, 3]
    twice.offsets, disordered.offsets = [1, 2, 2, 3], [2, 1, 3]
    peers = [whole, lacking, twice, disordered]
    for peer in peers[:3]:
        peer.has_recovered = True
    assert recovery.errors_of(peers, 3) == {"lost": 1, "twice": 1, "disordered": 1, "refused": 1}


def test_frames_are_read_whatever_pieces_they_come_in() -> None:
    push = b'{"push":{"channel":"feed","pub":{"data":1,"offset":%d}}}'
    pad = b" " * 200
    wire = b"".join(
        b"\x81"
        + (bytes([len(text)]) if len(text) < 126 else b"\x7e" + len(text).to_bytes(2))
        + text
        for text in (push % 1, push % 2 + b"\n" + push % 3 + pad, b"{}")
    )
    peer = recovery.Peer()
    for start in range(0, len(wire), 7):
        peer._read(peer._rest + wire[start : start + 7])
    assert peer.offsets == [1, 2, 3]
    with pytest.raises(Broken, match="no text"):
        peer._read(b"\x88\x02\x03\xe8")


@pytest.mark.parametrize("name", ["lost", "twice", "disordered", "refused"])
@pytest.mark.usefixtures("here")
def test_a_recovery_with_a_fault_is_no_figure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = dict.fromkeys(("lost", "twice", "disordered", "refused"), 0.0)
    monkeypatch.setattr(rooms, "run_module", lambda *_: {**clean, name: 2.0})
    with pytest.raises(RowFailed, match=f"2 {name}"):
        rooms.recover(Context(NOWHERE, is_quick=True))


# Pairs of servers


def run_of(**changes: Any) -> dict[str, Any]:
    return {**dict.fromkeys(ERRORS, 0), "delivered": 100, "cpu_s": 1.0, **changes}


def test_two_servers_run_by_turns_and_their_speeds_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []

    def measure_on(server: Any, spec: servers.ServerSpec, load: list[str], cores: Cores) -> Any:
        order.append(spec.name)
        return run_of(delivered=80 if spec is rooms.KEEPING else 100)

    monkeypatch.setattr(rooms, "serving", lambda spec, core: contextlib.nullcontext())
    monkeypatch.setattr(rooms, "measure_on", measure_on)
    context = Context(NOWHERE, is_quick=True)
    found = rooms.by_turns(context, (rooms.BARE, rooms.KEEPING), {"one": rooms.ONE_ROOM})
    assert found == {"one": 0.8}
    bare, keeping = "hubbub-bare", "hubbub-keeping"
    assert order == [bare, keeping, keeping, bare, bare, keeping]


@pytest.mark.parametrize(
    "run", [run_of(lost=1), run_of(duplicated=1), run_of(delivered=0), {"error": "it died"}]
)
def test_a_run_in_which_anything_went_wrong_has_no_speed(run: dict[str, Any]) -> None:
    assert rooms.speed_of(rooms.BARE, run_of()) == 100
    with pytest.raises(RowFailed):
        rooms.speed_of(rooms.BARE, run)


@pytest.mark.usefixtures("here")
def test_the_server_with_a_history_keeps_what_is_published() -> None:
    context = Context(NOWHERE, is_quick=True)
    loads = {"one": rooms.ONE_ROOM}
    assert rooms.by_turns(context, (rooms.BARE, rooms.KEEPING), loads)["one"] > 0


def test_where_the_commit_before_cannot_be_had_nothing_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "BUILD", tmp_path)
    monkeypatch.setattr(rooms, "BEFORE", "0" * 40)
    assert rooms.compare_with_before(Context(NOWHERE, is_quick=True)) == {}


# The section


def results_of(**rows: list[dict[str, float]]) -> dict[str, Any]:
    about = {"date": "2026-11-28T12:00:00+00:00", "commit": "abc1234", "is_quick": False}
    return {**about, "load_before": 0.1, "rows": rows}


def test_targets_are_judged_by_the_median_or_by_the_worst() -> None:
    found = results_of(
        history=[{"speed_1": value} for value in (0.5, 0.61, 0.9)],
        recovery=[{"hold_ms": value, "lost": 0} for value in (10, 20, 51)],
    )
    lines = {line[0]: line[1:] for line in room_report.goal_lines(ROOM_ROWS, found["rows"])}
    assert lines["history: in memory, 1 client"] == ("at least 0.6 times", "0.61", "yes")
    hold = "recovery: longest hold of the event loop"
    assert lines[hold] == ("at most 50 ms", "51.0", "**no**")
    assert lines["recovery: lost"] == ("none", "0", "yes")
    assert lines["recovery: twice"] == ("none", "–", "not measured")


def test_a_row_shows_its_rounds_and_the_section_who_else_was_at_work() -> None:
    found = results_of(mixed=[{"ratio_1": 1.1}, {"ratio_1": 1.3}, {"ratio_1": 1.0}])
    section = "\n".join(room_report.section(found))
    assert "3 rounds." in section
    assert (
        "| 1 in a turn: mixed to the dearer | times | 1.10 | 1.00 – 1.30 | at most 1.15 times |"
        in section
    )
    assert "was shared" not in section
    busy = "\n".join(room_report.section({**found, "load_before": 2.5}))
    assert "its load average before was 2.5" in busy


def test_every_row_has_a_target_and_every_figure_a_name_of_its_own() -> None:
    for row in ROOM_ROWS:
        names = [figure.name for figure in row.figures]
        assert len(names) == len(set(names))
        assert any(room_report.asked(figure) for figure in row.figures), row.key


# The runner


def test_rounds_are_kept_by_row_and_a_row_that_cannot_be_run_has_none() -> None:
    values = iter((1.0, 2.0, 3.0))
    figures = (Figure("value", "a value"),)
    one = RoomRow("one-row", "One", "", figures, lambda _: {"value": next(values)})
    none = dataclasses.replace(one, key="none", measure=lambda _: {})
    found = rooms.run_rows([one, none], 3, is_quick=True)
    assert found == {"one-row": [{"value": 1.0}, {"value": 2.0}, {"value": 3.0}], "none": []}


def test_a_server_that_does_not_start_fails_the_row() -> None:
    def measure_one(context: Context) -> dict[str, float]:
        raise measure.ServerFailed("it did not start")

    with pytest.raises(RowFailed, match="one-row: it did not start"):
        rooms.run_rows([RoomRow("one-row", "One", "", (), measure_one)], 1, is_quick=True)


def test_names_choose_rows_of_either_kind() -> None:
    assert run.choose_hub_rows("", ROOM_ROWS) == list(ROOM_ROWS)
    chosen = run.choose_hub_rows("mixed,entry,lag", ROOM_ROWS)
    assert [row.key for row in chosen] == ["entry", "mixed"]
    assert [row.key for row in run.choose_hub_rows("mixed,lag", BROKER_ROWS)] == ["lag"]
    assert run.choose("mixed,lag") == ([], [], [])
    assert run.choose_hub_rows("one,kernel", ROOM_ROWS) == []
    rows, _, peers = run.choose("one,kernel,mixed")
    assert [row.key for row in rows] == ["one"]
    assert [peer.name for peer in peers] == ["kernel"]
    with pytest.raises(SystemExit, match="no rubbish"):
        run.choose_hub_rows("rubbish", ROOM_ROWS)


def test_rows_that_were_not_run_again_stay(tmp_path: Path) -> None:
    path = tmp_path / "rooms.json"
    run.keep_rows(path, results_of(mixed=[{"ratio_1": 1.0}], entry=[{"beside_16_bytes": 169.0}]))
    run.keep_rows(path, results_of(mixed=[{"ratio_1": 1.1}]))
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept["rows"] == {"mixed": [{"ratio_1": 1.1}], "entry": [{"beside_16_bytes": 169.0}]}


def test_a_part_of_the_rows_says_nothing_of_the_others(tmp_path: Path) -> None:
    """The old form has what is known beside the rows, the new one has it for each."""
    path, quick = tmp_path / "rooms.json", {"is_quick": True, "commit": "def5678"}
    old = results_of(mixed=[{"ratio_1": 1.0}], entry=[{"beside_16_bytes": 169.0}])
    path.write_text(json.dumps(old), encoding="utf-8")
    later = {"date": "2026-11-29T12:00:00+00:00", **quick, "load_before": 3.5}
    run.keep_rows(path, {**results_of(mixed=[{"ratio_1": 1.1}]), **later})
    kept = run.kept_at(path)
    assert kept["about"]["entry"] == {name: old[name] for name in about.FIELDS if name in old}
    assert kept["about"]["mixed"] == later
    page = "\n".join(room_report.section(kept))
    assert "2026-11-28 to 2026-11-29 at commit `abc1234`, `def5678`" in page
    assert "its load average before was 0.1 to 3.5" in page
    assert "each says when it was" in page
    assert text.QUICK not in page
    entry, mixed = (page.partition(f"### {BY_KEY[key].title}\n")[2] for key in ("entry", "mixed"))
    assert "One round. Measured on 2026-11-28 at commit `abc1234`.\n" in entry.partition("\n###")[0]
    words = "Measured on 2026-11-29 at commit `def5678`; the load average before was 3.5. **A quick run**"
    assert words in mixed.partition("\n###")[0]
    run.keep_rows(path, {**results_of(entry=[{"beside_16_bytes": 170.0}]), **later})
    page = "\n".join(room_report.section(run.kept_at(path)))
    assert text.QUICK in page
    assert "Measured on\n2026-11-29 at commit `def5678`." in page
    assert "each says when it was" not in page
