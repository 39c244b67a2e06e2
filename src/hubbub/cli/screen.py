"""What `hubbub connect` shows: plain lines, JSON lines, or lines above a prompt.

What must not live here: the connection and what is sent (`connect`). Nothing from the other side
reaches the output as it came: what a terminal would obey becomes an escape, and a message is one
line, so no message looks like a line of the program.
"""

from __future__ import annotations

import asyncio
import base64
import codecs
import contextlib
import errno
import json
import os
import re
import select
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, Protocol, TextIO

from ..model import Close

PROMPT = "> "
MAX_REASON_CHARACTERS = 500
_PIECE_BYTES = 4096
"""What a pipe that can be written to takes without blocking (PIPE_BUF of Linux)."""
_POLL_INTERVAL_S = 0.5
_HAS_POLL = hasattr(select, "poll")  # Windows has none: a reader that takes nothing is waited for
_WRITABLE = select.POLLOUT if _HAS_POLL else 1
_GONE = select.POLLERR | select.POLLHUP if _HAS_POLL else 0
_SHOWN_BYTES = 64
_TAKE_S = 1.0
"""How long to wait for a prompt that is about to be shown; Ctrl-S can hold it up for ever."""

_OBEYED = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0, DEL, C1: what terminals obey, line ends and tabs included
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # what turns the direction of text
    "\u2028\u2029\ufff9-\ufffb"  # line and paragraph separators, annotations
    "\ud800-\udfff"  # half a surrogate pair, which UTF-8 cannot carry
    "]"
)


def as_text(text: str) -> str:
    """Return `text` as one line that no terminal obeys: `\\n`, `\\x1b`, `\\u202e` and so on."""
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)


def as_line(message: str | bytes) -> str:
    """Return a message as one line; of a binary one, how long it is and how it begins."""
    if isinstance(message, str):
        return as_text(message)
    more = " …" if len(message) > _SHOWN_BYTES else ""
    return f"({len(message)} bytes) {message[:_SHOWN_BYTES].hex(' ')}{more}"


def as_json(value: Any, encoding: str) -> str:
    """Return JSON in one line that no terminal obeys, all of it in characters of `encoding`."""
    line = json.dumps(value, ensure_ascii=False)
    line = _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", line)
    try:
        line.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value)
    return line


def as_reason(reason: str) -> str:
    """Return the reason that the other side gave as text of a bounded length."""
    cut = reason[:MAX_REASON_CHARACTERS] + ("…" if len(reason) > MAX_REASON_CHARACTERS else "")
    return as_text(cut)


def not_sent_line(lines: int, uncertain: int) -> str:
    """Say how many of the lines given up were not sent, and how many may have arrived all the same."""
    unsent = lines - uncertain
    parts = [f"{_lines(unsent)} {'was' if unsent == 1 else 'were'} not sent"] if unsent else []
    if uncertain:
        count = f"{uncertain} more" if unsent else _lines(uncertain)
        parts.append(f"{count} may not have arrived")
    return ", and ".join(parts)


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count} lines"


# Output.


