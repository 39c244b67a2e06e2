"""`hubbub bench`: put a load on a server of one's own, and show what comes of it.

What must not live here: the load (`bench.run`), the figures (`bench.result`). Three `Screen`s show
them: a progress bar and a live table on a terminal (rich draws them), plain lines, JSON.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import click
import msgspec

from ..bench.accounting import MIN_SIZE_BYTES
from ..bench.ipc import Plan
from ..bench.result import Result
from ..bench.run import Bench, BenchFailed, Snapshot, allow_files
from ..bench.table import live_rows, rows
from ..connection.addresses import websocket_url, without_secrets
from ..errors import MissingExtra
from .handshake import read_headers

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class Bound(NamedTuple):
    """How much is too much to aim at a server by mistake."""

    option: str
    most: float
    unit: str


BOUNDS = {
    "clients": Bound("--clients", 10_000, "clients"),
    "rate": Bound("--rate", 100_000, "messages per second"),
    "size": Bound("--size", 1024**2, "bytes"),
    "seconds": Bound("--seconds", 600, "seconds"),
    "warm_s": Bound("--warm", 600, "seconds"),
    "processes": Bound("--processes", 32, "processes"),
}
"""What is refused without --beyond-bounds."""


class Screen(Protocol):
    """Shows how far the load is, and what came of it."""

    def drawing(self) -> AbstractContextManager[Any]:
        """Return what surrounds the run."""

    def show(self, snapshot: Snapshot) -> None:
        """Show how far it is."""

    def finish(self, result: Result) -> None:
        """Show what came of it."""


class JsonScreen:
    """One JSON object at the end, nothing before."""

    def drawing(self) -> AbstractContextManager[Any]:
        """Draw nothing."""
        return nullcontext()

    def show(self, snapshot: Snapshot) -> None:
        """Show nothing."""

    def finish(self, result: Result) -> None:
        """Print the object."""
        click.echo(msgspec.json.encode(result))


class PlainScreen:
    """Lines of a name and its figure at the end, nothing before."""

    def drawing(self) -> AbstractContextManager[Any]:
        """Draw nothing."""
        return nullcontext()

    def show(self, snapshot: Snapshot) -> None:
        """Show nothing."""

    def finish(self, result: Result) -> None:
        """Print the lines, and the verdict last."""
        for name, value in rows(result):
            click.echo(f"{name}: {value}")
        click.echo(result.because)


class RichScreen:
    """A progress bar and a live table on a terminal; the table of the result at the end."""

    def __init__(self, console: Console | None = None) -> None:
        try:
            from rich.console import Console as RichConsole
            from rich.live import Live
            from rich.progress import BarColumn, Progress, TextColumn
        except ImportError as error:
            raise MissingExtra("rich", "bench") from error
        self._console = console or RichConsole(highlight=False)
        self._progress = Progress(
            TextColumn("{task.description:<20}"), BarColumn(), TextColumn("{task.fields[time]}")
        )
        self._task = self._progress.add_task("connecting", total=1.0, time="")
        self._live = Live(self._progress, console=self._console, auto_refresh=False, transient=True)

    def drawing(self) -> AbstractContextManager[Any]:
        """Draw while the load runs; the picture is wiped at the end."""
        return self._live

    def show(self, snapshot: Snapshot) -> None:
        """Move the bar and draw the table anew."""
        from rich.console import Group

        self._progress.update(
            self._task,
            description=snapshot.stage,
            completed=snapshot.share,
            time=f"{snapshot.seconds:.0f} s",
        )
        table = self._table(live_rows(snapshot))
        self._live.update(Group(self._progress, table), refresh=True)

    def finish(self, result: Result) -> None:
        """Print the table of the result, and the verdict."""
        self._console.print(self._table(rows(result), f"hubbub bench {result.url}"))
        style = {"generator": "bold yellow", "rate": "green"}.get(result.limited_by or "", "")
        self._console.print(result.because, style=style, markup=False)

    def _table(self, lines: list[tuple[str, str]], title: str = "") -> RenderableType:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        # As Text, since an address may look like rich's own markup.
        named = Text(title) if title else None
        table = Table(title=named, title_justify="left", box=box.SIMPLE, show_header=False)
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in lines:
            is_bad = name in BAD and value != "0"
            table.add_row(Text(name), Text(value, style="bold red" if is_bad else ""))
        return table


BAD = frozenset(
    {
        "lost",
        "disconnected",
        "duplicated",
        "reordered",
        "damaged",
        "stray",
        "refused",
        "unreached clients",
    }
)
"""The rows that are red when they are not 0."""


# The command.


def check_bounds(plan: Plan, *, is_meant: bool) -> None:
    """Refuse a load that is larger than what one aims at a server by mistake."""
    for name, bound in BOUNDS.items():
        value = getattr(plan, name)
        if value is not None and value > bound.most and not is_meant:
            raise click.ClickException(
                f"{bound.option} {value:g} is more than {bound.most:g} {bound.unit}; if the server "
                "is yours and you mean it, say --beyond-bounds"
            )


def check_rooms(plan: Plan, rooms: int | None) -> None:
    """Refuse rooms that the address does not choose."""
    if rooms is not None and "{room}" not in plan.url:
        raise click.UsageError(
            "--rooms needs an address that says how a client chooses its room, such as "
            "'ws://localhost:8000/ws?room={room}'"
        )


def check_expect(plan: Plan) -> None:
    """Refuse to wait for messages that do not come back."""
    if plan.expect == "others" and plan.rate is None:
        raise click.UsageError(
            "--expect others needs --rate: without it a publisher waits for its own message"
        )


def choose_screen(as_json: bool) -> Screen:
    """Return the screen: JSON when asked for, a live table on a terminal, plain lines elsewhere."""
    if as_json:
        return JsonScreen()
    return RichScreen() if sys.stdout.isatty() else PlainScreen()


_positive = click.IntRange(1)


@click.command()
@click.argument("url")
@click.option("--clients", default=100, show_default=True, type=_positive, help="How many connect.")
@click.option("--publishers", type=_positive, help="How many of them send.  [default: see above]")
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    metavar="MESSAGES_PER_SECOND",
    help="Of all publishers together. Without it each waits until its last message is back.",
)
@click.option(
    "--size",
    default=128,
    show_default=True,
    type=click.IntRange(MIN_SIZE_BYTES),
    metavar="BYTES",
    help="Of one message.",
)
@click.option("--rooms", type=_positive, help="Spread the clients over rooms: {room} in the URL.")
@click.option(
    "--seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0.1),
    help="How long to measure.",
)
@click.option(
    "--warm",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long to send before that without counting.",
)
@click.option(
    "--processes", default=1, show_default=True, type=_positive, help="How many generate the load."
)
@click.option(
    "--expect",
    type=click.Choice(["all", "room", "others", "self"]),
    default="room",
    show_default=True,
    help="Who should get a message: all clients, its room (without --rooms: all clients), the others "
    "of its room, or its publisher alone.",
)
@click.option("--header", multiple=True, metavar="'NAME: VALUE'", help="Add it; may be repeated.")
@click.option("--token", help="Send it as  Authorization: Bearer TOKEN.")
@click.option("--origin", help="The Origin header, as a browser would send it.")
@click.option("--subprotocol", multiple=True, help="Offer it; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option("--beyond-bounds", is_flag=True, help="Allow a load that is refused otherwise.")
def bench(
    url: str,
    rooms: int | None,
    warm: float,
    header: tuple[str, ...],
    token: str | None,
    subprotocol: tuple[str, ...],
    as_json: bool,
    beyond_bounds: bool,
    **options: Any,
) -> None:
    """Put a load on a WebSocket server and measure it. Only aim at a server of your own.

    Many clients connect; some of them, the publishers, send messages, and every client counts and
    times what it gets. {room} and {client} in URL become numbers. Without --publishers there is one
    for each room; with --expect self every client is one.

    Exit codes: 0 there is a result, 1 nobody could connect, or nothing could be measured.
    """
    url = url if "://" in url else f"ws://{url}"
    plan = Plan(
        url=url,
        rooms=rooms or 1,
        warm_s=warm,
        headers=read_headers(header, token),
        subprotocols=subprotocol,
        **options,
    )
    try:
        websocket_url(url.replace("{room}", "0").replace("{client}", "0"))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    check_rooms(plan, rooms)
    check_expect(plan)
    check_bounds(plan, is_meant=beyond_bounds)
    screen = choose_screen(as_json)
    allow_files(plan)
    result = measure(plan, screen)
    screen.finish(result)


def measure(plan: Plan, screen: Screen) -> Result:
    """Run a load; Ctrl-C ends it, and what there is so far is the result."""
    load = Bench(plan, screen.show)
    try:
        with screen.drawing():
            # No debug mode, whatever the interpreter's: its remarks would be in the picture.
            asyncio.run(load.run(), debug=False)
    except KeyboardInterrupt:
        pass
    result = load.result()
    if result is None:
        raise BenchFailed(
            f"interrupted before anybody was connected to {without_secrets(plan.url)}"
        )
    return result
