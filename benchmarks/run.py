"""The benchmark: `make bench`, or `python -m benchmarks.run`.

Builds and installs what is needed, runs every pair in turn (ours, peer, ours, peer …), and writes
`docs/benchmarks.md`, its pictures, and the raw results. `--quick` takes minutes instead of hours
and says so in what it writes. Needs Linux, a C compiler, and two cores for figures worth having.

    python -m benchmarks.run --quick
    python -m benchmarks.run --only one,echo,kernel,gorilla     rows and peers; prints only
    python -m benchmarks.run --report                           the page from the kept results
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import install, machine, report, room_report
from .about import About, Results, about_rows
from .broker_servers import CONTENDERS
from .brokers import BROKER_ROWS
from .measure import Cores, Run, measure, visit
from .rooms import ROOM_ROWS, RoomRow, RowFailed, load_average, run_rows
from .rows import ROWS, SERIES, Row, Series
from .servers import BENCH, BY_NAME, OURS, PEERS, ROOT, ServerSpec

RESULTS = BENCH / "results"
KEPT = RESULTS / "benchmarks.json"
KEPT_ROOMS = RESULTS / "rooms.json"
KEPT_BROKERS = RESULTS / "brokers.json"
"""The results that the page shows; all others are git-ignored."""

HUB_ROWS = (*ROOM_ROWS, *BROKER_ROWS)
SECTIONS = ((KEPT_ROOMS, room_report.section), (KEPT_BROKERS, room_report.broker_section))
"""Rows of a hub beside itself: where they are kept, and their section of the page."""
SPARE_DESCRIPTORS = 100
NOBODY: list[ServerSpec | None] = [None]


class Runner:
    """Does the runs that were asked for and collects their results."""

    def __init__(self, options: argparse.Namespace, peers: Sequence[ServerSpec]) -> None:
        self.is_quick: bool = options.quick
        self.repeats: int = options.repeat
        self.peers = peers
        self.cores = Cores.choose()
        self.results: dict[str, Any] = {"rows": {}, "series": {}}

    def timed(self, load: Sequence[str], seconds: tuple[float, float]) -> list[str]:
        timing = ["--warm", str(seconds[0]), "--seconds", str(seconds[1])]
        return [*load, *timing, *(["--drain", "2"] if self.is_quick else [])]

    def run(self, spec: ServerSpec, load: Sequence[str], seconds: tuple[float, float]) -> Run:
        """Do one run, and print on stderr what came of it."""
        needed = int(load[load.index("--clients") + 1]) + SPARE_DESCRIPTORS
        if needed > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            return {"error": f"needs {needed} descriptors"}
        run = measure(spec, self.timed(load, seconds), self.cores)
        self.show(spec, "", run)
        return run

    def show(self, spec: ServerSpec, what: str, run: Run) -> None:
        line = f"    {spec.name:18} {what:10} {report.brief(run)}"
        print(line, file=sys.stderr, flush=True)

    def variants(self, spec: ServerSpec, rows: Sequence[Row]) -> list[dict[str, Run]]:
        """Run one server through rows; of several it does all with one server."""
        plans = [
            (place, name, self.timed([*self.load(row), *more], self.seconds(row)))
            for place, row in enumerate(rows)
            for name, more in row.variants
        ]
        found: list[dict[str, Run]] = [{} for _ in rows]
        if len(rows) == 1:
            for place, name, load in plans:
                found[place][name] = measure(spec, load, self.cores)
                self.show(spec, name, found[place][name])
            return found
        for number, run in visit(spec, [load for _, _, load in plans], self.cores):
            place, name, _ = plans[number]
            found[place][name] = run
            self.show(spec, rows[place].key, run)
        return found

    def load(self, row: Row) -> list[str]:
        load = list(row.load)
        if self.is_quick and row.quick_clients is not None:
            load[load.index("--clients") + 1] = str(row.quick_clients)
        return load

    def seconds(self, row: Row) -> tuple[float, float]:
        return row.quick if self.is_quick else row.seconds

    def rows(self, rows: Sequence[Row]) -> None:
        """Run all pairs of rows that have the same peers.

        One run of ours stands for a whole round where a run is quick or long.
        """
        peers = [peer for peer in self.peers if peer.name in rows[0].peers]
        for row in rows:
            self.results["rows"][row.key] = []
        is_once = self.is_quick or not rows[0].shares_server
        keys = ", ".join(row.key for row in rows)
        for repeat in range(self.repeats):
            print(f"{keys}: round {repeat + 1} of {self.repeats}", file=sys.stderr, flush=True)
            ours = self.variants(OURS, rows) if is_once or not peers else []
            for peer in [*peers] or NOBODY:
                if not is_once and peers:
                    ours = self.variants(OURS, rows)
                theirs = self.variants(peer, rows) if peer else [{} for _ in rows]
                for row, mine, other in zip(rows, ours, theirs, strict=True):
                    name = peer.name if peer else None
                    pair = {"repeat": repeat, "peer": name, "ours": mine, "theirs": other}
                    self.results["rows"][row.key].append(pair)

    def series(self, series: Series) -> None:
        chosen = [OURS, *(peer for peer in self.peers if peer.name in series.peers)]
        points = series.points[: series.quick_points] if self.is_quick else series.points
        seconds = (0.2, 0.5) if self.is_quick else (1.0, 2.0)
        found = self.results["series"][series.key] = []
        for repeat in range(min(self.repeats, 3)):
            for x, load in points:
                print(f"{series.key} {x:,}, round {repeat + 1}", file=sys.stderr)
                for spec in chosen:
                    run = self.run(spec, load, seconds)
                    found.append({"repeat": repeat, "x": x, "name": spec.name, "run": run})


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure Hubbub and its peers.")
    parser.add_argument("--quick", action="store_true", help="one short round; noisy figures")
    parser.add_argument("--repeat", type=int, metavar="N", help="rounds of each pair (5; quick: 1)")
    parser.add_argument("--only", default="", metavar="A,B", help="these rows, series or peers")
    parser.add_argument(
        "--write", action="store_true", help="with --only: put them in the page too"
    )
    parser.add_argument("--report", action="store_true", help="write the page from kept results")
    parser.add_argument("--list", action="store_true", help="name the rows, series and peers")
    options = parser.parse_args()
    options.repeat = options.repeat or (1 if options.quick else 5)
    return options


def names_in(only: str) -> set[str]:
    """Return the names in --only; end the program for one that is not known."""
    names = {name.strip() for name in only.split(",") if name.strip()}
    unknown = names - {kind.key for kind in (*ROWS, *SERIES, *HUB_ROWS)} - set(BY_NAME)
    if unknown:
        raise SystemExit(f"--only knows no {', '.join(sorted(unknown))}; --list names them all")
    return names


def choose(only: str) -> tuple[list[Row], list[Series], list[ServerSpec]]:
    """Return what --only names of the hub and its peers; of a kind that it names nothing of, everything."""
    names = names_in(only)
    if names and names <= {row.key for row in HUB_ROWS}:
        return [], [], []
    rows = [row for row in ROWS if row.key in names]
    sources = {row.runs_of for row in rows}
    rows = [row for row in ROWS if (row in rows or row.key in sources) and row.runs_of is None]
    series = [one for one in SERIES if one.key in names]
    peers = [peer for peer in PEERS if peer.name in names]
    if not rows and not series:
        rows, series = [row for row in ROWS if row.runs_of is None], list(SERIES)
    return rows, series, peers if names & set(BY_NAME) else list(PEERS)


def choose_hub_rows(only: str, rows: Sequence[RoomRow]) -> list[RoomRow]:
    """Return which of the rows of a hub beside itself --only names; without it, all."""
    names = names_in(only)
    return [row for row in rows if not names or row.key in names]


def do_hub_runs(options: argparse.Namespace, rows: Sequence[RoomRow]) -> dict[str, Any]:
    """Run rows of a hub beside itself. Ends the program where a row finds anything wrong."""
    load = load_average()
    needed = [
        OURS,
        *(each.spec for each in CONTENDERS.values() if "rivals" in {row.key for row in rows}),
    ]
    missing = install.install(needed)
    try:
        if missing:
            raise RowFailed(f"missing: {missing}")
        found = run_rows(rows, options.repeat, is_quick=options.quick)
    except RowFailed as failed:
        raise SystemExit(f"a row failed: {failed}") from None
    return {**about(options), "load_before": load, "rows": found}


def about(options: argparse.Namespace) -> dict[str, Any]:
    """Return what results have of when and where they were measured."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "is_quick": options.quick,
        "repeats": options.repeat,
        "machine": machine.describe(),
        "commit": machine.commit(),
    }


