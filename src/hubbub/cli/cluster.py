"""`hubbub publish`, `who`, `rooms` and `kick`: what a person asks of running hubs, over the broker that they share.

What must not live here: the verbs (`publisher`). What others have named is printed so that no terminal obeys it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click
import msgspec

from ..errors import SettingsError
from ..limits import printable
from ..model import Receipt
from ..publisher import Publisher
from ..settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def over_broker(function: F) -> F:
    """Give a command the options that say which hubs are meant."""
    for option in (
        click.option("--prefix", default="", help="What the hubs have as broker_prefix."),
        click.option(
            "--broker",
            help="The URL of the broker, as in valkey://host:6379 or nats://host:4222. [default: $HUBBUB_BROKER]",
        ),
    ):
        function = option(function)
    return function


def publisher_of(broker: str | None, prefix: str) -> Publisher:
    """Return a publisher on the hubs' broker; raise what `click` says as one sentence."""
    try:
        return Publisher(broker or Settings.load().broker, prefix=prefix)
    except SettingsError:
        raise
    except ValueError as error:
        text = "name the broker of the hubs: --broker URL, or HUBBUB_BROKER"
        raise click.ClickException(text) from error


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="[ROOM] DATA")
@click.option("--user", help="To all clients of this user, and not to a room.")
@click.option("--everybody", is_flag=True, help="To everybody, and not to a room.")
@click.option("--key", help="Publish it once, however often this is called with this key.")
@over_broker
def publish(
    words: tuple[str, ...],
    user: str | None,
    everybody: bool,
    key: str | None,
    broker: str | None,
    prefix: str,
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
    with publisher_of(broker, prefix) as publisher:
        for line in lines:
            if not _is_text(line):
                raise click.ClickException("what is to be published is no text in UTF-8")
            if user is not None:
                receipt = publisher.to_user(user, line, key=key)
            elif room is None:
                receipt = publisher.broadcast(line, key=key)
            else:
                receipt = publisher.publish(room, line, key=key)
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
@over_broker
def who(room: str, as_json: bool, broker: str | None, prefix: str) -> None:
    """List who is in ROOM, in all processes: client, user, info. The room needs presence=True."""
    with publisher_of(broker, prefix) as publisher:
        found = publisher.presence(room)
    for client_id, info in found.items():
        if as_json:
            row = {"client": client_id, "user": info.user, "info": info.info}
            click.echo(msgspec.json.encode(row).decode())
        else:
            shown = "" if info.info is None else msgspec.json.encode(info.info).decode()
            parts = (client_id, "-" if info.user is None else info.user, shown)
            click.echo("\t".join(printable(part, 200) for part in parts).rstrip())


@click.command()
@click.argument("pattern", default="")
@over_broker
def rooms(pattern: str, broker: str | None, prefix: str) -> None:
    """List the rooms that have members, and how many. PATTERN has * for any text, as in 'chat:*'."""
    with publisher_of(broker, prefix) as publisher:
        found = publisher.rooms(pattern)
    for name, count in sorted(found.items()):
        click.echo(f"{count}\t{printable(name, 200)}")


@click.command()
@click.argument("client", required=False)
@click.option("--user", help="All clients of this user.")
@click.option("--code", default=1000, show_default=True, help="The close code.")
@click.option("--reason", default="", help="The reason that the client is told.")
@over_broker
def kick(
    client: str | None,
    user: str | None,
    code: int,
    reason: str,
    broker: str | None,
    prefix: str,
) -> None:
    """Close the connection of CLIENT, by its id, or those of --user, in whatever process they are.

    Who is not there is no error.
    """
    if bool(client) == bool(user):
        raise click.UsageError("name a CLIENT, or --user")
    with publisher_of(broker, prefix) as publisher:
        try:
            if user is not None:
                publisher.disconnect(user, code, reason)
            else:
                publisher.kick(client or "", code, reason)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
