"""The measurement of client libraries: what it measures of ours is whole. The other library is not installed here."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from valkey_server import server_url

pytestmark = pytest.mark.anyio

clients: Any = importlib.import_module("benchmarks.valkey_clients")


@pytest.mark.parametrize("work", ["publish, redis-py", "feed, redis-py"])
async def test_all_messages_are_published_and_heard(work: str) -> None:
    port = int(server_url().rpartition(":")[2])
    assert await clients.WORK[work](port, 2 * clients.BATCH) > 0
