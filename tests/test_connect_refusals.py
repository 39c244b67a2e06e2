"""Every refusal, failure and close that a client may meet, as `refusals.json` says what follows.

The same file is the expectation of hubbub.js, in Node and in Chromium, and of the table in
docs/coming-back.md. Here the Python client meets each row on 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from answering import SILENCE, answering, asynchronous, certificate, status, until
from hubbub.connect import Connection, connect
from hubbub.connect_rules import GIVES_UP_AFTER, GIVES_UP_AFTER_WAS_OPEN
from hubbub.errors import CLOSE_CODES, RECONNECT_RANGES, Disconnected
from serving import free_port

EXPECTED = json.loads((Path(__file__).parent / "refusals.json").read_text("utf-8"))
REFUSALS = {row["status"]: row for row in EXPECTED["refusals"]}
GIVING_UP = [number for number, row in REFUSALS.items() if row["gives_up"]]
CLOSES = {row["code"]: row for row in EXPECTED["closes"]}
FAILURES = {row["cause"]: row for row in EXPECTED["failures"]}
ENOUGH = GIVES_UP_AFTER + 3
"""After so many attempts a client is one that comes back, and not one that gives up."""

AT_ONCE: dict[str, Any] = {"fixed_delay_s": 0, "proxy": None}


async def the_end(connection: Connection) -> Disconnected:
    """Return what the iteration raises."""
    async with asyncio.timeout(20):
        with pytest.raises(Disconnected) as caught:
            await anext(connection)
    assert connection.state == "closed"
    return caught.value


def test_the_numbers_are_those_of_the_file() -> None:
    assert EXPECTED["gives_up_after"] == {
        "never_open": GIVES_UP_AFTER,
        "was_open": GIVES_UP_AFTER_WAS_OPEN,
    }


def test_every_code_of_the_table_has_a_row_and_every_range_its_ends() -> None:
    ends = {end for first, last, _ in RECONNECT_RANGES for end in (first, last)}
    assert {code.code for code in CLOSE_CODES} | ends == set(CLOSES)


@pytest.mark.parametrize("number", REFUSALS)
def test_fault_12_what_follows_a_refusal(number: int) -> None:
    @asynchronous
    async def scenario() -> None:
        row = REFUSALS[number]
        async with answering(status(number, body=b"")) as server:
            async with connect(server.url(), **AT_ONCE) as connection:
                if row["comes_back"] and not row["gives_up"]:
                    await until(lambda: len(server.heads) >= ENOUGH)
                    assert connection.state != "closed"
                    assert connection.last_close == (number, "Some Phrase", True)
                    return
                error = await the_end(connection)
            assert (error.code, error.reason) == (number, "Some Phrase")
            assert len(server.heads) == (GIVES_UP_AFTER if row["gives_up"] else 1)

    scenario()


@pytest.mark.parametrize("number", GIVING_UP)
def test_a_client_that_was_open_gives_up_much_later(number: int) -> None:
    @asynchronous
    async def scenario() -> None:
        port = free_port()
        async with serve(closing(1012), "127.0.0.1", port):
            connection = connect(f"ws://127.0.0.1:{port}/", **AT_ONCE)
            await connection.__aenter__()
        await until(lambda: connection.state != "open")
        async with answering(status(number), port=port) as server:
            error = await the_end(connection)
            assert error.code == number
            assert len(server.heads) == GIVES_UP_AFTER_WAS_OPEN

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


@pytest.mark.parametrize("number", [n for n, row in REFUSALS.items() if row.get("redirect")])
def test_fault_12_a_redirect_is_followed_with_a_location(number: int) -> None:
    @asynchronous
    async def scenario() -> None:
        async with serve(hold, "127.0.0.1", 0) as there:
            port = next(iter(there.sockets)).getsockname()[1]
            answer = status(number, f"Location: http://127.0.0.1:{port}/there")
            async with (
                answering(answer) as server,
                connect(server.url(), **AT_ONCE) as connection,
            ):
                await connection.wait_open()
                assert len(server.heads) == 1

    scenario()


async def hold(socket: ServerConnection) -> None:
    await socket.wait_closed()


def closing(code: int) -> Callable[[ServerConnection], Any]:
    async def close(socket: ServerConnection) -> None:
        if code == 1005:
            socket.transport.write(b"\x88\x00")  # a close frame without a code
            await socket.wait_closed()
        elif code == 1006:
            socket.transport.abort()
        else:
            await socket.close(code, "why")

    return close


@pytest.mark.parametrize("code", [code for code in CLOSES if code != 1015])
def test_what_follows_a_close(code: int) -> None:
    @asynchronous
    async def scenario() -> None:
        urls: list[str] = []
        handshakes = 0
        close = closing(code)

        async def count_and_close(socket: ServerConnection) -> None:
            nonlocal handshakes
            handshakes += 1
            await close(socket)

        def address() -> str:
            urls.append(f"ws://127.0.0.1:{port}/?token={len(urls)}")
            return urls[-1]

        async with serve(count_and_close, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with connect(address, **AT_ONCE) as connection:
                if CLOSES[code]["comes_back"]:
                    await until(lambda: handshakes >= ENOUGH)
                    assert connection.state != "closed"
                    assert len(set(urls)) >= ENOUGH  # each with a new token
                elif code == 1000:
                    assert [message async for message in connection] == []
                else:
                    assert (await the_end(connection)).reason == "why"
                assert connection.last_close is not None
                assert connection.last_close.code == code
            assert CLOSES[code]["comes_back"] or handshakes == 1

    scenario()


@asynchronous
async def test_1015_stands_for_a_tls_handshake_that_may_succeed_later(
    tmp_path: Path,
) -> None:
    tls = certificate(tmp_path, days=-1)
    async with answering(SILENCE, tls=tls) as server:
        attempts = 0

        def address() -> str:
            nonlocal attempts
            attempts += 1
            return server.url("wss")

        trusting = ssl.create_default_context(cafile=tmp_path / "cert.pem")
        async with connect(address, ssl=trusting, **AT_ONCE) as connection:
            await until(lambda: attempts >= ENOUGH)
            assert CLOSES[1015]["comes_back"]
            assert connection.last_close is not None
            assert connection.last_close.code == 1015


@asynccontextmanager
async def failing(cause: str) -> AsyncIterator[str]:
    """Serve what makes an attempt, or a connection, fail for `cause`."""
    if cause == "nobody_listens":
        yield f"ws://127.0.0.1:{free_port()}/"
    elif cause == "wire_cut":
        async with serve(closing(1006), "127.0.0.1", 0) as cutting:
            yield f"ws://127.0.0.1:{next(iter(cutting.sockets)).getsockname()[1]}/"
    else:
        async with answering({"no_answer": SILENCE, "not_http": b"SSH-2.0-x\r\n"}[cause]) as server:
            yield server.url()


@pytest.mark.parametrize("cause", FAILURES)
def test_fault_12_what_follows_a_failure(cause: str) -> None:
    @asynchronous
    async def scenario() -> None:
        attempts = 0
        async with failing(cause) as url:

            def address() -> str:
                nonlocal attempts
                attempts += 1
                return url

            async with connect(address, open_timeout_s=0.2, **AT_ONCE) as connection:
                await until(lambda: attempts >= 3)
                assert FAILURES[cause]["comes_back"]
                assert connection.dropped == 0

    scenario()
