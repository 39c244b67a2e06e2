"""One socket of a client program: it knows whether all its bytes left this process.

What must not live here: when it is opened (`handshake`) and what is sent (`connection`).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.http11 import Response
from websockets.protocol import State

from .refusals import MAX_STATUS_LINE_BYTES, may_be_http, read_status


class ClientSocket(ClientConnection):
    """A socket that knows whether all that was written to it left this process.

    `send` does not wait, so that nobody can be cancelled in it. Whoever sent waits in `drained`
    while the socket is `paused`, which it is as long as the operating system has not taken all:
    the buffer never holds more than one message.
    """

    has_lost_bytes: bool = False
    _first_bytes: bytes = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # asyncio's TLS pauses at the mark, its plain sockets above it.
        is_tls = transport.get_extra_info("sslcontext") is not None
        self.transport.set_write_buffer_limits(high=1 if is_tls else 0, low=0)

    def connection_lost(self, exc: Exception | None) -> None:
        self.has_lost_bytes |= self.paused
        super().connection_lost(exc)

    @property
    def is_over(self) -> bool:
        """Whether nothing more can be sent."""
        return self.has_lost_bytes or self.state is not State.OPEN

    async def drain(self) -> None:
        # Called after every write; a transport that is closing throws away what is written to it.
        self.has_lost_bytes |= self.transport.is_closing()

    async def drained(self) -> None:
        """Wait until all is taken, or lost."""
        with contextlib.suppress(Exception):  # why it was lost is for `recv` to say
            await super().drain()

    def data_received(self, data: bytes) -> None:
        if self.response is None and len(self._first_bytes) < MAX_STATUS_LINE_BYTES:
            self._first_bytes += data[:MAX_STATUS_LINE_BYTES]
        super().data_received(data)

    async def handshake(self, *arguments: Any, **keywords: Any) -> None:
        """Shake hands; an answer whose status can be read counts as one, whatever follows it."""
        try:
            await super().handshake(*arguments, **keywords)
        except InvalidStatus:
            raise
        except InvalidHandshake as error:
            status, phrase = read_status(self._first_bytes)
            if not may_be_http(self._first_bytes):
                begin = ascii(self._first_bytes[:20].decode("latin-1"))
                raise InvalidMessage from ValueError(f"it begins with {begin}")
            if status < 200:
                raise
            raise InvalidStatus(Response(status, phrase, Headers())) from error
