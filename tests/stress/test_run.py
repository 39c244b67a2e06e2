"""Every scenario of `stress/`, hostile clients and faults, at short scale against a real server."""

from __future__ import annotations

import sys

import pytest
import uvloop

from stress import run
from stress.scenario import SHORT, Outcome

LONGEST_BLOCK_MS = 1000.0
"""By this thread's own time, so that a busy machine fails nothing; a flood once took seconds."""

# Only Linux has network namespaces.
HOSTILE = [name for name in run.HOSTILE if sys.platform == "linux" or name != "half_open"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_clients_cost_only_themselves(name: str) -> None:
    outcome: Outcome = uvloop.run(run.HOSTILE[name](SHORT))
    assert outcome.faults == []
    assert outcome.arrived == outcome.expected > 0
    assert outcome.block_cpu_ms < LONGEST_BLOCK_MS


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", run.FAULTS)
def test_faults_are_survived(name: str) -> None:
    outcome: Outcome = uvloop.run(run.FAULTS[name](SHORT))
    assert outcome.faults == []
    assert outcome.arrived == outcome.expected > 0
