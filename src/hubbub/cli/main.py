"""The command `hubbub`: demo, serve, connect, bench, check.

What must not live here: what the commands do (`serve`, `connect`, `bench`, …). This module
puts them together and turns every error of Hubbub's own into one sentence and exit code 1.
"""

from __future__ import annotations

from typing import Any

import click

from .. import __version__
from ..errors import HubbubError
from .bench import bench
from .check import check
from .connect import connect
from .serve import demo, serve

__all__ = ["main"]


class _Commands(click.Group):
    """A group whose commands may raise a `HubbubError`: it is said without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HubbubError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hubbub", message="%(prog)s %(version)s")
def main() -> None:
    """A real-time WebSocket hub for Python web applications: one object, one route."""


for _command in (demo, serve, connect, bench, check):
    main.add_command(_command)
