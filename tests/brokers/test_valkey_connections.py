"""Connections to a server, and what their errors say."""

from __future__ import annotations

import asyncio
import functools

import pytest
import redis

from hubbub import BrokerUnavailable
from hubbub.brokers import valkey_connections
from hubbub.brokers.valkey_address import read_address
from hubbub.brokers.valkey_connections import (
    Connections,
    ask,
    close_line,
    hear,
    is_missing_script,
    is_replica,
    state_of,
    tell,
    unavailable,
)
from valkey_server import connections

pytestmark = pytest.mark.anyio


async def test_what_is_asked_together_is_answered_in_order_and_errors_are_answers() -> None:
    made = connections()
    line = await made.open_line()
    one, wrong, sha, two = await ask(
        line, [("ECHO", "1"), ("EVALSHA", "0" * 40, 0), ("NO-SUCH",), ("ECHO", "2")]
    )
    assert (one, two) == (b"1", b"2")
    assert is_missing_script(wrong)
    assert not is_missing_script(sha)
    assert isinstance(sha, redis.ResponseError)
    await tell(line, "PING")
    assert await hear(line) == b"PONG"
    reading = asyncio.create_task(hear(line))
    await asyncio.sleep(0)
    await close_line(line)
    with pytest.raises(redis.ConnectionError):
        await asyncio.wait_for(reading, 5)
    await made.close()


async def test_answers_are_read_by_the_parser_in_c() -> None:
    """The library takes its own in Python where hiredis is missing, and says nothing of it."""
    made = connections()
    line = await made.open_line()
    assert type(line._parser).__module__ == "redis._parsers.hiredis"
    asking = await made.client.connection_pool.get_connection()
    assert type(asking._parser) is type(line._parser)
    await made.client.connection_pool.release(asking)
    await close_line(line)
    await made.close()


async def test_a_server_that_does_not_answer_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(valkey_connections, "TIMEOUT_S", 0.05)
    writers: list[asyncio.StreamWriter] = []
    listening = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    made = Connections(read_address(f"valkey://127.0.0.1:{port}"))
    with pytest.raises(TimeoutError) as caught:
        await made.open_line()
    assert str(unavailable(caught.value)) == "the server does not answer"
    await made.close()
    for writer in writers:
        writer.close()
    listening.close()


async def test_single_questions_take_turns() -> None:
    made = connections()
    client = made.client
    found = await asyncio.gather(
        *(made.answer(functools.partial(client.echo, str(n))) for n in range(100))
    )
    assert found == [b"%d" % n for n in range(100)]
    assert (
        len(client.connection_pool._available_connections) <= valkey_connections.QUESTIONS_AT_ONCE
    )
    await made.forget_old()
    assert await made.answer(client.ping)
    await made.close()


async def test_a_question_that_is_not_answered_fails_and_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(valkey_connections, "TIMEOUT_S", 0.05)
    monkeypatch.setattr(valkey_connections, "TURN_S", 0.2)
    monkeypatch.setattr(valkey_connections, "QUESTIONS_AT_ONCE", 1)
    made = connections()
    never = asyncio.get_running_loop().create_future

    asked = [asyncio.create_task(made.answer(never)) for _ in range(8)]
    done = await asyncio.gather(*asked, return_exceptions=True)
    assert {str(each) for each in done} == {"the server does not answer"}
    assert await made.answer(made.client.ping)
    with pytest.raises(BrokerUnavailable) as caught:
        await made.answer(lambda: made.client.evalsha("0" * 40, 0))
    assert caught.value.__cause__ is not None
    assert is_missing_script(caught.value.__cause__)
    await made.close()


async def test_nothing_is_written_to_a_socket_that_has_gone_and_its_number_is_free() -> None:
    made = connections()
    line = await made.open_line()
    transport = line._writer.transport
    transport.abort()
    number = transport.get_extra_info("socket").fileno()
    asking = asyncio.create_task(ask(line, [("ECHO", "1")]))
    await asyncio.sleep(0)
    with pytest.raises(redis.ConnectionError):
        await asking
    assert not asyncio.get_running_loop().remove_writer(number)
    await made.close()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (redis.AuthenticationError("WRONGPASS secret"), "refuses the user's name or the password"),
        (redis.exceptions.ReadOnlyError("READONLY"), "the server is a replica"),
        (redis.exceptions.OutOfMemoryError("OOM"), "no memory left"),
        (redis.exceptions.NoPermissionError("no permission for eval"), "may not do that: no permi"),
        (redis.TimeoutError("x"), "does not answer"),
        (TimeoutError(), "does not answer"),
        (redis.exceptions.InvalidResponse("got I"), "is no Valkey or Redis server: got I"),
        (redis.ConnectionError("Error 111\nconnecting"), "Error 111�connecting"),
        (OSError(), "OSError"),
    ],
)
def test_what_an_error_means(error: Exception, text: str) -> None:
    found = unavailable(error)
    assert text in str(found)
    assert "secret" not in str(found)
    assert unavailable(found) is found
    assert is_replica(error) == ("replica" in text)
    assert isinstance(found, BrokerUnavailable)


def test_in_which_state_positions_hold() -> None:
    assert state_of(b"run_id:abc\r\naof_enabled:0\r\n") == "abc"
    assert state_of(b"run_id:abc\r\naof_enabled:1\r\n") == ""
    assert state_of(RuntimeError("may not ask")) == ""
    with pytest.raises(BrokerUnavailable, match="still reading"):
        state_of(b"loading:1\r\nrun_id:abc\r\naof_enabled:0\r\n")
