"""Stream: a text that grows, as its producer holds it: tokens of a language model, lines of a log.

What must not live here: what a piece looks like (`wire.piece`), what who joins is given (`recovery`,
`registry`).
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..errors import CommandError, StreamUnheard
from ..limits import printable
from ..wire.piece import Piece, frame_of
from .client import Client

if TYPE_CHECKING:
    from .core import Core

ASK_S = 1.0
"""How long other processes have to say that somebody listens there."""
ASKS = 4
"""How often they are asked: one that is just connecting to the broker again hears nothing for some seconds."""


class Stream:
    """A text that grows, in a room that remembers its pieces; made by `Room.stream`.

    `async with` begins the text and tells its end. What leaves the block by an exception, a cancelled task
    included, is told as broken: nobody takes what there is for the whole. Event loop only.
    """

    def __init__(self, core: Core, room: str, unheard_s: float | None) -> None:
        self._core = core
        self._room = room
        self._unheard_s = unheard_s
        self._unheard_since: float | None = None
        self._is_open = False

    @property
    def has_listeners(self) -> bool:
        """Whether the room has members in this process now."""
        return bool(self._core.registry.members_of(self._room))

    async def __aenter__(self) -> Self:
        """Begin the text: an older one in the room is over.

        Raises `CommandError` ("streaming") while another stream of this process is open in the room, and as
        `append` does.
        """
        streaming = self._core.publishing.streaming
        if self._room in streaming:
            room = printable(self._room, 50)
            text = f"a stream is open in {room!r} already: one at a time"
            raise CommandError("streaming", text, temporary=True)
        streaming.add(self._room)
        try:
            await self._publish(Piece("stream"))
        except BaseException:
            streaming.discard(self._room)
            raise
        self._is_open = True
        self._unheard_since = None
        return self

    async def append(self, text: str, *, exclude: Client | None = None) -> None:
        """Add a piece to the text for every member but `exclude`, and wait for the broker's receipt.

        An empty text adds nothing. Other work gets a turn of the event loop each time. Raises `BrokerError`
        when the broker did not take the piece, `HubNotRunning` where the hub does not run,
        `StreamUnheard` (see `Room.stream`) when the piece is kept and nobody listens, `RuntimeError` outside
        of the block.
        """
        if not self._is_open:
            raise RuntimeError("append inside of the block: async with room.stream() as s")
        if not isinstance(text, str):
            raise TypeError(f"a piece is a str, not {type(text).__name__}")
        if text:
            await self._publish(Piece("append", text), exclude)
        await asyncio.sleep(0)
        if self._unheard_s is not None:
            await self._require_heard(self._unheard_s)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Tell the end. What fails in that raises as `append` does, unless the block has failed."""
        self._is_open = False
        self._core.publishing.streaming.discard(self._room)
        if error is None:
            await self._publish(Piece("append", is_final=True))
            return
        try:
            await self._publish(Piece("append", is_final=True, is_broken=True))
        except Exception as failure:  # the block's own error is what the producer has to see
            text = "nobody could be told that the stream in %s is broken: %s"
            why = printable(str(failure) or type(failure).__name__)
            room = printable(self._room, 50)
            self._core.log.log(logging.WARNING, "stream", text, room, why)

    async def _publish(self, piece: Piece, exclude: Client | None = None) -> None:
        await self._core.publishing.publish_piece(self._room, frame_of(piece), exclude)

    async def _require_heard(self, unheard_s: float) -> None:
        """Raise `StreamUnheard` if nobody has listened for so long, here or elsewhere.

        It counts from the first piece that nobody was there for: before that it is not known.
        """
        core = self._core
        if self.has_listeners:
            self._unheard_since = None
            return
        now = core.now()
        if self._unheard_since is None:
            self._unheard_since = now
        if now - self._unheard_since < unheard_s:
            return
        for _ in range(ASKS):
            if await core.control.has_members(self._room, ASK_S):
                self._unheard_since = None
                return
            if self.has_listeners:  # somebody has come while the others were asked
                return
        raise StreamUnheard(self._room, unheard_s)
