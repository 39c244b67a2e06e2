"""About: what results have of when and where they were measured, for each row, as a part of the rows may be measured again.

What must not live here: measuring, and what is said of it on a page but when that was.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Results = dict[str, Any]
About = dict[str, Any]

FIELDS = ("date", "is_quick", "repeats", "machine", "commit", "load_before")
BUSY = 0.5
"""A load average from which on somebody else was at work."""


def about_row(results: Results, key: str) -> About:
    """Return what is known of a row or a series. What stands beside the rows holds for all that have nothing of their own."""
    own: About | None = results.get("about", {}).get(key)
    return {name: results[name] for name in FIELDS if name in results} if own is None else own


def about_rows(results: Results, keys: Iterable[str]) -> dict[str, About]:
    """Return what is known of each of several."""
    return {key: about_row(results, key) for key in keys}


def differ(abouts: Iterable[About]) -> bool:
    """Tell whether rows were measured at several times, or in several ways."""
    first, *rest = [*abouts] or [{}]
    return any(each != first for each in rest)


def dates(abouts: Iterable[About]) -> str:
    """Write on which days that was."""
    found = sorted({each["date"][:10] for each in abouts})
    return found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"


def commits(abouts: Iterable[About]) -> str:
    """Write at which commits, the oldest measurement first, as it stands between two backticks."""
    by_date = sorted(abouts, key=lambda each: str(each["date"]))
    return "`, `".join(dict.fromkeys(each["commit"] for each in by_date))


def when(results: Results, key: str) -> str:
    """Say of a row or a series when it was measured; nothing where that is said of all together."""
    abouts = about_rows(results, [*results["rows"], *results.get("series", {})])
    return sentence(about_row(results, key)) if differ(abouts.values()) else ""


def sentence(about: About) -> str:
    """Say of one row what is not said of all."""
    words = f"Measured on {dates([about])} at commit `{commits([about])}`"
    load = about.get("load_before", 0.0)
    words += f"; the load average before was {load}." if load >= BUSY else "."
    return words + (" **A quick run**, too noisy to quote." if about["is_quick"] else "")
