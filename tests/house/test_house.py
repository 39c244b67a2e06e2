"""The house: the code obeys the drawing in docs/design.md, and the repository obeys its own rules."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import hubbub
from places import ROOT, SOURCE, TESTS

_house = runpy.run_path(str(ROOT / "tools" / "house.py"))
drawing: Callable[..., Any] = _house["drawing"]
HOUSE = drawing()
BANDS: dict[str, list[str]] = HOUSE.bands
BAND_OF = {module: band for band, modules in BANDS.items() for module in modules}
ORDER = list(BANDS)
EDGES = ORDER.index("edges")

NO_MODULE_OF_THEIR_OWN = {
    "test_fuzz_frames": "the native transport's lane against the core of websockets",
}
"""Tests that prove something about several modules at once, each with what that is."""

LONGEST_FUNCTION_LINES = 60
STANDARD_LIBRARY = sys.stdlib_module_names | {"annotationlib"}
"""Of this Python, and what newer ones add."""


class Import(NamedTuple):
    """One import statement of a module: what, where, and whether only a type checker reads it."""

    target: str
    is_ours: bool
    line: int
    for_types_only: bool


def files() -> dict[str, list[Path]]:
    """Every module of the drawing with its files (a package has several)."""
    found: dict[str, list[Path]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        found.setdefault(path.relative_to(SOURCE).parts[0].removesuffix(".py"), []).append(path)
    del found["__init__"]
    return found


FILES = files()


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def imports(path: Path) -> Iterator[Import]:
    """Yield all imports of a file, those inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner) for node in ast.walk(tree) if is_type_checking(node) for inner in ast.walk(node)
    }
    depth = len(path.relative_to(SOURCE).parts)
    for node in ast.walk(tree):
        only_types = id(node) in typing_only
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, False, node.lineno, only_types)
        elif isinstance(node, ast.ImportFrom):
            for target in targets(node, depth):
                yield Import(target, node.level > 0, node.lineno, only_types)


def targets(node: ast.ImportFrom, depth: int) -> list[str]:
    """Return what `from … import …` imports: a foreign package, or modules of ours."""
    if node.level == 0:
        return [node.module or ""]
    if node.level < depth:
        return []  # within the package that the file is in
    if node.module:
        return [node.module.split(".")[0]]
    return [alias.name for alias in node.names]


def ours(module: str, *, with_types: bool) -> set[str]:
    return {
        found.target
        for path in FILES[module]
        for found in imports(path)
        if found.is_ours
        and found.target in FILES
        and found.target != module
        and (with_types or not found.for_types_only)
    }


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_the_drawing_and_the_folder_have_the_same_modules() -> None:
    assert ORDER == ["words", "mechanics", "hub", "edges", "programs"]
    assert set(BAND_OF) == set(FILES)
    assert len(BAND_OF) == sum(len(modules) for modules in BANDS.values()), "one band each"


FOR_CHECKERS = {"hub", "decorator_types"}
"""Modules that name foreign types for type checkers only."""

LAZY_AND_UPWARD = {
    ("hub", door) for door in ("endpoint", "mount", "route_fastapi", "route_starlette")
}
"""The one sanctioned edge upward: the doors of `Hub`, imported within its methods."""


@pytest.mark.parametrize("module", FILES)
def test_no_import_goes_up(module: str) -> None:
    level = ORDER.index(BAND_OF[module])
    up = {
        target
        for target in ours(module, with_types=True)
        if ORDER.index(BAND_OF[target]) > level and (module, target) not in LAZY_AND_UPWARD
    }
    assert not up, f"{module} ({BAND_OF[module]}) imports from above: {sorted(up)}"


def test_no_import_goes_round() -> None:
    waiting = {
        module: {
            target
            for target in ours(module, with_types=False)
            if (module, target) not in LAZY_AND_UPWARD
        }
        for module in FILES
    }
    while free := [module for module, needs in waiting.items() if not needs & set(waiting)]:
        for module in free:
            del waiting[module]
    assert not waiting, f"these import one another in a circle: {sorted(waiting)}"


