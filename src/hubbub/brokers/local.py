"""The broker of the processes of one machine: a Valkey server that they share and start themselves.

What must not live here: the server's beginning and end (`local_server`), how it is spoken to (`valkey`).
"""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import parse_qsl, unquote, urlsplit

from ..errors import SettingsError
from ..limits import printable
from .broker import Node
from .local_server import LocalServer
from .valkey import ValkeyBroker
from .valkey_address import DEFAULT_PREFIX, Address, checked_prefix, longer_prefix

logger: logging.Logger = logging.getLogger("hubbub")

LOOK_S = 1.0
"""How often a process looks whether somebody sees to the server."""


class LocalBroker(ValkeyBroker):
    """A broker on a Valkey server that the processes of this machine share, at `local://`.

    The first process starts the server, which listens on a Unix socket that no other user can open, and it
    ends with the last (unless its guard is killed at the same moment). `name` is as in `LocalServer`: processes that name the same share one; `prefix` as in
    `ValkeyBroker`. Needs the extra `local`; not on Windows. Raises `ValueError` for a name that cannot be.
    """

    def __init__(self, name: str = "", *, prefix: str | None = None) -> None:
        self._server = LocalServer(name)
        options = {"path": str(self._server.socket), "db": 0}
        super().__init__(
            Address(f"local://{name}", DEFAULT_PREFIX, options, is_unix=True), prefix=prefix
        )
        self._keeping: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<LocalBroker {str(self._server.folder)!r} prefix={self._names.prefix!r}>"

    async def start(self, node: Node) -> None:
        """See `Broker.start`."""
        await self._server.start()
        try:
            await super().start(node)
        except BaseException:
            self._server.stop()
            raise
        loop = asyncio.get_running_loop()
        self._keeping = loop.create_task(self._keep_up(), name="local server")

    async def stop(self) -> None:
        """See `Broker.stop`."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        await super().stop()
        self._server.stop()

    async def _keep_up(self) -> None:
        """Have the server looked after, whoever of those who did that was killed."""
        is_wrong = False
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._server.wait_up()
                is_wrong = False
            except OSError as error:
                if not is_wrong:
                    logger.warning(
                        "the local server cannot be looked after: %s", printable(str(error))
                    )
                is_wrong = True


def read_local(url: str, source: str, added: str) -> LocalBroker:
    """Return the broker of a URL: `local://`, `local://name` or `local:///folder`, and `?prefix=`.

    `added` is what a hub adds to the prefix. Raises `SettingsError` for what cannot be.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    try:
        if query.keys() - {"prefix"}:
            raise ValueError("a query has prefix=… alone")
        if parts.netloc and parts.path.strip("/"):
            raise ValueError("it has a name and a folder")
        prefix = checked_prefix(query.get("prefix", DEFAULT_PREFIX), source)
        prefix = longer_prefix(prefix, added, source)
        name = parts.netloc or unquote(parts.path).rstrip("/")
        return LocalBroker(name, prefix=prefix)
    except SettingsError:
        raise
    except ValueError as error:
        expected = f"must be local://, local://name or local:///folder, with ?prefix=… ; {error}"
        raise SettingsError("broker", None, expected, source=source, shows_value=False) from None
