"""The guard of a local server, run as its users run it."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from brokers.local_folder import PATIENCE_S, is_gone, until
from hubbub.brokers import local_guard
from hubbub.brokers.local_guard import GUARD, PROCESS, SOCKET, USERS


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, as sockets need."""
    with tempfile.TemporaryDirectory(prefix="hub-", dir="/tmp") as path:
        yield Path(path)


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", local_guard.__file__, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def is_answering(folder: Path) -> bool:
    """Tell whether the server in a folder answers."""
    with redis.Redis(unix_socket_path=str(folder / SOCKET)) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def test_without_users_it_ends_at_once(folder: Path) -> None:
    guard = start(folder)
    guard.communicate(timeout=PATIENCE_S)
    assert guard.returncode == 0
    assert not (folder / SOCKET).exists()


def test_of_two_one_stays(folder: Path) -> None:
    with (folder / USERS).open("w") as users, (folder / GUARD).open("w") as lock:
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(lock, fcntl.LOCK_EX)
        guard = start(folder)
        guard.communicate(timeout=PATIENCE_S)
        assert guard.returncode == 0
        assert not (folder / SOCKET).exists()


@pytest.mark.parametrize("is_there_again", [False, True])
def test_a_folder_that_is_removed_ends_it_and_its_server(
    folder: Path, is_there_again: bool
) -> None:
    place = folder / "place"
    place.mkdir(0o700)
    with (place / USERS).open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        guard = start(place)
        until(lambda: is_answering(place))
        server = int((place / PROCESS).read_text())
        time.sleep(0.3)  # the guard too has seen that it answers; else it waits for that in vain
        shutil.move(place, folder / "away")
        if is_there_again:
            place.mkdir(0o700)
            (place / SOCKET).touch()
        shutil.rmtree(folder / "away")
        guard.communicate(timeout=PATIENCE_S)
        assert guard.returncode == 0
        assert is_gone(server)
        assert (place / SOCKET).exists() == is_there_again, "what is there now is another's"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_and_its_server(folder: Path, number: int) -> None:
    with (folder / USERS).open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        guard = start(folder)
        while not (folder / SOCKET).exists():
            assert guard.poll() is None
            os.sched_yield()
        guard.send_signal(number)
        guard.communicate(timeout=PATIENCE_S)
        assert guard.returncode == 0
        assert not (folder / SOCKET).exists()
