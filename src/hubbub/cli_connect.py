"""`hubbub connect`: talk to a WebSocket server from a terminal or a pipe.

What must not live here: reconnecting and the rules for it (`connect`). Three `Screen`s show what
happens: a terminal with a prompt, plain lines, JSON lines. Input is read in a thread, because
neither terminals nor files can be awaited.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import json
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, Protocol
from urllib.parse import urlsplit

import click

from .connect import Connection, State
from .connect import connect as make_connection
from .errors import NORMAL, Disconnected
from .model import Close

PROMPT = "> "
MAX_MESSAGE_BYTES = 64 * 1024**2
_READ_BYTES = 65_536
_NORMAL_ENDS = (1000, 1001, 1005)
"""Codes with which a connection that does not come back has ended well."""

Read = Callable[[], str | None]
"""Return the next line, or None at the end of the input."""


class Screen(Protocol):
    """Shows what happens on the connection."""

    def opened(self, subprotocol: str | None) -> None:
        """The connection is open."""

    def received(self, message: str | bytes) -> None:
        """A message came."""

    def closed(self, close: Close, retry_in_s: float | None) -> None:
        """The connection ended; `retry_in_s` is None when it does not come back."""


class PlainScreen:
    """One line for each message on stdout; what else happens, on stderr."""

    def __init__(self) -> None:
        self._was_lost = False

    def opened(self, subprotocol: str | None) -> None:
        """Say so when the connection is back."""
        if self._was_lost:
            click.echo("connected again", err=True)

    def received(self, message: str | bytes) -> None:
        """Print a message."""
        click.echo(as_line(message, is_terminal=sys.stdout.isatty()))

    def closed(self, close: Close, retry_in_s: float | None) -> None:
        """Say so when the connection is lost."""
        self._was_lost = True
        if retry_in_s is not None:
            click.echo(lost_line(close, retry_in_s), err=True)


class JsonScreen:
    """One JSON object for each event on stdout, with its time."""

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

    def _print(self, event: str, **fields: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        click.echo(json.dumps({"event": event, "time": now, **fields}, ensure_ascii=False))


class PromptScreen:
    """Lines above a prompt: the line being typed is drawn again after each of them."""

    def __init__(self) -> None:
        self._is_prompting = False
        self._readline: ModuleType | None = None
        with contextlib.suppress(ImportError):
            import readline

            self._readline = readline
            readline.set_auto_history(True)

    def opened(self, subprotocol: str | None) -> None:
        """Say that one can type."""
        chosen = f", subprotocol {subprotocol}" if subprotocol else ""
        self._print(f"* connected{chosen}; Ctrl-D ends it")

    def received(self, message: str | bytes) -> None:
        """Print a message above the prompt."""
        self._print(f"< {as_line(message, is_terminal=True)}")

    def closed(self, close: Close, retry_in_s: float | None) -> None:
        """Say why the connection ended."""
        if retry_in_s is not None:
            self._print(f"* {lost_line(close, retry_in_s)}")

    def read(self) -> str | None:
        """Return the next line that is typed; empty ones are skipped. Runs in its own thread."""
        hook = getattr(self._readline, "set_pre_input_hook", None)
        while True:
            if hook is not None:
                hook(self._begin)  # called when the prompt is on the screen
            else:
                self._begin()
            try:
                line = input(PROMPT)
            except EOFError:
                return None
            finally:
                self._is_prompting = False
            if line:
                return line

    def _begin(self) -> None:
        self._is_prompting = True

    def _print(self, line: str) -> None:
        if not self._is_prompting:
            click.echo(line)
            return
        typed = self._readline.get_line_buffer() if self._readline else ""
        click.echo(f"\r\x1b[K{line}\n{PROMPT}{typed}", nl=False)


def as_line(message: str | bytes, *, is_terminal: bool) -> str:
    """Return a message as text; a terminal gets no control characters from the other side."""
    if isinstance(message, bytes):
        return f"({len(message)} bytes) {message[:64].hex(' ')}{' …' if len(message) > 64 else ''}"
    if not is_terminal:
        return message
    return "".join(
        char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in message
    )


def lost_line(close: Close, retry_in_s: float) -> str:
    """Say in one line that the connection is lost and when it is tried again."""
    reason = as_line(close.reason, is_terminal=True)
    return f"connection lost ({f'{close.code} {reason}'.strip()}); again in {retry_in_s:.1f} s"


# Input.


async def lines_of(read: Read) -> AsyncIterator[str]:
    """Yield the lines that `read` returns in a thread of its own, one ahead at most."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    room = threading.Semaphore(1)

    def run() -> None:
        line: str | None = ""
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody listens
            while line is not None:
                room.acquire()
                line = read()
                loop.call_soon_threadsafe(lines.put_nowait, line)

    # A daemon, since nothing can end a read of a terminal that nobody types at.
    threading.Thread(target=run, name="hubbub.input", daemon=True).start()
    while (line := await lines.get()) is not None:
        room.release()
        yield line


def file_reader(descriptor: int) -> Read:
    """Read lines straight from a file descriptor.

    Not through `sys.stdin`: a thread that waits inside its buffer holds a lock that the
    interpreter wants at its end.
    """
    lines = _split(descriptor)
    return lambda: next(lines, None)


