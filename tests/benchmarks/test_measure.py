"""One run as the runner does it, and what it says of peers that cannot be had."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from benchmarks import install, measure, servers
from benchmarks.measure import Cores
from benchmarks.servers import BY_NAME, OURS

KERNEL = BY_NAME["kernel"]
SHORT = ("--clients", "10", "--warm", "0.05", "--seconds", "0.3")


@pytest.fixture
def here(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the runner use the programs that the tests have compiled."""
    monkeypatch.setattr(servers, "BUILD", build)
    monkeypatch.setattr(measure, "BUILD", build)
    monkeypatch.setattr(servers, "PYTHON", Path(sys.executable))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("spec", [KERNEL, OURS], ids=["kernel", "hubbub"])
def test_a_run_charges_the_server_for_what_was_counted(spec: servers.ServerSpec) -> None:
    run = measure.measure(spec, ["--mode", "echo", *SHORT], Cores.choose())
    assert "error" not in run
    assert run["delivered"] == run["sent"] > 0
    assert run["lost"] == 0
    assert 0 < run["cpu_s"] <= run["wall_s"] * 1.1, "the server has one thread"
    assert run["limit"] in ("server", "generator", "neither")


@pytest.mark.usefixtures("here")
def test_memory_is_read_while_all_are_connected() -> None:
    words = ["--mode", "idle", *SHORT, "--clients", "300"]
    run = measure.measure(OURS, words, Cores.choose())
    assert run["memory_begin_kib"] > run["memory_before_kib"] > 10_000


@pytest.mark.usefixtures("here")
def test_a_server_that_dies_is_a_run_with_the_last_line_of_its_log() -> None:
    code = "import sys; sys.exit('there is no such thing')"
    dead = dataclasses.replace(KERNEL, command=(sys.executable, "-c", code))
    run = measure.measure(dead, ["--mode", "echo", *SHORT], Cores.choose())
    assert run == {"error": "the server did not start: there is no such thing"}


@pytest.mark.usefixtures("here")
def test_processes_of_a_server_are_all_counted() -> None:
    code = (
        "import socket, subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "time.sleep(60)\n"
    )
    parent = dataclasses.replace(KERNEL, command=(sys.executable, "-c", code, "{port}"))
    with measure.serving(parent, None) as server:
        assert len(list(server.pids())) == 2
        assert server.cpu_s() > 0


def test_a_peer_that_cannot_be_had_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_go() -> None:
        raise RuntimeError("go: a long story\nno Go here")

    installed = dict.fromkeys(OURS.packages, "1")
    monkeypatch.setattr(install, "build_c", lambda: None)
    monkeypatch.setattr(install, "install_go", no_go)
    monkeypatch.setattr(install, "install_python", lambda: {"picows": "no wheel"})
    monkeypatch.setattr(install, "versions", lambda chosen: {one.name: installed for one in chosen})
    chosen = [OURS, BY_NAME["gorilla"], BY_NAME["picows"]]
    assert install.install(chosen) == {"gorilla": "no Go here", "picows": "picows: no wheel"}


def test_the_pins_that_are_not_for_this_python_are_left_to_pip() -> None:
    assert any("python_version" in pin for pin in install.requirements())
    assert not any(pin.startswith("#") for pin in install.requirements())
