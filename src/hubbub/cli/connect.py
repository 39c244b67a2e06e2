"""`hubbub connect`: talk to a WebSocket server from a terminal or a pipe.

What must not live here: reconnecting and the rules for it (`hubbub.connect`), what is shown (`screen`), how
input is read (`input`), which lines have arrived (`delivery`). It says what was sent: a line counts as sent
when the server has answered pings behind it, and every other line is reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

import click

from ..connection import Connection, State
from ..connection import connect as make_connection
from ..connection.addresses import websocket_url, without_secrets
from ..errors import ABNORMAL, NORMAL, Disconnected
from ..model import Close
from .delivery import LineTracker
from .handshake import Seconds, choose_proxy, read_headers, tls_context
from .input import Source, lines_of, standard_input, terminal_kept
from .screen import (
    JsonScreen,
    Output,
    PlainScreen,
    PromptScreen,
    Screen,
    accept_any_bytes,
    as_reason,
    not_sent_line,
    standard_output,
)

MAX_MESSAGE_BYTES = 64 * 1024**2
RETRY_FOR_S = 60.0
_CLOSE_TIMEOUT_S = 2.0
"""How long the server may take to answer a close; the pongs to all lines have come before it."""
_SECOND_PING_S = 1.0
"""How long the second ping behind a line waits for more lines, which it can be for too."""
_LAST_PONG_TIMEOUT_S = 1.0
"""How long a session that is cut short waits for the pongs to the lines that are on their way."""
_NORMAL_CODES = (1000, 1001, 1005)
"""Codes with which a connection that does not come back has ended well."""
_HTTP_STATUSES = range(100, 600)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_COMPLETE_CODES = (1000, 1005)
"""Codes by which a server says that it has all that it wanted (RFC 6455 section 7.4.1)."""


# The session.


class ConsoleSession:
    """One run of the command: a connection, a screen, and lines to send.

    `linger_s`: how long to wait for answers after the last line. `retry_for_s`: how long a line
    waits for a connection that is lost. What went wrong is in `failures`, one clause each.
    """

    def __init__(
        self, screen: Screen, source: Source, output: Output, linger_s: float, retry_for_s: float
    ) -> None:
        self.was_open: bool = False
        self.failures: list[str] = []
        self.output: Output = output
        self._screen = screen
        self._source = source
        self._linger_s = linger_s
        self._retry_for_s = retry_for_s
        self._is_open = False
        self._is_finishing = False
        self._openings = 0
        self._is_repair_noted = False
        self._tracker = LineTracker()
        self._change = asyncio.Event()
        self._connection: Connection

    async def run(self, url: str, **options: Any) -> None:
        """Talk until either side ends it. Raises `ClickException` when it never began."""
        task = asyncio.current_task()
        assert task is not None
        self.output.is_stopping = lambda: task.cancelling() > 0
        if sys.platform != "win32":
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        # No queue: a line that finds no open socket stays here, where it is counted.
        self._connection = make_connection(url, on_state=self._show, max_queue=0, **options)
        async with self._connection as connection:
            if not self.was_open:
                raise click.ClickException(_why_not(url, await _failure(connection)))
            await self._talk(connection)

    async def _talk(self, connection: Connection) -> None:
        receiving = asyncio.create_task(self._receive())
        sending = asyncio.create_task(self._send())
        others = [self._confirm(), self.output.until_it_fails()]
        tasks = [receiving, sending, *map(asyncio.create_task, others)]
        with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C, SIGTERM
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        sending.cancel()
        self._finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_PONG_TIMEOUT_S):
                await self._until(lambda: not self._tracker.in_flight or not self._is_open)
        await connection.close()
        await asyncio.wait([receiving])
        await self._collect(tasks)

    async def _collect(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, _Failure):
                self.failures.append(str(result))
            elif isinstance(result, Exception) and not isinstance(result, Disconnected):
                raise result

    # What comes in, and what happens.

    async def _receive(self) -> None:
        try:
            async for message in self._connection:
                self._screen.received(message)
        except Disconnected as error:
            if error.code not in _NORMAL_CODES:
                how = "refused" if error.code in _HTTP_STATUSES else "closed"
                what = f"{how}: {error.code} {as_reason(error.reason)}".rstrip()
                raise _Failure(what) from error

    def _show(self, state: State) -> None:
        close = self._connection.last_close or Close(NORMAL)
        if state == "open":
            self.was_open = self._is_open = True
            self._openings += 1
            self._screen.opened(self._connection.subprotocol)
        elif state in ("waiting", "closed") and self._is_open:
            self._is_open = False
            self._screen.closed(close, self._connection.retry_in_s)
            self._settle(close)
        self._wake()

    def _settle(self, close: Close) -> None:
        """Decide on the lines that were on their way when the connection ended.

        A server that ends it well, and knows all that there was to say, has had what it wanted.
        """
        tracker = self._tracker
        is_all = tracker.written == self._source.accepted
        if close.by_server and close.code in _COMPLETE_CODES and is_all:
            tracker.confirm_all()
        elif self._connection.state != "closed" and (lines := tracker.give_up()):
            self._screen.not_sent(lines, lines, is_over=False)

    # What goes out.

    async def _send(self) -> None:
        try:
            async for line in lines_of(self._source):
                await self._put(line)
        except (OSError, ValueError) as error:
            raise _Failure(f"cannot read the input: {_words(error)}") from error
        self._finish()
        await self._until(lambda: not self._tracker.in_flight)
        await asyncio.sleep(self._linger_s)

    def _finish(self) -> None:
        """No more lines come: ping at once behind those that are on their way."""
        self._is_finishing = True
        self._wake()

    async def _put(self, line: str) -> None:
        self._note_repair()
        tracker = self._tracker
        while True:
            await self._until(lambda: tracker.can_write)
            if not self._is_open:
                await self._wait_open()
            opening = self._openings
            if await self._connection.send(line):
                break
            await self._until_over(opening)
        tracker.written += 1
        if not self._is_open_since(opening):  # it ended while the line was on its way
            self._settle(self._connection.last_close or Close(NORMAL))
        self._wake()

    def _is_open_since(self, opening: int) -> bool:
        return self._is_open and self._openings == opening

    async def _wait_open(self) -> None:
        try:
            async with asyncio.timeout(self._retry_for_s):
                await self._connection.wait_open()
        except TimeoutError:
            raise _Failure(f"no connection for {self._retry_for_s:g} s") from None

    def _note_repair(self) -> None:
        number = self._source.first_repaired
        if number is not None and not self._is_repair_noted:
            self._is_repair_noted = True
            self._screen.noted(f"line {number} is not UTF-8; it goes out with U+FFFD in it")

    async def _confirm(self) -> None:
        """Ping behind the lines, one ping at a time, and note what the pongs prove."""
        tracker, clock = self._tracker, asyncio.get_running_loop().time
        while True:
            await self._until(lambda: self._is_open and tracker.in_flight > 0)
            opening, written, began = self._openings, tracker.written, clock()
            if not await self._connection.ping():
                await self._until_over(opening)
                continue
            tracker.note_pong(written, clock() - began)
            self._wake()
            # The next line's ping does for this one too: there are hardly more pings than lines.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SECOND_PING_S):
                    await self._until(
                        lambda: tracker.written > tracker.answered or self._is_finishing
                    )

    def report_unsent(self) -> None:
        """Add to `failures` what could not be written, and how many lines were not sent, if any."""
        tracker, source = self._tracker, self._source
        error = self.output.error
        if error is not None and error.errno != errno.EPIPE:
            self.failures.append(f"cannot write the output: {_words(error)}")
        rest = source.accepted - tracker.arrived - tracker.given_up
        if rest > 0:
            self._screen.not_sent(rest, tracker.in_flight, is_over=True)
        if rest or tracker.given_up:
            text = not_sent_line(tracker.given_up + rest, tracker.given_up + tracker.in_flight)
            more = "" if source.is_ended else ", and the input was not read further"
            self.failures.append(text + more)

    # Waiting for one another.

    async def _until_over(self, opening: int) -> None:
        await self._until(lambda: not self._is_open_since(opening))

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            await self._change.wait()

    def _wake(self) -> None:
        self._change.set()
        self._change = asyncio.Event()


class _Failure(Exception):
    """The session ended for a reason, which is the text."""


def _words(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


async def _failure(connection: Connection) -> Close:
    """Return why the first attempt failed."""
    if connection.state == "closed":
        try:
            await connection.wait_open()
        except Disconnected:
            pass
        except Exception as error:
            return Close(ABNORMAL, f"cannot connect: {error}")
    return connection.last_close or Close(NORMAL)


def _why_not(url: str, close: Close) -> str:
    reason = as_reason(close.reason)
    if close.code in _HTTP_STATUSES:
        return f"{without_secrets(url)} refused the connection: {close.code} {reason}"
    hint = ""
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        hint = " (--ca FILE says whom to trust, --insecure trusts anybody)"
    return f"{without_secrets(url)}: {reason}{hint}"


# The command.


@click.command()
@click.argument("url")
@click.option("--header", multiple=True, metavar="'NAME: VALUE'", help="Add it; may be repeated.")
@click.option("--token", help="Send it as  Authorization: Bearer TOKEN.")
@click.option("--origin", help="The Origin header, as a browser would send it.")
@click.option("--subprotocol", multiple=True, help="Offer it; may be repeated.")
@click.option(
    "--ca",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Trust the certificates in this file (PEM), and no others.",
)
@click.option("--insecure", is_flag=True, help="Accept any certificate: for tests only.")
@click.option("--proxy", metavar="URL", help="Go through this HTTP or SOCKS proxy.")
@click.option("--no-proxy", is_flag=True, help="Ignore the proxies that the environment names.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each event.")
@click.option("--no-reconnect", is_flag=True, help="End when the connection ends.")
@click.option(
    "--retry-for",
    type=Seconds(0),
    metavar="SECONDS",
    help="How long a line waits for a lost connection; default 60, at a prompt for ever.",
)
@click.option(
    "--linger",
    default=1.0,
    show_default=True,
    type=Seconds(0),
    metavar="SECONDS",
    help="How long to wait for answers after the end of the input; inf: for ever.",
)
def connect(
    url: str,
    header: tuple[str, ...],
    token: str | None,
    origin: str | None,
    subprotocol: tuple[str, ...],
    ca: str | None,
    insecure: bool,
    proxy: str | None,
    no_proxy: bool,
    as_json: bool,
    no_reconnect: bool,
    retry_for: float | None,
    linger: float,
) -> None:
    """Connect to a WebSocket server: each line of input is sent, each message printed.

    On a terminal there is a prompt; in a pipe, lines go in and lines come out. The first attempt
    decides; after that a connection that is lost comes back by itself.

    Exit codes: 0 closed normally and all lines sent, 1 refused, never connected, closed for a
    reason, a line not sent, or nobody who reads the output, 2 a wrong option.
    """
    try:
        url = websocket_url(url if _SCHEME.match(url) else f"ws://{url}")
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    options: dict[str, Any] = {
        "headers": read_headers(header, token, origin, url),
        "origin": origin,
        "subprotocols": list(subprotocol) or None,
        "reconnect": not no_reconnect,
        "max_message_bytes": MAX_MESSAGE_BYTES,
        "close_timeout_s": _CLOSE_TIMEOUT_S,
        "ssl": tls_context(url, insecure, ca),
        "proxy": choose_proxy(url, proxy, no_proxy),
    }
    logging.getLogger("hubbub.connect").setLevel(logging.CRITICAL)  # the screen says it all
    out, err = standard_output()
    if not as_json and sys.stdin is not None and sys.stdin.isatty() and out.is_terminal:
        accept_any_bytes(sys.stdin)
        prompt = PromptScreen(out)
        wait_s = math.inf if retry_for is None else retry_for
        with terminal_kept(prompt.leave):
            run_session(ConsoleSession(prompt, prompt, out, 0.0, wait_s), url, options)
    else:
        screen: Screen = JsonScreen(out, err) if as_json else PlainScreen(out, err)
        wait_s = RETRY_FOR_S if retry_for is None else retry_for
        run_session(ConsoleSession(screen, standard_input(), out, linger, wait_s), url, options)


def run_session(session: ConsoleSession, url: str, options: dict[str, Any]) -> None:
    """Run the session, and raise `ClickException` for an end that is not good."""
    try:
        asyncio.run(session.run(url, **options))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    except (KeyboardInterrupt, asyncio.CancelledError):
        if not session.was_open:
            raise click.ClickException("interrupted before it was connected") from None
    session.report_unsent()
    if session.failures:
        raise click.ClickException("; ".join(session.failures))
    if session.output.error is not None:
        sys.exit(1)  # as quietly as others end whose reader has gone: it has had what it wanted
