"""What the benchmark's tests share: its modules can be imported, and its programs are compiled."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile both programs, warnings being errors."""
    folder = tmp_path_factory.mktemp("bench")
    importlib.import_module("install").build_c(folder)
    return folder
