"""Chromium for the tests: the one that `CHROMIUM` names or the first of `NAMES` on the path; without one they fail."""

from __future__ import annotations

import os
import shutil

import pytest
from playwright.sync_api import Browser, Playwright

NAMES = ("chromium-headless-shell", "chromium", "google-chrome")
# A test is root in a container often, where Chromium's sandbox cannot be; the rest is silence.
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def launch(playwright: Playwright) -> Browser:
    """Start Chromium."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail("Chromium is missing: run  make browser  or set CHROMIUM to its path")
    return playwright.chromium.launch(executable_path=path, args=CHROMIUM_OPTIONS)
