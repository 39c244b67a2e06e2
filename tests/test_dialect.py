"""The contract of a dialect: what every implementation owes, PlainDialect the first."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from hubbub import CommandError, Frame
from hubbub.dialect import Decoder, Dialect
from hubbub.dialect_plain import PlainDialect

DIALECTS: list[Callable[[], Dialect]] = [PlainDialect]
FRAMES = [
    Frame(b"", True),
    Frame(b"text", True),
    Frame(b'{"type": "say"}', True),
    Frame(b"\xff\xfe", False),
    Frame(b"[" * 100_000, True),
]


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    made: Dialect = request.param()
    return made


@pytest.mark.parametrize("annotation", [str, bytes, dict, str | bytes], ids=str)
def test_a_decoder_answers_or_refuses_and_nothing_else(
    dialect: Dialect, annotation: object
) -> None:
    decoder: Decoder = dialect.decoder(annotation)
    for frame in FRAMES:
        with suppress(CommandError):
            decoder(frame)


def test_a_type_is_a_string_or_none_whatever_the_bytes(dialect: Dialect) -> None:
    assert [dialect.type_of(frame) for frame in FRAMES] == [None, None, "say", None, None]


def test_an_error_is_a_frame(dialect: Dialect) -> None:
    frame = dialect.error(CommandError("code", "sentence"))
    assert isinstance(frame, Frame)
    assert b"sentence" in frame.payload


def test_an_annotation_that_cannot_be_read_is_a_type_error(dialect: Dialect) -> None:
    with pytest.raises(TypeError):
        dialect.decoder(dict[str, int] | dict[int, str])
