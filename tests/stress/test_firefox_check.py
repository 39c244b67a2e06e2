"""The check of Firefox believes what the page says, and nothing else: tried with stand-ins for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stress.firefox_check import main

STAND_IN = """#!{python}
import sys
from websockets.sync.client import connect

url = sys.argv[-1].replace("http:", "ws:") + "ws"
with connect(url, proxy=None) as socket:
    socket.send("hello")
    assert socket.recv() == "hello"
    socket.close({code}, "StandIn/1")
"""


def stand_in(folder: Path, code: int) -> str:
    path = folder / "firefox"
    path.write_text(STAND_IN.format(python=sys.executable, code=code))
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(("code", "status"), [(4001, 0), (4002, 1)])
def test_the_pages_code_decides(
    code: int,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("stress.firefox_check.COMMANDS", (stand_in(tmp_path, code),))
    assert main() == status
    assert f"Firefox (StandIn/1): closed with {code}" in capsys.readouterr().out


def test_without_firefox_it_fails_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stress.firefox_check.COMMANDS", ("no-such-browser",))
    assert main() == 1
    assert "firefox-esr" in capsys.readouterr().err


def test_a_browser_that_says_nothing_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "firefox"
    path.write_text("#!/bin/sh\nexec sleep 60\n")
    path.chmod(0o755)
    monkeypatch.setattr("stress.firefox_check.COMMANDS", (str(path),))
    monkeypatch.setattr("stress.firefox_check.PATIENCE_S", 0.2)
    assert main() == 1
    assert "did not finish" in capsys.readouterr().err
