"""The pages of the documentation, the blocks in them, and what their examples are asked.

A Python block whose info string has a file name (```python chat.py) is a module that works alone;
one whose name begins with test_ is run by pytest beside the modules of its page. A block without a
name is executed as it stands.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketTestSession

from places import ROOT

PAGES = sorted(
    [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")], key=lambda path: path.as_posix()
)
IDS = [path.relative_to(ROOT).as_posix() for path in PAGES]


class Block(NamedTuple):
    """A fenced block: its info string's words, its text, the line it begins at."""

    info: list[str]
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE):
        yield Block(found[1].split(), found[2], text[: found.start()].count("\n") + 2)


def python_blocks(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.info[:1] == ["python"]]


def named(page: str) -> dict[str, str]:
    """Return the files that a page shows, by name."""
    shown = [block for block in python_blocks(ROOT / page) if len(block.info) > 1]
    files = {block.info[1]: block.text for block in shown}
    assert len(files) == len(shown), f"{page} shows one name twice"
    return files


def refusal(client: TestClient, url: str, **options: Any) -> tuple[int, dict[str, Any]]:
    """Return status and body of a handshake that is refused."""
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        client.websocket_connect(url, **options),
    ):
        pass
    return refused.value.status_code, refused.value.json()


def assert_echoes(socket: WebSocketTestSession) -> None:
    socket.send_text("hello")
    assert socket.receive_text() == "hello"


def assert_only_listens(socket: WebSocketTestSession) -> None:
    socket.send_text("hello")
    assert socket.receive_json()["code"] == "listen_only"


def run(arguments: list[str], folder: Path) -> str:
    """Run Python in a folder without the hub's environment variables; return what it printed."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HUBBUB_")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def targets(page: Path) -> Iterator[str]:
    """Yield the targets of all links and images, outside code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`]*`", "", text)
    for found in re.finditer(r"\]\(([^)\s]+)\)", text):
        yield found[1]
