"""Connecting the clients of a load, and counting who is not let in.

What must not live here: the handshake itself (`client`), what happens afterwards
(`worker`, which calls it).
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import Counter

from websockets.uri import parse_uri

from .accounting import Receiver
from .client import Listener, LoadSocket, Refusal, make_core
from .ipc import Plan


class Connector:
    """Connects the clients of one process, a bounded number at once.

    When nobody of the first ones is let in, the others do not try.
    """

    def __init__(self, plan: Plan, index: int, listener: Listener) -> None:
        self.is_anybody_in: bool = False
        self.refused: Counter[int] = Counter()
        self.failed: Counter[str] = Counter()
        self._listener = listener
        self._plan = plan
        self._at_once = max(1, self._plan.connecting_at_once // self._plan.processes)
        self._clients = iter(range(index, self._plan.clients, self._plan.processes))
        is_secure = parse_uri(url_for(self._plan, 0)).secure
        self._context = ssl.create_default_context() if is_secure else None
        self._address: str | None = None

    async def run(self) -> None:
        """Try them all; then `refused` and `failed` say who is not in."""
        await asyncio.gather(*(self._connect_more() for _ in range(self._at_once)))

    def _is_hopeless(self) -> bool:
        failures = self.refused.total() + self.failed.total()
        return not self.is_anybody_in and failures >= self._at_once

    async def _connect_more(self) -> None:
        for client in self._clients:
            try:
                async with asyncio.timeout(self._plan.handshake_timeout_s):
                    await self._connect(client)
            except Refusal as refusal:
                self._note(refusal)
            except TimeoutError:
                self.failed["no answer to the handshake in time"] += 1
            except OSError as error:
                self.failed[_why(error)] += 1
            if self._is_hopeless():
                return

    def _note(self, refusal: Refusal) -> None:
        if refusal.status is not None:
            self.refused[refusal.status] += 1
        else:
            # It may hold the server's own words, and ends up on a terminal.
            self.failed["".join(c if c.isprintable() else "?" for c in refusal.why)] += 1

    async def _connect(self, client: int) -> None:
        plan = self._plan
        url = url_for(plan, client)
        uri = parse_uri(url)
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        receiver = Receiver(client)
        core = make_core(url, plan.headers, plan.origin, plan.subprotocols)
        transport, client_socket = await loop.create_connection(
            lambda: LoadSocket(self._listener, receiver, core, opened),
            self._address or uri.host,
            uri.port,
            ssl=self._context,
            server_hostname=uri.host if uri.secure else None,
        )
        # The name is looked up for the first clients only.
        self._address = transport.get_extra_info("peername")[0]
        try:
            await opened
        except asyncio.CancelledError:
            client_socket.abort()
            raise
        self.is_anybody_in = True
        self._listener.opened(client_socket)


def _why(error: OSError) -> str:
    """Return the system's own words; event loops put their own before them, with addresses."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is no good: {error.verify_message}"
    if isinstance(error, socket.gaierror | ssl.SSLError) or not error.errno:
        return str(error.strerror or error)
    return os.strerror(error.errno)


def url_for(plan: Plan, client: int) -> str:
    """Return the address of one client: `{room}` and `{client}` become numbers."""
    room = str(client % plan.rooms)
    return plan.url.replace("{room}", room).replace("{client}", str(client))
