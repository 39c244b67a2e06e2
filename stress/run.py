"""All scenarios and the soak, one after another: `make soak`; with `ARGS=--full`, for the report.

What must not live here: scenarios. Each says what did not hold, and in one line what was found; the full form also writes
`results/` and its parts of `docs/reliability.md`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from . import (
    brokers,
    connection_flood,
    fault_end,
    fault_handlers,
    fault_time,
    half_open,
    message_flood,
    page,
    report,
    slow_peer,
    soak,
    spoofing,
)
from .scenario import FULL, SHORT, Outcome, Scale

Scenario = Callable[[Scale], Coroutine[Any, Any, Outcome]]
RESULTS = Path(__file__).resolve().parent / "results"

HOSTILE: dict[str, Scenario] = {
    "never_reads": slow_peer.never_reads,
    "never_reads_portable": partial(slow_peer.never_reads, portable=True),
    "reads_one_byte_a_second": slow_peer.reads_one_byte_a_second,
    "sends_handshake_slowly": slow_peer.sends_handshake_slowly,
    "sends_frame_slowly": slow_peer.sends_frame_slowly,
    "sends_nothing": connection_flood.sends_nothing,
    "connects_and_disconnects": connection_flood.connects_and_disconnects,
    "floods_pings": message_flood.pings,
    "floods_pings_over_the_rate": message_flood.limited_pings,
    "floods_fragments_over_the_rate": message_flood.limited_fragments,
    "floods_empty_fragments": message_flood.empty_fragments,
    "floods_tiny_fragments": message_flood.tiny_fragments,
    "floods_past_the_limit": message_flood.oversized_fragments,
    "floods_messages": message_flood.messages,
    "floods_messages_and_is_told": message_flood.told_messages,
    "floods_messages_unlimited": message_flood.unlimited_messages,
    "compression_bombs": message_flood.compression_bombs,
    "allowed_bombs": message_flood.allowed_bombs,
    "over_max_clients": connection_flood.over_max_clients,
    "over_clients_per_address": connection_flood.over_clients_per_address,
    "out_of_descriptors": connection_flood.out_of_descriptors,
    "half_open": half_open.gone_without_fin,
    "spoofs_origin": spoofing.origin,
    "spoofs_host": spoofing.host,
    "spoofs_address": spoofing.forwarded_address,
    "replays_token": spoofing.replayed_token,
    "token_expires": spoofing.expiring_token,
    "token_refreshed": spoofing.refreshed_token,
    "injects_into_logs": spoofing.log_injection,
}
FAULTS: dict[str, Scenario] = {
    "blocks": fault_handlers.blocks,
    "raises": fault_handlers.raises,
    "is_cancelled": fault_handlers.is_cancelled,
    "never_returns": fault_handlers.never_returns,
    "sigterm": fault_end.sigterm,
    "sigkill": fault_end.sigkill,
    "suspended": fault_time.suspended,
    "clock_jumps": fault_time.clock_jumps,
}
PARTS: dict[str, dict[str, Scenario]] = {
    "hostile": HOSTILE,
    "faults": FAULTS,
    "brokers": brokers.ALONE,
}
SOAK_CLIENTS = 2000


async def run_one(name: str, scenario: Scenario, scale: Scale) -> dict[str, Any]:
    """Run one scenario; one that breaks off is a result too."""
    began = time.monotonic()
    try:
        outcome = (await scenario(scale)).as_dict()
    except Exception as error:
        outcome = Outcome(name, "-", "-", faults=[f"the scenario broke off: {error!r}"]).as_dict()
    outcome["seconds"] = round(time.monotonic() - began, 1)
    verdict = "; ".join(outcome["faults"]) or "held"
    figures = report.figures(outcome)
    print(f"{name:32} {outcome['seconds']:7.1f} s  {verdict}  ({figures})", flush=True)
    return outcome


async def run_part(part: str, scale: Scale, only: Sequence[str]) -> dict[str, Any]:
    """Run the scenarios of a part (all, or those named); return their outcomes by name."""
    return {
        name: await run_one(name, scenario, scale)
        for name, scenario in PARTS[part].items()
        if not only or name in only
    }


async def run_soak(clients: int, seconds: float) -> dict[str, Any]:
    """Soak, and say what came out."""
    soaked = (await soak.soak(clients, seconds)).as_dict()
    print(f"{'soak':32} {seconds:7.1f} s  {'; '.join(soaked['faults']) or 'held'}", flush=True)
    return soaked


def keep(part: str, outcomes: dict[str, Any]) -> None:
    """Add outcomes to those kept, in the order of the scenarios, and write the page's part."""
    path = RESULTS / f"{part}.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    stamp = {
        "on": datetime.date.today().isoformat(),
        "commit": report.commit(),
        "scale": "full",
        "machine": report.machine(),
    }
    for name, outcome in outcomes.items():
        kept[name] = {**outcome, **stamp}
    order = list(PARTS.get(part, outcomes))
    kept = {name: kept[name] for name in order if name in kept}
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n")
    page.write(part, report.part(part, kept))


def main() -> int:
    """Run what the command line asks for; return 1 if something did not hold."""
    parser = argparse.ArgumentParser(description="hostile clients, faults, soak")
    parser.add_argument("--full", action="store_true", help="at full scale, and keep the results")
    parser.add_argument("--only", nargs="*", default=[], help="scenarios by name, or `soak`")
    parser.add_argument("--soak-minutes", type=float, help="default: 1, with --full 10")
    told = parser.parse_args()
    logging.getLogger("hubbub").setLevel(logging.CRITICAL)  # that of the clients, in this process
    scale = FULL if told.full else SHORT
    has_failed = False
    for part in PARTS:
        outcomes = uvloop.run(run_part(part, scale, told.only))
        has_failed |= any(outcome["faults"] for outcome in outcomes.values())
        if told.full and outcomes:
            keep(part, outcomes)
    if not told.only or "soak" in told.only:
        minutes = told.soak_minutes or scale.pick(1.0, 10.0)
        soaked = uvloop.run(run_soak(SOAK_CLIENTS, 60 * minutes))
        has_failed |= bool(soaked["faults"])
        if told.full:
            keep("soak", {"soak": soaked})
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(main())
