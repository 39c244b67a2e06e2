"""ClientInfos: what others see of a client in a room, where it is a member and where it publishes.

What must not live here: who is in a room (`presence`), what is published (`publishing`), how it is written (a dialect).

A `presence_info` handler says it; without one the tokens do: that of the connection in all rooms, that of a
subscription in its room. Of a member it is made once, when it is needed first, and stays until the client leaves.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ..limits import printable
from ..model import EVERYBODY, ClientInfo
from ..wire.presence import as_json

if TYPE_CHECKING:
    from .core import Core
    from .session import ClientSession
    from .signature import Function

MOST_INFO_BYTES = 4096
"""How much may be said of a client, as JSON: by the application, and by each token."""


class ClientInfos:
    """Knows what others see of clients. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def of(self, session: ClientSession, room: str) -> ClientInfo:
        """Return what others see of a client in a room. Without what the application fails to say."""
        info = None if session.infos is None else session.infos.get(room)
        if info is not None:
            return info
        function = self._core.handlers.presence_info
        if function is None:
            return self._anywhere(session)
        client = session.client
        info = ClientInfo(client.id, client.user, self._asked(function, session, room))
        if room in session.memberships:
            self._keep(session, room, info)
        return info

    def note_identity(self, session: ClientSession, said: Any) -> None:
        """Note what its identity says of a client that has just connected, if that is what others see."""
        if self._core.handlers.presence_info is not None:
            return
        client = session.client
        info = ClientInfo(client.id, client.user, None, self._read(session, said))
        self._keep(session, EVERYBODY, info)

    def note_token(self, session: ClientSession, room: str, said: Any) -> None:
        """Note what a token says of a client that comes into a room by it."""
        if self._core.handlers.presence_info is not None:
            return
        at_all = self._anywhere(session)
        said = self._read(session, said)
        info = ClientInfo(at_all.client, at_all.user, said, at_all.conn_info)
        self._keep(session, room, info)

    def forget(self, session: ClientSession, room: str) -> None:
        """Forget what others saw of a client in a room that it leaves."""
        if session.infos is not None:
            session.infos.pop(room, None)

    def _anywhere(self, session: ClientSession) -> ClientInfo:
        """Return what others see of a client where nothing else is said: one object for all rooms."""
        info = None if session.infos is None else session.infos.get(EVERYBODY)
        if info is None:
            client = session.client
            info = ClientInfo(client.id, client.user)
            self._keep(session, EVERYBODY, info)
        return info

    def _keep(self, session: ClientSession, room: str, info: ClientInfo) -> None:
        if session.infos is None:
            session.infos = {}
        session.infos[room] = info

    def _asked(self, function: Function, session: ClientSession, room: str) -> Any:
        """Return what the application says of a client in a room; None if it fails."""
        client = session.client
        try:
            return as_json(function(client, room), MOST_INFO_BYTES)
        except (Exception, asyncio.CancelledError) as error:  # it awaits nothing: never our own
            text = "presence_info failed for client %s in %s"
            shown = printable(room, 50)
            self._core.log.log(logging.ERROR, "presence", text, client.id, shown, error=error)
            return None

    def _read(self, session: ClientSession, said: Any) -> Any:
        """Return what an identity or a token says, as JSON; None, and a line in the log, if that cannot be."""
        try:
            return as_json(said, MOST_INFO_BYTES)
        except Exception as error:
            text = "the info of client %s is not shown to others: %s"
            why = printable(str(error))
            self._core.log.log(logging.WARNING, "presence", text, session.label, why)
            return None
