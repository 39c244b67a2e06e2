"""Scenarios: a fleet on NATS, whose server is killed and started again, and whose JetStream loses its quorum.

What must not live here: how a fleet is run and judged (`fleet.py`). `brokers.py` and the tests run them.
"""

from __future__ import annotations

import asyncio

from hubbub.brokers.unanswered import WAIT_S
from nats_server import NatsCluster, NatsServer

from . import fault_broker
from .fleet import Fleet, under_load
from .scenario import Outcome

ELECTION_S = 9.0
"""How long a server of NATS may wait until it asks to lead a stream: its own constant, `maxElectionTimeout`."""


async def restarted(fleet: Fleet[NatsServer]) -> Outcome:
    """The server is killed, and started again with what JetStream has written."""
    return await fault_broker.killed(fleet, "NATS server killed and started again")


async def no_quorum(fleet: Fleet[NatsCluster]) -> Outcome:
    """Two of three servers are killed: the third spreads what it is given, and keeps nothing. Then they come back."""
    gone_s = WAIT_S + fleet.scale.pick(1.0, 5.0)
    title, fault = "JetStream without quorum", f"2 of 3 servers killed for {gone_s:g} s"
    async with under_load(fleet, title, fault) as load:
        for server in fleet.server.others:
            server.kill()
        await asyncio.sleep(gone_s)
        states = [(await each.stats())["broker_state"] for each in fleet.workers]
        load.outcome.expect(set(states) == {"up"}, f"the workers say {states}")
        for server in fleet.server.others:
            await asyncio.to_thread(server.restart)
        load.mended(ELECTION_S)
    load.keeps_all()
    load.outcome.expect(load.outcome.found["refused"] > 0, "no publisher was told")
    return load.outcome


NATS = {"nats_restarted": restarted}
NATS_CLUSTER = {"no_quorum": no_quorum}
