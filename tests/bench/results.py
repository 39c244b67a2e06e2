"""A result of a load, as the tests of what shows it need one."""

from __future__ import annotations

from typing import Any

from hubbub.bench.result import ProcessShare, Result


def result(**changes: Any) -> Result:
    """Return the result of a load that went well, but for `changes`."""
    usual: dict[str, Any] = {
        "url": "ws://h/ws",
        "interrupted": False,
        "limited_by": "rate",
        "because": "Neither side was the limit.",
        "clients": 1000,
        "clients_asked": 1000,
        "connects_per_second": 1234.5,
        "refused": {},
        "failed": {},
        "disconnected": {},
        "expect": "room",
        "loop": "open",
        "rate": 50.0,
        "publishers": 1,
        "rooms": 1,
        "size_bytes": 128,
        "seconds": 10.0,
        **dict.fromkeys(("fell_behind", "held_back", "timeouts", "lost", "cut_off"), 0),
        **dict.fromkeys(("duplicated", "reordered", "damaged", "stray", "others", "unreached"), 0),
        "sent": 500,
        "delivered": 500_000,
        "messages_per_second": 50.0,
        "deliveries_per_second": 50_000.0,
        "bytes_per_second": 6_600_000.0,
        "latency_ms": {"p50": 1.234, "p90": 2.0, "p99": 3.5, "p99_9": 12.25, "max": 250.4},
        "processes": [ProcessShare(0.5, 0.25)],
    }
    return Result(**{**usual, **changes})
