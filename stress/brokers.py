"""All that is done to a fleet and its broker, each with a fleet and servers of its own.

What must not live here: what is done (`fault_broker.py`, `fault_nats.py`, `fault_sentinel.py`, `fault_worker.py`).
`run.py` runs them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nats_server import NatsCluster, NatsServer
from valkey_sentinels import Watched
from valkey_server import Server

from .fault_broker import BROKER
from .fault_nats import NATS, NATS_CLUSTER
from .fault_sentinel import SENTINEL
from .fault_worker import WORKER
from .fleet import BrokerServer, Fleet
from .scenario import Outcome, Scale

Hurt = Callable[[Fleet[Any]], Coroutine[Any, Any, Outcome]]

ON_VALKEY: Mapping[str, Hurt] = {**BROKER, **WORKER}
"""The scenarios whose broker is one Valkey server."""
SCENARIOS: Mapping[str, Hurt] = {**ON_VALKEY, **SENTINEL, **NATS, **NATS_CLUSTER}

WITHOUT_FILE = {"broker_forgot"}
"""The scenarios whose server keeps what it has in memory alone."""


def started(name: str, folder: Path) -> BrokerServer:
    """Start the servers that a scenario needs."""
    if name in NATS:
        server = NatsServer(folder)
        server.start()
        return server
    if name in NATS_CLUSTER:
        return NatsCluster(folder)
    if name in SENTINEL:
        # It is relieved by hand, and not because a busy machine let it be silent for a moment.
        return Watched(folder, down_after_ms=10_000)
    return Server(folder, **({"appendonly": "no", "save": ""} if name in WITHOUT_FILE else {}))


async def alone(name: str, scale: Scale) -> Outcome:
    """Run one scenario on a fleet of its own."""
    with tempfile.TemporaryDirectory(prefix="hubbub-fleet-") as folder:
        server = started(name, Path(folder))
        fleet = Fleet(server, scale)
        try:
            await fleet.start()
            outcome = await SCENARIOS[name](fleet)
            outcome.found["load of the machine"] = round(os.getloadavg()[0], 1)
            return outcome
        finally:
            await fleet.end()
            server.stop()


ALONE: dict[str, Callable[[Scale], Coroutine[Any, Any, Outcome]]] = {
    name: partial(alone, name) for name in SCENARIOS
}
