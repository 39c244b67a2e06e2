"""Scenario: half-open connections, whose clients are gone without a FIN.

What must not live here: how a scenario is run and checked (`scenario.py`). Needs Linux, root and
`ip` of iproute2: the clients live in a network namespace whose end of the cable is pulled.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .raw_client import OPEN_S, request
from .scenario import Outcome, Scale, scenario

_CLONE_NEWNET = 0x40000000


class Cable:
    """A virtual cable; its far end is in a namespace of its own."""

    def __init__(self) -> None:
        number = os.getpid() % 10_000
        self.namespace = f"hubbub-{number}"
        self.near, self.far = f"hbn{number}", f"hbf{number}"
        net = f"10.{200 + number // 250}.{number % 250}"
        self.host, self.far_host = f"{net}.1", f"{net}.2"

    def lay(self) -> None:
        """Make the namespace and the cable. Raises `RuntimeError` saying what is needed."""
        if shutil.which("ip") is None or os.geteuid() != 0:
            raise RuntimeError(
                "half-open connections need root, and `ip`: install iproute2, run as root"
            )
        for command in (
            f"netns add {self.namespace}",
            f"link add {self.near} type veth peer name {self.far} netns {self.namespace}",
            f"addr add {self.host}/30 dev {self.near}",
            f"link set {self.near} up",
            f"-n {self.namespace} addr add {self.far_host}/30 dev {self.far}",
            f"-n {self.namespace} link set {self.far} up",
        ):
            _ip(command)

    def pull(self) -> None:
        """From now on every packet is lost, and nobody is told."""
        _ip(f"-n {self.namespace} link set {self.far} down")

    def remove(self) -> None:
        """Take both away."""
        subprocess.run(["ip", "netns", "del", self.namespace], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self.near], check=False, capture_output=True)


def _ip(command: str) -> None:
    done = subprocess.run(["ip", *command.split()], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {command}: {done.stderr.strip()} (a kernel with veth is needed)")


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Let this thread make its sockets in `namespace`."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        _enter(libc, there)
        yield
    finally:
        _enter(libc, home)
        os.close(home)
        os.close(there)


def _enter(libc: ctypes.CDLL, descriptor: int) -> None:
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _sockets(namespace: str, count: int) -> list[socket.socket]:
    with inside(namespace):
        return [socket.socket() for _ in range(count)]


async def gone_without_fin(scale: Scale) -> Outcome:
    """Clients are there, and then every packet from and to them is lost."""
    count = scale.pick(50, 1000)
    ping_s, pong_s = scale.pick(1.0, 5.0), scale.pick(3.0, 10.0)
    cable = Cable()
    sockets: list[socket.socket] = []
    try:
        cable.lay()
        async with scenario(
            "half-open: the peer is gone without a FIN",
            f"{count} clients, half of them in the control room; pong timeout {pong_s:g} s",
            moves=["dead"],
            host=cable.host,
            settings={"ping_interval_s": ping_s, "pong_timeout_s": pong_s},
        ) as harness:
            sockets += await asyncio.to_thread(_sockets, cable.namespace, count)
            for number, sock in enumerate(sockets):
                path = "/ws?room=control" if number % 2 else "/ws"
                await _shake(sock, cable.host, harness.port, path)
            cable.pull()
            pulled = time.monotonic()
            controls = len(harness.control_clients)
            await harness.server.until(
                lambda facts: facts["stats"]["clients"] == controls, "the dead to be found"
            )
            harness.outcome.found["s until all were found"] = round(time.monotonic() - pulled, 1)
            stats = await harness.server.stats()
            harness.outcome.expect(stats["dead"] == count, f"{stats['dead']} were found dead")
            return harness.outcome
    finally:
        for sock in sockets:
            sock.close()
        cable.remove()


async def _shake(sock: socket.socket, host: str, port: int, path: str) -> None:
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    async with asyncio.timeout(OPEN_S):
        await loop.sock_connect(sock, (host, port))
        await loop.sock_sendall(sock, request(host, port, path))
        answer = await loop.sock_recv(sock, 4096)
    if not answer.startswith(b"HTTP/1.1 101 "):
        raise RuntimeError(f"the handshake was answered {answer[:40]!r}")
