"""Reach: the options that say which running hubs a command means, and by which way they are reached.

What must not live here: what can be asked of them (`hubs`), how that is done (`hubs_broker`, `hubs_api`). The key of
an API is in no error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from ..asgi.api_keys import KEY_VARIABLE
from .hubs import Hubs

F = TypeVar("F", bound=Callable[..., Any])


class Reach(NamedTuple):
    """Which hubs are meant, as the options say it."""

    broker: str | None
    prefix: str
    api: str | None
    api_key: str | None
    api_key_file: str | None

    def open(self) -> Hubs:
        """Return what reaches them. Raises what `click` says as one sentence."""
        if self.api is None:
            if self.api_key_file is not None:
                raise click.UsageError("--api-key-file needs --api, the address of the HTTP API")
            from .hubs_broker import BrokerHubs

            return BrokerHubs(self.broker, self.prefix)
        if self.broker is not None or self.prefix:
            raise click.UsageError("--api stands instead of --broker and --prefix")
        from .hubs_api import ApiHubs

        return ApiHubs(self.api, self._key())

    def _key(self) -> str:
        if self.api_key_file is not None:
            return _read_key(self.api_key_file)
        if not self.api_key:
            text = f"the API wants a key: --api-key-file FILE, the variable {KEY_VARIABLE}, or --api-key KEY"
            raise click.UsageError(text)
        return self.api_key


def reaching_hubs(function: F) -> F:
    """Give a command the options that say which hubs are meant; it gets them as `reach`."""

    @functools.wraps(function)
    def with_reach(**arguments: Any) -> Any:
        reach = Reach(*(arguments.pop(name) for name in Reach._fields))
        return function(reach=reach, **arguments)

    wrapped: Any = with_reach
    for option in (
        click.option(
            "--api-key-file",
            metavar="FILE",
            help="The key is the first line of this file.",
        ),
        click.option(
            "--api-key",
            metavar="KEY",
            envvar=KEY_VARIABLE,
            help=f"The key of the HTTP API; others can see it in the list of processes. [default: ${KEY_VARIABLE}]",
        ),
        click.option("--api", metavar="URL", help="The HTTP API of the hubs, instead of a broker."),
        click.option("--prefix", default="", help="What the hubs have as broker_prefix."),
        click.option(
            "--broker",
            help="The URL of the broker, as in valkey://host:6379 or nats://host:4222. [default: $HUBBUB_BROKER]",
        ),
    ):
        wrapped = option(wrapped)
    result: F = wrapped
    return result


def _read_key(path: str) -> str:
    """Return the key in a file: the first line that says something. The error never says what stands there."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise click.ClickException(f"--api-key-file cannot be read: {why}") from None
    for line in lines:
        if line.strip() and not line.lstrip().startswith("#"):
            return line.strip()
    raise click.ClickException("--api-key-file has no key in it")
