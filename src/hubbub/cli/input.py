"""Where the lines come from that `hubbub connect` sends: a pipe, a file, or no input at all.

What must not live here: the prompt (`screen`) and the connection (`connect`). Input is read
in a thread of its own, since neither terminals nor files can be awaited, and never faster than the
lines are taken: one piece of the input and one line are all that is ahead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Protocol

import click

_READ_BYTES = 65_536
MAX_LINE_BYTES: int = 64 * 1024**2


class Source(Protocol):
    """Gives lines; all of it may be read from another thread.

    `accepted` is how many lines have been taken from the input, those included that `read` has not
    returned yet. `is_ended`: nothing more will come. `first_repaired`: the number of the first line
    that was not UTF-8 (None: all were).
    """

    accepted: int
    is_ended: bool
    first_repaired: int | None

    def read(self) -> str | None:
        """Return the next line, or None at the end of the input. Waits. May raise OSError."""


class FileSource:
    """The lines of a file descriptor, read as UTF-8.

    Not through `sys.stdin`: a thread that waits inside its buffer holds a lock that the
    interpreter wants at its end. A line longer than `max_line_bytes` raises ValueError.
    """

    def __init__(self, descriptor: int, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.accepted: int = 0
        self.is_ended: bool = False
        self.first_repaired: int | None = None
        self._descriptor = descriptor
        self._max_line_bytes = max_line_bytes
        self._lines: deque[bytes] = deque()
        self._rest: list[bytes] = []
        self._rest_bytes = 0

    def read(self) -> str | None:
        """Return the next line without its end, or None when there is none."""
        while not self._lines:
            if self.is_ended:
                return None
            self._split(self._read_piece())
        line = self._lines.popleft().removesuffix(b"\r")
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.first_repaired = self.first_repaired or self.accepted - len(self._lines)
            return line.decode("utf-8", "replace")

    def _read_piece(self) -> bytes:
        while True:
            try:
                return os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:  # somebody who shares the descriptor has set O_NONBLOCK
                select.select([self._descriptor], [], [])

    def _split(self, piece: bytes) -> None:
        first, *others = piece.split(b"\n")
        self._rest.append(first)
        self._rest_bytes += len(first)
        if self._rest_bytes > self._max_line_bytes:
            number = self.accepted + 1
            raise ValueError(f"line {number} is longer than {self._max_line_bytes} bytes")
        if not piece:
            self.is_ended = True
        if others or (self.is_ended and self._rest_bytes):
            lines = [b"".join(self._rest), *others]
            self._rest = [lines.pop()] if others else []
            self._rest_bytes = sum(map(len, self._rest))
            # Counted before any of them can be taken: who counts must never be behind.
            self.accepted += len(lines)
            self._lines.extend(lines)


def standard_input() -> Source:
    """Return stdin as a source; one that is closed (`<&-`) has nothing, as /dev/null has nothing."""
    if sys.stdin is None:
        return FileSource(os.open(os.devnull, os.O_RDONLY))
    return FileSource(sys.stdin.fileno())


async def lines_of(source: Source) -> AsyncIterator[str]:
    """Yield the lines that the source reads in a thread of its own, one ahead at most.

    Raises what `read` raised.
    """
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | Exception | None] = asyncio.Queue()
    slot = threading.Semaphore(1)

    def run() -> None:
        line: str | Exception | None = ""
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody listens
            while isinstance(line, str):
                slot.acquire()
                line = _read(source)
                loop.call_soon_threadsafe(lines.put_nowait, line)

    # A daemon, since nothing can end a read of a terminal that nobody types at.
    threading.Thread(target=run, name="hubbub.input", daemon=True).start()
    while (line := await lines.get()) is not None:
        if isinstance(line, Exception):
            raise line
        slot.release()
        yield line


def _read(source: Source) -> str | Exception | None:
    try:
        return source.read()
    except Exception as error:
        return error


@contextlib.contextmanager
def terminal_kept(leave: Callable[[], None]) -> Iterator[None]:
    """Give the terminal back as it was: a thread may be left in the middle of reading it.

    `leave` is called before, to see to it that no such thread takes the terminal afterwards.
    """
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        yield
    finally:
        try:
            leave()
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
            click.echo()
