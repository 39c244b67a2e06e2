"""Reloading: `hubbub serve --reload` starts the server again when a file of its folder changes.

What must not live here: the server, and what it is told (`serve`). uvicorn's own reloaders take
for unchanged whatever they find at their first scan, a moment after the server's process has begun
to read the files, and again after each restart: what changed in between is served as it was. Here
every scan compares with what was there before that process began.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from socket import socket

from uvicorn import Config
from uvicorn.supervisors.basereload import BaseReload

Snapshot = dict[str, tuple[int, int, int]]
"""What tells one state of a file from another: when it was changed, its size and its inode."""

_SKIPPED = frozenset({"__pycache__", "node_modules"})
_PAUSE_PER_SCAN = 10
"""How much longer the reloader waits than it scans, so that a large folder costs a tenth of a core."""


class Reloader(BaseReload):
    """uvicorn's supervisor for one server process, with scans that miss nothing."""

    def __init__(
        self,
        config: Config,
        target: Callable[[list[socket] | None], None],
        sockets: list[socket],
    ) -> None:
        super().__init__(config, target, sockets)
        self.reloader_name: str = "Hubbub"
        self._last: Snapshot = {}
        self._scan_s = 0.0

    def startup(self) -> None:
        """Scan, then start the server's process."""
        self._last = self._scan()
        super().startup()

    def pause(self) -> None:
        """Wait for the next scan. Raises `StopIteration` at the end."""
        if self.should_exit.wait(max(self.config.reload_delay, _PAUSE_PER_SCAN * self._scan_s)):
            raise StopIteration

    def should_restart(self) -> list[Path] | None:
        """Return which files have changed, come or gone since the last scan; None: none of them."""
        self.pause()
        before, self._last = self._last, self._scan()
        return [Path(name) for name in changed(before, self._last)] or None

    def _scan(self) -> Snapshot:
        begin = time.monotonic()
        seen = snapshot(self.config.reload_dirs)
        self._scan_s = time.monotonic() - begin
        return seen


def changed(before: Snapshot, now: Snapshot) -> list[str]:
    """Return the files that differ between two scans, in the order of their names."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def snapshot(folders: Iterable[Path]) -> Snapshot:
    """Return the state of all Python files in `folders` and below.

    Hidden folders, virtual environments, `__pycache__` and `node_modules` are left out.
    """
    found: Snapshot = {}
    waiting = [str(folder) for folder in folders]
    while waiting:
        for entry in _entries(waiting.pop()):
            try:
                if entry.is_dir(follow_symlinks=False):
                    if _is_source(entry):
                        waiting.append(entry.path)
                elif entry.name.endswith(".py"):
                    state = entry.stat()
                    found[entry.path] = (state.st_mtime_ns, state.st_size, state.st_ino)
            except OSError:
                continue  # it has gone since
    return found


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return  # it has gone, or may not be read


def _is_source(folder: os.DirEntry[str]) -> bool:
    if folder.name.startswith(".") or folder.name in _SKIPPED:
        return False
    return not os.path.exists(os.path.join(folder.path, "pyvenv.cfg"))
