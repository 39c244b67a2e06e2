"""Reloading: which changes start the server again, whenever they come."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.supervisors import basereload

from hubbub.cli import serve
from hubbub.cli.sockets import listen
from hubbub.cli.target import read_target

Step = Callable[[], object]


class FakeProcess:
    """The server's process. `while_it_starts` is what happens while it reads its files."""

    def __init__(self, number: int, while_it_starts: Step) -> None:
        self.number = number
        self._while_it_starts = while_it_starts
        self.is_terminated = False

    def start(self) -> None:
        self._while_it_starts()

    def terminate(self) -> None:
        self.is_terminated = True

    def join(self) -> None:
        assert self.is_terminated


def nothing() -> None: ...


class Stage:
    """`hubbub serve --reload` without processes and without time; each pause runs one step."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.processes: list[FakeProcess] = []
        self.while_it_starts: dict[int, Step] = {}
        self._steps: Iterator[Step] = iter(())
        monkeypatch.setattr(basereload, "get_subprocess", self._make_process)
        monkeypatch.setattr(signal, "signal", lambda *arguments: None)
        monkeypatch.setattr(threading.Event, "wait", self._pause)

    def _make_process(self, **keywords: Any) -> FakeProcess:
        number = len(self.processes) + 1
        process = FakeProcess(number, self.while_it_starts.get(number, nothing))
        self.processes.append(process)
        return process

    def _pause(self, event: threading.Event, timeout: float | None = None) -> bool:
        step = next(self._steps, None)
        if step is None:
            return True
        step()
        return False

    def run(self, *steps: Step) -> int:
        """Serve until the steps are over; return how many processes there have been."""
        self._steps = iter(steps)
        serving = serve.Serving(
            target=read_target("reporting"), folder=str(self.folder), reload=True, port=0
        )
        sockets = listen("127.0.0.1", 0)
        try:
            serve._serve(serving, sockets, "nowhere", 1.0)
        finally:
            for sock in sockets:
                sock.close()
        return len(self.processes)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    (tmp_path / "reporting.py").write_text("1")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "inner.py").write_text("1")
    return Stage(tmp_path, monkeypatch)


def later(path: Path, text: str) -> None:
    """Change a file, at a time that differs from the last one's by a second."""
    before = path.stat().st_mtime
    path.write_text(text)
    os.utime(path, (before + 1, before + 1))


def test_without_a_change_nothing_starts_again(stage: Stage) -> None:
    assert stage.run(nothing, nothing, nothing) == 1


def test_fault_28_a_change_before_the_first_look_starts_the_server_again(stage: Stage) -> None:
    path = stage.folder / "reporting.py"
    assert stage.run(lambda: later(path, "2"), nothing, nothing) == 2


def test_fault_28_a_change_while_the_first_process_reads_starts_it_again(stage: Stage) -> None:
    path = stage.folder / "package" / "inner.py"
    stage.while_it_starts[1] = lambda: later(path, "2")
    assert stage.run(nothing, nothing, nothing) == 2


def test_fault_28_a_change_while_a_later_process_reads_starts_it_again(stage: Stage) -> None:
    """As when a scan falls between an editor's emptying a file and its writing it."""
    path = stage.folder / "reporting.py"
    stage.while_it_starts[2] = lambda: later(path, "whole")
    assert stage.run(nothing, lambda: later(path, ""), nothing, nothing, nothing) == 3


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda folder: (folder / "new.py").write_text("1"), id="new"),
        pytest.param(lambda folder: (folder / "package" / "inner.py").unlink(), id="gone"),
        pytest.param(lambda folder: os.utime(folder / "reporting.py", (1, 1)), id="older"),
        pytest.param(
            lambda folder: (folder / "package").rename(folder / "renamed"), id="folder renamed"
        ),
    ],
)
def test_fault_28_what_else_is_a_change(stage: Stage, change: Callable[[Path], object]) -> None:
    assert stage.run(nothing, lambda: change(stage.folder), nothing, nothing) == 2


def test_fault_28_each_change_is_seen_once(stage: Stage) -> None:
    path = stage.folder / "reporting.py"
    steps = [lambda: later(path, "2"), nothing, lambda: later(path, "3"), nothing, nothing]
    assert stage.run(*steps) == 3
    assert [process.is_terminated for process in stage.processes] == [True, True, True]


@pytest.mark.parametrize("folder", [".git", ".venv", "__pycache__", "node_modules", "env"])
def test_what_is_not_the_application_s_is_not_looked_at(stage: Stage, folder: str) -> None:
    other = stage.folder / folder
    other.mkdir()
    (other / "pyvenv.cfg").touch()
    steps = [
        lambda: (other / "module.py").write_text("1"),
        lambda: (stage.folder / "page.html").write_text("1"),
    ]
    assert stage.run(nothing, *steps, nothing) == 1


def test_a_folder_that_goes_while_it_is_looked_at_stops_nothing(
    stage: Stage,
) -> None:
    from hubbub.cli.reload import snapshot

    (stage.folder / "dangling.py").symlink_to(stage.folder / "nowhere")
    assert len(snapshot([stage.folder, stage.folder / "gone"])) == 2


def test_a_large_folder_is_looked_at_more_rarely(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hubbub.cli.reload import Reloader

    waits: list[float | None] = []

    def wait(event: threading.Event, timeout: float | None = None) -> bool:
        waits.append(timeout)
        return False

    monkeypatch.setattr(threading.Event, "wait", wait)
    config = uvicorn.Config("reporting:app", reload=True, reload_dirs=[str(stage.folder)])
    reloader = Reloader(config, cast(Any, nothing), [])
    reloader.should_restart()
    reloader._scan_s = 0.3
    reloader.pause()
    assert waits == [config.reload_delay, pytest.approx(3.0)]
