"""What troubleshooting names, counters, log lines and codes, is in the code."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator

from hubbub import Hub
from places import ROOT, SOURCE

TROUBLES = ROOT / "docs" / "guides" / "troubleshooting.md"


def cells(heading: str) -> Iterator[str]:
    """Yield the cells of the troubleshooting tables under a column heading."""
    column = None
    for line in TROUBLES.read_text(encoding="utf-8").splitlines():
        row = [cell.strip() for cell in line.strip("|").split(" | ")] if line[:1] == "|" else []
        if not row:
            column = None
        elif column is None:
            titles = [title.strip() for title in line.strip("|").split("|")]
            column = titles.index(heading) if heading in titles else -1
        elif 0 <= column < len(row):
            yield row[column]


def test_s24_every_counter_of_troubleshooting_is_in_the_stats() -> None:
    stats = Hub().stats()
    words = [word for cell in cells("counter") for word in re.findall(r"`(\w+)`", cell)]
    assert len(words) > 15
    elsewhere = {"curl"}
    assert set(words) - set(stats) - elsewhere == set()


@functools.cache
def texts() -> frozenset[str]:
    """Return all strings of the code; what is put in at run time stands as …."""
    return frozenset(_texts())


def _texts() -> Iterator[str]:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    part.value if isinstance(part, ast.Constant) else "…" for part in node.values
                ]
                yield "".join(str(part) for part in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%[sdg.0-9f]+", "…", node.value)


def says(text: str, line: str) -> bool:
    """Whether a string of the code and a line of the documentation may be the same log line."""
    if all(piece.strip(" ;:") in text for piece in line.split("…")):
        return True
    if len(text) <= 12 or not all(piece in line for piece in text.split("…")):
        return False
    pattern = ".*".join(re.escape(piece) for piece in text.split("…"))
    return re.fullmatch(pattern, line) is not None


def test_s24_every_log_line_of_troubleshooting_is_in_the_code() -> None:
    logged = [cell for cell in cells("log line") if not cell.startswith("none")]
    lines = [line for cell in logged for line in re.findall(r"`([^`]+)`", cell)]
    assert len(lines) > 6
    for line in lines:
        assert any(says(text, line) for text in texts()), f"no code logs {line!r}"


def test_s24_every_status_of_troubleshooting_is_a_refusal_of_the_code() -> None:
    codes = {code for cell in cells("`code`") for code in re.findall(r"`(\w+)`", cell)}
    assert len(codes) > 8
    assert codes <= texts()
