"""The suite's runner: what is missing is a failure, and the short form leaves no group out."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from places import ROOT
from stress.autobahn_suite import DEFLATE_SHORT, PLAIN, TESTEES, main, served


def test_without_the_suite_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stress.autobahn_suite.WSTEST", tmp_path / "wstest")
    assert main([]) == 1
    assert "is missing" in capsys.readouterr().err


def test_without_a_python_2_the_search_fails_and_says_what_to_install(tmp_path: Path) -> None:
    # An empty PATH, but for what the script itself calls.
    for name in ("ls", "sort"):
        (tmp_path / name).symlink_to(Path("/usr/bin", name))
    script = str(ROOT / "tools" / "find_python.sh")
    done = subprocess.run(
        ["/bin/sh", script, "--2.7"],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path), "LANG": os.environ.get("LANG", "C")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Python 2.7" in done.stderr
    assert done.stdout == ""


def test_the_short_form_has_every_group_every_kind_of_data_and_every_offer() -> None:
    assert {case.split(".")[0] for case in PLAIN} == {*"1234567", "9", "10"}
    pairs = {tuple(case.split(".")[:2]) for case in DEFLATE_SHORT}
    assert pairs == {("12", str(data)) for data in range(1, 6)} | {
        ("13", str(offer)) for offer in range(1, 8)
    }


def test_a_server_under_test_is_started_and_ended(tmp_path: Path) -> None:
    from websockets.sync.client import connect

    with served(TESTEES[0], tmp_path / "log") as url, connect(url, proxy=None) as socket:
        socket.send(b"hello")
        assert socket.recv(10) == b"hello"
    port = int(url.split(":")[2].split("/")[0])
    with pytest.raises(OSError, match="refused"):
        connect(f"ws://127.0.0.1:{port}/ws", proxy=None)
