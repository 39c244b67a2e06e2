"""FirstMessage: whether a client has come to the right route, seen in the first thing that it says.

What must not live here: what becomes of messages (`dispatcher`), and how a command is written
(`dialects`). A plain client is looked at once; what it says afterwards costs nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..dialects.centrifuge_commands import is_lone_connect
from ..wire.frame import Frame
from .disconnects import WRONG_ROUTE
from .dispatcher import Dispatcher

if TYPE_CHECKING:
    from .session import ClientSession


class FirstMessage(Dispatcher):
    """The dispatcher of a plain client until its first message. Event loop only.

    A connect command of the Centrifuge protocol, which has a token in it, must reach no handler and
    nobody else: the client is closed, and told where to go.
    """

    def take(self, session: ClientSession, frame: Frame) -> None:
        """Hand the first message to its handler, and leave the rest to the hub's dispatcher."""
        if session.dispatcher is self:
            session.dispatcher = self._core.dispatcher
            if frame.is_text and is_lone_connect(frame.payload):
                self._core.registry.end(session, WRONG_ROUTE)
                return
        super().take(session, frame)
