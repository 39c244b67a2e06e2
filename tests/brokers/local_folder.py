"""Folders for local servers in tests, and what is asked of the servers in them."""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from hubbub.brokers.local_guard import GUARD
from hubbub.brokers.local_server import LocalServer

PATIENCE_S = 30.0


@pytest.fixture
def short_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files with a short path, as sockets need."""
    with tempfile.TemporaryDirectory(prefix="hub-", dir="/tmp") as path:
        monkeypatch.setenv("TMPDIR", path)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(path)
        until(lambda: all(is_unlocked(lock) for lock in Path(path).rglob(GUARD)))


def is_unlocked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.02)


def ask(server: LocalServer) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(server.socket), socket_timeout=PATIENCE_S)


def process_of(server: LocalServer) -> int | None:
    with contextlib.suppress(redis.RedisError), ask(server) as client:
        return int(client.info("server")["process_id"])
    return None


def guard_of(server: LocalServer) -> int:
    """Return the process that has started the server."""
    parent = Path(f"/proc/{process_of(server)}/stat").read_text().rpartition(")")[2].split()[1]
    return int(parent)


def is_gone(process: int) -> bool:
    """Tell whether a process has ended with all its threads: until then it may hold a lock."""
    place = Path(f"/proc/{process}")
    try:
        state = (place / "stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z" and len(list((place / "task").iterdir())) == 1
    except (FileNotFoundError, ProcessLookupError):  # gone before, or while it is read
        return True
