"""Publications go from a worker to a broker and on; what waits together is done in one turn."""

from __future__ import annotations

import pytest

from sample_costs import COSTS
from simulation.cluster import Cluster, Publication, Shape, lag, throughput
from simulation.engine import Simulation


def run_one(shape: Shape, burst: int, rooms: int = 1) -> tuple[Simulation, Cluster, list[int]]:
    simulation = Simulation()
    seen: list[int] = []
    cluster = Cluster(
        simulation, COSTS, shape, lambda some, worker: seen.extend([worker] * len(some))
    )
    cluster.publish(0, [Publication(number % rooms, 0.0) for number in range(burst)])
    simulation.run()
    return simulation, cluster, seen


def test_a_publication_costs_what_its_parts_cost() -> None:
    shape = Shape(3, members=10, is_one_core=True)
    _, cluster, seen = run_one(shape, 1)
    assert seen == [0, 1, 2]
    publish, serve = COSTS.publish.of(1, 1), COSTS.serve.of(1, 1)
    workers = COSTS.serve_worker.of(1, 1) + COSTS.receive.of(1, 1) + 10 * COSTS.write.of(1, 1)
    assert cluster.cores[0].busy_s == pytest.approx(publish + serve + 3 * workers)


def test_a_burst_is_one_turn_in_each_process() -> None:
    _, one, _ = run_one(Shape(2, is_one_core=True), 1)
    _, many, seen = run_one(Shape(2, is_one_core=True), 64)
    assert len(seen) == 128
    added = COSTS.publish.each_s + COSTS.serve.each_s
    added += 2 * (COSTS.serve_worker.each_s + COSTS.receive.each_s + COSTS.write.each_s)
    assert many.cores[0].busy_s - one.cores[0].busy_s == pytest.approx(63 * added)


def test_several_brokers_share_the_rooms() -> None:
    _, one, _ = run_one(Shape(2, brokers=1), 8, rooms=8)
    _, two, seen = run_one(Shape(2, brokers=2), 8, rooms=8)
    assert len(seen) == 16
    assert 0 < two.cores[2].busy_s == two.cores[3].busy_s < one.cores[2].busy_s


def test_a_link_that_is_narrow_makes_everything_late() -> None:
    wide, _, _ = run_one(Shape(4, bytes_per_s=1e9), 64)
    narrow, _, _ = run_one(Shape(4, bytes_per_s=64 * 128.0), 64)
    assert narrow.now_s > wide.now_s + 3.9


def test_the_same_calls_give_the_same_results_and_bursts_are_cheaper() -> None:
    shape = Shape(2, is_one_core=True)
    single = throughput(COSTS, shape, 4, 1)
    assert single == throughput(COSTS, shape, 4, 1)
    assert throughput(COSTS, shape, 4, 64) > 3 * single
    assert throughput(COSTS, Shape(4, is_one_core=True), 4, 1) < single


def test_lag_grows_with_the_rate_and_has_the_path_in_it() -> None:
    shape = Shape(2, is_one_core=True)
    calm, full = lag(COSTS, shape, 16, 100), lag(COSTS, shape, 16, 20_000, seconds=0.1)
    assert len(calm) == 200
    assert calm[0] > COSTS.path_after(0.01) == pytest.approx(600e-6)
    assert lag(COSTS, shape, 16, 200)[0] < calm[0], "who has rested longer is slower"
    assert full[len(full) // 2] > calm[len(calm) // 2]
