"""Run the Autobahn test suite as fuzzing client against both transports; fail on any failure.

What must not live here: what its reports mean (`autobahn_report`). `make conformance` runs it:

    python -m stress.autobahn_suite            groups 1-10, a part of 12 and 13: minutes
    python -m stress.autobahn_suite --full     everything: half an hour for each server
    python -m stress.autobahn_suite --keep     keep what came out, and write the page
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import page
from .autobahn_report import RESULTS, Case, Outcome, as_json, listed, part, read
from .ports import free_port, wait_until_it_listens

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "artifacts" / "autobahn"
WSTEST = ROOT / ".venv-wstest" / "env" / "bin" / "wstest"
SUITE = "25.10.1"

START_S = 30.0
SHORT_S = 420
FULL_S = 3 * 3600
"""How long one run of the suite may take."""

PLAIN = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]
DEFLATE = [["12.*"], ["13.*"]]
DEFLATE_SHORT = ["12.1.1", "12.1.3", "12.1.5", "12.2.2", "12.3.3", "12.4.2", "12.5.3"] + [
    f"13.{offer}.{size}" for offer in range(1, 8) for size in (1, 3)
]
"""Every kind of data and every offer, with the smaller messages. A case is a thousand messages."""


@dataclass(frozen=True)
class Testee:
    """A server under test: the name of its rows, and how uvicorn is started."""

    name: str
    server: str
    options: tuple[str, ...]
    known: Mapping[str, str] = field(default_factory=dict)


TESTEES = (
    Testee(
        "native",
        "uvicorn with Hubbub's protocol class (`--ws hubbub:Protocol`) on uvloop",
        ("--ws", "hubbub:Protocol", "--loop", "uvloop"),
    ),
    Testee(
        "portable",
        "the portable transport under uvicorn's class on `wsproto` (`--ws wsproto`); frames, "
        "compression and codes are the server's own",
        ("--ws", "wsproto"),
    ),
    Testee(
        "portable-default",
        "the portable transport under uvicorn's default class (`--ws websockets-sansio`)",
        ("--ws", "websockets-sansio"),
        known={
            "7.1.5": 'Not ours: `websockets` (`Protocol.recv_frame`: "incomplete fragmented message") '
            "answers 1002 to a close frame between the fragments of a message, where section 5.4 lets "
            "control frames stand; the native transport corrects it"
        },
    ),
)


@contextmanager
def served(testee: Testee, log: Path) -> Iterator[str]:
    """Serve the echo application; yield its URL. Raises `RuntimeError` when it ends by itself."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "stress.echo_app:app", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--log-level", "warning", "--no-access-log", *testee.options]
    environment = {key: value for key, value in os.environ.items() if key[:7] != "HUBBUB_"}
    environment["ECHO_COMPRESSION"] = "shared"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        wait_until_it_listens(process, port, START_S)
        yield f"ws://127.0.0.1:{port}/ws"
        if process.poll() is not None:
            raise RuntimeError(f"{testee.name}: the server ended; see {log}")
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def run_suite(testee: Testee, cases: list[str], limit_s: float) -> tuple[list[Case], int]:
    """Run `cases` against a server of its own; return what came out, and tracebacks in its log."""
    folder = OUT / f"{testee.name}-{cases[0].split('.')[0]}"
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "index.json"
    index.unlink(missing_ok=True)
    log = folder / "server.log"
    with served(testee, log) as url, (folder / "wstest.log").open("wb") as sink:
        spec: dict[str, Any] = {
            "outdir": str(folder),
            "options": {"failByDrop": False},
            "cases": cases,
        }
        spec |= {"servers": [{"agent": testee.name, "url": url}]}
        spec |= {"exclude-cases": [], "exclude-agent-cases": {}}
        (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        command = [str(WSTEST), "-m", "fuzzingclient", "-s", str(folder / "spec.json")]
        subprocess.run(
            command, cwd=folder, stdout=sink, stderr=subprocess.STDOUT, timeout=limit_s, check=False
        )
    return read(index), log.read_text(errors="replace").count("Traceback")


def run(testees: list[Testee], *, full: bool) -> list[Outcome]:
    """Run all, two at a time; a server's groups are separate runs."""
    limit_s = FULL_S if full else SHORT_S
    deflate = DEFLATE if full else [DEFLATE_SHORT]
    with ThreadPoolExecutor(2) as pool:
        runs = [
            (testee, pool.submit(run_suite, testee, cases, limit_s))
            for cases in (PLAIN, *deflate)
            for testee in testees
        ]
        outcomes = {t.name: Outcome(t.name, t.server, t.known) for t in testees}
        for testee, done in runs:
            cases, errors = done.result()
            outcomes[testee.name].cases += cases
            outcomes[testee.name].log_errors += errors
    return list(outcomes.values())


def failures_of(outcome: Outcome) -> list[str]:
    """Return what is wrong with a server, in words."""
    if not outcome.cases:
        return ["no case was run"]
    wrong = [
        f"{case.number}: {case.behavior}, close {case.close}, code {case.code}"
        for case in outcome.failures()
    ]
    bad = {case.number for case in outcome.cases if case.is_bad}
    ran = {case.number for case in outcome.cases}
    gone = (set(outcome.known) & ran) - bad
    wrong += [f"{number}: is no failure any more; take it out of the known ones" for number in gone]
    if outcome.name == "native" and outcome.log_errors:
        wrong.append(f"{outcome.log_errors} tracebacks in the server's log")
    return wrong


def report(outcomes: list[Outcome]) -> bool:
    """Print what came out; tell whether all is well."""
    is_well = True
    for outcome in outcomes:
        counts = ", ".join(f"{count} {name}" for name, count in outcome.counts().most_common())
        print(f"{outcome.name}: {len(outcome.cases)} cases: {counts}")
        for verdict, numbers, reason in listed(outcome):
            print(f"    {verdict}: {numbers}: {reason}")
        for line in failures_of(outcome):
            is_well = False
            print(f"    WRONG: {line}")
    return is_well


def keep(outcomes: list[Outcome]) -> None:
    """Write the results and the page."""
    # The commit that made the source what it is, not one of a report or a test.
    log = ["git", "-C", str(ROOT), "log", "-1", "--format=%h", "--", "src"]
    commit = subprocess.run(log, capture_output=True, text=True, check=True).stdout.strip()
    packages = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "websockets", "wsproto"))
    about = {"suite": SUITE, "date": time.strftime("%Y-%m-%d"), "commit": commit}
    about["versions"] = f"{packages}, Python {sys.version.split()[0]}"
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))["testees"] if RESULTS.exists() else []
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(as_json(outcomes, about, kept), encoding="utf-8")
    page.write("conformance", part(json.loads(RESULTS.read_text(encoding="utf-8"))))


def main(arguments: list[str]) -> int:
    """Run the suite; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--full", action="store_true", help="all cases of 12 and 13 too")
    parser.add_argument("--keep", action="store_true", help="keep the results; write the page")
    parser.add_argument("--only", help="the testee of this name")
    options = parser.parse_args(arguments)
    if not WSTEST.exists():
        print(f"{WSTEST} is missing: `make conformance` makes it", file=sys.stderr)
        return 1
    testees = [t for t in TESTEES if options.only in (None, t.name)]
    outcomes = run(testees, full=options.full)
    is_well = report(outcomes)
    if options.keep:
        keep(outcomes)
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
