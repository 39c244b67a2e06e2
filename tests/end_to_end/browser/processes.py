"""Servers as processes of their own, so that they can be killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from stress.ports import free_port, wait_until_it_listens

START_S = 20.0
"""How long a server may take until it accepts connections."""


class ServerProcess:
    """`uvicorn TARGET --ws hubbub:Protocol` on one port, as often as it is started.

    `folder` is where the module of the target is looked for; `log` the file for what it writes.
    """

    def __init__(self, target: str, log: Path, folder: Path | None = None) -> None:
        self.target = target
        self.folder = folder or Path.cwd()
        self.log = log
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's address, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until connections are accepted."""
        options = ["--ws", "hubbub:Protocol", "--host", "127.0.0.1", "--port", str(self.port)]
        command = [sys.executable, "-m", "uvicorn", self.target, *options]
        environment = {key: value for key, value in os.environ.items() if key[:7] != "HUBBUB_"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            wait_until_it_listens(self._process, self.port, START_S)
        except RuntimeError as error:
            self._process = None
            raise AssertionError(f"{self.target}: {error}:\n{self.log.read_text()}") from None

    def kill(self) -> None:
        """End at once, without closing (SIGKILL)."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End as by Ctrl-C in a terminal (SIGINT), or kill what does not."""
        try:
            self._end(signal.SIGINT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def _end(self, sign: signal.Signals) -> None:
        process = self._process
        if process is not None:
            process.send_signal(sign)
            process.wait(timeout=15)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
