"""The report: outcomes as the tables of `docs/reliability.md`, and what they depend on.

What must not live here: measuring. Called by `run.py`.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("uvicorn", "websockets", "uvloop")

_READ_TABLE = """\
"Deliveries" are those to well-behaved control clients, which check every one: arrived of expected.
Memory is the server's resident set before, at its highest and after. "Block" is the longest time that the
event loop was held up, by the wall's clock; in brackets the part of it in which the server itself was
running (the machine had other work). "Log" counts the hub's own lines."""


_OF_FLEETS = (
    *(
        "how much",
        "deliveries",
        "lost",
        "twice",
        "out of order",
        "disconnected",
        "told",
        "missed and told",
    ),
    *("whole after, s", "longest publication, s", "refused"),
    *("elsewhere after, s", "presence right after, s"),
    "load of the machine",
)
_TOLD_BELOW = ("all told after, s", "left out after, s")
_READ_FLEETS = """\
"Deliveries" are those to all clients, which count each publisher's messages: arrived of expected. "Lost" are those
that did not come and of which the client was not told; "told" is how many clients were told that something is missing.
"Missed and told" are deliveries.
"Whole" is the last client when it has the first message that was published after the end of the fault, and all
before it (asked for: twice what a publication waits for its receipt, a client before it tries again, and whoever has lost the
broker before the next try). A publisher tries again, with the same key, what is "refused". "Elsewhere" is the last client of a worker that
has gone when it is in its room at another (the longest of several times; asked for: what a client waits at most before it tries
again, and 15 s), "presence right" when another worker sees those who are there and nobody else, both from the end of the worker
or of the fault on ("left out": from when a worker stood still; asked for: the lease, two times between renewals, and a look). "Load" is that of the machine, by the kernel,
with all that ran on it beside this."""


