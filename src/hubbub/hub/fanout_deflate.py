"""Fan-out for a hub with compression: the same turn in two forms, plain and deflated.

What must not live here: negotiation (the native transport), deflating (`frame`). The registry
makes one of these instead of a `Fanout` when the setting is on; without it none of this runs.

There are two forms and never more, whatever the sessions have offered: each is joined once, and
shared by all that take it. A form that nobody takes is not made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..settings import SlowPolicy
from ..stats import Stats
from ..wire.frame import Batch, DeflatedBatch, Frame
from .fanout import Fanout, Schedule
from .outbox import Entry
from .session import ClientSession


class SharedDeflateFanout(Fanout):
    """Delivers the deflated form to sessions whose transport `deflates`. Event loop only.

    `min_bytes` is the setting `compression_min_bytes`; see `Fanout` for the rest.
    """

    def __init__(
        self,
        stats: Stats,
        policy: SlowPolicy,
        schedule: Schedule,
        min_bytes: int,
    ) -> None:
        super().__init__(stats, policy, schedule)
        self._min_bytes = min_bytes

    def _wire_of(self, session: ClientSession, frame: Frame) -> bytes:
        return frame.deflated(self._min_bytes) if session.transport.deflates else frame.wire

    def _deliver(
        self, sessions: list[ClientSession], batch: Batch, entries: Callable[[], Iterable[Entry]]
    ) -> None:
        deflating = [session for session in sessions if session.transport.deflates]
        if len(deflating) < len(sessions):
            plain = [session for session in sessions if not session.transport.deflates]
            super()._deliver(plain, batch, entries)
        if deflating:
            super()._deliver(deflating, self._deflated(batch), lambda: self._entries_of(entries))

    def _deflated(self, batch: Batch) -> DeflatedBatch:
        return DeflatedBatch(batch.frames, self._min_bytes)

    def _entries_of(self, entries: Callable[[], Iterable[Entry]]) -> list[Entry]:
        """Say the same entries in the form of the sessions whose outboxes judge their size."""
        return [entry._replace(batch=self._deflated(entry.batch)) for entry in entries()]
