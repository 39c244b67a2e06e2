"""Variants: the forms in which clients get their bytes. Each form is made once, for all that share it.

What must not live here: who gets what (`fanout`), the forms' bytes (`wire`), the words (a dialect).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ..dialects.dialect import (
    Dialect,
    Event,
    Joined,
    Left,
    Message,
    PresencePaused,
    Published,
)
from ..logs import RateLimitedLogger
from ..model import EVERYBODY, USER_PREFIX
from ..wire.frame import Batch, DeflatedBatch, Frame
from ..wire.presence import read_told
from ..wire.publication import Kind, Publication

ENCODED: Publication = Publication(EVERYBODY, Frame(b"", False))
"""Stands for the publication of a frame that is in its client's dialect already."""

Row = tuple[Any, Frame, Any, Publication | None]
"""What is to be sent, as the fan-out has it: the message is the second, and the publication that it came
with the fourth (None: it was sent to one client alone)."""


class Variant:
    """A dialect, with or without permessage-deflate. There is one object for each that is in use.

    `min_bytes` is the setting `compression_min_bytes`. What a dialect raises is told to `log` and ends
    here: it costs the clients of that dialect what could not be said, and nobody else anything.
    """

    __slots__ = ("_log", "deflates", "dialect", "is_plain", "min_bytes", "passes_messages")

    def __init__(
        self, dialect: Dialect, *, deflates: bool, min_bytes: int, log: RateLimitedLogger
    ) -> None:
        self._log = log
        self.dialect: Dialect = dialect
        self.deflates: bool = deflates
        self.min_bytes: int = min_bytes
        self.passes_messages: bool = dialect.is_plain
        """Whether messages are in this dialect as they are."""
        self.is_plain: bool = dialect.is_plain and not deflates
        """Whether messages go out as they are, so that nothing has to be made."""

    def __repr__(self) -> str:
        return f"<Variant {self.dialect.name}{' deflated' if self.deflates else ''}>"

    def frame_of(self, frame: Frame, publication: Publication | None) -> Frame | None:
        """Return a message in this dialect; None where the dialect has no words for it."""
        dialect = self.dialect
        if dialect.is_plain or publication is ENCODED:
            return frame
        if publication is None:
            return self.encode(Message(frame))
        forms = publication.forms
        if dialect not in forms:
            room = publication.room
            is_hidden = room == EVERYBODY or room[0] == USER_PREFIX
            event: Event | None
            if publication.kind is not Kind.MESSAGE:
                event = self._told(publication)
            else:
                event = Message(frame) if is_hidden else Published(publication)
            forms[dialect] = None if event is None else self.encode(event)
        return forms[dialect]

    def _told(self, publication: Publication) -> Event | None:
        """Return the event of a publication that tells of joins or leaves; None for one that is none."""
        room = publication.room
        try:
            told = read_told(publication.frame, publication.kind)
        except ValueError as error:
            self._failed(publication.kind.value, error)
            return None
        if told.is_paused is not None:
            return PresencePaused(room, told.is_paused)
        kind = Joined if told.kind is Kind.JOIN else Left
        return kind(room, told.infos)

    def encode(self, event: Event) -> Frame | None:
        """Return an event in this dialect; None where it has no words for it, or has failed."""
        try:
            return self.dialect.encode(event)
        except Exception as error:
            self._failed(type(event).__name__, error)
            return None

    def closing(self, code: int, reason: str) -> tuple[int, str]:
        """Return the code and the reason of a close as the clients of this dialect understand them."""
        closing = getattr(self.dialect, "closing", None)
        if closing is None:
            return code, reason
        try:
            code, reason = closing(code, reason)
        except Exception as error:
            self._failed("closing", error)
        return code, reason

    def _merge(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        try:
            return list(self.dialect.merge(frames))
        except Exception as error:
            self._failed("merge", error)
            return frames

    def _failed(self, what: str, error: Exception) -> None:
        text = "the dialect %s failed at %s"
        self._log.log(logging.ERROR, "dialect", text, self.dialect.name, what, error=error)

    def batch(self, frames: Sequence[Frame]) -> Batch:
        """Join frames of this dialect for the clients of this variant."""
        if self.is_plain:
            return Batch(frames)
        if self.dialect.is_plain:
            return DeflatedBatch(frames, self.min_bytes)
        return VariantBatch(frames, self)

    def wire(self, frames: Sequence[Frame]) -> bytes:
        """Return frames of this dialect as bytes for a socket."""
        if not self.dialect.is_plain:
            frames = self._merge(frames)
        if self.deflates:
            parts = [frame.deflated(self.min_bytes) for frame in frames]
        else:
            parts = [frame.wire for frame in frames]
        return parts[0] if len(parts) == 1 else b"".join(parts)


class VariantBatch(Batch):
    """A batch of a dialect that may join what it says."""

    __slots__ = ("_variant",)

    def __init__(self, frames: Sequence[Frame], variant: Variant) -> None:
        super().__init__(frames)
        self._variant = variant

    @property
    def wire(self) -> bytes:
        """All frames as they go to a socket."""
        wire = self._wire
        if wire is None:
            wire = self._wire = self._variant.wire(self.frames)
        return wire

    def last(self) -> VariantBatch:
        """Return a batch of the last frame alone, for the same clients."""
        return VariantBatch(self.frames[-1:], self._variant)


class Variants:
    """The variants in use. Event loop only."""

    def __init__(self, min_bytes: int, log: RateLimitedLogger) -> None:
        self._min_bytes = min_bytes
        self._log = log
        self._known: dict[tuple[int, bool], Variant] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, dialect: Dialect, *, deflates: bool) -> Variant:
        """Return the one variant of its kind."""
        key = (id(dialect), deflates)
        variant = self._known.get(key)
        if variant is None:
            variant = self._known[key] = Variant(
                dialect, deflates=deflates, min_bytes=self._min_bytes, log=self._log
            )
        return variant


def frames_of(variant: Variant, rows: Sequence[Row]) -> list[Frame]:
    """Return what `rows` are in a variant; what has no words in its dialect is left out."""
    if variant.passes_messages:
        return [row[1] for row in rows]
    made = [variant.frame_of(row[1], row[3]) for row in rows]
    return [frame for frame in made if frame is not None]
