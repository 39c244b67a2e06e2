"""The model says what was measured, within a fifth."""

from __future__ import annotations

import pytest

from simulation.checks import TOLERANCE, compared
from simulation.costs import CHECKED, TOLD


@pytest.mark.parametrize("name", CHECKED)
def test_the_model_is_within_a_fifth_of_what_was_measured(name: str) -> None:
    real, model = compared()[name]
    assert model == pytest.approx(real, rel=TOLERANCE)


def test_all_kinds_of_points_are_checked() -> None:
    kinds = {name.rpartition("_")[2] for name in CHECKED}
    assert kinds == {"s", "ms"}
    assert sum(name.endswith("_per_core_s") for name in CHECKED) >= 4


def test_what_is_told_beside_it_is_not_within_a_fifth() -> None:
    assert not set(TOLD) & set(CHECKED)
    for name in TOLD:
        real, model = compared()[name]
        assert model != pytest.approx(real, rel=TOLERANCE), "it can be checked"