def machine() -> str:
    """Say where the figures come from."""
    names = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{_processor()}, {cores} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {names}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str:
    """Return the commit that was tried, with a plus when the tree had changes."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short", "HEAD") or "unknown"
    return head + "+" if git("status", "--porcelain", "--", "src") else head


def part(name: str, kept: dict[str, Any]) -> str:
    """Return a part of the page, in Markdown."""
    if name == "soak":
        return soak_text(kept["soak"])
    if name == "brokers":
        return fleet_text(kept)
    rows = list(kept.values())
    return "\n\n".join([f"{origin(rows)} {_READ_TABLE}", table(rows), notes(rows)])


def fleet_text(kept: dict[str, dict[str, Any]]) -> str:
    """Return what was done to fleets: a table, and what did not hold."""
    rows = list(kept.values())
    lines = [
        f"| what was done, and its test | {' | '.join(_OF_FLEETS)} |",
        "|---|" + "---|" * len(_OF_FLEETS),
    ]
    for name, row in kept.items():
        cells = [_cell(row, each) for each in _OF_FLEETS]
        lines.append(f"| {row['title']}: `{name}` | {' | '.join(cells)} |")
    rest = [{**row, "found": _only(row["found"], _TOLD_BELOW)} for row in rows]
    text = "\n\n".join([f"{origin(rows)} {_READ_FLEETS}", "\n".join(lines), notes(rest)])
    return text.strip()


def _only(found: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: found[name] for name in names if name in found}


def _cell(row: dict[str, Any], name: str) -> str:
    if name == "how much":
        return str(row["tried"])
    if name == "deliveries":
        return f"{row['arrived']} of {row['expected']}"
    return str(row["found"].get(name, "-"))


def origin(rows: list[dict[str, Any]]) -> str:
    """Say when, what and where."""
    days = sorted({row["on"] for row in rows})
    commits = sorted({row["commit"] for row in rows})
    held = sum(not row["faults"] for row in rows)
    machines = dict.fromkeys(row["machine"] for row in rows)
    return (
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, commit {', '.join(commits)}, full scale, "
        f"each once; {held} of {len(rows)} held. {'; '.join(machines)}."
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Return the outcomes as a table."""
    lines = [
        "| what was tried | how much | deliveries | memory, MiB | block, ms | `stats()` | log |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        title = row["title"] + (", portable transport" if row["transport"] == "portable" else "")
        counters = ", ".join(f"`{name}` +{count}" for name, count in row["moved"].items())
        cells = [
            title,
            row["tried"],
            f"{row['arrived']} of {row['expected']}",
            _memory(row),
            f"{row['block_ms']:.0f} ({row['block_cpu_ms']:.0f})" if row["rss_peak_kib"] else "-",
            counters or "-",
            str(row["log_lines"]) if row["rss_peak_kib"] else "-",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _memory(row: dict[str, Any]) -> str:
    if not row["rss_peak_kib"]:
        return "-"
    names = ("rss_before_kib", "rss_peak_kib", "rss_after_kib")
    return " / ".join(f"{row[name] / 1024:.1f}" for name in names)


def notes(rows: list[dict[str, Any]]) -> str:
    """Return what else was found, and what did not hold."""
    lines = []
    for row in rows:
        found = {name: value for name, value in row["found"].items() if name != "tracebacks"}
        if found:
            told = "; ".join(f"{name}: {_shown(value)}" for name, value in found.items())
            lines.append(f"- {row['title']}: {told}.")
        if row["faults"]:
            lines.append(f"- **{row['title']}: did not hold:** {'; '.join(row['faults'])}.")
    return "\n".join(lines)


def figures(row: dict[str, Any]) -> str:
    """Return what a scenario has found in one line."""
    found: dict[str, Any] = {"deliveries": f"{row['arrived']} of {row['expected']}"}
    if row["rss_peak_kib"]:
        found |= {"memory, MiB": _memory(row), "block, ms": f"{row['block_ms']:.0f}"}
    found |= {name: f"+{count}" for name, count in row["moved"].items()} | row["found"]
    return "; ".join(f"{name}: {_shown(value)}" for name, value in found.items())


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} ({count})" for key, count in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def soak_text(row: dict[str, Any]) -> str:
    """Return the soak's outcome as sentences."""
    rss = row["rss_kib"]
    ends = ", ".join(f"{count} by {way}" for way, count in sorted(row["ends"].items()))
    counters = ", ".join(f"`{name}` {count}" for name, count in row["counters"].items())
    accounts = (
        f"{row['owed']} deliveries were owed for {row['published']} publications and the answers to "
        f"single clients. {row['handed_on']} were handed to sockets, {row['dropped']} dropped by full "
        f"outboxes, {row['undelivered']} still waited when their client's connection ended: "
        f"{row['owed'] - row['handed_on'] - row['dropped'] - row['undelivered']} are unaccounted for. "
        f"{row['received']} arrived at clients; the others were on their way to clients that died. "
        f"Clients that could know what they should have got missed {row['missing']}."
    )
    return "\n\n".join(
        [
            (
                f"{row['on']}, commit {row['commit']}: {row['clients']} clients for "
                f"{row['seconds'] / 60:g} minutes. {machine()}."
            ),
            (
                f"{row['lives']} clients lived and ended: {ends}. At most {row['most_clients']} were "
                f"connected at one time."
            ),
            accounts,
            (
                f"Memory: {rss[0] / 1024:.1f} MiB before, {max(rss) / 1024:.1f} at most, "
                f"{rss[-1] / 1024:.1f} after; in the second half it rose by "
                f"{row['slope_kib_per_minute']:g} KiB a minute. The event loop was held up for "
                f"{row['block_ms']:.0f} ms at most ({row['block_cpu_ms']:.0f} ms of it by the server). "
                f"Counters: {counters}."
            ),
            "Left behind at the end: "
            + ("; ".join(row["leaks"]) or "no client, room, task, timer or descriptor")
            + "."
            + (f" **Did not hold:** {'; '.join(row['faults'])}." if row["faults"] else ""),
        ]
    )
