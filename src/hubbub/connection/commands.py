"""Commands of a client program: each has a number, waits for its answer, and ends once.

What must not live here: what they say (`protocol`), and who asks (`room_connection`, `room_state`).

What the program asks for while there is no connection waits for one. What the connection asks for by
itself (to connect, to be in its rooms) belongs to one connection, and ends with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import CommandFailed
from . import protocol

TIMEOUT, LOST, CLOSED, TOO_MANY = 1, 2, 3, 4
"""The client's own codes of a command that failed."""

FRAME_BYTES = 60 * 1024
"""How large a message of several commands may be: a server takes 64 KiB."""

Done = Callable[[CommandFailed | None, Any], None]
"""Called once: with what it failed with, or with None and the answer."""


class _Asked:
    __slots__ = ("done", "is_first", "is_own", "line", "method", "sent", "timer")

    def __init__(
        self, method: str, line: bytes, done: Done, timer: asyncio.TimerHandle, is_own: bool
    ) -> None:
        self.method: str = method
        self.line: bytes = line
        self.done: Done = done
        self.timer: asyncio.TimerHandle = timer
        self.is_own: bool = is_own
        """Whether the connection asks by itself."""
        self.is_first: bool = False
        """Whether it goes out before the server has said that the connection is open."""
        self.sent: bool = False


class Commands:
    """Those that are not answered yet. `wake` is called when there may be something to send."""

    def __init__(self, timeout_s: float, max_waiting: int, wake: Callable[[], None]) -> None:
        self.is_open: bool = False
        """Whether the server takes commands, others than those that go first."""
        self._timeout_s = timeout_s
        self._max_waiting = max_waiting
        self._wake = wake
        self._last_number = 0
        self._asked: dict[int, _Asked] = {}
        self._unsent: deque[int] = deque()
        self._first: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._asked)

    @property
    def waiting(self) -> int:
        """How many commands of the program are not sent yet."""
        return sum(not each.sent and not each.is_own for each in self._asked.values())

    def ask(
        self, method: str, params: Mapping[str, Any], done: Done, *, is_first: bool = False
    ) -> int:
        """Ask for something on the connection's own behalf; return the number of the command."""
        return self._ask(method, params, done, is_own=True, is_first=is_first)

    async def answer(self, method: str, params: Mapping[str, Any]) -> Any:
        """Ask for something for the program, and return the answer. Raises `CommandFailed`.

        Cancelled before it is sent, it is not sent.
        """
        if not self.is_open and self.waiting >= self._max_waiting:
            raise CommandFailed(TOO_MANY, "too many commands wait for a connection", temporary=True)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(error: CommandFailed | None, answer: Any) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)

        number = self._ask(method, params, done, is_own=False, is_first=False)
        try:
            return await future
        finally:
            self._remove(number)

    def _ask(
        self, method: str, params: Mapping[str, Any], done: Done, *, is_own: bool, is_first: bool
    ) -> int:
        number = self._last_number + 1
        line = protocol.write(number, method, params)
        self._last_number = number
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._timeout_s, self._timed_out, number)
        asked = self._asked[number] = _Asked(method, line, done, timer, is_own)
        asked.is_first = is_first
        (self._first if is_first else self._unsent).append(number)
        self._wake()
        return number

    def frame(self) -> bytes:
        """Return the next commands that may be sent, in one message; nothing if there are none."""
        lines: list[bytes] = []
        size = 0
        for queue in (self._first, self._unsent) if self.is_open else (self._first,):
            while queue:
                asked = self._asked[queue[0]]
                if lines and size + len(asked.line) > FRAME_BYTES:
                    return b"\n".join(lines)
                queue.popleft()
                size += len(asked.line) + 1
                lines.append(asked.line)
                asked.sent, asked.line = True, b""
        return b"\n".join(lines)

    def settle(self, reply: protocol.Reply) -> None:
        """End a command with its answer; one that nobody waits for any more is passed over."""
        asked = self._asked.get(reply.id)
        if asked is None:
            return
        if reply.error is not None:
            code, message = reply.error.code, reply.error.message
            error = CommandFailed(code, message, temporary=reply.error.temporary)
            self._end(reply.id, error, None)
            return
        answer = getattr(reply, asked.method)
        if answer is None:
            raise protocol.violation(f"the answer to {asked.method} has no {asked.method}")
        self._end(reply.id, None, answer)

    def lose(self) -> None:
        """End what was sent, and what was meant for this connection alone."""
        self.is_open = False
        for number, asked in list(self._asked.items()):
            if asked.sent or asked.is_own:
                text = "the connection was lost before the answer"
                self._end(number, CommandFailed(LOST, text, temporary=True, is_uncertain=True))

    def close(self) -> None:
        """End all: there is no connection any more."""
        self.is_open = False
        for number, asked in list(self._asked.items()):
            self._end(number, CommandFailed(CLOSED, "closed for good", is_uncertain=asked.sent))

    def _timed_out(self, number: int) -> None:
        text, sent = "no answer in time", self._asked[number].sent
        self._end(number, CommandFailed(TIMEOUT, text, temporary=True, is_uncertain=sent))

    def _end(self, number: int, error: CommandFailed | None, answer: Any = None) -> None:
        asked = self._remove(number)
        if asked is not None:
            asked.done(error, answer)

    def _remove(self, number: int) -> _Asked | None:
        asked = self._asked.pop(number, None)
        if asked is not None:
            asked.timer.cancel()
            if not asked.sent:
                (self._first if asked.is_first else self._unsent).remove(number)
        return asked
