"""Machines for tests: network namespaces with addresses of their own, or separate addresses of the loopback interface.

Namespaces need root and Linux; where they cannot be made, every machine is an address 127.x.y.z of this one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from commands import Command

_numbers = itertools.count(1)
_PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"


class Machine:
    """A machine, and what is typed on it. `address` is what the test has for the page's `shown`."""

    def __init__(self, name: str, shown: str, address: str, namespace: str | None) -> None:
        self.name: str = name
        self.shown: str = shown
        self.address: str = address
        self._namespace = namespace

    def run(self, line: str, folder: Path, environment: Mapping[str, str]) -> Command:
        """Begin to run a line in a shell of this machine."""
        inside = ("ip", "netns", "exec", self._namespace) if self._namespace else ()
        env = {"PATH": f"{folder}:{_PATH}", "no_proxy": "*", **environment}
        return Command(f"exec {line}", program=(*inside, "sh", "-c"), cwd=folder, env=env)


@contextmanager
def machines(addresses: Mapping[str, str]) -> Iterator[dict[str, Machine]]:
    """Make machines of these names and addresses, which reach one another and nobody else."""
    number = next(_numbers)
    mark = f"hub{os.getpid()}-{number}"
    with ExitStack() as stack:
        if _can_have_namespaces(mark):
            _connect(mark, addresses, stack)
            yield {
                name: Machine(name, address, address, f"{mark}-{name}")
                for name, address in addresses.items()
            }
        else:
            net = f"127.{os.getpid() % 250 + 1}.{number % 250 + 1}"
            yield {
                name: Machine(name, address, f"{net}.{address.rpartition('.')[2]}", None)
                for name, address in addresses.items()
            }


def _can_have_namespaces(mark: str) -> bool:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip", path=_PATH) is None:
        return False
    if _ip("netns", "add", f"{mark}-switch", check=False) != 0:
        return False
    if _ip("-n", f"{mark}-switch", "link", "add", "switch", "type", "bridge", check=False) == 0:
        return True
    _ip("netns", "delete", f"{mark}-switch")
    return False


def _connect(mark: str, addresses: Mapping[str, str], stack: ExitStack) -> None:
    """Make a namespace for each machine, with an interface that leads to the one of the switch."""
    switch = f"{mark}-switch"
    stack.callback(_ip, "netns", "delete", switch, check=False)
    _ip("-n", switch, "link", "set", "switch", "up")
    for number, (name, address) in enumerate(addresses.items()):
        inside, port = f"{mark}-{name}", f"port{number}"
        _ip("netns", "add", inside)
        stack.callback(_ip, "netns", "delete", inside, check=False)
        pair = ("type", "veth", "peer", "name", "eth0", "netns", inside)
        _ip("-n", switch, "link", "add", port, *pair)
        _ip("-n", switch, "link", "set", port, "master", "switch", "up")
        _ip("-n", inside, "address", "add", f"{address}/24", "dev", "eth0")
        _ip("-n", inside, "link", "set", "eth0", "up")
        _ip("-n", inside, "link", "set", "lo", "up")


def _ip(*arguments: str, check: bool = True) -> int:
    with contextlib.suppress(FileNotFoundError):
        done = subprocess.run(
            ["ip", *arguments], capture_output=True, check=False, env={"PATH": _PATH}
        )
        assert done.returncode == 0 or not check, (arguments, done.stderr)
        return done.returncode
    return 1
