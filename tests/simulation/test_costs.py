"""What things cost is computed from what was measured, and nothing that is checked is used for it."""

from __future__ import annotations

from typing import Any

import pytest

from simulation.checks import FITTED_PATHS, FITTED_SHARE, FITTED_TIMES, lag_name
from simulation.costs import CHECKED, costs_of, line, results, split, typical

ROWS = {
    "cost": [
        {
            "w1_c1_b1_broker_us": 30.0,
            "w4_c1_b1_broker_us": 60.0,
            "w1_c1_b64_broker_us": 2.0,
            "w4_c1_b64_broker_us": 5.0,
            "w2_c1_b1_publisher_us": 200.0,
            "w2_c1_b64_publisher_us": 15.0,
            "w2_c1_b1_other_us": 100.0,
            "w2_c1_b64_other_us": 5.0,
            "w4_c1_b1_publisher_us": 230.0,
            "w4_c1_b64_publisher_us": 16.0,
            "w4_c1_b1_other_us": 110.0,
            "w4_c1_b64_other_us": 5.5,
            "w2_c100_b1_other_us": 1090.0,
            "w2_c100_b64_other_us": 25.0,
        }
    ],
    "storm": [{"back_250_0_cpu_s": 0.1, "back_250_100_cpu_s": 0.125}],
    "through": [{"valkey_1_1_generator_us": 20.0, "valkey_1_64_generator_us": 2.0}],
}


def test_a_cost_is_what_is_there_anyway_and_what_each_adds() -> None:
    assert line(100.0, 730.0, 64) == (90.0, 10.0)
    assert line(100.0, 50.0, 64) == (100.0, 0.0)
    cost = split(100.0, 730.0, 0.25)
    assert cost.of(1, 1) == pytest.approx(100e-6)
    assert cost.of(2, 1) == pytest.approx(122.5e-6)
    assert cost.of(1, 64) == pytest.approx(730e-6)


def test_each_cost_gives_back_the_figures_that_it_is_from() -> None:
    costs = costs_of(ROWS, 3000.0, 0.3)
    other = costs.receive.of(1, 1) + 100 * costs.write.of(1, 1)
    assert other == pytest.approx(1090e-6)
    here = costs.publish.of(1, 64) + costs.receive.of(1, 64) + costs.write.of(1, 64)
    assert here == pytest.approx(64 * 15e-6)
    assert costs.serve.of(1, 1) + 4 * costs.serve_worker.of(1, 1) == pytest.approx(60e-6)
    assert costs.back_s == pytest.approx(400e-6)
    assert costs.missed_s == pytest.approx(1e-6)
    assert costs.read.of(1, 64) == pytest.approx(128e-6)


def test_no_figure_that_is_checked_is_used_for_a_cost() -> None:
    used: set[str] = set()

    class Noting(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            used.add(name)
            return super().__getitem__(name)

    rows = {key: [Noting(values) for values in rounds] for key, rounds in results()["rows"].items()}
    for workers in (2, 4):
        costs_of(rows, 3000.0, 0.5, workers=workers)
    assert used
    used |= {FITTED_SHARE, FITTED_TIMES, *map(lag_name, FITTED_PATHS)}
    assert not used & set(CHECKED)


def test_workers_that_share_a_core_cost_more_and_each_client_as_much() -> None:
    two, four = costs_of(ROWS, 3000.0, 0.3), costs_of(ROWS, 3000.0, 0.3, workers=4)
    assert four.write == two.write
    assert four.receive.of(1, 1) + four.write.of(1, 1) == pytest.approx(110e-6)
    assert four.publish.of(1, 1) == pytest.approx(120e-6)
    assert two.publish.of(1, 1) == pytest.approx(100e-6)


def test_of_several_rounds_the_middle_counts() -> None:
    assert typical([{"a": 3.0}, {"a": 1.0}, {"b": 9.0}, {"a": 2.0}], "a") == 2.0
