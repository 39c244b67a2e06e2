"""Workers: which other processes take connections from an address of this one.

What must not live here: how this process came to be. Servers fork, spawn, inherit sockets or share a
port in many ways; what counts is that several processes listen on one address, since then its
clients are divided among them. Two servers of one shell listen on two addresses and are no workers.

Each process that runs a hub has a file for each address that it listens on, in a folder of its user
below the system's one for temporary files, and holds it locked as long as it serves. Nothing stays
behind that counts: the kernel ends a lock with its process. Where any of this cannot be done
(Windows, no folder to write to) a process sees itself only. `runtime` calls this.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

if sys.platform != "win32":
    import fcntl

logger: logging.Logger = logging.getLogger("hubbub")

MOST_FILES = 512
"""How many open files of this process are looked at, from the lowest on: listeners come first."""
FIRST_LOOK_S = 1.0
LAST_LOOK_S = 30.0
"""A look at the others comes after the first time, then after twice as long, and so on until this."""
SETTLE_LOOKS = 2
"""How many times `FIRST_LOOK_S` those have that are just ending, where a process may not be one of several."""
SCANS = 4
"""At so many looks a process searches for its addresses; servers bind them before or soon after."""


class Listener(NamedTuple):
    """A socket of this process that is bound and has no peer."""

    descriptor: int
    inode: int
    address: str

    def is_open(self) -> bool:
        """Whether the descriptor still belongs to this socket."""
        try:
            return os.fstat(self.descriptor).st_ino == self.inode
        except OSError:
            return False


def listeners() -> Iterator[Listener]:
    """Yield the sockets of this process on which connections come, or soon will."""
    try:
        names = os.listdir("/dev/fd")
    except OSError:
        return
    for descriptor in sorted(int(name) for name in names if name.isdecimal())[:MOST_FILES]:
        try:
            status = os.fstat(descriptor)
            address = _address_of(descriptor) if stat.S_ISSOCK(status.st_mode) else None
        except OSError:
            continue
        if address is not None:
            yield Listener(descriptor, status.st_ino, address)


def _address_of(descriptor: int) -> str | None:
    if socket.getdefaulttimeout() is not None and os.get_blocking(descriptor):
        return None  # a socket object made of it would end that, for whoever owns it
    copy = os.dup(descriptor)
    try:
        sock = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    with sock:
        return _bound_address(sock)


def _bound_address(sock: socket.socket) -> str | None:
    if sock.type != socket.SOCK_STREAM or _has_peer(sock):
        return None
    name = sock.getsockname()
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return f"{sock.family.name} {name[0]} {name[1]}" if name[1] else None
    return f"unix {os.path.abspath(name)}" if name and isinstance(name, str) else None


def _has_peer(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


class Roll:
    """The roll of one process: where it listens, and how many others do.

    `folder` is where the files are (None: the one of this user). Nothing here raises; what cannot
    be done is left undone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.has_warned: bool = False
        """Whether this process has said already that it is one of several."""
        self._folder = folder
        self._owners: set[int] = set()
        self._files: dict[Listener, _HeldFile] = {}
        self._scans_left = 0

    def enter(self, owner: object) -> None:
        """Be on the roll from now on, for `owner`'s sake."""
        self._owners.add(id(owner))
        self._scans_left = SCANS

    def leave(self, owner: object) -> None:
        """Be off the roll, if no other owner wants it. Twice is no error."""
        self._owners.discard(id(owner))
        if not self._owners:
            self.forget()

    def forget(self) -> None:
        """Be off the roll; in a forked process, be not on it by what the parent holds."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._owners.clear()
        self.has_warned = False

    def look(self) -> int:
        """Return how many processes listen where this one does, itself included."""
        if sys.platform == "win32" or not self._owners:
            return 1
        try:
            folder = self._folder or _folder()
            if self._scans_left == SCANS:
                _sweep(folder)
            self._renew(folder)
            counts = [file.count() for file in self._files.values()]
        except OSError as error:
            logger.debug("other workers cannot be seen: %s", error)
            return 1
        return max(counts, default=1)

    def _renew(self, folder: Path) -> None:
        for listener in [one for one in self._files if not one.is_open()]:
            self._files.pop(listener).close()
        if self._scans_left or not self._files:
            self._scans_left = max(0, self._scans_left - 1)
            known = {listener.address for listener in self._files}
            for listener in listeners():
                if listener.address not in known:
                    known.add(listener.address)
                    self._files[listener] = _HeldFile(folder, listener.address)


def _folder() -> Path:
    """Return the folder of this user, made if need be. Raises `OSError` where it is not safe."""
    folder = Path(tempfile.gettempdir()) / f"hubbub-workers-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(f"{folder} is somebody else's")
    return folder


def _sweep(folder: Path) -> None:
    """Remove what dead processes have left, of whatever address."""
    for path in folder.iterdir():
        if not path.name.startswith(_NEW):
            _is_held(path)
        elif path.stat().st_mtime < time.time() - 60:  # it died before it could lock it
            path.unlink(missing_ok=True)


def _network() -> str:
    """Name the network that addresses belong to: each container has its own."""
    try:
        return str(os.stat("/proc/self/ns/net").st_ino)
    except OSError:
        return ""


_NEW = "new."
"""How the name of a file begins that is not locked yet."""


class _HeldFile:
    """A locked file that says: this process listens on that address."""

    def __init__(self, folder: Path, address: str) -> None:
        text = f"{_network()} {address}"
        self._prefix = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._folder = folder
        self._process = os.getpid()
        token = os.urandom(8).hex()
        self._path = folder / f"{self._prefix}.{token}"
        # It gets its name when it is locked: whoever finds it unlocked removes it.
        unnamed = folder / f"{_NEW}{token}"
        self._descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _try_lock(self._descriptor)
            os.write(self._descriptor, f"{self._process} {address}\n".encode())
            unnamed.rename(self._path)
        except OSError:
            os.close(self._descriptor)
            unnamed.unlink(missing_ok=True)
            raise

    def count(self) -> int:
        """Return how many processes hold a file of this address, this one included."""
        os.utime(self._descriptor)  # who tidies up temporary files leaves the young ones
        others = [path for path in self._folder.glob(f"{self._prefix}.*") if path != self._path]
        return 1 + sum(map(_is_held, others))

    def close(self) -> None:
        """Let go of it, and remove it if it is not a parent's."""
        try:
            if os.getpid() == self._process:
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
        except OSError as error:
            logger.debug("a file of the workers cannot be removed: %s", error)


