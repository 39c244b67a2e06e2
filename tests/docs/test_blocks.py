"""Every block of every page: Python runs, JSON is JSON, a command line is one."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import uvicorn

from hubbub import cli
from pages import IDS, PAGES, Block, blocks, named, python_blocks, run
from places import ROOT


@pytest.mark.parametrize("page", [page for page in IDS if any("test_" in f for f in named(page))])
def test_the_tests_of_a_page_pass(page: str, tmp_path: Path) -> None:
    for name, text in named(page).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert " passed" in run(["-m", "pytest", "-q", "-p", "no:cacheprovider", "."], tmp_path)


@pytest.mark.parametrize(
    ("page", "block"),
    [
        pytest.param(page, block, id=f"{name}:{block.line}")
        for page, name in zip(PAGES, IDS, strict=True)
        for block in python_blocks(page)
        if len(block.info) == 1
    ],
)
def test_a_block_without_a_name_runs(page: Path, block: Block) -> None:
    namespace: dict[str, Any] = {"__name__": "example"}
    code = compile(block.text, f"{page.name}:{block.line}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert not code.co_flags & 0x80, "a block that awaits needs a file name and a test"
    exec(code, namespace)


def test_every_example_with_a_name_is_tested() -> None:
    source = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    for name in IDS:
        for file in set(named(name)) - {"django_app.py"}:
            is_test = file.startswith("test_") or f"test_{file}" in named(name)
            assert is_test or f'load("{name}", "{file}")' in source, f"{name}: {file}"


def applications() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each application that has a hub, of the pages and the examples."""
    for page in IDS:
        for file, text in named(page).items():
            if not file.startswith("test_"):
                yield f"{page}: {file}", text
    for path in sorted((ROOT / "examples").rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def test_no_application_sends_to_all_what_a_client_says_by_accident() -> None:
    """Who copies it would relay what strangers send. The page on frameworks does, and says so."""
    shown = [(name, text) for name, text in applications() if re.search(r"= Hub\(", text)]
    assert len(shown) > 30
    for name, text in shown:
        takes_messages = re.search(r"@hub\.on(_message$|\()", text, re.MULTILINE)
        is_frameworks = name.startswith("docs/guides/frameworks.md")
        assert takes_messages or "RoomRules(" in text or is_frameworks, name


def commands(program: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the page and the arguments of each command line of a program in a block that is no code."""
    for page, name in zip(PAGES, IDS, strict=True):
        for block in blocks(page):
            if block.info[:1] not in ([], ["sh"]):
                continue
            for line in block.text.splitlines():
                # Where it is shown with what it answers, the line begins like a shell's.
                command = re.split(r"\s#\s", line.removeprefix("$ ").rpartition(" | ")[2])[0]
                if command.split()[:1] == [program] and "…" not in command:
                    yield name, shlex.split(command)[1:]


def test_every_command_line_of_hubbub_is_one() -> None:
    """It names a command that there is, and options that it takes."""
    found = list(commands("hubbub"))
    assert len(found) > 15
    for page, arguments in found:
        command = cli.main.get_command(click.Context(cli.main), arguments[0])
        assert command is not None, f"{page}: hubbub {arguments}"
        try:
            command.make_context(arguments[0], arguments[1:])
        except click.UsageError as error:
            pytest.fail(f"{page}: hubbub {arguments}: {error}")


def test_every_command_line_of_uvicorn_is_one() -> None:
    found = list(commands("uvicorn"))
    assert len(found) > 2
    for page, arguments in found:
        try:
            context = uvicorn.main.make_context("uvicorn", arguments)
        except click.UsageError as error:
            pytest.fail(f"{page}: uvicorn {arguments}: {error}")
        assert context.params["ws"] == "hubbub:Protocol", f"{page}: {arguments}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_json_in_the_text_is_json(page: Path) -> None:
    for block in blocks(page):
        if block.info[:1] == ["json"]:
            json.loads(block.text)
