"""A way to a server that a test can cut: connections by it break, and no new ones are made until it is mended."""

from __future__ import annotations

import asyncio
import socket
import ssl


class Proxy:
    """Listens on a free port of 127.0.0.1 and passes on what comes to a server, and back; with a `context` by TLS."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None = None) -> None:
        self._to = host, port
        self._context = context
        self._socket: socket.socket | None = self._listen()
        self.port: int = self._socket.getsockname()[1]
        self.is_cut: bool = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    def _listen(self, port: int = 0) -> socket.socket:
        return socket.create_server(("127.0.0.1", port))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self._to)

    async def start(self) -> None:
        """Take connections."""
        listening, self._socket = self._socket, None
        if listening is None:
            listening = self._listen(self.port)
        self._server = await asyncio.start_server(self._accept, sock=listening, ssl=self._context)

    async def stop(self) -> None:
        """Take no more, and end those that there are."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self._flows.set()
        self._abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Break all connections, and have new ones broken."""
        self.is_cut = True
        self._abort()

    def mend(self) -> None:
        """Let new connections through."""
        self.is_cut = False

    def hold(self) -> None:
        """Pass nothing on and break nothing, as a firewall does that has forgotten its connections."""
        self._flows.clear()

    def release(self) -> None:
        """Pass on again, and first what was held."""
        self._flows.set()

    def _abort(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await self._connect()
            self._writers |= {writer, there}
            flows = self._flows
            await asyncio.gather(pass_on(reader, there, flows), pass_on(back, writer, flows))
        except OSError:
            pass
        finally:
            for each in (writer, there):
                if each is not None:
                    each.transport.abort()
                    self._writers.discard(each)
            self._tasks.discard(task)


async def pass_on(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    flows: asyncio.Event | None = None,
) -> None:
    """Pass on what comes until the end of it, and then that; while `flows` is not set, keep it."""
    try:
        while data := await reader.read(65536):
            if flows is not None:
                await flows.wait()
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
