"""The rows of brokers: their servers, their clients, what these find wrong, and their section of the page."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import broker_load, broker_work, brokers, measure, room_report, servers
from benchmarks.bare_socket import Broken
from benchmarks.broker_load import Client, Room
from benchmarks.broker_servers import BROKERS, CHANNELS, HUBBUB, SOCKETIO, fleet
from benchmarks.brokers import BROKER_ROWS
from benchmarks.measure import Cores
from benchmarks.rooms import Context, RowFailed
from hubbub.brokers.schemes import SCHEMES
from valkey_server import server_url

NOBODY = Context(Cores(None, None), is_quick=True)


@pytest.fixture
def here(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the runner use this Python, and a folder of the tests."""
    monkeypatch.setattr(measure, "BUILD", build)
    monkeypatch.setattr(servers, "PYTHON", Path(sys.executable))


# The servers


def test_every_broker_is_one_that_a_hub_knows() -> None:
    assert set(BROKERS) <= set(SCHEMES)
    assert {"memory", "local", "valkey", "nats"} <= set(BROKERS)
    for name, spec in BROKERS.items():
        assert name == spec.name == spec.url.partition("://")[0]


def test_contenders_are_told_the_same_server_by_the_scheme_that_each_knows() -> None:
    url = "valkey://127.0.0.1:1"
    assert HUBBUB.environment(url) == "HUBBUB_BROKER=valkey://127.0.0.1:1"
    assert SOCKETIO.environment(url) == "BROKER_URL=redis://127.0.0.1:1"
    assert CHANNELS.environment(url) == "BROKER_URL=redis://127.0.0.1:1"


@pytest.mark.parametrize("name", BROKERS)
def test_a_fleet_on_each_broker_delivers_and_its_cost_is_told_apart(name: str, here: None) -> None:
    broker = BROKERS[name]
    workers = min(2, broker.most_workers or 2)
    with fleet(HUBBUB, broker, workers, None) as running:
        words = ("--rooms", "2", "--each", "2", "--spread", "--burst", "8", "--warm", "0.05")
        run = brokers.run_load(NOBODY, HUBBUB, running, words, 0.2)
        assert len(running.workers_cpu_s()) == workers
    assert run["per_s"] > 0
    assert run["workers_us"] > 0
    assert (run["broker_us"] > 0) == (name != "memory")
    assert (run["p50_ms"] > 0) == (workers > 1)
    assert run["disordered"] == 0


def test_a_worker_that_answers_nothing_fails_the_row(here: None) -> None:
    with fleet(HUBBUB, BROKERS["memory"], 2, None) as running:
        # Two workers without a broker: what is published in one never reaches the other.
        words = ("--rooms", "1", "--each", "1", "--patience", "0.5")
        with pytest.raises(RowFailed, match="1 of 2 clients hear nothing"):
            brokers.run_load(NOBODY, HUBBUB, running, words, 0.2)


# The clients


@pytest.fixture
def ends() -> Iterator[tuple[Client, socket.socket]]:
    """A client, and the other end of its connection."""
    mine, theirs = socket.socketpair()
    client = Client(Room(3, []), 0, "plain", any_order=False)
    client.socket = mine
    yield client, theirs
    mine.close()
    theirs.close()


def test_messages_are_counted_wherever_a_read_ends(ends: tuple[Client, socket.socket]) -> None:
    client, server = ends
    data = b"".join(b"\x81\x16n=%09d;" % number + b"x" * 11 for number in range(20))
    for byte in data:
        server.send(bytes([byte]))
        client.take()
    assert client.got == 20


@pytest.mark.parametrize("numbers", [(1,), (0, 2), (0, 0), (0, 1, 3, 2)])
def test_a_message_that_is_lost_late_or_twice_is_found(
    numbers: tuple[int, ...], ends: tuple[Client, socket.socket]
) -> None:
    client, server = ends
    server.send(b"".join(b"n=%09d;" % number for number in numbers))
    with pytest.raises(Broken, match=r"of room 3 number \d is lost, late or twice"):
        client.take()


def test_where_any_order_will_do_it_is_counted_and_nothing_may_come_twice(
    ends: tuple[Client, socket.socket],
) -> None:
    strict, server = ends
    client = Client(Room(3, []), 0, "plain", any_order=True)
    client.socket = strict.socket
    server.send(b"n=000000000;n=000000001;")
    client.take()
    server.send(b"n=000000003;n=000000002;")
    client.take()
    assert (client.got, client.disordered) == (4, 1)
    server.send(b"n=000000004;n=000000001;")
    with pytest.raises(Broken, match="number 1 came twice"):
        client.take()


def test_pings_are_answered_wherever_they_stand(ends: tuple[Client, socket.socket]) -> None:
    client, server = ends
    server.send(b"n=000000000;\x89\x04abcdn=000000001;\x81\x012")
    client.take()
    assert client.got == 2
    assert server.recv(100) == b"\x8a\x84\0\0\0\0abcd" + b"\x81\x81\0\0\0\x003"


def test_a_quantile_of_sorted_values() -> None:
    assert broker_load.quantile([], 0.5) == 0.0
    assert broker_load.quantile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert broker_load.quantile([1.0, 2.0, 3.0], 0.99) == 3.0


def test_costs_are_of_each_publication_and_each_process() -> None:
    result = {
        "published": 100,
        "delivered": 1000,
        "wall_s": 2.0,
        "disordered": 0,
        "generator_s": 0.001,
        "lag_p50_ms": 1.0,
        "lag_p99_ms": 2.0,
    }
    found = brokers.costs(result, [0.3, 0.1, 0.1], 0.05)
    assert found["per_s"] == 50
    assert found["per_core_s"] == pytest.approx(100 / 0.55)
    assert found["deliveries_per_cpu_s"] == pytest.approx(2000)
    assert found["publisher_us"] == pytest.approx(3000)
    assert found["other_us"] == pytest.approx(1000)
    assert found["broker_us"] == pytest.approx(500)
    with pytest.raises(RowFailed, match="nothing was published"):
        brokers.costs({**result, "published": 0}, [0.1], 0.0)


# Work without sockets


class Few(broker_work.Size):
    """So little work that it takes no time."""

    def __init__(self) -> None:
        super().__init__(is_quick=True)
        self.rooms, self.turns, self.burst = 30, 32, 4


@pytest.mark.anyio
@pytest.mark.parametrize("key", broker_work.WORK)
async def test_work_finds_the_figures_of_its_row(key: str) -> None:
    row = next(row for row in BROKER_ROWS if row.key == key)
    found = await broker_work.WORK[key](f"{server_url()}?prefix=bench", Few())
    assert {figure.name for figure in row.figures} <= set(found)
    assert all(value >= 0 for value in found.values())


# The page


def test_every_figure_has_a_name_of_its_own() -> None:
    for row in BROKER_ROWS:
        names = [figure.name for figure in row.figures]
        assert len(names) == len(set(names)), row.key


def test_the_target_of_the_peers_is_judged_for_each_load() -> None:
    rounds = [{"times_channels_large_1": 30.0}, {"times_python-socketio_large_1": 4.0}]
    lines = {line[0]: line[1:] for line in room_report.goal_lines(BROKER_ROWS, {"rivals": rounds})}
    what = "rivals: one room of 1,000, one message at a time: to"
    assert lines[f"{what} Django Channels"] == ("at least 20 times", "30.0", "yes")
    assert lines[f"{what} python-socketio"] == ("at least 20 times", "4.0", "**no**")
