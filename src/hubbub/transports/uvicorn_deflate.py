"""The native transport of a client that negotiated permessage-deflate.

What must not live here: negotiation (`deflate`), deflating what is sent (`frame`), the socket itself
(`transport_uvicorn`). `protocol_uvicorn` makes one where an offer was met.
"""

from __future__ import annotations

import asyncio

from websockets.frames import Frame as WireFrame
from websockets.server import ServerProtocol

from ..wire.deflate import Inflater, inflate, slack_bytes
from ..wire.frame import Frame
from .uvicorn import CONTROL_BIT, COST_BYTES, NativeTransport, apply_mask


class DeflatingTransport(NativeTransport):
    """The socket of a client that negotiated permessage-deflate without context takeover.

    It holds nothing that other sockets do not: what inflates belongs to the core, and ends with
    the message.
    """

    __slots__ = ()
    deflates = True

    def _use_core(self) -> ServerProtocol:
        is_new = self._core is None
        core = super()._use_core()
        if is_new:
            limit = self._session.limits.max_message_bytes
            core.extensions = [Inflater(0 if limit is None else slack_bytes(limit))]
        return core

    def _frame_limit(self) -> int | None:
        limit = self._session.limits.max_message_bytes
        return None if limit is None else limit + slack_bytes(limit)

    def _read_control_or_slow(self, data: bytes | bytearray, position: int, end: int) -> int:
        """Inflate the common frame here: a whole message, right and under 64 KiB.

        Browsers send nothing else, and the core takes seven times as long. What is faulty, too
        large, or not whole yet is left to it.
        """
        first, second = data[position], data[position + 1]
        if self._session.limits.inflating.is_spent and not first & CONTROL_BIT:
            self._rest_a_turn()
            return 0
        if (first == 0xC1 or first == 0xC2) and 0x80 <= second < 0xFF and self._message is None:
            length = second - 0x80
            start = position + 6
            if length == 126 and end - position >= 4:
                length = data[position + 2] << 8 | data[position + 3]
                start = position + 8
            stop = start + length
            limit = self._frame_limit()
            if stop <= end and (limit is None or length <= limit):
                payload = apply_mask(data[start:stop], data[start - 4 : start])
                if self._take_deflated(payload, first == 0xC1):
                    return stop - position
        return super()._read_control_or_slow(data, position, end)

    def _take_event(self, event: WireFrame) -> None:
        """Take what the core has inflated."""
        self._charge(len(event.data))
        super()._take_event(event)

    def _charge(self, size: int) -> None:
        budget = self._session.limits.inflating
        if budget.charge(size):
            asyncio.get_running_loop().call_soon(budget.renew)

    def _take_deflated(self, payload: bytes, is_text: bool) -> bool:
        inflated = inflate(payload, self._session.limits.max_message_bytes)
        if inflated is None:
            return False
        self._charge(len(inflated))
        self._extra_cost += len(inflated) // COST_BYTES
        frame = Frame(inflated, is_text)
        if is_text and not frame.has_text():
            self._fail_utf8()
        else:
            self._session.receive(frame)
        return True
