"""Decoders: from a whole message to what a handler asked for by its annotation.

What must not live here: which handler gets a message, and what is answered (`handlers`, a dialect).
The same in all dialects. All functions are pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ..errors import CommandError
from ..limits import explain
from ..wire.frame import Frame
from .types import check_readable, check_type, is_pydantic, unmarked

Decoder = Callable[[Frame], Any]
"""Turns a frame into what a handler asked for, or raises `CommandError`."""


class _Typed(msgspec.Struct):
    type: str | None = None


_type_decoder = msgspec.json.Decoder(_Typed)


def decoder_for(annotation: Any, kind: str | None = None) -> Decoder:
    """Return a decoder by annotation.

    `str`: text messages. `bytes`: binary messages. `str | bytes`: either. `Frame`: the frame
    itself. A pydantic model or dataclass: JSON, validated by pydantic. Anything else that msgspec reads
    (dict, list, dataclass, Struct, unions of tagged Structs): JSON, validated by msgspec.

    Raises `TypeError` for an annotation that it cannot read, or that no message fits; with `kind`, no
    message whose type is that.
    """
    taken = _as_it_comes(annotation)
    if taken is not None:
        return taken
    check_readable(annotation)
    if kind is not None:
        check_type(annotation, kind)
    model = unmarked(annotation)
    return _pydantic(model) if is_pydantic(model) else _json(annotation)


def type_of(frame: Frame) -> str | None:
    """Return the `type` of a JSON object; None for every other message."""
    if frame.payload.lstrip()[:1] != b"{":
        return None
    try:
        return _type_decoder.decode(frame.payload).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _as_it_comes(annotation: Any) -> Decoder | None:
    """Return the decoder of a type that is no JSON; None for all others."""
    if annotation is str:
        return _text
    if annotation is bytes:
        return _binary
    if annotation in (bytearray, memoryview):
        return lambda frame: annotation(_binary(frame))
    if annotation in (str | bytes, Any):
        return _either
    return _frame if annotation is Frame else None


def _text(frame: Frame) -> str:
    if not frame.is_text:
        raise CommandError("text_expected", "a text message was expected, and binary came")
    return frame.text


def _binary(frame: Frame) -> bytes:
    if frame.is_text:
        raise CommandError("binary_expected", "a binary message was expected, and text came")
    return frame.payload


def _either(frame: Frame) -> str | bytes:
    return frame.text if frame.is_text else frame.payload


def _frame(frame: Frame) -> Frame:
    return frame


def _json(annotation: Any) -> Decoder:
    decode = msgspec.json.Decoder(annotation).decode

    def decode_json(frame: Frame) -> Any:
        try:
            return decode(frame.payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CommandError("invalid_message", explain(error)) from None

    return decode_json


def _pydantic(model: Any) -> Decoder:
    is_dataclass = not hasattr(model, "model_validate_json")

    def decode_model(frame: Frame) -> Any:
        # Its validator may be made later, once all types that it names are defined.
        reader = (
            model.__pydantic_validator__.validate_json
            if is_dataclass
            else model.model_validate_json
        )
        try:
            return reader(frame.payload)
        except ValueError as error:
            raise CommandError("invalid_message", explain(error)) from None

    return decode_model
