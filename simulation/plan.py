"""How large a cluster has to be: machines, brokers and bandwidth for many clients.

Not here: what things cost (`costs.py`), how queues behave (`cluster.py`), words and tables (`page.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .costs import Cost, Costs

BUSY = 0.5
"""How much of a core is used when all is well. The rest is for what comes in a moment, and for a lost zone."""
CORES = 8
"""Of a machine; a worker has one."""
MACHINE_BYTES_PER_S = 10e9 / 8
WORKER_CLIENTS = 20_000
"""At most, however little is said: so many come back to others when a worker ends."""
BROKER_WORKERS = 5_000
"""How many workers one server may have: each holds two connections, and a server takes 10,000 by default."""
WORKER_BYTES = 100e6
"""Of a worker without clients."""
KERNEL_BYTES = 4096
"""Of a socket, beside the memory of the client at the server."""
FRAME_BYTES = 60
"""What Ethernet, IP and TCP add to a small message: 52 bytes at least; and the frame's own head."""


@dataclass(frozen=True)
class Load:
    """What clients do: each is in one room, of `room` clients who are spread over the workers by chance, and publishes
    `per_minute` messages a minute. `together` is how many publications of a room one turn has."""

    name: str
    room: int
    per_minute: float
    message_bytes: int = 128
    together: int = 1


LOADS = (
    Load("quiet: notices, one room of 100 for each client, a message in ten minutes", 100, 0.1),
    Load("chat: rooms of 100, a message a minute", 100, 1.0),
    Load("games: rooms of 10, two messages a second", 10, 120.0),
)


@dataclass(frozen=True)
class Plan:
    """What a load needs."""

    publications_per_s: float
    deliveries_per_s: float
    copies: float
    """To how many workers a publication goes."""
    workers: int
    machines: int
    brokers: int
    broker_bytes_per_s: float
    """Of all brokers together."""
    client_bytes_per_s: float
    memory_bytes: float
    connections: int
    """Of each broker."""

    @property
    def is_one_broker(self) -> bool:
        return self.brokers == 1

    @property
    def is_possible(self) -> bool:
        """Whether each worker can be connected to each broker."""
        return self.connections <= 2 * BROKER_WORKERS


def each(cost: Cost, together: int) -> float:
    """Return what a publication costs, with others of its room in the same turn."""
    return cost.of(1, together) / together


def copies_of(room: int, workers: int) -> float:
    """Return how many workers have members of a room, whose members choose workers by chance."""
    return workers * (1 - (1 - 1 / workers) ** room)


def plan(costs: Costs, clients: int, load: Load) -> Plan:
    """Return what so many clients need. The number of workers decides to how many a publication goes, and that
    decides the number of workers: the least that is enough is found by counting up."""
    publications = clients * load.per_minute / 60
    workers, needed = 0, math.ceil(clients / WORKER_CLIENTS)
    while needed > workers:
        workers = needed
        copies = copies_of(load.room, workers)
        worker_s = each(costs.publish, load.together) + copies * each(costs.receive, load.together)
        worker_s += load.room * each(costs.write, load.together)
        needed = math.ceil(publications * worker_s / BUSY)
    broker_s = each(costs.serve, load.together) + copies * each(costs.serve_worker, load.together)
    broker_bytes = publications * (1 + copies) * (load.message_bytes + FRAME_BYTES)
    by_bytes = math.ceil(broker_bytes / (MACHINE_BYTES_PER_S * BUSY))
    client_bytes = publications * load.room * (load.message_bytes + FRAME_BYTES)
    machines = math.ceil(workers / (CORES - 1))
    return Plan(
        publications,
        publications * load.room,
        copies,
        workers,
        max(machines, math.ceil(client_bytes / (MACHINE_BYTES_PER_S * BUSY))),
        max(1, by_bytes, math.ceil(publications * broker_s / BUSY)),
        broker_bytes,
        client_bytes,
        clients * (costs.client_bytes + KERNEL_BYTES) + workers * WORKER_BYTES,
        2 * workers,
    )


def most_clients(costs: Costs, load: Load) -> int:
    """Return for how many clients one broker is enough, to two digits."""
    low, high = 1_000, 10**10
    while high > low * 1.01:
        middle = int(math.sqrt(low * high))
        if plan(costs, middle, load).is_one_broker:
            low = middle
        else:
            high = middle
    digits = int(10 ** max(0, len(str(low)) - 2))
    return low // digits * digits
