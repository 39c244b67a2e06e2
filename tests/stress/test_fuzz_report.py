"""The page says what the kept figures say."""

from __future__ import annotations

from stress.fuzz_report import current, part
from stress.page import PAGE


def test_the_page_has_the_kept_figures() -> None:
    assert current().strip() in PAGE.read_text(encoding="utf-8")


def test_the_part_tells_figures_and_differences() -> None:
    text = part({"inputs": 1234567, "date": "2026-11-25", "differences": 0}, 99)
    assert "1,234,567 inputs" in text
    assert "no differences" in text
    assert "99 of" in text
    assert "2 differences" in part({"inputs": 1, "date": "", "differences": 2}, 1)
