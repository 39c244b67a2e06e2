"""The soak, for seconds: the accounts agree and nothing is left; and its report."""

from __future__ import annotations

import pytest
import uvloop

from stress import report
from stress.soak import slope, soak


@pytest.mark.timeout(150)
def test_a_short_soak_leaves_nothing_and_loses_nothing() -> None:
    soaked = uvloop.run(soak(150, 6.0, life_s=3.0))
    assert soaked.faults == []
    assert soaked.leaks == []
    assert soaked.owed == soaked.handed_on + soaked.dropped + soaked.undelivered > 0
    assert soaked.missing == 0
    assert soaked.ends["close frame"] > 0
    text = report.soak_text({**soaked.as_dict(), "on": "2026-01-01", "commit": "abc"})
    assert "0 are unaccounted for" in text
    assert "no client, room, task, timer or descriptor" in text


def test_the_slope_is_that_of_the_line() -> None:
    assert slope([(float(x), 3.0 * x + 1) for x in range(10)]) == pytest.approx(3.0)
    assert slope([]) == slope([(1.0, 5.0)]) == 0.0
