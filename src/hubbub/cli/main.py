"""The command `hubbub`: demo, serve, connect, bench, check, and what is asked of running hubs.

What must not live here: what the commands do (`serve`, `connect`, `bench`, …). This module knows their
names, imports the one that is run and no other, and turns every error of Hubbub's own into one
sentence and exit code 1.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

from .. import __version__
from ..errors import HubbubError

__all__ = ["main"]

COMMANDS = {
    "bench": ("bench", "Put a load on a server of your own and measure it."),
    "check": ("check", "Print the settings in force, and what is dangerous in them."),
    "connect": ("connect", "Talk to a WebSocket server."),
    "demo": ("serve", "Serve the demo application."),
    "kick": ("cluster", "Close connections of running hubs, over their broker or API."),
    "publish": ("cluster", "Publish to the rooms of running hubs, over their broker or API."),
    "rooms": ("cluster", "List the rooms of running hubs, over their broker or API."),
    "serve": ("serve", "Serve an application, or a ready one."),
    "tail": ("tail", "Print what is published in a room of running hubs."),
    "who": ("cluster", "List who is in a room of running hubs, over their broker or API."),
}
"""The module of each command, and the line of it in `hubbub --help`."""


class _Commands(click.Group):
    """A group that imports a command when it is asked for.

    A command may raise a `HubbubError`: it is said without a traceback.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            module, short_help = COMMANDS[cmd_name]
            command: click.Command = getattr(import_module(f".{module}", __package__), cmd_name)
            command.short_help = short_help
            self.add_command(command)
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # click's own asks every command for its line, and so would import them all.
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def main(self, *args: Any, **extra: Any) -> Any:
        # Closed (`2>&-`): click would say among the data, on stdout, what went wrong.
        if sys.stderr is None:
            sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        return super().main(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HubbubError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hubbub", message="%(prog)s %(version)s")
def main() -> None:
    """A real-time WebSocket hub for Python web applications: one object, one route."""
