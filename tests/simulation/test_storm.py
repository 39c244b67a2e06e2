"""Clients come back with the delays of hubbub.js, and a worker that is too busy makes them come again."""

from __future__ import annotations

import dataclasses
import re

import pytest

from places import SOURCE
from sample_costs import COSTS
from simulation import storm
from simulation.storm import Storm, Zone, back_at_once, delay_of


def test_delays_are_those_of_hubbub_js() -> None:
    script = (SOURCE / "static" / "hubbub.js").read_text(encoding="utf-8")
    for name, seconds in (
        ("minDelayMs", storm.LEAST_DELAY_S),
        ("maxDelayMs", storm.MOST_DELAY_S),
        ("connectTimeoutMs", storm.CONNECT_TIMEOUT_S),
    ):
        found = re.search(rf"^ +{name}: (\d+),$", script, re.MULTILINE)
        assert found is not None
        assert int(found[1]) / 1000 == seconds
    assert "(minDelayMs || 500) * 2 ** tries" in script
    assert "this.drawDelay(++this.#tries)" in script
    assert "minDelayMs + Math.random() * (widest - minDelayMs)" in script
    assert [delay_of(tries, 1.0) for tries in (1, 2, 3, 9)] == [1.0, 2.0, 4.0, 20.0]
    assert {delay_of(tries, 0.0) for tries in (1, 2, 9)} == {0.5}


def test_a_storm_is_the_same_each_time_and_another_with_another_seed() -> None:
    zone = Zone(2000)
    assert Storm(COSTS, zone).run() == Storm(COSTS, zone).run()
    assert Storm(COSTS, zone).run() != Storm(COSTS, dataclasses.replace(zone, seed=2)).run()


def test_few_clients_are_back_at_once_and_too_many_come_several_times() -> None:
    few = Storm(COSTS, Zone(100)).run()
    assert few.attempts == 1
    assert few.all_s < 1.1
    many = Storm(COSTS, Zone(40_000, workers=1)).run()
    assert many.attempts > 1
    assert few.half_s < many.half_s <= many.most_s <= many.all_s < float("inf")
    assert many.longest_wait_s > storm.CONNECT_TIMEOUT_S


def test_who_notices_late_makes_no_queue() -> None:
    once, late = Storm(COSTS, Zone(5000)).run(), Storm(COSTS, Zone(5000, notice_s=30)).run()
    assert late.longest_wait_s < once.longest_wait_s / 5


def test_who_is_not_back_in_time_is_told() -> None:
    assert Storm(COSTS, Zone(5000, workers=1)).run(until_s=1.0).all_s == float("inf")


def test_clients_that_come_at_once_cost_the_sum_and_what_is_published_meanwhile() -> None:
    assert back_at_once(COSTS, 10, 100) == pytest.approx(
        10 * (COSTS.back_s + 100 * COSTS.missed_s) + COSTS.receive.of(1, 1)
    )
    assert back_at_once(COSTS, 1000, 0) > 1000 * COSTS.back_s * 1.1
