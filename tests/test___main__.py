"""`python -m hubbub` is the same command as `hubbub`."""

from __future__ import annotations

import hubbub
from commands import run


def test_the_module_runs_the_command() -> None:
    assert run("--version") == (0, f"hubbub {hubbub.__version__}\n", "")


def test_help_calls_it_by_its_name() -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert out.startswith("Usage: hubbub [OPTIONS] COMMAND")
