"""The page of the architecture: what it says to touch is there, and its ten questions are answered."""

from __future__ import annotations

import re

from places import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TOPS = ("src/", "tests/", "docs/", "tools/", "requirements/")


def answers() -> dict[str, str]:
    """Return what is said to each question."""
    _, _, part = PAGE.partition("## Where would I put it?\n")
    return dict(re.findall(r"^### (.+)\n((?:(?!##).*\n)*)", part, re.MULTILINE))


def paths(text: str) -> list[str]:
    return [name for name in re.findall(r"`([\w./-]+)`", text) if name.startswith(TOPS)]


def test_every_path_on_the_page_exists() -> None:
    found = paths(PAGE)
    assert len(found) > 50
    assert [path for path in found if not (ROOT / path).exists()] == []


def test_ten_questions_are_answered_with_a_file_and_a_test_each() -> None:
    assert len(answers()) == 10
    for question, answer in answers().items():
        named = paths(answer)
        assert any(path.startswith("src/") for path in named), question
        assert any(path.startswith("tests/") for path in named), question


def test_every_name_in_capitals_and_every_class_that_it_names_is_in_one_of_its_files() -> None:
    """`COMMANDS` of `src/hubbub/cli/main.py`: the answer names the file that has it."""
    for question, answer in answers().items():
        files = [ROOT / path for path in paths(answer)]
        text = "".join(file.read_text("utf-8") for file in files if file.suffix in (".py", ".json"))
        for name in re.findall(r"`([A-Z]\w+)`", answer):
            assert re.search(rf"\b{name}\b", text), f"{question}: {name}"
