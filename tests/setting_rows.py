"""The rows of the settings by name, for the tests of settings."""

from __future__ import annotations

from hubbub.settings import rows

ROWS = {row.name: row for row in rows()}
