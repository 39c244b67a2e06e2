"""How the reconnects after a server's end are measured; `test_run` has the scenarios themselves."""

from __future__ import annotations

from stress.fault_end import BUCKETS, busiest


def test_the_busiest_part_is_measured_against_the_mean() -> None:
    assert busiest([float(second) for second in range(80)]) == (1.0, 79.0)
    together, _ = busiest([0.0, *[1.0] * 78, 10.0])
    assert together > 0.95 * BUCKETS
