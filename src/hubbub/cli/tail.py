"""`hubbub tail`: what is published in a room, a line for each message, until somebody ends it.

What must not live here: how the room is followed (`hubs_broker`, `hubs_api`). Nothing that was published reaches
a terminal as it came: what that would obey becomes an escape, and a message is one line.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import signal
import sys

import click

from ..model import Position
from .hubs import Hubs, Message, Note, Start
from .reach import Reach, reaching_hubs
from .screen import Output, as_json, as_line, standard_output, status


def read_since(text: str) -> tuple[int, str | None]:
    """Read `OFFSET` or `OFFSET:EPOCH`. Raises `UsageError`."""
    offset, separator, epoch = text.partition(":")
    if not (offset.isascii() and offset.isdecimal()) or (separator and not epoch):
        raise click.UsageError("--since is an OFFSET, or OFFSET:EPOCH, such as --json shows")
    return int(offset[:19]), epoch or None


class Printer:
    """Prints messages on `out`; notes too with `as_json`, else on `err` behind an asterisk."""

    def __init__(self, out: Output, err: Output, *, is_json: bool) -> None:
        self._out = out
        self._err = err
        self._is_json = is_json
        self._mark = "< " if out.is_terminal else ""

    def show(self, item: Message | Note) -> None:
        """Print a message or a note."""
        if self._is_json:
            fields = _message_fields(item) if isinstance(item, Message) else _note_fields(item)
            self._out.print(as_json(fields, self._out.encoding))
        elif isinstance(item, Message):
            self._out.print(f"{self._mark}{as_line(item.data)}")
        else:
            self._err.print(status(item.text, self._err))


def _message_fields(message: Message) -> dict[str, str | int]:
    data, place = message.data, message.position or Position(0, "")
    is_text = isinstance(data, str)
    shown = data if isinstance(data, str) else base64.b64encode(data).decode()
    fields: dict[str, str | int] = {"event": "message", "kind": "text" if is_text else "binary"}
    if message.position is not None:
        fields |= {"offset": place.offset, "epoch": place.epoch}
    return {**fields, "data": shown}


def _note_fields(note: Note) -> dict[str, str | int]:
    return {"event": note.kind, "text": note.text}


async def follow(hubs: Hubs, room: str, start: Start, printer: Printer, out: Output) -> None:
    """Print until nobody reads it any more, or the task is cancelled."""
    task = asyncio.current_task()
    assert task is not None
    out.is_stopping = lambda: task.cancelling() > 0
    if sys.platform != "win32":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)

    async def print_all() -> None:
        async with contextlib.aclosing(hubs.follow(room, start)) as items:
            async for item in items:
                printer.show(item)

    tasks = [asyncio.create_task(print_all()), asyncio.create_task(out.until_it_fails())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in tasks:
            each.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


@click.command()
@click.argument("room")
@click.option(
    "--history",
    default=0,
    type=click.IntRange(min=0),
    metavar="N",
    help="Begin with the newest N messages that the room has kept.",
)
@click.option(
    "--since",
    metavar="OFFSET[:EPOCH]",
    help="Begin with what was published after this position and is kept.",
)
@click.option("--json", "as_objects", is_flag=True, help="A JSON object in each line.")
@reaching_hubs
def tail(room: str, history: int, since: str | None, as_objects: bool, reach: Reach) -> None:
    """Print what is published in ROOM from now on, until Ctrl-C.

    It waits for a broker or an API that is away, and says where messages are or may be missing. Over the HTTP API
    the room needs a history, which is read once a second.
    """
    if history and since is not None:
        raise click.UsageError("--history and --since exclude one another")
    offset, epoch = (None, None) if since is None else read_since(since)
    out, err = standard_output()
    printer = Printer(out, err, is_json=as_objects)
    with (
        contextlib.closing(reach.open()) as hubs,
        contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError),
    ):
        asyncio.run(follow(hubs, room, Start(history, offset, epoch), printer, out))
    if out.error is not None:
        sys.exit(1)  # as quietly as others end whose reader has gone
