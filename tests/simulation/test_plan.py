"""What many clients need grows as it should, and the page says where one broker is not enough."""

from __future__ import annotations

import dataclasses

import pytest

from sample_costs import COSTS
from simulation.plan import LOADS, Load, copies_of, each, most_clients, plan

CHAT = Load("chat", room=100, per_minute=1.0)


def test_copies_are_no_more_than_workers_and_no_more_than_members() -> None:
    assert copies_of(100, 1) == 1
    assert copies_of(1, 50) == pytest.approx(1)
    assert copies_of(100, 2) == pytest.approx(2)
    assert 99 < copies_of(100, 100_000) < 100


def test_idle_clients_need_workers_by_their_number_and_one_broker() -> None:
    found = plan(COSTS, 1_000_000, dataclasses.replace(CHAT, per_minute=0.0))
    assert (found.workers, found.brokers) == (50, 1)
    assert found.is_possible


def test_work_decides_how_many_workers_and_brokers_there_are() -> None:
    found = plan(COSTS, 1_000_000, CHAT)
    a_second = found.workers * 0.5
    worker_s = each(COSTS.publish, 1) + found.copies * each(COSTS.receive, 1)
    worker_s += 100 * each(COSTS.write, 1)
    assert found.publications_per_s * worker_s <= a_second
    assert found.deliveries_per_s == pytest.approx(1_000_000 / 60 * 100)
    assert found.brokers > 1
    more = plan(COSTS, 100_000_000, CHAT)
    assert more.workers > 90 * found.workers
    assert not more.is_possible


def test_messages_that_come_together_need_less() -> None:
    together = dataclasses.replace(CHAT, together=16)
    assert plan(COSTS, 1_000_000, together).workers < plan(COSTS, 1_000_000, CHAT).workers


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name[:5])
def test_one_broker_is_enough_up_to_the_number_that_is_told(load: Load) -> None:
    limit = most_clients(COSTS, load)
    assert plan(COSTS, limit, load).is_one_broker
    assert not plan(COSTS, int(limit * 1.2), load).is_one_broker
