"""What is done to a fleet and its broker, at short scale: one fleet of real workers for all of it, one fault after another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
import uvloop

from hubbub.brokers.reconnecting import LONGEST_DELAY_S
from stress.brokers import ON_VALKEY, SCENARIOS, WITHOUT_FILE, alone
from stress.fleet import Fleet, note_whole, note_within
from stress.scenario import SHORT, Outcome
from valkey_server import Server

Record = Callable[[str, object], None]


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
def test_a_fleet_survives(
    name: str, fleet: tuple[Fleet[Server], asyncio.Runner], record_property: Record
) -> None:
    made, runner = fleet
    holds(runner.run(SCENARIOS[name](made)), record_property)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(WITHOUT_FILE))
def test_a_fleet_whose_server_keeps_no_file_survives(name: str, record_property: Record) -> None:
    holds(uvloop.run(alone(name, SHORT)), record_property)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - ON_VALKEY.keys()))
def test_a_fleet_on_other_servers_survives(name: str, record_property: Record) -> None:
    holds(uvloop.run(alone(name, SHORT)), record_property)


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


@pytest.mark.parametrize(
    ("whole_s", "holds"), [(0.0, True), (16.0, True), (16.5, False), (-1.0, False)]
)
def test_who_is_whole_later_than_twice_what_is_waited_is_a_fault(
    whole_s: float, holds: bool
) -> None:
    """A publication waits 5 s, a client 1 s, and who has lost the broker 2 s."""
    outcome = Outcome("", "", "")
    note_whole(outcome, whole_s, LONGEST_DELAY_S)
    assert outcome.found == {"whole after, s": whole_s}
    assert bool(outcome.faults) is not holds


def holds(outcome: Outcome, record: Record) -> None:
    """Record what was found, and see that nothing is missing of what is owed."""
    record("deliveries", f"{outcome.arrived} of {outcome.expected}")
    for name, value in outcome.found.items():
        record(name, value)
    assert outcome.faults == []
    assert outcome.found["published"] > 0
    assert outcome.arrived + outcome.found["missed and told"] == outcome.expected
