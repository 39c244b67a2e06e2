"""The page `docs/reliability.md`: replaces one of its generated parts.

What must not live here: measuring. Each program of this folder writes the part that it measured,
between two marks, and leaves the words around them to people.
"""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reliability.md"


def marks(part: str) -> tuple[str, str]:
    """Return the lines between which a generated part stands."""
    return f"<!-- {part}: generated, begins -->\n", f"<!-- {part}: generated, ends -->\n"


def replaced(page: str, part: str, text: str) -> str:
    """Return `page` with `text` (Markdown) as its generated part; raise `ValueError` without marks."""
    begin, end = marks(part)
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page has no place, or several, for the part {part!r}")
    head, rest = page.split(begin)
    tail = rest.split(end)[1]
    return f"{head}{begin}\n{text.strip()}\n\n{end}{tail}"


def write(part: str, text: str) -> None:
    """Put a generated part into `docs/reliability.md`."""
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), part, text), encoding="utf-8")
