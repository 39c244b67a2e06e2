"""Node.js, run for tests of what browsers run."""

from __future__ import annotations

import shutil
import subprocess

import pytest


def run_node(*arguments: str, program: str = "") -> str:
    """Run node with `program` on its standard input, and return what it printed."""
    node = shutil.which("node")
    if node is None:
        pytest.fail("node is not on the PATH; these tests need Node.js 18 or newer")
    done = subprocess.run(
        [node, *arguments], input=program, capture_output=True, text=True, timeout=50, check=False
    )
    if done.returncode:
        pytest.fail(f"node {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
