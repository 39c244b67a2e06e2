"""Names of visitors: those they bring, made harmless, and those we give them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

from .text import one_line

MAX_NAME_CHARACTERS = 24
MAX_SHOWN_NAMES = 40
"""A list of names goes to everybody in it, so its length is bounded."""

_FIRST = "amber brisk calm coral dusky early fair gold jade keen lilac merry misty noble quick rosy"
_SECOND = "badger crane finch fox hare heron ibis lark lynx marten otter owl robin seal stork wren"


def clean_name(raw: str) -> str:
    """Return `raw` as a name of one short line; empty when nothing is left of it."""
    return one_line(raw, MAX_NAME_CHARACTERS)


def invent_name(rng: random.Random | None = None) -> str:
    """Return a name like "amber-fox"."""
    choose = (rng or random).choice
    return f"{choose(_FIRST.split())}-{choose(_SECOND.split())}"


def roster(names: Iterable[str]) -> dict[str, object]:
    """Return who is here: `count` of all, and the first names in order with how often each is there."""
    everybody = Counter(names)
    shown = sorted(everybody.items(), key=lambda item: (item[0].casefold(), item[0]))
    return {
        "count": everybody.total(),
        "names": [{"name": name, "times": times} for name, times in shown[:MAX_SHOWN_NAMES]],
    }
