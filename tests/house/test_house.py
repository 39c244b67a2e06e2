"""The house: the code obeys the drawing in docs/design.md, and the repository obeys its own rules.

What must not live here: the rules themselves (tests/house_rules.py). The lists below say what is
excepted from them; the shorter they are, the better.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import house_rules
import hubbub
from house import House
from places import ROOT, SOURCE, TESTS

HOUSE = House()

OWED_ARROWS: dict[tuple[str, str], str] = {}
"""Arrows that break the rules until the modules behind them are parted, each with the reason: none."""

NO_TESTS_OF_THEIR_OWN = {
    "demo": "its pages are tested as a person uses them: tests/demo, tests/end_to_end/browser",
}
"""Rooms and modules without a test file of the same name, each with the reason."""

NO_MODULE_OF_THEIR_OWN = {
    "test_fuzz_frames.py": "the native transport's lane against the core of websockets",
}
"""Tests that prove something about several modules at once, each with what that is."""

NOT_MIRRORED_YET: set[str] = set()
"""Rooms whose modules have moved and whose tests have not: none, once all have."""

NOT_SAID_YET: set[str] = set()
"""Rooms that owe a sentence in their `__init__.py`, "It owns …" or "It must not know …": none."""

LONGEST_FUNCTION_LINES = 50


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_the_drawing_and_the_tree_have_the_same_rooms() -> None:
    assert house_rules.rooms(HOUSE) == []
    assert house_rules.names(HOUSE) == []
    assert house_rules.waiting(HOUSE) == []


def test_the_levels_are_these() -> None:
    assert list(HOUSE.plan.levels) == ["words", "loop", "wire", "parts", "hub", "asgi", "programs"]


def test_no_import_goes_up() -> None:
    assert house_rules.arrows(HOUSE, OWED_ARROWS) == []


def test_no_import_goes_round() -> None:
    assert house_rules.circles_between_rooms(HOUSE, OWED_ARROWS) == []
    assert house_rules.circles_inside_rooms(HOUSE) == []


def test_ours_is_imported_relatively() -> None:
    assert house_rules.relative(HOUSE) == []


def test_foreign_packages_are_imported_at_the_edges_only() -> None:
    assert house_rules.foreign(HOUSE) == []
    assert house_rules.one_interface(HOUSE) == []


def test_what_is_pure_knows_no_event_loop_no_sockets_and_no_clock() -> None:
    assert house_rules.pure(HOUSE) == []


def test_every_module_and_every_room_says_what_it_is() -> None:
    assert house_rules.docstrings(HOUSE, NOT_SAID_YET) == []


def test_docstrings_name_modules_that_are_there() -> None:
    assert house_rules.named_modules(HOUSE) == []


def test_every_module_has_its_tests_and_the_reverse() -> None:
    found = house_rules.mirror(
        HOUSE, TESTS, NO_TESTS_OF_THEIR_OWN, NO_MODULE_OF_THEIR_OWN, NOT_MIRRORED_YET
    )
    assert found == []


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How long a function is without its docstring: explaining the arguments is no length."""
    first = node.body[0]
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is None:
        return lines
    return lines - ((first.end_lineno or first.lineno) - first.lineno + 1)


@pytest.mark.parametrize("module", HOUSE.paths)
def test_no_function_is_long(module: str) -> None:
    for node in functions(HOUSE.paths[module]):
        lines = code_lines(node)
        assert lines <= LONGEST_FUNCTION_LINES, f"{module}: {node.name} has {lines} lines"


def test_the_version_is_the_newest_of_the_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", text, re.MULTILINE)
    assert newest is not None
    assert newest[1] == hubbub.__version__


def test_every_row_of_the_first_issue_has_a_test_with_its_number() -> None:
    names = [node.name for path in TESTS.rglob("test_*.py") for node in functions(path)]
    rows = {int(found[1]) for name in names if (found := re.match(r"test_s(\d\d)_", name))}
    assert rows >= set(range(1, 25))


def test_nothing_is_left_unsaid_or_undone() -> None:
    # Written so that this file does not find itself.
    words = ["TO" + "DO", "FIX" + "ME", "X" * 3, "NotImplemented" + "Error"]
    skips = [rf"mark\.{skip}\b|pytest\.{skip}\(" for skip in ("sk" + "ip", "x" + "fail")]
    marks = re.compile("|".join([rf"\b{word}\b" for word in words] + skips))
    places = [*SOURCE.rglob("*.py"), *TESTS.rglob("*.py"), *(ROOT / "tools").glob("*")]
    for path in places:
        if path.is_file():
            found = marks.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{path.name}: {found}"
