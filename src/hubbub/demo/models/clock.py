"""The time of day as the pages' messages carry it."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_now() -> str:
    """Return the present time in UTC as ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
