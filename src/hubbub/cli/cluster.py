"""`hubbub publish`, `who`, `rooms` and `kick`: what a person asks of running hubs.

What must not live here: how the hubs are reached (`reach`), `hubbub tail`. What others have named is printed so
that no terminal obeys it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import closing

import click
import msgspec

from ..errors import DISCONNECTED
from ..limits import printable
from ..model import Receipt
from .reach import Reach, reaching_hubs


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="[ROOM] DATA")
@click.option("--user", help="To all clients of this user, and not to a room.")
@click.option("--everybody", is_flag=True, help="To everybody, and not to a room.")
@click.option("--key", help="Publish it once, however often this is called with this key.")
@reaching_hubs
def publish(
    words: tuple[str, ...],
    user: str | None,
    everybody: bool,
    key: str | None,
    reach: Reach,
) -> None:
    """Publish DATA to ROOM, as it is written; "-" publishes each line of the input.

    It returns when the broker has it.
    """
    *rest, data = words
    if len(rest) + (user is not None) + everybody != 1:
        raise click.UsageError("name a ROOM, or --user, or --everybody, and one text as DATA")
    room = rest[0] if rest else None
    lines: Iterable[str] = [data]
    if data == "-":
        if key is not None:
            raise click.UsageError("--key is for one message, and the input may have many")
        lines = (line.rstrip("\n") for line in sys.stdin)
    if user is not None and not _is_text(user):
        raise click.ClickException("the user's name is no text in UTF-8")
    with closing(reach.open()) as hubs:
        for line in lines:
            if not _is_text(line):
                raise click.ClickException("what is to be published is no text in UTF-8")
            if user is not None:
                receipt = hubs.to_user(user, line, key)
            elif room is None:
                receipt = hubs.broadcast(line, key)
            else:
                receipt = hubs.publish(room, line, key)
            click.echo(_told(receipt))


def _is_text(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8 stand in it as halves of pairs
        return False
    return True


def _told(receipt: Receipt) -> str:
    if receipt.is_repeated:
        return "was published before, by this key"
    place = receipt.position
    return "published" if place is None else f"published, offset {place.offset}"


@click.command()
@click.argument("room")
@click.option("--json", "as_json", is_flag=True, help="A JSON object in each line.")
@reaching_hubs
def who(room: str, as_json: bool, reach: Reach) -> None:
    """List who is in ROOM, in all processes: client, user, info. The room needs presence=True."""
    with closing(reach.open()) as hubs:
        found = hubs.presence(room)
    for client_id, info in found.items():
        if as_json:
            row = {"client": client_id, "user": info.user, "info": info.info}
            if info.conn_info is not None:
                row["conn_info"] = info.conn_info
            click.echo(msgspec.json.encode(row).decode())
        else:
            said = [each for each in (info.info, info.conn_info) if each is not None]
            parts = [client_id, "-" if info.user is None else info.user]
            parts += [msgspec.json.encode(each).decode() for each in said]
            click.echo("\t".join(printable(part, 200) for part in parts).rstrip())


@click.command()
@click.argument("pattern", default="")
@reaching_hubs
def rooms(pattern: str, reach: Reach) -> None:
    """List the rooms that have members, and how many. PATTERN has * for any text, as in 'chat:*'."""
    with closing(reach.open()) as hubs:
        found = hubs.rooms(pattern)
    for name, count in sorted(found.items()):
        click.echo(f"{count}\t{printable(name, 200)}")


@click.command()
@click.argument("client", required=False)
@click.option("--user", help="All clients of this user.")
@click.option("--code", default=DISCONNECTED, show_default=True, help="The close code.")
@click.option("--reason", default="", help="The reason that the client is told.")
@reaching_hubs
def kick(
    client: str | None,
    user: str | None,
    code: int,
    reason: str,
    reach: Reach,
) -> None:
    """Close the connection of CLIENT, by its id, or those of --user, in whatever process they are.

    Over the HTTP API a CLIENT is named together with its --user. Who is not there is no error.
    """
    if not client and user is None:
        raise click.UsageError("name a CLIENT, or --user")
    with closing(reach.open()) as hubs:
        try:
            hubs.disconnect(client, user, code, reason)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
