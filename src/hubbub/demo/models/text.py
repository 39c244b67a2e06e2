"""Text of strangers: what of it is kept, so that it can be sent, stored and shown to others."""

from __future__ import annotations

import unicodedata

MAX_LINE_CHARACTERS = 1000
"""How long a line of a conversation is at most: what is kept goes to each newcomer at once."""

_UNSEEN = {"Cc", "Cf", "Cs"}
_JOINERS = "\u200c\u200d"
"""They are in the category Cf too, but Persian words and emoji of several people need them."""


def one_line(raw: str, max_characters: int) -> str:
    """Return `raw` as one line of at most `max_characters`; empty when nothing is left of it.

    Line ends and other white space become single spaces. Controls, signs that turn the direction of
    writing and lone surrogates, which no UTF-8 has, are left out. Markup stays as it is: the pages
    show text as text.
    """
    # What is left out is rare: a text much longer than its limit is not worth reading to its end.
    words = raw[: 4 * max_characters].split()
    return "".join(filter(_is_kept, " ".join(words)))[:max_characters].strip()


def _is_kept(character: str) -> bool:
    return unicodedata.category(character) not in _UNSEEN or character in _JOINERS
