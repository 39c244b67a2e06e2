"""What the benchmark's tests share: its programs are compiled."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile both programs, warnings being errors."""
    folder = tmp_path_factory.mktemp("bench")
    importlib.import_module("benchmarks.install").build_c(folder)
    return folder