def do_runs(options: argparse.Namespace) -> dict[str, Any]:
    rows, series, peers = choose(options.only)
    print("building and installing", file=sys.stderr)
    missing = install.install([OURS, *peers])
    for name, reason in missing.items():
        print(f"missing: {name}: {reason}", file=sys.stderr)
    runner = Runner(options, [peer for peer in peers if peer.name not in missing])
    together = [row for row in rows if row.shares_server]
    if together:
        runner.rows(together)
    for row in rows:
        if not row.shares_server:
            runner.rows([row])
    for one in series:
        runner.series(one)
    return {
        **about(options),
        "versions": install.versions([OURS, *peers]),
        "missing": missing,
        **runner.results,
    }


def keep(results: dict[str, Any], *, is_whole: bool) -> None:
    """Put results into the kept ones: as a whole, or their rows and series only."""
    if not is_whole and KEPT.exists():
        kept = kept_at(KEPT)
        kept["about"] = merged_abouts(kept, results, "rows", "series")
        for part in ("rows", "series", "versions", "missing"):
            kept[part].update(results[part])
        kept["machine"] = results["machine"]
        results = kept
    write_json(KEPT, results)


def merged_abouts(kept: Results, results: Results, *parts: str) -> dict[str, About]:
    """Return what is known of each row when results are put into the kept ones."""
    old, new = ([key for part in parts for key in each[part]] for each in (kept, results))
    return {**about_rows(kept, old), **about_rows(results, new)}