def _try_lock(descriptor: int) -> bool:
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_held(path: Path) -> bool:
    """Whether a living process holds the file; remove what a dead one has left."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        if not _try_lock(descriptor):
            return True
        path.unlink(missing_ok=True)
        return False
    finally:
        os.close(descriptor)


class WorkerWatch:
    """Looks again and again how many workers there are, and tells when they are several.

    `tell(count)` is called once per process, when so many `looks` in a row have seen others: a process
    that is just ending, while its successor starts, is none.
    """

    def __init__(self, roll: Roll, tell: Callable[[int], None], looks: int = 2) -> None:
        self.seen: int = 1
        """How many processes the last look has seen, this one included."""
        self._roll = roll
        self._tell, self._looks = tell, looks
        self._in_a_row = 0
        self._timer: asyncio.TimerHandle | None = None
        self._pause_s = FIRST_LOOK_S

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look now, and then after ever longer pauses."""
        self._roll.enter(self)
        self._look(loop)

    async def settled(self) -> int:
        """Be one of them from now on; return how many there are, when those that are just ending have ended."""
        self._roll.enter(self)
        late = time.monotonic() + SETTLE_LOOKS * FIRST_LOOK_S
        while (count := self._roll.look()) > 1 and time.monotonic() < late:
            await asyncio.sleep(FIRST_LOOK_S / 4)
        return count

    def stop(self) -> None:
        """Look no more, and be no worker to others. Twice is no error."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._roll.leave(self)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        before, self.seen = self.seen, self._roll.look()
        if self.seen != before:
            self._pause_s = FIRST_LOOK_S
        self._timer = loop.call_later(self._pause_s, self._look, loop)
        self._pause_s = min(2 * self._pause_s, LAST_LOOK_S)
        self._in_a_row = self._in_a_row + 1 if self.seen > 1 else 0
        if self._in_a_row >= self._looks and not self._roll.has_warned:
            self._roll.has_warned = True
            self._tell(self.seen)


roll: Roll = Roll()
"""The roll of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=roll.forget)
