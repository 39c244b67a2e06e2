"""Faults and time: handlers that fail, a server that ends, a machine that sleeps; at short scale."""

from __future__ import annotations

import pytest
import uvloop

from stress import run
from stress.fault_end import BUCKETS, busiest
from stress.scenario import SHORT, Outcome


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", run.FAULTS)
def test_faults_are_survived(name: str) -> None:
    outcome: Outcome = uvloop.run(run.FAULTS[name](SHORT))
    assert outcome.faults == []
    assert outcome.arrived == outcome.expected > 0


def test_the_busiest_part_is_measured_against_the_mean() -> None:
    assert busiest([float(second) for second in range(80)]) == (1.0, 79.0)
    together, _ = busiest([0.0, *[1.0] * 78, 10.0])
    assert together > 0.95 * BUCKETS