def keep_rows(path: Path, results: dict[str, Any]) -> None:
    """Put results of a hub beside itself into the kept ones, each row as a whole, with what is known of it."""
    kept: Results = kept_at(path) if path.exists() else {"rows": {}}
    abouts = merged_abouts(kept, results, "rows")
    write_json(path, {"about": abouts, "rows": {**kept["rows"], **results["rows"]}})


def kept_at(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def write_page() -> None:
    """Write the page from what is kept."""
    parts: list[str] = []
    for path, section in SECTIONS:
        if path.exists():
            parts += section(kept_at(path))
    report.write(kept_at(KEPT), ROOT / "docs", parts)
    print("wrote docs/benchmarks.md", file=sys.stderr)


def write_json(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, separators=(",", ":")) + "\n", encoding="utf-8")


def main() -> None:
    options = read_options()
    if options.list:
        print(*(f"{kind.key:12} {kind.title}" for kind in (*ROWS, *SERIES, *HUB_ROWS)), sep="\n")
        print(*(f"{peer.name:18} {peer.title}" for peer in PEERS), sep="\n")
        return
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.report:
        write_page()
        return
    is_kept = not options.only or options.write
    for (path, section), rows in zip(SECTIONS, (ROOM_ROWS, BROKER_ROWS), strict=True):
        if chosen := choose_hub_rows(options.only, rows):
            found = do_hub_runs(options, chosen)
            if is_kept:
                keep_rows(path, found)
            print("\n".join(section(found)))
    if any(choose(options.only)):
        results = do_runs(options)
        write_json(RESULTS / f"{results['date'].replace(':', '')}.json", results)
        if is_kept:
            keep(results, is_whole=not options.only)
        print("\n".join(report.tables(results)))
    if is_kept:
        write_page()


if __name__ == "__main__":
    main()