class Output:
    """Where lines go: stdout or stderr, whatever its encoding, or nowhere when it is closed.

    `error` is why it takes no more (None: it does); what is printed after that goes nowhere.
    `is_stopping` is asked while whoever reads the output takes nothing: True gives the line up.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.encoding: str = (stream and stream.encoding) or "utf-8"
        self.is_terminal: bool = stream is not None and stream.isatty()
        self.error: OSError | None = None
        self.is_stopping: Callable[[], bool] = lambda: False
        # Past the buffer: what it held could not be given up, and would be tried again at the exit.
        self._stream = stream  # kept, since it closes what is under it when it goes
        buffer = stream and stream.buffer
        self._raw: Any = getattr(buffer, "raw", buffer)
        self._ready = select.poll() if _HAS_POLL else None
        self._descriptor = _descriptor_of(self._raw) if _HAS_POLL else None
        self._encoder = codecs.getincrementalencoder(self.encoding)("backslashreplace")

    def print(self, text: str, end: str = "\n") -> None:
        """Write `text`. Waits while the reader takes nothing. Never raises."""
        if self._raw is None or self.error is not None:
            return
        rest = memoryview(self._encoder.encode((text + end).replace("\n", os.linesep)))
        try:
            while rest and self._is_ready():
                rest = rest[self._raw.write(rest[:_PIECE_BYTES]) or 0 :]
        except OSError as error:
            self.error = error

    def _is_ready(self) -> bool:
        while not self._poll(_WRITABLE, 100):
            if self.is_stopping():
                self.error = BrokenPipeError(errno.EPIPE, "nobody reads")
                return False
        return True

    def _poll(self, events: int, timeout_ms: int) -> int:
        if self._ready is None or self._descriptor is None:
            return events
        self._ready.register(self._descriptor, events)
        found = self._ready.poll(timeout_ms)
        return found[0][1] if found else 0

    async def until_it_fails(self) -> None:
        """Wait until nothing can be written any more; a reader that has gone is noticed by itself."""
        while self.error is None:
            if not self.is_terminal and self._poll(0, 0) & _GONE:
                self.error = BrokenPipeError(errno.EPIPE, "the reader has gone")
            else:
                await asyncio.sleep(_POLL_INTERVAL_S)


def _descriptor_of(raw: Any) -> int | None:
    try:
        return None if raw is None else int(raw.fileno())
    except OSError:  # a stream in memory
        return None


# Screens.


class Screen(Protocol):
    """Shows what happens on the connection."""

    def opened(self, subprotocol: str | None) -> None:
        """The connection is open."""

    def received(self, message: str | bytes) -> None:
        """A message came."""

    def closed(self, close: Close, retry_in_s: float | None) -> None:
        """The connection ended; `retry_in_s` is None when it does not come back."""

    def noted(self, text: str) -> None:
        """There is something to know about the input."""

    def not_sent(self, lines: int, uncertain: int, *, is_over: bool) -> None:
        """So many lines are given up, of which the `uncertain` ones may have arrived all the same.

        When it is over an error says how many they are in all.
        """


class PlainScreen:
    """One line for each message on stdout; what the program says, on stderr behind an asterisk.

    On a terminal, where both are mixed, messages stand behind `< `.
    """

    def __init__(self, out: Output, err: Output) -> None:
        self._out = out
        self._err = err
        self._mark = "< " if out.is_terminal else ""
        self._was_lost = False

    def opened(self, subprotocol: str | None) -> None:
        """Say so when the connection is back."""
        if self._was_lost:
            self.noted("connected again")

    def received(self, message: str | bytes) -> None:
        """Print a message."""
        self._out.print(f"{self._mark}{as_line(message)}")

    def closed(self, close: Close, retry_in_s: float | None) -> None:
        """Say so when the connection is lost."""
        self._was_lost = True
        if retry_in_s is not None:
            self.noted(lost_line(close, retry_in_s))

    def noted(self, text: str) -> None:
        """Say it on stderr."""
        self._err.print(status(text, self._err))

    def not_sent(self, lines: int, uncertain: int, *, is_over: bool) -> None:
        """Say how many lines are given up, unless the error at the end is about to."""
        if not is_over:
            self.noted(not_sent_line(lines, uncertain))


class JsonScreen:
    """One JSON object for each event on stdout, with its time."""

    def __init__(self, out: Output, err: Output) -> None:
        self._out = out
        self._err = err

    def opened(self, subprotocol: str | None) -> None:
        """Print an open event."""
        self._print("open", subprotocol=subprotocol)

    def received(self, message: str | bytes) -> None:
        """Print a message event; binary data is Base64."""
        if isinstance(message, str):
            self._print("message", kind="text", data=message)
        else:
            self._print("message", kind="binary", data=base64.b64encode(message).decode())

    def closed(self, close: Close, retry_in_s: float | None) -> None:
        """Print a close event."""
        reason, by_server = close.reason, close.by_server
        retry = None if retry_in_s is None else round(retry_in_s, 3)
        self._print("close", code=close.code, reason=reason, by_server=by_server, retry_in_s=retry)

    def noted(self, text: str) -> None:
        """Say it on stderr."""
        self._err.print(status(text, self._err))

    def not_sent(self, lines: int, uncertain: int, *, is_over: bool) -> None:
        """Print a not_sent event."""
        self._print("not_sent", lines=lines, uncertain=uncertain)

    def _print(self, event: str, **fields: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._out.print(as_json({"event": event, "time": now, **fields}, self._out.encoding))


class PromptScreen:
    """Lines above a prompt: the line being typed is drawn again after each of them.

    It is the source of the lines, too: `accepted` counts those that were typed, `is_ended` says
    that there will be no more.

    A prompt takes the terminal: readline sets it so that it gets each key, and sets it back when
    the line is typed. Whoever wants to have the terminal back calls `leave` first.
    """

    def __init__(self, out: Output) -> None:
        self.accepted: int = 0
        self.is_ended: bool = False
        self.first_repaired: int | None = None
        self._out = out
        self._is_prompting = False
        self._is_left = False
        self._is_taking = False
        self._taking = threading.Lock()
        """Held while the terminal is being taken, until the prompt is on the screen."""
        self._readline: ModuleType | None = None
        with contextlib.suppress(ImportError):
            import readline

            self._readline = readline
            readline.set_auto_history(True)

    def opened(self, subprotocol: str | None) -> None:
        """Say that one can type."""
        chosen = f", subprotocol {as_text(subprotocol)}" if subprotocol else ""
        self.noted(f"connected{chosen}; Ctrl-D ends it")

    def received(self, message: str | bytes) -> None:
        """Print a message above the prompt."""
        self._print(f"< {as_line(message)}")

    def closed(self, close: Close, retry_in_s: float | None) -> None:
        """Say why the connection ended."""
        if retry_in_s is not None:
            self.noted(lost_line(close, retry_in_s))

    def noted(self, text: str) -> None:
        """Say it above the prompt."""
        self._print(status(text, self._out))

    def not_sent(self, lines: int, uncertain: int, *, is_over: bool) -> None:
        """Say how many lines are given up, unless the error at the end is about to."""
        if not is_over:
            self.noted(not_sent_line(lines, uncertain))

    def read(self) -> str | None:
        """Return the next line that is typed; empty ones are skipped. Runs in its own thread."""
        while self._begin():
            try:
                line = input(PROMPT)
            except EOFError:
                self.is_ended = True
                return None
            finally:
                self._taken()
                self._is_prompting = False
            if line:
                self.accepted += 1
                return line
        return None

    def leave(self) -> None:
        """Show no prompt any more. Waits for one that is about to be shown, but not for a line."""
        self._is_left = True
        if self._taking.acquire(timeout=_TAKE_S):
            self._taking.release()

    def _begin(self) -> bool:
        """Be about to show a prompt, if there may be one."""
        self._taking.acquire()
        self._is_taking = True
        if self._is_left:
            self._taken()
            return False
        hook = getattr(self._readline, "set_pre_input_hook", None)
        if hook is None:
            self._prompted()
        else:
            hook(self._prompted)  # called when the prompt is on the screen
            if "libedit" in (getattr(self._readline, "__doc__", None) or ""):
                self._taken()  # it may never call the hook
        return True

    def _prompted(self) -> None:
        self._is_prompting = True
        self._taken()

    def _taken(self) -> None:
        if self._is_taking:
            self._is_taking = False
            self._taking.release()

    def _print(self, line: str) -> None:
        # While a prompt is about to be shown it is on the screen before that is known here: a line
        # would stand behind it, and no prompt below.
        is_held = self._taking.acquire(timeout=_TAKE_S)
        try:
            self._print_now(line)
        finally:
            if is_held:
                self._taking.release()

    def _print_now(self, line: str) -> None:
        if not self._is_prompting:
            self._out.print(line)
            return
        typed = self._readline.get_line_buffer() if self._readline else ""
        self._out.print(f"\r\x1b[K{line}\n{PROMPT}{typed}", end="")


def status(text: str, output: Output) -> str:
    """Return a line of the program's own.

    On a terminal it is bold, which no message can be: a long message goes on in the next row of
    the screen, and could put an asterisk there.
    """
    plain = not output.is_terminal or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return f"* {text}" if plain else f"\x1b[1m* {text}\x1b[0m"


def lost_line(close: Close, retry_in_s: float) -> str:
    """Say in one line that the connection is lost and when it is tried again."""
    what = f"{close.code} {as_reason(close.reason)}".strip()
    return f"connection lost ({what}); again in {retry_in_s:.1f} s"


def accept_any_bytes(stream: TextIO) -> None:
    """Let what is typed be read even where it is not of the terminal's encoding."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")


def standard_output() -> tuple[Output, Output]:
    """Return stdout and stderr; either may be closed, and what goes there is nowhere then."""
    return Output(sys.stdout), Output(sys.stderr)
