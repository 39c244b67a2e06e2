"""What the end of an open connection means."""

from __future__ import annotations

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close as CloseFrame

from hubbub.connection.outcome import Retry, outcome_of_close
from hubbub.errors import CLOSE_CODES, with_retry_after
from hubbub.model import Close


@pytest.mark.parametrize("row", CLOSE_CODES, ids=lambda row: str(row.code))
def test_the_table_decides_who_comes_back(row: tuple[int, str, bool, str]) -> None:
    error = ConnectionClosedError(CloseFrame(row[0], "why"), None)
    retry = Retry.ALWAYS if row[2] else Retry.NEVER
    assert outcome_of_close(error) == (Close(row[0], "why", by_server=True), retry, 0.0, error)


def test_the_first_close_of_two_counts() -> None:
    server, client = CloseFrame(1012, "restart"), CloseFrame(1000, "bye")
    assert outcome_of_close(ConnectionClosedError(server, client, True)).close == (
        1012,
        "restart",
        True,
    )
    assert outcome_of_close(ConnectionClosedError(server, client, False)).close == (
        1000,
        "bye",
        False,
    )


def test_a_broken_connection_is_1006() -> None:
    outcome = outcome_of_close(ConnectionClosedError(None, None))
    assert (outcome.close.code, outcome.retry) == (1006, Retry.ALWAYS)


def test_a_close_of_the_server_may_say_when_to_come_back() -> None:
    frame = CloseFrame(1012, with_retry_after("service restart", 7.25))
    outcome = outcome_of_close(ConnectionClosedError(frame, None))
    assert (outcome.retry, outcome.retry_after_s) == (Retry.ALWAYS, 7.25)
    ours = outcome_of_close(ConnectionClosedError(None, frame))
    assert ours.retry_after_s == 0.0
