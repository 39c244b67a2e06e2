"""permessage-deflate at the edge: which offers are taken, and what inflates a client's frames.

What must not live here: sockets, and the deflating of what is sent (`frame`). The native transport
calls it. Both work with what `websockets` has for RFC 7692.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader, NegotiationError, PayloadTooBig
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Frame as WireFrame
from websockets.server import ServerProtocol
from websockets.typing import ExtensionParameter

from ..errors import Refused
from ..wire.frame import DEFLATE_WINDOW_BITS

_LARGEST_WINDOW_BITS = 15
_TAIL = b"\x00\x00\xff\xff"


class _SharedFactory(ServerPerMessageDeflateFactory):
    """Takes the offers that the one shared form can meet."""

    def process_request_params(
        self,
        params: Sequence[ExtensionParameter],
        accepted_extensions: Sequence[Extension],
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """Decline a window smaller than ours, which would need a form of its own.

        RFC 7692 section 7.1.2.1: such an offer may be declined; another of the same client, or
        the connection without the extension, does.
        """
        answer, extension = super().process_request_params(params, accepted_extensions)
        if extension.local_max_window_bits < DEFLATE_WINDOW_BITS:
            raise NegotiationError("a smaller window than that of the shared form")
        return answer, extension


_negotiator = ServerProtocol(
    extensions=[
        _SharedFactory(
            server_no_context_takeover=True,
            client_no_context_takeover=True,
            server_max_window_bits=DEFLATE_WINDOW_BITS,
        )
    ]
)


def negotiate(headers: Headers) -> str | None:
    """Return the answer to what a handshake offers; None when no offer can be met.

    Raises `Refused` (400) for a header that is none of RFC 6455 section 9.1.
    """
    try:
        return _negotiator.process_extensions(headers)[0]
    except InvalidHeader as error:
        message = "The header Sec-WebSocket-Extensions cannot be read"
        raise Refused(400, message=message) from error


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
