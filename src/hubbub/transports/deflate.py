"""permessage-deflate at the edge: which offers of a handshake are taken.

What must not live here: sockets, and the deflating and inflating itself (`wire.frame`, `wire.deflate`).
It works with what `websockets` has for RFC 7692.
"""

from __future__ import annotations

from collections.abc import Sequence

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.server import ServerProtocol
from websockets.typing import ExtensionParameter

from ..errors import Refused
from ..wire.frame import DEFLATE_WINDOW_BITS


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
