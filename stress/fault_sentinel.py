"""Scenarios: a fleet on a primary with a replica and a Sentinel, which has the replica take over.

What must not live here: how a fleet is run and judged (`fleet.py`). `brokers.py` and the tests run them.
"""

from __future__ import annotations

import asyncio
import time

from valkey_sentinels import Watched

from .fleet import Fleet, under_load
from .scenario import Outcome


async def promoted(fleet: Fleet[Watched]) -> Outcome:
    """The replica is made the primary by hand: rooms begin new epochs, and all members are told."""
    async with under_load(fleet, "replica promoted", "`SENTINEL FAILOVER`") as load:
        began = time.time()
        await asyncio.to_thread(fleet.server.relieve)
        await load.all_told(began)
        load.mended()
        place = fleet.server.primary_port()
        load.outcome.expect(place == fleet.server.replica.port, "the replica is no primary")
    load.keeps_connections()
    return load.outcome


SENTINEL = {"replica_promoted": promoted}
