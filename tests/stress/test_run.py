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


def test_what_a_scenario_has_found_is_printed_beside_the_verdict(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def held(scale: object) -> Outcome:
        return Outcome("killed", "native", "2", 10, 10, found={"whole after, s": 0.5})

    async def broke_off(scale: object) -> Outcome:
        raise TimeoutError("in vain")

    for scenario in (held, broke_off):
        uvloop.run(run.run_one("killed", scenario, SHORT))
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(" s  held  (deliveries: 10 of 10; whole after, s: 0.5)")
    assert "the scenario broke off: TimeoutError('in vain')" in second
