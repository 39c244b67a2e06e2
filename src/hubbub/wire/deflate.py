"""Inflating: what a client's deflated frames say (RFC 7692), within a limit.

What must not live here: which offers are taken (`transports.deflate`), the deflating of what is sent
(`frame`), frames and their boundaries (`reader`, which calls this).
"""

from __future__ import annotations

import zlib

from websockets.exceptions import PayloadTooBig
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame as WireFrame

from .frame import DEFLATE_WINDOW_BITS

_LARGEST_WINDOW_BITS = 15
_TAIL = b"\x00\x00\xff\xff"


def slack_bytes(limit: int) -> int:
    """Return how much longer than `limit` a frame may be whose content is not.

    What cannot be deflated grows by it: at most so much, with any encoder's settings (zlib's
    `deflateBound`).
    """
    return limit // 8 + 64


def inflate(data: bytes, limit: int | None) -> bytes | None:
    """Return what the payload of a whole message says (RFC 7692 section 7.2.2).

    None for data that is faulty, or says more than `limit` bytes (None: no limit); never more than
    that is inflated.
    """
    inflater = zlib.decompressobj(-_LARGEST_WINDOW_BITS)
    try:
        payload = inflater.decompress(data + _TAIL, 0 if limit is None else limit + 1)
    except zlib.error:
        return None
    return payload if limit is None or len(payload) <= limit else None


class Inflater(PerMessageDeflate):
    """Undoes what one client's frames were deflated with, without context takeover.

    It inflates up to a limit and stops there, so a bomb never unfolds. `slack` is what the core's
    `max_size` has above the limit, for frames that have grown by being deflated.
    """

    def __init__(self, slack: int) -> None:
        # The largest window inflates what any smaller one has deflated.
        super().__init__(True, True, _LARGEST_WINDOW_BITS, DEFLATE_WINDOW_BITS)
        self._slack = slack

    def decode(self, frame: WireFrame, *, max_size: int | None = None) -> WireFrame:
        """Inflate a frame. Raises `PayloadTooBig` and `ProtocolError` of `websockets`."""
        if max_size is None:
            return super().decode(frame)
        limit = max_size - self._slack
        try:
            decoded = super().decode(frame, max_size=max_size)
        except PayloadTooBig:
            raise PayloadTooBig(None, limit) from None
        if len(decoded.data) > limit and frame.opcode < 8:
            raise PayloadTooBig(len(decoded.data), limit)
        return decoded