def test_the_client_program_knows_words_and_nothing_of_the_hub() -> None:
    assert ours("connection", with_types=True) <= {"errors", "frame", "limits", "model"}


@pytest.mark.parametrize("module", FILES)
def test_ours_is_imported_relatively(module: str) -> None:
    absolute = [
        found
        for path in FILES[module]
        for found in imports(path)
        if not found.is_ours and found.target.split(".")[0] == "hubbub"
    ]
    assert not absolute


@pytest.mark.parametrize("module", [module for band in ORDER[:EDGES] for module in BANDS[band]])
def test_below_the_edges_only_the_standard_library_is_imported(module: str) -> None:
    foreign = {
        found.target.split(".")[0]
        for path in FILES[module]
        for found in imports(path)
        if not found.is_ours
    }
    foreign -= STANDARD_LIBRARY
    allowed = {"msgspec"} if module in HOUSE.msgspec else set()
    if module in FOR_CHECKERS:
        foreign = {
            found.target.split(".")[0]
            for path in FILES[module]
            for found in imports(path)
            if not found.is_ours and not found.for_types_only
        } - STANDARD_LIBRARY
    assert foreign <= allowed, f"{module} imports {sorted(foreign - allowed)}"


@pytest.mark.parametrize("module", BANDS["mechanics"] + BANDS["words"])
def test_words_and_mechanics_know_no_event_loop_no_sockets_and_no_clock(module: str) -> None:
    banned = {"asyncio", "socket", "threading", "selectors", "time"}
    used = {found.target for path in FILES[module] for found in imports(path)}
    assert not used & banned


def test_every_module_has_its_tests_and_the_reverse() -> None:
    beside = {path.stem.removeprefix("test_") for path in TESTS.glob("test_*.py")}
    folders = {path.parent.name for path in TESTS.glob("*/test_*.py")}
    assert set(FILES) - beside - folders == set(), "modules without tests"
    beyond = {name.removeprefix("test_") for name in NO_MODULE_OF_THEIR_OWN}
    assert beside - set(FILES) - beyond == set(), "test files without a module"
    assert beyond <= beside, "the list of exceptions is out of date"


@pytest.mark.parametrize("module", FILES)
def test_every_module_says_what_it_is(module: str) -> None:
    for path in FILES[module]:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        is_empty_package = path.name == "__init__.py" and not path.read_text().strip()
        assert docstring or is_empty_package, path.name


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How long a function is without its docstring: explaining the arguments is no length."""
    first = node.body[0]
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is None:
        return lines
    return lines - ((first.end_lineno or first.lineno) - first.lineno + 1)


@pytest.mark.parametrize("module", FILES)
def test_no_function_is_long(module: str) -> None:
    for path in FILES[module]:
        for node in functions(path):
            lines = code_lines(node)
            assert lines <= LONGEST_FUNCTION_LINES, f"{path.name}: {node.name} has {lines} lines"


def test_the_version_is_the_newest_of_the_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", text, re.MULTILINE)
    assert newest is not None
    assert newest[1] == hubbub.__version__


@pytest.mark.parametrize("number", range(1, 25))
def test_every_row_of_the_first_issue_has_a_test_with_its_number(number: int) -> None:
    prefix = f"test_s{number:02d}_"
    named = [
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in functions(path)
        if node.name.startswith(prefix)
    ]
    assert named, f"no test begins with {prefix}"


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


def test_the_drawing_is_read_as_it_is_drawn() -> None:
    house = drawing("```house\nlow  said\n  a  one\n\n  b  two [msgspec]\nhigh  said\n  c\n```\n")
    assert house.bands == {"low": ["a", "b"], "high": ["c"]}
    assert house.msgspec == {"b"}
    with pytest.raises(ValueError, match="no block"):
        drawing("nothing here")
