"""What is done to a fleet and its broker, at short scale: one fleet of real workers for all of it, one fault after another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
import uvloop

from stress.brokers import ON_VALKEY, SCENARIOS, WITHOUT_FILE, alone
from stress.fleet import Fleet, note_within
from stress.scenario import SHORT, Outcome
from valkey_server import Server


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Fleet[Server], asyncio.Runner]]:
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
@pytest.mark.parametrize("name", sorted(ON_VALKEY.keys() - WITHOUT_FILE))
def test_a_fleet_survives(name: str, fleet: tuple[Fleet[Server], asyncio.Runner]) -> None:
    made, runner = fleet
    holds(runner.run(SCENARIOS[name](made)))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(WITHOUT_FILE))
def test_a_fleet_whose_server_keeps_no_file_survives(name: str) -> None:
    holds(uvloop.run(alone(name, SHORT)))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - ON_VALKEY.keys()))
def test_a_fleet_on_other_servers_survives(name: str) -> None:
    holds(uvloop.run(alone(name, SHORT)))


def test_what_takes_longer_than_is_owed_is_a_fault() -> None:
    outcome, now = Outcome("", "", ""), time.time()
    for age_s in (2.0, 1.0):
        note_within(outcome, "elsewhere after, s", now - age_s, 2.5)
    assert outcome.found["elsewhere after, s"] == pytest.approx(2.0, abs=0.5)
    assert outcome.faults == []
    note_within(outcome, "elsewhere after, s", now - 3.0, 2.5)
    (fault,) = outcome.faults
    assert fault.startswith("elsewhere after, s: ")
    assert fault.endswith(", and 2.5 at most")


def holds(outcome: Outcome) -> None:
    assert outcome.faults == []
    assert outcome.found["published"] > 0
    assert outcome.arrived + outcome.found["missed and told"] == outcome.expected
