"""What the tests of the endpoint share: both transports."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[True, False], ids=["native", "portable"])
def native(request: pytest.FixtureRequest) -> bool:
    """Run a test on both transports."""
    return bool(request.param)
