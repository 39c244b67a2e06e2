"""All that is done to a fleet and its broker, each with a fleet and a Valkey server of its own.

What must not live here: what is done (`fault_broker.py`, `fault_worker.py`). `run.py` runs them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from valkey_server import Server

from .fault_broker import BROKER
from .fault_worker import WORKER
from .fleet import Fleet
from .scenario import Outcome, Scale

SCENARIOS: dict[str, Callable[[Fleet], Coroutine[Any, Any, Outcome]]] = {**BROKER, **WORKER}

WITHOUT_FILE = {"broker_forgot"}
"""The scenarios whose server keeps what it has in memory alone."""


async def alone(name: str, scale: Scale) -> Outcome:
    """Run one scenario on a fleet of its own."""
    with tempfile.TemporaryDirectory(prefix="hubbub-fleet-") as folder:
        options = {"appendonly": "no", "save": ""} if name in WITHOUT_FILE else {}
        server = Server(Path(folder), **options)
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
