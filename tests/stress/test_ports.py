"""A server is waited for until it listens, and killed when it does not."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from stress.ports import free_port, wait_until_it_listens

LISTENING = """
import socket, sys, time
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    time.sleep(60)
"""


def run(source: str, port: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", source, str(port)])


def test_it_listens_when_the_wait_is_over() -> None:
    port = free_port()
    with run(LISTENING, port) as process:
        wait_until_it_listens(process, port, 20)
        socket.create_connection(("127.0.0.1", port), 1).close()
        process.kill()


@pytest.mark.parametrize("source", ["raise SystemExit", "import time; time.sleep(60)"])
def test_what_does_not_listen_is_ended(source: str) -> None:
    port = free_port()
    with run(source, port) as process:
        with pytest.raises(RuntimeError, match="did not start"):
            wait_until_it_listens(process, port, 0.5)
        assert process.returncode is not None
