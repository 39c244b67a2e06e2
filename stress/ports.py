"""Ports of 127.0.0.1: a free one, and waiting until a server of ours listens on one.

What must not live here: how the servers are started. The tests and the benchmarks use it too.
"""

from __future__ import annotations

import random
import socket
import subprocess
import time

_PORTS = range(15_000, 30_000)
"""Below those that a kernel gives to whoever asks for any: a server that is killed finds its own again."""


def free_port() -> int:
    """Return a port that nobody has now."""
    while True:
        port = random.choice(_PORTS)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port


def wait_until_it_listens(process: subprocess.Popen[bytes], port: int, within_s: float) -> None:
    """Wait until the server takes connections.

    Raises `RuntimeError` when it ends before that, or when the time is over; it is killed then.
    """
    deadline = time.monotonic() + within_s
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    process.kill()
    process.wait()
    raise RuntimeError("the server did not start")
