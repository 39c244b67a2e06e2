"""What the page on security names, tests, settings and defaults, is so."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from hubbub.settings import rows
from hubbub.settings_values import shown
from places import ROOT

SECURITY = ROOT / "docs" / "security.md"


def rows_of(page: Path) -> Iterator[list[str]]:
    """Yield the cells of every table's rows, headings included."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


@functools.cache
def functions_of(path: str) -> frozenset[str]:
    """Return the names of the functions in a file of this repository."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, functions))


def test_every_threat_names_a_test_that_exists() -> None:
    threats = [cells for cells in rows_of(SECURITY) if len(cells) == 5][1:]
    assert len(threats) > 20
    for *what, test in threats:
        path, _, name = test.strip("`").partition("::")
        assert name in functions_of(path), f"{what}: there is no {test}"


def test_every_default_that_the_security_page_names_is_the_default() -> None:
    known = {row.name: row for row in rows()}
    tables = [cells for cells in rows_of(SECURITY) if len(cells) == 3 and cells[0] != "setting"]
    named = [(name.strip("`"), value.strip("`")) for name, value, _ in tables]
    assert len(named) > 12
    for name, value in named:
        assert value == shown(known[name].default), name


def test_every_setting_of_a_threat_exists() -> None:
    known = {row.name for row in rows()}
    for cells in [cells for cells in rows_of(SECURITY) if len(cells) == 5][1:]:
        for name in re.findall(r"`(\w+)`", cells[3]):
            assert name in known, cells
