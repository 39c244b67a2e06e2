"""The messages between a load and its worker processes survive the pipe."""

from __future__ import annotations

import msgspec
import pytest

from hubbub.bench.accounting import Counters
from hubbub.bench.ipc import (
    Arm,
    Armed,
    Command,
    Connect,
    Connected,
    Event,
    Leave,
    Left,
    Plan,
    Progress,
    Run,
    RunDone,
    Settle,
    Settled,
    line_of,
    read_command,
    read_event,
)

PLAN = Plan(url="ws://127.0.0.1/ws", headers={"X-Name": "ä\nb"}, subprotocols=("a",), expect="self")


def counters() -> Counters:
    counted = Counters(sent=3, delivered=2)
    counted.latency.add(1_000_000)
    return counted


@pytest.mark.parametrize(
    "command",
    [
        Connect(PLAN, 1, 2, 3),
        Arm(1),
        Run((1, 2), 5, 6),
        Settle({1: 2}, 0.5),
        Leave(),
    ],
)
def test_commands(command: Command) -> None:
    line = line_of(command)
    assert line.count(b"\n") == 1
    assert read_command(line) == command


@pytest.mark.parametrize(
    "event",
    [
        Connected([1, 2], {401: 3}, {"no": 1}, 0.5),
        Armed(),
        RunDone({1: 5}, counters(), 1.0, 0.5),
        Settled(counters(), {1006: 1}),
        Left(),
        Progress(5, counters(), 0.5, {}),
    ],
)
def test_events(event: Event) -> None:
    assert read_event(line_of(event)) == event


def test_a_command_is_no_event() -> None:
    with pytest.raises(msgspec.ValidationError):
        read_event(line_of(Leave()))
