"""Every refusal, failure and close that a client may meet, as `refusals.json` says what follows.

The same file and the same server (`refusing.py`) are for hubbub.js, in Node and in Chromium, and
the file makes the tables of docs/coming-back.md. Here the Python client meets each row.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from answering import SILENCE, answering, asynchronous, status, until
from certificates import certificate
from hubbub.connection import Connection, connect
from hubbub.connection.retry import GIVES_UP_AFTER, GIVES_UP_AFTER_WAS_OPEN
from hubbub.errors import CLOSE_CODES, RECONNECT_RANGES, Disconnected
from refusing import ROWS, RefusingServer, attempts_of
from stress.ports import free_port

REFUSALS = {row["status"]: row for row in ROWS["refusals"]}
CLOSES = {row["code"]: row for row in ROWS["closes"]}
FAILURES = {row["cause"]: row for row in ROWS["failures"]}
ENOUGH = GIVES_UP_AFTER + 3
"""After so many attempts a client is one that comes back, and not one that gives up."""

AT_ONCE: dict[str, Any] = {"fixed_delay_s": 0, "proxy": None}


@pytest.fixture(scope="module")
def refusing() -> Iterator[RefusingServer]:
    with RefusingServer() as server:
        yield server


async def the_end(connection: Connection) -> Disconnected:
    """Return what the iteration raises."""
    async with asyncio.timeout(20):
        with pytest.raises(Disconnected) as caught:
            await anext(connection)
    assert connection.state == "closed"
    return caught.value


def noting(url: str, urls: list[str]) -> Callable[[], str]:
    """Return an address function that gives a new token each time, and notes what it gave."""

    def address() -> str:
        urls.append(f"{url}?token={len(urls)}")
        return urls[-1]

    return address


def test_the_numbers_are_those_of_the_file() -> None:
    assert ROWS["gives_up_after"] == {
        "never_open": GIVES_UP_AFTER,
        "was_open": GIVES_UP_AFTER_WAS_OPEN,
    }


def test_every_code_of_the_table_has_a_row_and_every_range_its_ends() -> None:
    ends = {end for first, last, _ in RECONNECT_RANGES for end in (first, last)}
    assert {code.code for code in CLOSE_CODES} | ends == set(CLOSES)


@pytest.mark.parametrize("number", REFUSALS)
def test_fault_12_what_follows_a_refusal(number: int, refusing: RefusingServer) -> None:
    @asynchronous
    async def scenario() -> None:
        row = REFUSALS[number]
        path = f"/refuse/{number}"
        before = refusing.handshakes[path]
        seen: list[Any] = []

        def note(state: str) -> None:
            seen.append(connection.last_close)

        connection = connect(refusing.url + path, on_state=note, **AT_ONCE)
        async with connection:
            if attempts_of(row, ENOUGH) == ENOUGH:
                await until(lambda: refusing.handshakes[path] >= before + ENOUGH)
                assert connection.state != "closed"
            else:
                error = await the_end(connection)
                assert refusing.handshakes[path] - before == attempts_of(row, ENOUGH)
                assert connection.last_close == (error.code, error.reason, True)
        reason = "Because" if number == 204 else f"because {number}"
        # A redirect is followed, to a page that answers 200.
        expected = (200, "Because", True) if row.get("redirect") else (number, reason, True)
        assert expected in seen

    scenario()


@pytest.mark.parametrize("number", [number for number, row in REFUSALS.items() if row["gives_up"]])
def test_a_client_that_was_open_gives_up_much_later(number: int, refusing: RefusingServer) -> None:
    @asynchronous
    async def scenario() -> None:
        path = f"/once/{number}"
        async with connect(refusing.url + path, **AT_ONCE) as connection:
            error = await the_end(connection)
            assert error.code == (200 if REFUSALS[number].get("redirect") else number)
            assert refusing.handshakes[path] == 1 + GIVES_UP_AFTER_WAS_OPEN

    scenario()


@pytest.mark.parametrize("number", [number for number in REFUSALS if number >= 400])
def test_which_refusals_may_name_the_delay(number: int) -> None:
    @asynchronous
    async def scenario() -> None:
        row = REFUSALS[number]
        async with (
            answering(status(number, "Retry-After: 30")) as server,
            connect(server.url(), **AT_ONCE) as connection,
        ):
            if row.get("retry_after"):
                await until(lambda: connection.state == "waiting")
                assert connection.retry_in_s == 30.0
            else:
                await until(lambda: connection.state == "closed" or len(server.heads) > 1)

    scenario()


@pytest.mark.parametrize("code", [code for code in CLOSES if code != 1015])
def test_what_follows_a_close(code: int, refusing: RefusingServer) -> None:
    @asynchronous
    async def scenario() -> None:
        row = CLOSES[code]
        path = f"/close/{code}"
        reason = {1005: "", 1006: "the connection broke"}.get(code, f"because {code}")
        urls: list[str] = []
        async with connect(noting(refusing.url + path, urls), **AT_ONCE) as connection:
            if row["comes_back"]:
                await until(lambda: refusing.handshakes[path] >= ENOUGH)
                assert connection.state != "closed"
                assert len(set(urls)) >= ENOUGH  # each with a new token
            elif code == 1000:
                assert [message async for message in connection] == []
            else:
                assert (await the_end(connection)).code == code
            assert connection.last_close == (code, reason, True)
        assert row["comes_back"] or refusing.handshakes[path] == 1

    scenario()


@asynchronous
async def test_1015_stands_for_a_tls_handshake_that_may_succeed_later(tmp_path: Path) -> None:
    tls = certificate(tmp_path, days=-1)
    trusting = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    urls: list[str] = []
    async with (
        answering(SILENCE, tls=tls) as server,
        connect(noting(server.url("wss"), urls), ssl=trusting, **AT_ONCE) as connection,
    ):
        await until(lambda: len(urls) >= ENOUGH)
        assert CLOSES[1015]["comes_back"]
        assert connection.last_close is not None
        assert connection.last_close.code == 1015


@pytest.mark.parametrize("cause", FAILURES)
def test_fault_12_what_follows_a_failure(cause: str, refusing: RefusingServer) -> None:
    @asynchronous
    async def scenario() -> None:
        url = f"{refusing.url}/fail/{cause}"
        if cause == "nobody_listens":
            url = f"ws://127.0.0.1:{free_port()}/"
        urls: list[str] = []
        row = FAILURES[cause]
        row = {**row, **row.get("python", {})}
        assert row["comes_back"]
        open_timeout_s = 0.2 if cause == "no_answer" else 10.0
        async with connect(
            noting(url, urls), open_timeout_s=open_timeout_s, **AT_ONCE
        ) as connection:
            if row.get("gives_up"):
                await the_end(connection)
                assert len(urls) == GIVES_UP_AFTER
            else:
                await until(lambda: len(urls) >= ENOUGH)
                assert connection.state != "closed"
            assert connection.last_close is not None
            assert connection.last_close.code == row.get("code", 1006)

    scenario()
