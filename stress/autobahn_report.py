"""The Autobahn reports: what a run's files say, whether that is good, and how it reads on the page.

What must not live here: running the suite (`autobahn_suite`, which calls this).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results" / "autobahn.json"

BAD = frozenset({"FAILED", "UNCLEAN", "WRONG CODE", "FAILED BY CLIENT", "NO CLOSE"})
GOOD = frozenset({"OK", "NON-STRICT", "INFORMATIONAL"})

REASONS = {
    **dict.fromkeys(
        ("3.", "4.", "5.15"),
        "The server fails the connection before it has written the echo of the message that came "
        "before the wrong frame, as RFC 6455 section 7.1.7 allows",
    ),
    "6.4.": "Text is checked when its message is whole, not at its first wrong byte; RFC 6455 section "
    "8.1 does not say when",
    "7.1.6": "What becomes of a message when a close frame comes right after it: the suite only tells",
    "7.13.": "Close codes above 4999, which RFC 6455 does not define: the suite only tells",
    "13.": "The server declined the offer, and the connection is uncompressed (RFC 7692 section 5.1)",
}
"""Why a case is neither good nor bad, by the beginning of its number; the longest one counts."""


@dataclass(frozen=True)
class Case:
    """What one case of the suite found."""

    number: str
    behavior: str
    close: str
    code: int | None
    duration_ms: int

    @property
    def is_good(self) -> bool:
        """Nothing to list."""
        return self.behavior == "OK" and self.close == "OK"

    @property
    def is_bad(self) -> bool:
        """Failed, unclean, a wrong code; or a verdict that is not known here."""
        if self.behavior == "UNIMPLEMENTED":
            # Group 13 makes offers that a server may decline; group 12 makes the plain one.
            return not self.number.startswith("13.")
        return bool({self.behavior, self.close} & BAD) or self.behavior not in GOOD

    @property
    def reason(self) -> str:
        """Say why the case is not simply good."""
        fitting = [start for start in REASONS if self.number.startswith(start)]
        return REASONS[max(fitting, key=len)] if fitting else ""


@dataclass
class Outcome:
    """What the suite found out about one server. `known`: failures with a cause that is not ours."""

    name: str
    server: str
    known: Mapping[str, str] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    log_errors: int = 0

    def failures(self) -> list[Case]:
        """Return what must not be: bad cases that are not known."""
        return [case for case in self.cases if case.is_bad and case.number not in self.known]

    def counts(self) -> Counter[str]:
        """Count the cases by behavior, and by close where that is worse."""
        return Counter(
            case.close if case.close in BAD and case.behavior not in BAD else case.behavior
            for case in self.cases
        )


def read(index: Path) -> list[Case]:
    """Read the suite's `index.json` (of one server)."""
    (cases,) = json.loads(index.read_text(encoding="utf-8")).values()
    return sorted(
        (
            Case(
                number,
                told["behavior"],
                told["behaviorClose"],
                told["remoteCloseCode"],
                told["duration"],
            )
            for number, told in cases.items()
        ),
        key=lambda case: place(case.number),
    )


def place(number: str) -> tuple[int, ...]:
    """Return where a case stands: 9.10 comes after 9.2."""
    return tuple(int(part) for part in number.split("."))


def groups(cases: Iterable[Case]) -> str:
    """Say which groups were run, with the number of cases of each."""
    counted = Counter(int(case.number.split(".")[0]) for case in cases)
    return ", ".join(f"{group} ({count})" for group, count in sorted(counted.items()))


def as_json(
    outcomes: Iterable[Outcome], about: Mapping[str, Any], kept: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Return the results as they are kept: all that is not simply good by name, the rest counted.

    `about` is the suite and when, at which commit and with which versions it ran; `kept` are the
    testees of before, of whom those that were not run again stay.
    """
    testees = {testee["name"]: testee for testee in kept}
    testees |= {
        outcome.name: {
            "name": outcome.name,
            "server": outcome.server,
            "groups": groups(outcome.cases),
            "counts": dict(sorted(outcome.counts().items())),
            "seconds": round(sum(case.duration_ms for case in outcome.cases) / 1000),
            "log_errors": outcome.log_errors,
            "known": dict(outcome.known),
            "listed": [list(listing) for listing in listed(outcome)],
            **about,
        }
        for outcome in outcomes
    }
    return json.dumps({"testees": list(testees.values())}, indent=1) + "\n"


def listed(outcome: Outcome) -> Iterator[tuple[str, str, str]]:
    """Yield verdict, cases and reason of all that is not simply good, alike ones together."""
    alike: dict[tuple[str, str], list[str]] = {}
    for case in outcome.cases:
        if not case.is_good:
            verdict = case.close if case.close in BAD else case.behavior
            reason = outcome.known.get(case.number) or case.reason
            alike.setdefault((verdict, reason), []).append(case.number)
    for (verdict, reason), numbers in alike.items():
        yield verdict, ", ".join(numbers), reason


INTRODUCTION = """\
The Autobahn test suite as fuzzing client: every case of groups 1 to 10 (there is no 8 and no 11), and
of 12 and 13 the number that the table says, of 90 and 126. `make conformance` does it again in two
minutes, with 21 of these: every kind of data and every offer, with the smaller messages. `make
conformance ARGS=--full` runs them all, half an hour for each server; `--keep` writes this part.
"""

TESTEE = """\
- **{name}**: {server}. Suite {suite}, on {date}, commit `{commit}`, {versions}.\
"""

CLIENTS = """\
Real clients that talk to both transports in every test run (`tests/stress/test_real_clients.py`):
`websockets`, `aiohttp`, Node's `ws` and its own `WebSocket`, curl for the handshake, and one of bare
sockets; to the native one besides `wscat` (`tests/end_to_end/test_wscat.py`), Chromium
(`tests/end_to_end/browser`), and Firefox (`stress/firefox_check.py`, in `make conformance`).
"""


def part(results: Mapping[str, Any]) -> str:
    """Return the part of the page, in Markdown, from the kept results."""
    lines = [
        INTRODUCTION,
        "| server | cases, by group | OK | non-strict | informational | declined | failed |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for testee in results["testees"]:
        counts = testee["counts"]
        bad = sum(count for verdict, count in counts.items() if verdict in BAD)
        figures = [counts.get(name, 0) for name in ("OK", "NON-STRICT", "INFORMATIONAL")]
        cells = [testee["name"], testee["groups"], *figures, counts.get("UNIMPLEMENTED", 0), bad]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    lines += ["", *(TESTEE.format_map(told) for told in results["testees"])]
    lines += ["", "What is not simply OK, and why:", ""]
    for testee in results["testees"]:
        for verdict, numbers, reason in testee["listed"]:
            lines.append(f"- {testee['name']}, {verdict}: {numbers}. {reason}.")
    return "\n".join([*lines, "", CLIENTS])
