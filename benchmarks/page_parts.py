"""The generated part of a page that people write otherwise: it stands between two marks.

What must not live here: what the parts say. `report.py` and `compression.py` put theirs in.
"""

from __future__ import annotations


def marks(part: str) -> tuple[str, str]:
    """Return the lines between which a generated part stands."""
    return f"<!-- {part}: generated, begins -->", f"<!-- {part}: generated, ends -->"


def part_of(page: str, part: str) -> str:
    """Return a generated part; raise `ValueError` where the page has no place, or several, for it."""
    begin, end = marks(part)
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page has no place, or several, for the part {part!r}")
    return page.partition(begin)[2].partition(end)[0].strip()


def replaced(page: str, part: str, text: str) -> str:
    """Return `page` with `text` (Markdown) as its generated part. Raises `ValueError` as `part_of`."""
    part_of(page, part)
    begin, end = marks(part)
    head, _, rest = page.partition(begin)
    return f"{head}{begin}\n\n{text.strip()}\n\n{end}{rest.partition(end)[2]}"
