"""The tables of docs/scaling.md: that they are up to date proves tests/docs/test_generated.py."""

from __future__ import annotations

import pytest

from sample_costs import COSTS
from simulation import page


@pytest.mark.parametrize(
    ("value", "written"), [(0.5, "0.5"), (12.34, "12.3"), (1234.0, "1,230"), (123456.0, "123,000")]
)
def test_numbers_have_three_digits_that_count(value: float, written: str) -> None:
    assert page.number(value) == written


def test_every_table_has_as_many_columns_in_each_line() -> None:
    tables = (page.cost_table(COSTS), page.plan_tables(COSTS), page.storm_table(COSTS))
    for text in tables:
        for part in text.split("\n\n"):
            lines = [line for line in part.splitlines() if line.startswith("|")]
            assert len({line.count("|") for line in lines}) <= 1
            assert len(lines) != 1


def test_lag_is_told_for_each_rate() -> None:
    assert page.lag_table(COSTS).count("\n| ") == 5 + 1
