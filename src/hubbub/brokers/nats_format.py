"""Which form the processes on NATS servers write: who comes asks one that is there, and then says that it has come.

What must not live here: the form itself, and what one of another is told (`envelope`).

A server without JetStream keeps nothing, so the processes answer themselves. Any of them will do: those who are there
write one form. One whose event loop stands still answers nothing, and hears of who has come when it goes on; then it
gives way, and is away until those have gone.
"""

from __future__ import annotations

import asyncio

from .envelope import FORMAT, OtherFormat, require_format
from .nats_connection import Connection, NoRight

ANSWER_S = 3.0
"""How long those who are there have for an answer. Who is only busy should have had it, or it would give way."""


class NatsFormat:
    """See the module. `subject` is where they ask and say it. Event loop only."""

    def __init__(self, subject: str) -> None:
        self.subject: str = subject
        self._own: str = FORMAT

    async def ask(self, connection: Connection) -> None:
        """Ask in which form they write, if there is anybody. Raises `OtherFormat`."""
        try:
            async with asyncio.timeout(ANSWER_S):
                answers = await connection.ask(self.subject, self._own.encode())
        except (TimeoutError, NoRight):  # the feed says which right is missing
            return
        if not answers[0].is_nobody:
            require_format(answers[0].data, self._own)

    def say(self, connection: Connection) -> None:
        """Say that this process has come."""
        connection.publish(self.subject, self._own.encode())

    def hear(self, connection: Connection, data: bytes, reply: bytes) -> None:
        """Answer a question; give the connection up where somebody has come who writes another form."""
        if reply:
            connection.publish(reply.decode(), self._own.encode())
            return
        try:
            require_format(data, self._own)
        except OtherFormat as error:
            connection.fail(error)
