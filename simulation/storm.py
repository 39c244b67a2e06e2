"""A storm: a zone is lost, and its clients come back to the workers that are left.

Delays are those of `hubbub.js`. The workers are alike and clients choose among them by chance, so that a few
workers with their share of the clients stand for all. Not here: what a recovery costs (`costs.py`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .costs import Costs
from .engine import Core, Simulation

LEAST_DELAY_S = 0.5
MOST_DELAY_S = 20.0
CONNECT_TIMEOUT_S = 10.0
"""The defaults of `hubbub.js`, which a test reads there."""


@dataclass(frozen=True)
class Zone:
    """What is lost: `lost` clients for each worker that is left, each of whom has missed `missed` messages when it is
    back. Clients notice within `notice_s` seconds."""

    lost: int
    missed: int = 10
    notice_s: float = 0.0
    seed: int = 1
    workers: int = 2


@dataclass(frozen=True)
class Outcome:
    """What became of it: when half, nearly all and all were back, in seconds; how many attempts there were for each
    client; the longest wait for a worker."""

    half_s: float
    most_s: float
    all_s: float
    attempts: float
    longest_wait_s: float


def delay_of(tries: int, chance: float) -> float:
    """Return how long a client waits before its attempt number `tries` (1: the first), by a chance in 0 to 1."""
    widest = min(MOST_DELAY_S, LEAST_DELAY_S * 2.0**tries)
    return LEAST_DELAY_S + chance * (widest - LEAST_DELAY_S)


class Storm:
    """The storm, from its first attempt to its last."""

    def __init__(self, costs: Costs, zone: Zone) -> None:
        self._cost_s = costs.back_s + zone.missed * costs.missed_s
        self._simulation = Simulation()
        self._random = random.Random(zone.seed)
        self._cores = [Core(self._simulation) for _ in range(zone.workers)]
        self._back: list[float] = []
        self._attempts = 0
        self._longest_s = 0.0
        self._clients = zone.lost * zone.workers
        for _ in range(self._clients):
            self._wait(1, self._random.random() * zone.notice_s)

    def _wait(self, tries: int, more_s: float = 0.0) -> None:
        delay_s = more_s + delay_of(tries, self._random.random())
        self._simulation.after(delay_s, lambda: self._attempt(tries))

    def _attempt(self, tries: int) -> None:
        """Ask a worker; give up and try again later if it is too busy. The worker does the work all the same."""
        began_s = self._simulation.now_s
        core = self._random.choice(self._cores)
        self._attempts += 1

        def end() -> None:
            waited_s = self._simulation.now_s - began_s
            self._longest_s = max(self._longest_s, waited_s)
            if waited_s <= CONNECT_TIMEOUT_S:
                self._back.append(self._simulation.now_s)
            else:  # it has given up when its time was over
                self._wait(tries + 1, max(0.0, CONNECT_TIMEOUT_S - waited_s))

        core.do(lambda: self._cost_s, end)

    def run(self, until_s: float = 600.0) -> Outcome:
        """Let all come back; what has not until then is told as infinite."""
        self._simulation.run(until_s)
        there = [*self._back, *[float("inf")] * (self._clients - len(self._back))]
        last = len(there) - 1
        return Outcome(
            there[last // 2],
            there[last * 99 // 100],
            there[last],
            self._attempts / self._clients,
            self._longest_s,
        )


TRICKLE_S = 0.02
"""How long after a publication the next one comes in the benchmark's row, while clients come back."""


def back_at_once(costs: Costs, clients: int, missed: int) -> float:
    """Return how long one worker takes for clients that all come in one moment, while what is published goes to all
    that are back already."""
    simulation = Simulation()
    core = Core(simulation)
    back = 0

    def end() -> None:
        nonlocal back
        back += 1

    def publish() -> None:
        if back < clients:
            core.do(lambda: costs.receive.of(1, 1) + back * costs.write.of(1, 1), lambda: None)
            simulation.after(TRICKLE_S, publish)

    cost_s = costs.back_s + missed * costs.missed_s
    publish()
    for _ in range(clients):
        core.do(lambda: cost_s, end)
    simulation.run()
    return core.busy_s
