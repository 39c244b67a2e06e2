"""A scenario notices what does not hold: tried with a server that is told to do wrong."""

from __future__ import annotations

import pytest
import uvloop

from stress.fault_handlers import command
from stress.raw_client import connect
from stress.scenario import SHORT, Outcome, ServerProcess, leaks, scenario


async def a_bad_scenario() -> Outcome:
    async with scenario("bad", "nothing", moves=["dead"], control_count=3) as harness:
        harness.secrets = ["uvicorn"]
        harness.control_clients[0].arrived -= 1
        harness.control_clients[0].disorder += 1
        await harness.control_clients[1].socket.close()
        client = await connect(harness.port)
        client.writer.write(command("forever"))
        client.abort()
        return harness.outcome


@pytest.mark.timeout(120)
def test_a_scenario_that_goes_wrong_says_what() -> None:
    outcome = uvloop.run(a_bad_scenario())
    said = " ".join(outcome.faults)
    for words in (
        "1 control clients were closed",
        "deliveries to control clients are missing",
        "1 deliveries were lost or out of order",
        "stats() has not moved: dead",
        "the log shows a secret: 'uvicorn'",
    ):
        assert words in said, outcome.faults
    assert SHORT.pick("short", "full") == "short"


def test_leaks_are_named() -> None:
    def facts(tasks: int, clients: int) -> dict[str, object]:
        stats = {"clients": clients, "rooms": 1}
        return {"tasks": tasks, "descriptors": 9, "census": {"Client": clients}, "stats": stats}

    assert leaks(facts(3, 5), facts(3, 5)) == []
    assert leaks(facts(3, 5), facts(4, 6)) == [
        "tasks: 3 before, 4 after",
        "Client: 5 before, 6 after",
        "clients: 5 before, 6 after",
    ]


def test_one_that_starts_again_listens_when_it_says_so_and_not_at_its_first_line() -> None:
    server = ServerProcess({})
    server.log_path.write_text("PORT 4711\nWARNING old\n")
    begin = server.log_path.stat().st_size
    for line, listens in (("WARNING new\n", False), ("PORT 48", False), ("12\n", True)):
        with server.log_path.open("a") as log:
            log.write(line)
        assert server._listens(begin) is listens
    assert server.port == 4812
    server.end()
