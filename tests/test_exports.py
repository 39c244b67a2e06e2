"""What `import hubbub` gives: the names, lazily where a server or a framework is behind them."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hubbub


def test_every_exported_name_is_there_and_is_no_module() -> None:
    for name in hubbub.__all__:
        assert not isinstance(getattr(hubbub, name), type(sys)), name


def test_connect_is_the_function_whoever_was_imported_first() -> None:
    code = "import hubbub.cli, hubbub; assert callable(hubbub.connect), hubbub.connect"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_imports_no_server_and_no_framework() -> None:
    code = (
        "import hubbub, sys\n"
        "heavy = {'uvicorn', 'fastapi', 'starlette', 'click', 'jinja2', 'uvloop'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        hubbub.nonsense  # noqa: B018
