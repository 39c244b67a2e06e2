"""Lags: how long what one turn of the event loop has delivered was on its way.

What must not live here: which turns are looked at (`fanout`), and the histograms (`stats`).
"""

from __future__ import annotations

from collections.abc import Sequence
from time import time

from ..stats import Stats
from ..wire.publication import Kind
from .room import Membership
from .variant import ENCODED, Row


def note_lags(stats: Stats, lag_s: float, rows: Sequence[Row]) -> None:
    """Note that `rows`, the first of which came `lag_s` seconds ago, are written now.

    What has a time was published then, by the clock of its publisher: where that is ahead of ours, or says no more
    than a millisecond can, it is as old as it has been here. What has none has come from nowhere else. Joins and
    leaves are nobody's publications, and what one client is given of a history was not on its way.
    """
    stats.delivery_lag.note(lag_s, len(rows))
    now_ms = int(time() * 1000)
    timeless = 0
    for members, _, _, publication in rows:
        if publication is None or not isinstance(members, Membership):
            continue
        if publication is ENCODED or publication.kind is not Kind.MESSAGE:
            continue
        if publication.time_ms is None:
            timeless += 1
        else:
            age_s = (now_ms - publication.time_ms) / 1000
            stats.publication_lag.note(max(lag_s, age_s))
    if timeless:
        stats.publication_lag.note(lag_s, timeless)