def _split(descriptor: int) -> Iterator[str]:
    rest = b""
    while data := os.read(descriptor, _READ_BYTES):
        *whole, rest = (rest + data).split(b"\n")
        yield from (_text(line) for line in whole)
    if rest:
        yield _text(rest)


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")


@contextlib.contextmanager
def terminal_kept() -> Iterator[None]:
    """Give the terminal back as it was: a thread may be left in the middle of reading it."""
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
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        click.echo()


# The conversation.


class Conversation:
    """One run of the command: a connection, a screen, and lines to send."""

    def __init__(self, screen: Screen, read: Read, linger_s: float) -> None:
        self.was_open: bool = False
        self._screen = screen
        self._read = read
        self._linger_s = linger_s
        self._is_open = False
        self._connection: Connection

    async def run(self, url: str, **options: Any) -> None:
        """Talk until either side ends it. Raises `ClickException` when it never began."""
        self._connection = make_connection(url, on_state=self._show, **options)
        async with self._connection as connection:
            if not self.was_open:
                close = connection.last_close or Close(NORMAL)
                raise click.ClickException(_why_not(url, close))
            receiving = asyncio.create_task(self._receive())
            sending = asyncio.create_task(self._send())
            try:
                await asyncio.wait({receiving, sending}, return_when=asyncio.FIRST_COMPLETED)
                if not receiving.done():
                    await connection.flush(self._linger_s)
                    await asyncio.wait({receiving}, timeout=self._linger_s)
                    await connection.close()
                await receiving
            finally:
                for task in (receiving, sending):
                    task.cancel()
                await asyncio.gather(receiving, sending, return_exceptions=True)

    async def _receive(self) -> None:
        async for message in self._connection:
            self._screen.received(message)

    async def _send(self) -> None:
        async for line in lines_of(self._read):
            await self._connection.send(line)

    def _show(self, state: State) -> None:
        close = self._connection.last_close or Close(NORMAL)
        if state == "open":
            self.was_open = self._is_open = True
            self._screen.opened(self._connection.subprotocol)
        elif state in ("waiting", "closed") and self._is_open:
            self._is_open = False
            self._screen.closed(close, self._connection.retry_in_s)


def _why_not(url: str, close: Close) -> str:
    reason = as_line(close.reason, is_terminal=True)
    if 400 <= close.code <= 599:
        return f"{_bare(url)} refused the connection: {close.code} {reason}"
    return f"{_bare(url)}: {reason}"


def _bare(url: str) -> str:
    return url.partition("?")[0]


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_headers(lines: tuple[str, ...], token: str | None) -> dict[str, str]:
    """Read headers as a person writes them, `Name: value`; `token` becomes Authorization."""
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise click.BadParameter(f"{line!r} is not  Name: value", param_hint="--header")
        headers[name.strip()] = value.strip()
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return headers


@click.command(short_help="Talk to a WebSocket server.")
@click.argument("url")
@click.option("--header", multiple=True, metavar="'NAME: VALUE'", help="Add it; may be repeated.")
@click.option("--token", help="Send it as  Authorization: Bearer TOKEN.")
@click.option("--origin", help="The Origin header, as a browser would send it.")
@click.option("--subprotocol", multiple=True, help="Offer it; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each event.")
@click.option("--no-reconnect", is_flag=True, help="End when the connection ends.")
@click.option(
    "--linger",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long to wait for answers after the end of the input.",
)
def connect(
    url: str,
    header: tuple[str, ...],
    token: str | None,
    origin: str | None,
    subprotocol: tuple[str, ...],
    as_json: bool,
    no_reconnect: bool,
    linger: float,
) -> None:
    """Connect to a WebSocket server: each line of input is sent, each message printed.

    On a terminal there is a prompt; in a pipe, lines go in and lines come out. The first attempt
    decides; after that a connection that is lost comes back by itself.

    Exit codes: 0 closed normally, 1 refused, never connected, or closed for a reason.
    """
    url = url if "://" in url else f"ws://{url}"
    options: dict[str, Any] = {
        "headers": read_headers(header, token),
        "origin": origin,
        "subprotocols": list(subprotocol) or None,
        "reconnect": not no_reconnect,
        "max_message_bytes": MAX_MESSAGE_BYTES,
        "proxy": None if _is_loopback(url) else True,
    }
    logging.getLogger("hubbub.connect").setLevel(logging.CRITICAL)  # the screen says it all
    with_prompt = not as_json and sys.stdin.isatty() and sys.stdout.isatty()
    if with_prompt:
        prompt = PromptScreen()
        with terminal_kept():
            _talk(Conversation(prompt, prompt.read, 0.0), url, options)
    else:
        screen: Screen = JsonScreen() if as_json else PlainScreen()
        read = file_reader(sys.stdin.fileno())
        _talk(Conversation(screen, read, linger), url, options)


def _talk(conversation: Conversation, url: str, options: dict[str, Any]) -> None:
    try:
        asyncio.run(conversation.run(url, **options))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    except Disconnected as error:
        if error.code not in _NORMAL_ENDS:
            reason = as_line(error.reason, is_terminal=True)
            raise click.ClickException(f"closed: {error.code} {reason}".rstrip()) from error
    except KeyboardInterrupt:
        if not conversation.was_open:
            raise click.ClickException("interrupted before it was connected") from None
