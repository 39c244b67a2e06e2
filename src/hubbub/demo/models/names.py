"""Names of visitors: those they bring, made harmless, and those we give them."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from collections.abc import Iterable

MAX_NAME_CHARACTERS = 24
MAX_SHOWN_NAMES = 40
"""A list of names goes to everybody in it, so its length is bounded."""

_FIRST = "amber brisk calm coral dusky early fair gold jade keen lilac merry misty noble quick rosy"
_SECOND = "badger crane finch fox hare heron ibis lark lynx marten otter owl robin seal stork wren"
_LINE_OR_CONTROL = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def clean_name(raw: str) -> str:
    """Return `raw` as one short line without colons; empty when nothing is left of it.

    A colon ends the name in a line of plain text, so no name has one. Markup is left as it is:
    the pages show names as text.
    """
    kept = (" " if character == ":" else character for character in raw if _is_printable(character))
    return " ".join("".join(kept).split())[:MAX_NAME_CHARACTERS].strip()


def _is_printable(character: str) -> bool:
    return unicodedata.category(character) not in _LINE_OR_CONTROL


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
