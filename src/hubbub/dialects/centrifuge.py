"""The Centrifuge client protocol, JSON over WebSocket: for the SDKs that speak it.

What must not live here: who may do what, and what becomes of a command (`hub.commands`).

A message of a client is one or more JSON objects, a line each (`centrifuge_commands`); so is one of the
server (`centrifuge_events`). Payloads are JSON values, and are passed on as they are: a text that is no
JSON becomes a JSON string, and bytes become a JSON string in base64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from ..errors import (
    BAD_REQUEST,
    DISCONNECTED,
    INTERNAL_ERROR,
    INVALID_DATA,
    NORMAL,
    PERMISSION_DENIED,
    POLICY_VIOLATION,
    PROTOCOL_ERROR,
    SERVER_ERROR,
    SERVICE_RESTART,
    SHUTDOWN,
    UNSUPPORTED_DATA,
    ProtocolError,
)
from ..wire.frame import Frame
from .centrifuge_commands import read_command
from .centrifuge_events import PING_INTERVAL_S, write_event
from .dialect import Command, Dialect, Event

ENVELOPE_BYTES = 64 * 1024
"""An SDK's first message has its token and all its subscriptions, with their positions."""


CLOSE_CODES: Mapping[int, int] = {
    NORMAL: DISCONNECTED,
    PROTOCOL_ERROR: BAD_REQUEST,
    UNSUPPORTED_DATA: BAD_REQUEST,
    INVALID_DATA: BAD_REQUEST,
    POLICY_VIOLATION: PERMISSION_DENIED,
    INTERNAL_ERROR: SERVER_ERROR,
    SERVICE_RESTART: SHUTDOWN,
}
"""What codes of RFC 6455 are in this protocol: an SDK comes back after all codes under 3000."""


class CentrifugeDialect:
    """The dialect of the Centrifuge SDKs; see the module."""

    name: str = "centrifuge"
    subprotocols: tuple[str, ...] = ("centrifuge-json",)
    is_plain: bool = False
    ping_interval_s: float = PING_INTERVAL_S
    envelope_bytes: int = ENVELOPE_BYTES

    def parse(self, frame: Frame) -> Sequence[Command]:
        """Return the commands in a message, a line each."""
        if not frame.is_text:
            raise ProtocolError(BAD_REQUEST, "bad request: a message is text")
        lines = frame.payload.removesuffix(b"\n").split(b"\n")
        return [read_command(line) for line in lines]

    def encode(self, event: Event) -> Frame | None:
        """Return the frame that says `event`; None where this protocol has no words for it."""
        return write_event(event)

    def closing(self, code: int, reason: str) -> tuple[int, str]:
        """Return a code after which an SDK does what is meant, and a reason that it can read.

        An empty reason, or one that is JSON, it takes for the form of an older protocol.
        """
        code = CLOSE_CODES.get(code, code)
        if not reason:
            return code, "closed"
        try:
            msgspec.json.decode(reason)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return code, reason
        return code, f"closed: {reason}"

    def merge(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Write several in one message, a line each."""
        if len(frames) == 1:
            return frames
        return [Frame(b"\n".join(frame.payload for frame in frames), True)]


CENTRIFUGE: Dialect = CentrifugeDialect()
"""The Centrifuge dialect: one object serves everybody."""
