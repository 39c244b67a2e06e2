"""What it means that something failed: every cause, and what the program gets."""

from __future__ import annotations

import ssl

import pytest
from websockets.exceptions import (
    InvalidMessage,
    InvalidProxy,
    InvalidProxyMessage,
    NegotiationError,
    ProxyError,
)

from hubbub.connection.failures import CAUSES, Cause, FunctionFailed, FunctionWrong, outcome_of
from hubbub.connection.outcome import Retry
from hubbub.errors import Disconnected
from hubbub.model import Close


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def unverified(code: int) -> Exception:
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_code = code
    return error


SEEN = [
    FunctionFailed("x"),
    FunctionWrong("x"),
    caused(InvalidMessage("x"), EOFError()),
    InvalidProxy("ftp://x", "x"),
    caused(InvalidProxyMessage("x"), ValueError()),
    ProxyError("x"),
    caused(InvalidMessage("x"), ValueError()),
    NegotiationError("x"),
    unverified(10),
    unverified(18),
    ssl.SSLEOFError("x"),
    ssl.SSLError("x"),
    TimeoutError("x"),
    AssertionError("x"),
]


def test_a_failed_attempt_is_repeated() -> None:
    error = ConnectionRefusedError(111, "refused")
    close = Close(1006, "cannot connect: [Errno 111] refused")
    assert outcome_of(error) == (close, Retry.ALWAYS, 0.0, error)


def test_an_error_without_words_shows_its_kind() -> None:
    assert outcome_of(ConnectionResetError()).close.reason.endswith(": ConnectionResetError")


def test_a_reason_is_one_line() -> None:
    reason = outcome_of(OSError("a\nb\x1b[31m" + "x" * 999)).close.reason
    assert reason.isprintable()
    assert len(reason) < 300


def test_the_program_gets_one_kind_of_error_with_its_cause() -> None:
    cause = ZeroDivisionError("x")
    error = outcome_of(cause).as_error()
    assert isinstance(error, Disconnected)
    assert error.__cause__ is cause
    own = Disconnected(4500, "mine")
    assert outcome_of(own).as_error() is own


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
def test_every_cause_is_met_by_some_error(cause: Cause) -> None:
    assert [error for error in SEEN if next(c for c in CAUSES if c.matches(error)) is cause]
