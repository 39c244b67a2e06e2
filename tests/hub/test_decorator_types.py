"""Decorator types: mypy and pyright refuse exactly those uses of a hub that cannot work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from hubbub import Hub
from places import ROOT

USES = ROOT / "tests" / "checkers" / "uses.py"
PYRIGHT = ROOT / "node_modules" / "pyright" / "index.js"

Found = dict[int, set[str]]
"""The codes of the errors in each line that has any."""


KINDS = {
    "argument": ({"arg-type"}, {"reportArgumentType"}),
    "attribute": ({"attr-defined"}, {"reportAttributeAccessIssue"}),
    "bound": ({"type-var"}, {"reportArgumentType"}),
    "call": ({"call-arg"}, {"reportCallIssue"}),
    "overloads": ({"call-overload"}, {"reportCallIssue"}),
    "nearest": ({"call-overload"}, {"reportArgumentType"}),
    "overload": ({"arg-type"}, {"reportCallIssue", "reportArgumentType"}),
}
"""What mypy and pyright call each kind of error; of overloads pyright may name the nearest one's fault."""


def expected(checker: int) -> Found:
    """Read from the file which lines are wrong, and how one of the checkers (0, 1) calls that."""
    wrong: Found = {}
    for number, line in enumerate(USES.read_text(encoding="utf-8").splitlines(), 1):
        note = re.search(r"# wrong: (\w+)", line)
        if note is not None:
            wrong[number] = KINDS[note[1]][checker]
    assert len(wrong) >= 40
    return wrong


def checked(*command: str, cwd: Path, code: int = 1) -> str:
    """Run a checker with this Python's environment in front; return what it said."""
    places = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environ = {**os.environ, "PATH": os.pathsep.join(places)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=280, cwd=cwd, env=environ
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_fault_14_fault_33_mypy_refuses_what_cannot_work_and_nothing_else(tmp_path: Path) -> None:
    config = tmp_path / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = true\nmypy_path = {ROOT / 'src'}\n", encoding="utf-8")
    options = ["--config-file", str(config), "--cache-dir", str(tmp_path / "cache")]
    shape = ["--no-error-summary", "--no-color-output", "--hide-error-context", "--no-pretty"]
    # Empty bodies stand for what does not matter here.
    command = [sys.executable, "-m", "mypy", *options, *shape, "--disable-error-code=empty-body"]
    found: Found = {}
    for line in checked(*command, str(USES), cwd=tmp_path).splitlines():
        error = re.fullmatch(r".*uses\.py:(\d+): error: .*\[([\w-]+)\]", line)
        if error is not None:
            found.setdefault(int(error[1]), set()).add(error[2])
        else:
            assert ": note: " in line, line
    assert found == expected(0)


@pytest.mark.timeout(300)
def test_fault_14_fault_33_pyright_refuses_what_cannot_work_and_nothing_else(
    tmp_path: Path,
) -> None:
    config: dict[str, Any] = {
        "include": [USES.name],
        "extraPaths": [str(ROOT / "src")],
        "typeCheckingMode": "strict",
        "reportUnusedFunction": False,
        "reportRedeclaration": False,
        "reportReturnType": False,
        "reportUntypedFunctionDecorator": False,
    }
    (tmp_path / USES.name).write_bytes(USES.read_bytes())
    project = tmp_path / "pyrightconfig.json"
    project.write_text(json.dumps(config), encoding="utf-8")
    command = ["node", str(PYRIGHT), "--outputjson", "--project", str(project)]
    answer = json.loads(checked(*command, cwd=tmp_path))
    assert answer["summary"]["filesAnalyzed"] == 1
    found: Found = {}
    for note in answer["generalDiagnostics"]:
        line = note["range"]["start"]["line"] + 1
        found.setdefault(line, set()).add(note.get("rule", note["message"]))
    assert found.keys() == expected(1).keys()
    # pyright goes on to complain of what it does not know after an error.
    assert all(found[line] >= codes for line, codes in expected(1).items())


@pytest.mark.timeout(300)
def test_fault_33_the_type_of_every_public_name_is_known(tmp_path: Path) -> None:
    options = ["--verifytypes", "hubbub", "--ignoreexternal", "--outputjson"]
    answer = json.loads(checked("node", str(PYRIGHT), *options, cwd=tmp_path, code=0))
    completeness = answer["typeCompleteness"]
    assert completeness["exportedSymbolCounts"]["withKnownType"] > 1000
    assert completeness["completenessScore"] == 1


def test_the_types_can_be_read_at_run_time_too() -> None:
    for name in ("on_connect", "on_message", "on", "authenticate", "validate", "every", "on_drop"):
        assert "return" in get_type_hints(getattr(Hub, name)), name
