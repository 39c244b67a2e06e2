"""The programs of `reliability/` are importable by their names, as they import one another."""

from __future__ import annotations

import sys
from pathlib import Path

RELIABILITY = Path(__file__).resolve().parents[2] / "reliability"
sys.path.insert(0, str(RELIABILITY))
