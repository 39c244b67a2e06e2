"""What the tests of the documentation share: its examples, loaded."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hubbub.settings import rows
from pages import named


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a function that writes a file of a page to disk and imports it."""
    for row in rows():
        monkeypatch.delenv(row.env, raising=False)

    def load_file(page: str, name: str) -> ModuleType:
        path = tmp_path / name
        path.write_text(named(page)[name], encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        return module

    return load_file
