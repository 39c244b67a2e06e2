"""Frame: one message, encoded once, its wire form cached; and what a Python value becomes.

What must not live here: sockets, clients, masking (a server never masks). `encode` is called by
the hub's verbs, `wire` by the fan-out.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

TEXT = 0x1
BINARY = 0x2

DEFLATE_WINDOW_BITS = 12
"""The window of what is deflated: 4 KiB. There is one for all clients, so that one form serves all.
A window of 32 KiB makes messages of 64 KiB two percent shorter, and those of 8 KiB no shorter."""
_DEFLATE_LEVEL = 6
_DEFLATE_MEMORY_LEVEL = 5
_RSV1 = 0x40

_pack_short = struct.Struct("!BBH").pack
_pack_long = struct.Struct("!BBQ").pack


def header(opcode: int, length: int) -> bytes:
    """Return the header of a final, unmasked frame (RFC 6455 section 5.2)."""
    first = 0x80 | opcode
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return _pack_short(first, 126, length)
    return _pack_long(first, 127, length)


_SHORT_TEXT = tuple(header(TEXT, length) for length in range(126))
_SHORT_BINARY = tuple(header(BINARY, length) for length in range(126))


def deflate(payload: bytes) -> bytes:
    """Return `payload` as a deflated message carries it (RFC 7692 section 7.2.1).

    It refers to nothing that was sent before, so every client that negotiated
    `server_no_context_takeover` can inflate it.
    """
    deflater = zlib.compressobj(
        _DEFLATE_LEVEL, zlib.DEFLATED, -DEFLATE_WINDOW_BITS, _DEFLATE_MEMORY_LEVEL
    )
    return (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


class _NoJson:
    """What a frame holds so that no encoder of JSON takes it for a value."""


_NO_JSON = _NoJson()


class Frame(msgspec.Struct, eq=False, gc=False):
    """One message: `payload` bytes, and whether it `is_text`.

    `text_seen` is the payload as `str`, when somebody has decoded it already. The wire form is made at the first
    need and shared by every receiver. Frames are immutable by convention; two threads that ask for `wire`
    at once build the same bytes twice, no more.
    """

    # One is made for every message that comes and goes, as fast as can be: a Struct is made in C, and is nothing
    # that the garbage collector has to look at.
    payload: bytes
    is_text: bool
    text_seen: str | None = None
    _wire: bytes | None = None
    _deflated: bytes | None = None
    _no_json: _NoJson = _NO_JSON

    @property
    def wire(self) -> bytes:
        """Header and payload, as a server sends them."""
        wire = self._wire
        if wire is None:
            payload = self.payload
            length = len(payload)
            if length < 126:
                short = _SHORT_TEXT if self.is_text else _SHORT_BINARY
                wire = short[length] + payload
            else:
                wire = header(TEXT if self.is_text else BINARY, length) + payload
            self._wire = wire
        return wire

    def deflated(self, min_bytes: int) -> bytes:
        """Return the wire form for clients that negotiated permessage-deflate (RFC 7692).

        That is `wire` when the payload is smaller than `min_bytes`, and when deflating would not
        make it shorter: a message without RSV1 may stand between deflated ones (section 6.1).
        """
        if len(self.payload) < min_bytes:
            return self.wire
        if self._deflated is not None:
            return self._deflated
        payload = deflate(self.payload)
        if len(payload) < len(self.payload):
            opcode = TEXT if self.is_text else BINARY
            self._deflated = header(_RSV1 | opcode, len(payload)) + payload
        else:
            self._deflated = self.wire
        return self._deflated

    @property
    def text(self) -> str:
        """The payload as `str`, for transports that take text (ASGI)."""
        text = self.text_seen
        if text is None:
            text = self.text_seen = self.payload.decode("utf-8")
        return text

    def has_text(self) -> bool:
        """Tell whether the payload is UTF-8, and keep the text if so."""
        try:
            self.text_seen = self.payload.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True

    def __repr__(self) -> str:
        kind = "text" if self.is_text else "binary"
        return f"Frame({kind}, {len(self.payload)} bytes)"


def _enc_hook(value: Any) -> Any:
    """Turn what msgspec does not know into something it does: pydantic models, then iterables."""
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    if isinstance(value, (set, frozenset)):
        return list(value)
    kind = Frame if isinstance(value, _NoJson) else type(value)
    raise TypeError(f"cannot send a {kind.__name__}: it has no JSON form")


encode_json: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=_enc_hook).encode


def encode(data: Any) -> Frame:
    """Encode what an application wants to send.

    `str` becomes a text frame, `bytes`, `bytearray` and `memoryview` a binary frame, a `Frame`
    stays itself; anything else (dict, list, number, None, dataclass, msgspec Struct, pydantic
    model, datetime, UUID, Decimal) becomes JSON text, times as ISO 8601.

    Raises `TypeError` for a value that has no JSON form and `UnicodeEncodeError` for a string with
    lone surrogates. May be called from any thread.
    """
    if type(data) is str:
        return Frame(data.encode(), True, data)
    if type(data) is bytes:
        return Frame(data, False)
    if isinstance(data, Frame):
        return data
    if isinstance(data, str):
        return Frame(data.encode(), True)
    if isinstance(data, (bytes, bytearray, memoryview)):
        return Frame(bytes(data), False)
    return Frame(encode_json(data), True)


class Batch:
    """The frames that one turn of the event loop has for a group of clients, joined once.

    One WebSocket frame per message, always: joining puts frames behind one another, never several
    messages into one frame.
    """

    __slots__ = ("_wire", "frames")

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames: Sequence[Frame] = frames
        self._wire: bytes | None = None

    @property
    def wire(self) -> bytes:
        """All frames as they go to a socket."""
        wire = self._wire
        if wire is None:
            frames = self.frames
            wire = frames[0].wire if len(frames) == 1 else b"".join([f.wire for f in frames])
            self._wire = wire
        return wire

    def last(self) -> Batch:
        """Return a batch of the last frame alone, for the same clients."""
        return Batch(self.frames[-1:])

    def __len__(self) -> int:
        return len(self.frames)


class DeflatedBatch(Batch):
    """A batch for clients that negotiated permessage-deflate; see `Frame.deflated`."""

    __slots__ = ("_min_bytes",)

    def __init__(self, frames: Sequence[Frame], min_bytes: int) -> None:
        super().__init__(frames)
        self._min_bytes = min_bytes

    @property
    def wire(self) -> bytes:
        """All frames as they go to a socket, those deflated that are shorter then."""
        wire = self._wire
        if wire is None:
            parts = [frame.deflated(self._min_bytes) for frame in self.frames]
            wire = self._wire = parts[0] if len(parts) == 1 else b"".join(parts)
        return wire

    def last(self) -> DeflatedBatch:
        """Return a batch of the last frame alone, for the same clients."""
        return DeflatedBatch(self.frames[-1:], self._min_bytes)
