"""Events in the order of their time, cores that do one thing after another, links with a bandwidth."""

from __future__ import annotations

from simulation.engine import Core, Link, Simulation


def test_events_come_by_time_and_then_by_the_order_of_the_calls() -> None:
    simulation = Simulation()
    seen: list[tuple[float, str]] = []
    for delay_s, name in ((2.0, "late"), (1.0, "first"), (1.0, "second")):
        simulation.after(delay_s, lambda name=name: seen.append((simulation.now_s, name)))  # type: ignore[misc]
    simulation.run(1.5)
    assert seen == [(1.0, "first"), (1.0, "second")]
    simulation.run()
    assert seen[-1] == (2.0, "late")


def test_a_core_does_one_piece_of_work_after_another_and_counts_its_time() -> None:
    simulation = Simulation()
    core = Core(simulation)
    ends: list[float] = []
    for cost_s in (2.0, 3.0):
        core.do(lambda cost_s=cost_s: cost_s, lambda: ends.append(simulation.now_s))  # type: ignore[misc]
    assert len(core) == 1
    simulation.run()
    assert ends == [2.0, 5.0]
    assert core.busy_s == 5.0
    simulation.after(5.0, lambda: core.do(lambda: 1.0, lambda: ends.append(simulation.now_s)))
    simulation.run()
    assert ends[-1] == 11.0


def test_what_is_sent_leaves_one_after_another_and_arrives_later() -> None:
    simulation = Simulation()
    link = Link(simulation, bytes_per_s=100.0, delay_s=0.5)
    arrivals: list[float] = []
    for size in (100, 50):
        link.send(size, lambda: arrivals.append(simulation.now_s))
    simulation.run()
    assert arrivals == [1.5, 2.0]
    assert link.sent_bytes == 150
