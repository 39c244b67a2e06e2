"""What all tests share: async tests run on asyncio through anyio's plugin."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run `@pytest.mark.anyio` tests on the stock event loop; modules may override it."""
    return "asyncio", {"use_uvloop": False}
