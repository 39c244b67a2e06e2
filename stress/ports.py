"""Ports of 127.0.0.1: a free one, and waiting until a server of ours listens on one.

What must not live here: how the servers are started. The tests use it too.
"""

from __future__ import annotations

import socket
import subprocess
import time


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
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
