"""What `import hubbub` gives: every name, each when it is asked for, and old names for a while."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import hubbub

SOURCE = Path(hubbub.__file__)
IMPORTED = {
    alias.asname or alias.name: node.module
    for node in ast.walk(ast.parse(SOURCE.read_text(encoding="utf-8")))
    if isinstance(node, ast.ImportFrom) and node.level
    for alias in node.names
}
"""What type checkers read: each name and the module that it comes from."""

MAY_BE_IMPORTED = {"hubbub"}
"""All that `import hubbub` may import."""

NO_PART_OF_A_HUB = {
    "click",
    "fastapi",
    "httptools",
    "hubbub.bench",
    "hubbub.cli",
    "hubbub.connection",
    "hubbub.transports.uvicorn_protocol",
    "hubbub.testing",
    "hubbub.tokens",
    "jinja2",
    "jwt",
    "prometheus_client",
    "starlette",
    "uvicorn",
    "uvloop",
    "websockets",
}
"""What `from hubbub import Hub` must not import, with all that is below."""


def newly_imported(statement: str) -> set[str]:
    """Return the modules that a statement imports in a fresh interpreter."""
    code = (
        "import sys, json; before = set(sys.modules)\n"
        f"{statement}\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(json.loads(run.stdout))


def test_every_exported_name_is_there_and_is_no_module() -> None:
    for name in hubbub.__all__:
        assert not isinstance(getattr(hubbub, name), type(sys)), name


def test_type_checkers_and_programs_get_the_same_names_from_the_same_modules() -> None:
    moved = {name: new.rpartition(".")[0] for name, new in hubbub._MOVED.items()}
    assert set(hubbub._MODULES) == set(hubbub.__all__)
    modules = {name: place.partition(":")[0] for name, place in hubbub._MODULES.items()}
    assert {**modules, **moved} == IMPORTED
    assert not set(moved) & set(hubbub._MODULES)


def test_a_fresh_package_lists_all_its_names() -> None:
    code = "import hubbub; assert set(hubbub.__all__) <= set(dir(hubbub)), dir(hubbub)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_star_import_gives_all_names() -> None:
    names: dict[str, object] = {}
    exec("from hubbub import *", names)
    assert set(hubbub.__all__) <= set(names)


def test_importing_the_package_imports_nothing_else() -> None:
    assert newly_imported("import hubbub") <= MAY_BE_IMPORTED


def test_a_hub_is_imported_without_servers_frameworks_and_the_client_program() -> None:
    found = newly_imported("from hubbub import Hub")
    assert "hubbub.hub" in found
    assert not {
        module
        for module in found
        if any(module == bad or module.startswith(f"{bad}.") for bad in NO_PART_OF_A_HUB)
    }


def test_the_client_program_is_imported_without_the_hub() -> None:
    found = newly_imported("from hubbub import connect")
    assert "hubbub.connection.connection" in found
    assert not {"hubbub.hub", "hubbub.hub.registry", "hubbub.testing", "uvicorn"} & found


def test_the_documented_modules_come_with_the_package() -> None:
    code = "import hubbub; hubbub.errors.CLOSE_CODES, hubbub.settings.Settings"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("first", ["hubbub.cli", "hubbub.connection.connection"])
def test_connect_is_the_function_whoever_was_imported_first(first: str) -> None:
    code = f"import {first}, hubbub; assert callable(hubbub.connect), hubbub.connect"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fault_24_connect_is_a_function_and_no_module_of_that_name_is_in_its_way() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"hubbub\.connect"):
        __import__("hubbub.connect")
    assert hubbub.connect.__module__ == "hubbub.connection.connection"


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'hubbub' has no attribute 'nonsense'"):
        getattr(hubbub, "nonsense")  # noqa: B009 (a type checker knows that it is not there)


class TestMovedNames:
    TEXT = (
        "hubbub.Envelope is deprecated and will be removed in the next minor version; "
        "write: from hubbub.wire.frame import Frame"
    )

    @pytest.fixture(autouse=True)
    def _move(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(hubbub._MOVED, "Envelope", "wire.frame.Frame")

    @pytest.mark.parametrize(
        "line", ["import hubbub; hubbub.Envelope", "from hubbub import Envelope"]
    )
    def test_it_works_and_the_warning_is_for_the_line_that_asked(self, line: str) -> None:
        program = compile(f"\n\n{line}", "their_program.py", "exec")
        with pytest.warns(DeprecationWarning, match="Envelope") as caught:
            exec(program, {})
        # An import asks twice; Python shows it once, as it does all warnings of one line.
        assert {str(each.message) for each in caught} == {self.TEXT}
        assert {(each.filename, each.lineno) for each in caught} == {("their_program.py", 3)}

    def test_it_is_the_same_object_every_time_and_every_line_is_warned(self) -> None:
        for _ in range(2):
            with pytest.warns(DeprecationWarning, match="Envelope"):
                assert getattr(hubbub, "Envelope") is hubbub.Frame  # noqa: B009

    def test_it_is_in_no_list(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert "Envelope" not in hubbub.__all__
            assert "Envelope" not in dir(hubbub)
            exec("from hubbub import *", {})
