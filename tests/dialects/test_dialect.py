"""The contract of a dialect: what every implementation owes, PlainDialect the first."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hubbub import CommandError, Frame
from hubbub.dialects.dialect import Dialect
from hubbub.dialects.plain import PlainDialect

DIALECTS: list[Callable[[], Dialect]] = [PlainDialect]


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    made: Dialect = request.param()
    return made


def test_an_error_is_a_frame(dialect: Dialect) -> None:
    frame = dialect.error(CommandError("code", "sentence"))
    assert isinstance(frame, Frame)
    assert b"sentence" in frame.payload


def test_a_request_for_a_new_token_is_a_frame(dialect: Dialect) -> None:
    assert isinstance(dialect.refresh(29.9), Frame)
