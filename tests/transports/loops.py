"""Both event loops, for tests of what is written for uvicorn's.

What must not live here: the loops of other tests, which are those of their way (`conftest`).
"""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def both_loops(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Both event loops that uvicorn users have: `anyio_backend = both_loops`."""
    return "asyncio", {"use_uvloop": request.param}
