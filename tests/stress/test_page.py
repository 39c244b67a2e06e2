"""The page of reliability: one part is replaced, the words around it stay."""

from __future__ import annotations

import pytest

from stress.page import PAGE, marks, replaced

BEGIN, END = marks("soak")


def test_a_part_is_replaced_and_replaced_again() -> None:
    page = f"before\n{BEGIN}old\n{END}after\n"
    once = replaced(page, "soak", "new")
    assert once == f"before\n{BEGIN}\nnew\n\n{END}after\n"
    assert replaced(once, "soak", "newer") == f"before\n{BEGIN}\nnewer\n\n{END}after\n"


@pytest.mark.parametrize("page", ["nothing", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_part_without_one_place_is_an_error(page: str) -> None:
    with pytest.raises(ValueError, match="soak"):
        replaced(page, "soak", "new")


@pytest.mark.parametrize("part", ["conformance", "fuzzing", "hostile", "faults", "soak"])
def test_the_page_has_a_place_for_each_part(part: str) -> None:
    assert replaced(PAGE.read_text(encoding="utf-8"), part, "text")
