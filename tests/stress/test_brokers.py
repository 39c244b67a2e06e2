"""What is done to a fleet and its broker, at short scale: one fleet of real workers for all of it, one fault after another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import uvloop

from stress.brokers import SCENARIOS, WITHOUT_FILE, alone
from stress.fleet import Fleet
from stress.scenario import SHORT, Outcome
from valkey_server import Server


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Fleet, asyncio.Runner]]:
    """A fleet, and the event loop in which it is hurt."""
    server = Server(tmp_path_factory.mktemp("server"))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        made = Fleet(server, SHORT)
        try:
            runner.run(made.start())
            yield made, runner
        finally:
            runner.run(made.end())
            server.stop()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - WITHOUT_FILE))
def test_a_fleet_survives(name: str, fleet: tuple[Fleet, asyncio.Runner]) -> None:
    made, runner = fleet
    holds(runner.run(SCENARIOS[name](made)))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(WITHOUT_FILE))
def test_a_fleet_whose_server_keeps_no_file_survives(name: str) -> None:
    holds(uvloop.run(alone(name, SHORT)))


def holds(outcome: Outcome) -> None:
    assert outcome.faults == []
    assert outcome.found["published"] > 0
    assert outcome.arrived + outcome.found["missed and told"] == outcome.expected
