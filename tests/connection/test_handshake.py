"""One attempt against real servers: functions, answers of all kinds, redirects, TLS, proxies."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from answering import RESET, SILENCE, answering, asynchronous, status, until, upgraded
from certificates import certificate
from connection.peers import FINAL, QUICK, echo, server, the_end
from hubbub.connection import connect
from hubbub.errors import Disconnected

# Functions for the address and the headers.


@pytest.mark.parametrize("is_async", [True, False])
def test_a_function_gives_a_fresh_token_for_each_attempt(is_async: bool) -> None:
    @asynchronous
    async def scenario() -> None:
        paths: list[str] = []
        tokens = iter(range(10))

        async def look(socket: ServerConnection) -> None:
            assert socket.request is not None
            paths.append(socket.request.path + " " + socket.request.headers["X-Token"])
            await socket.close(1012)

        def address() -> str:
            return f"{url}?token={next(tokens)}"

        async def awaited_address() -> str:
            return address()

        def headers() -> dict[str, str]:
            return {"X-Token": str(len(paths))}

        async def awaited_headers() -> dict[str, str]:
            return headers()

        functions = (awaited_address, awaited_headers) if is_async else (address, headers)
        async with server(look) as url, connect(functions[0], headers=functions[1], **QUICK):
            await until(lambda: len(paths) >= 3)
        assert paths[:3] == ["/ws?token=0 0", "/ws?token=1 1", "/ws?token=2 2"]

    scenario()


@asynchronous
async def test_a_token_function_that_fails_is_asked_again_and_may_say_stop() -> None:
    answers: list[Exception] = [
        RuntimeError("no network"),
        OSError("down"),
        Disconnected(401, "out"),
    ]
    seen: list[tuple[int, str]] = []

    def address() -> str:
        raise answers.pop(0)

    def note(state: str) -> None:
        if state == "waiting" and connection.last_close:
            seen.append(connection.last_close[:2])

    connection = connect(address, on_state=note, **QUICK)
    async with connection:
        with pytest.raises(Disconnected, match="401 out"):
            await anext(connection)
    assert [code for code, _ in seen] == [1006, 1006]
    assert "no network" in seen[0][1]
    assert connection.last_close == (401, "out", False)


def functions_that(act: Callable[[], Any]) -> list[Callable[[], Any]]:
    """Return a plain and an async function that do `act`."""

    async def awaited() -> Any:
        return act()

    return [act, awaited]


def fails(error: BaseException) -> Callable[[], Any]:
    def act() -> Any:
        raise error

    return act


ERRORS = [
    RuntimeError("no token"),
    KeyError("token"),
    TimeoutError("slow"),
    ExceptionGroup("both", [ValueError("x")]),
    asyncio.CancelledError("a task that it waited for was cancelled"),
]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("keyword", ["url", "headers"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_fault_12_a_function_that_raises_is_asked_again(
    error: BaseException, keyword: str, is_async: bool
) -> None:
    @asynchronous
    async def scenario() -> None:
        async with server(echo) as url:
            good: dict[str, Any] = {"url": url, "headers": {}}
            actions: list[Callable[[], Any]] = [fails(error), fails(error), lambda: good[keyword]]
            function = functions_that(lambda: actions.pop(0)())[is_async]
            states: list[Any] = []

            def note(state: str) -> None:
                states.append((state, connection.last_close and connection.last_close[:2]))

            connection = connect(**{**good, keyword: function}, on_state=note, **QUICK)
            async with connection:
                await connection.wait_open()
            reason = f"cannot connect: the {keyword} function failed: {type(error).__name__}: "
            assert [name for name, _ in states].count("waiting") == 2
            for name, close in states:
                if name == "waiting":
                    assert close is not None
                    assert close[0] == 1006
                    assert close[1].startswith(reason)

    scenario()


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("url", None),
        ("url", b"ws://localhost/"),
        ("url", "localhost:80"),
        ("url", "ws://a..b/"),
        ("headers", None),
        ("headers", [("a", "b")]),
        ("headers", {"a": 1}),
        ("headers", {"a": "x\r\nb: y"}),
        ("headers", {"a b": "x"}),
        ("headers", {"Upgrade": "h2c"}),
    ],
)
def test_fault_12_a_function_that_returns_nonsense_ends_it(
    keyword: str, value: Any, is_async: bool
) -> None:
    @asynchronous
    async def scenario() -> None:
        calls = 0

        def act() -> Any:
            nonlocal calls
            calls += 1
            return value

        keywords: dict[str, Any] = {"url": "ws://127.0.0.1:1/", "headers": {}}
        keywords[keyword] = functions_that(act)[is_async]
        async with connect(**keywords, **QUICK) as connection:
            reason = f"the {keyword} function returned nonsense"
            with pytest.raises(Disconnected, match=reason) as caught:
                await anext(connection)
            assert caught.value.code == 1006
            assert calls == 1

    scenario()


@asynchronous
async def test_a_function_that_is_cancelled_with_the_connection_ends_quietly() -> None:
    async def address() -> str:
        await asyncio.sleep(60)
        return "ws://localhost/"

    connection = connect(address, **QUICK)
    entering = asyncio.create_task(connection.__aenter__())
    await asyncio.sleep(0.02)
    await connection.close()
    await entering
    assert [message async for message in connection] == []


# What is no refusal, and no WebSocket either.


STRANGE = {
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", 1002, "not HTTP: it begins with 'SSH-2.0-Op"),
    "a status that is none": (b"HTTP/1.1 abc No\r\n\r\n", 1002, "invalid status code"),
    "a status over 599": (b"HTTP/1.1 999 No\r\n\r\n", 1002, "invalid status code"),
    "a status line without an end": (b"HTTP/1.1 200 " + b"x" * 9000, 1002, "handshake"),
    "HTTP/2": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\n\r\n", 1002, "answer is not HTTP"),
    "a TLS alert": (b"\x15\x03\x01\x00\x02\x02\x46", 1002, "answer is not HTTP: it begins with"),
    "a wrong accept": (upgraded(accept="AAAA"), 1002, "Sec-WebSocket-Accept"),
    "no upgrade": (b"HTTP/1.1 101 OK\r\nConnection: close\r\n\r\n", 1002, "Connection header"),
    "a subprotocol": (upgraded("Sec-WebSocket-Protocol: x"), 1002, "no subprotocols supported"),
    "an extension": (upgraded("Sec-WebSocket-Extensions: x"), 1002, "Unsupported extension"),
    "a bad header": (b"HTTP/1.1 101 OK\r\nnonsense\r\n\r\n", 1002, "invalid HTTP header line"),
    "a bad body": (b"HTTP/1.1 403 No\r\nTransfer-Encoding: x\r\n\r\n", 403, "No"),
    "a bad chunk": (b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 403, "No"),
    "a huge body": (b"HTTP/1.1 401 No\r\n\r\n" + b"x" * 2**20 + b"x", 401, "No"),
    "a huge length": (b"HTTP/1.1 401 No\r\nContent-Length: 9999999999\r\n\r\n", 401, "No"),
    "half a body": (b"HTTP/1.1 401 No\r\nContent-Length: 10\r\n\r\nx", 401, "No"),
    "HTTP/1.0": (b"HTTP/1.0 401 No\r\n\r\n", 401, "No"),
    "a deep body": (status(401, body=b"[" * 100_000), 401, "Some Phrase"),
    "two Content-Types": (status(401, "Content-Type: a/b", "Content-Type: c/d"), 401, "Some"),
    "no phrase": (b"HTTP/1.1 401 \r\nContent-Length: 0\r\n\r\n", 401, "Unauthorized"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_fault_12_a_strange_answer_ends_it_with_a_reason(what: str) -> None:
    @asynchronous
    async def scenario() -> None:
        answer, code, reason = STRANGE[what]
        async with (
            answering(answer) as strange,
            connect(strange.url(), **FINAL) as connection,
        ):
            error = await the_end(connection)
            assert error.code == code
            assert reason in error.reason
            assert error.__cause__ is not None
            assert len(strange.heads) == (5 if code == 1002 else 1)

    scenario()


PASSING = {
    "nothing": (b"", 1006),
    "a reset": (RESET, 1006),
    "half a status line": (b"HTTP/1.1 1", 1006),
    "half of the headers": (b"HTTP/1.1 101 Switching Protocols\r\nUpgr", 1006),
    "silence": (SILENCE, 1006),
    "a strange answer": (b"SSH-2.0-x\r\n", 1002),
    "an upgrade and the end": (upgraded(), 1006),
    "HTTP/1.0 503": (status(503, version="1.0"), 503),
    "a huge 503": (status(503, "Content-Length: 9999999"), 503),
    "a Retry-After beyond the calendar": (
        status(503, "Retry-After: Fri, 31 Dec 99999 23:59:59 GMT"),
        503,
    ),
    "a Retry-After beyond all numbers": (
        status(503, "Retry-After: Fri, 31 Dec 99999999999999999999 23:59:59 GMT"),
        503,
    ),
    "two Retry-Afters": (status(503, "Retry-After: 0", "Retry-After: 0"), 503),
}


@pytest.mark.parametrize("what", PASSING)
def test_fault_12_it_comes_back_after_what_may_pass(what: str) -> None:
    @asynchronous
    async def scenario() -> None:
        answer, code = PASSING[what]
        async with (
            answering(answer, answer, upgraded() + b"\x81\x02hi" + b"\x88\x02\x03\xe8") as served,
            connect(served.url(), open_timeout_s=0.3, **FINAL) as connection,
        ):
            seen = []
            while not connection._inbox:
                seen.append(connection.last_close and connection.last_close.code)
                await asyncio.sleep(0)
            assert await anext(connection) == "hi"
            assert len(served.heads) == 3
            assert code in seen

    scenario()


@asynchronous
async def test_fault_12_what_nobody_foresaw_is_the_cause_of_the_documented_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(self: Any, *arguments: Any) -> Any:
        raise ZeroDivisionError("somewhere below")

    monkeypatch.setattr("websockets.asyncio.client.connect.connect", fail)
    async with connect("ws://127.0.0.1:1/", **FINAL) as connection:
        error = await the_end(connection)
        assert error.code == 1006
        assert error.reason == "cannot connect: ZeroDivisionError: somewhere below"
        assert isinstance(error.__cause__, ZeroDivisionError)
        with pytest.raises(Disconnected, match="somewhere below"):
            await connection.send("x")
        with pytest.raises(Disconnected, match="somewhere below"):
            await connection.wait_open()


@asynchronous
async def test_a_name_that_is_not_found_may_be_found_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lookups = 0

    async def look_up(*arguments: Any, **keywords: Any) -> Any:
        nonlocal lookups
        lookups += 1
        if lookups < 10:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await original("127.0.0.1", port, type=socket.SOCK_STREAM)

    async with server(echo) as url:
        port = int(url.split(":")[2].split("/")[0])
        original = asyncio.get_running_loop().getaddrinfo
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
        async with connect("ws://nowhere.invalid/", **FINAL) as connection:
            await connection.wait_open()
            assert connection.last_close is not None
            assert connection.last_close.reason.endswith("Name or service not known")


# Redirects.


@asynchronous
async def test_fault_12_a_redirect_loop_ends_it() -> None:
    async with (
        answering(status(302, "Location: http://127.0.0.1:{port}/again")) as loop,
        connect(loop.url(), **FINAL) as connection,
    ):
        error = await the_end(connection)
        assert (error.code, error.reason) == (302, "more than 10 redirects")
        assert len(loop.heads) == 5 * 11


@pytest.mark.parametrize(
    "location", ["ftp://127.0.0.1/", "http://", "javascript:alert(1)", "http://a..b/", "ws://:80/"]
)
def test_fault_12_a_redirect_to_what_is_no_address_ends_it(location: str) -> None:
    @asynchronous
    async def scenario() -> None:
        async with (
            answering(status(307, f"Location: {location}")) as served,
            connect(served.url(), **FINAL) as connection,
        ):
            error = await the_end(connection)
            assert error.code == 307
            assert "which is no WebSocket address" in error.reason
            assert len(served.heads) == 5

    scenario()


@pytest.mark.parametrize("location", ["/there", "http://127.0.0.1:{port}/there", "there"])
def test_fault_12_a_redirect_within_the_origin_keeps_the_headers(location: str) -> None:
    @asynchronous
    async def scenario() -> None:
        async with answering(status(308, f"Location: {location}"), upgraded(), SILENCE) as served:
            url = served.url().replace("ws://", "ws://ann:secret@")
            async with connect(url, headers={"X-Token": "abc"}, **FINAL) as connection:
                await until(lambda: len(served.heads) > 1)
                await connection.close()
            first, second = served.heads[:2]
            assert second.startswith("GET /there HTTP/1.1")
            for head in (first, second):
                assert "X-Token: abc" in head
                assert "Authorization: Basic YW5uOnNlY3JldA==" in head

    scenario()


@asynchronous
async def test_fault_12_another_origin_gets_no_secret_of_the_program() -> None:
    secrets = {"Authorization": "Bearer abc", "X-Api-Key": "def", "Cookie": "s=ghi"}
    async with (
        answering(upgraded(), SILENCE) as other,
        answering(status(302, f"Location: http://127.0.0.1:{other.port}/there")) as served,
    ):
        url = served.url().replace("ws://", "ws://ann:secret@")
        async with connect(url, headers=secrets, origin="https://me", **FINAL) as connection:
            await until(lambda: other.heads)
            await connection.close()
        assert all(f"{name}: {value}" in served.heads[0] for name, value in secrets.items())
        assert "Origin: https://me" in other.heads[0]
        for name in (*secrets, "YW5uOnNlY3JldA=="):
            assert name not in other.heads[0]


@asynchronous
async def test_fault_12_no_redirect_leads_out_of_tls(tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    async with (
        answering(SILENCE) as plain,
        answering(status(301, f"Location: {plain.url()}?token=x"), tls=tls) as served,
        connect(served.url("wss"), ssl=trusting, **FINAL) as connection,
    ):
        error = await the_end(connection)
        assert (error.code, error.reason) == (301, f"redirected from TLS to '{plain.url()}'")
        assert plain.heads == []


# TLS.


@pytest.mark.parametrize(
    ("name", "is_trusted", "reason"),
    [
        ("127.0.0.1", False, "self-signed certificate"),
        ("127.0.0.2", True, "IP address mismatch"),
    ],
)
def test_fault_12_a_wrong_certificate_ends_it(
    tmp_path: Path, name: str, is_trusted: bool, reason: str
) -> None:
    @asynchronous
    async def scenario() -> None:
        tls = certificate(tmp_path, name)
        cafile = tmp_path / "cert.pem" if is_trusted else None
        async with (
            answering(SILENCE, tls=tls) as served,
            connect(
                served.url("wss"), ssl=ssl.create_default_context(cafile=cafile), **FINAL
            ) as connection,
        ):
            error = await the_end(connection)
            assert error.code == 1015
            assert reason in error.reason
            assert served.heads == []

    scenario()


@asynchronous
async def test_fault_12_tls_where_there_is_none_ends_it() -> None:
    async def speak_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    plain = await asyncio.start_server(speak_plainly, "127.0.0.1", 0)
    async with plain:
        url = f"wss://127.0.0.1:{plain.sockets[0].getsockname()[1]}/"
        async with connect(url, **FINAL) as connection:
            assert (await the_end(connection)).code == 1015


@asynchronous
async def test_tls_that_is_cut_off_is_tried_again() -> None:
    attempts = 0

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        await reader.read(1)
        writer.close()

    cutting = await asyncio.start_server(cut, "127.0.0.1", 0)
    async with cutting:
        url = f"wss://127.0.0.1:{cutting.sockets[0].getsockname()[1]}/"
        async with connect(url, **FINAL) as connection:
            await until(lambda: attempts > 7)
            assert connection.state != "closed"


# Proxies.


PROXIES = {
    "wants a password": (status(407), 407, "the proxy answered 407 Some Phrase", 1),
    "forbids": (status(403), 403, "the proxy answered 403 Some Phrase", 1),
    "knows no CONNECT": (status(405), 405, "the proxy answered 405 Some Phrase", 5),
    "is none": (b"SSH-2.0-x\r\n", 1006, "the proxy's answer is not HTTP: invalid HTTP status", 5),
}


@pytest.mark.parametrize("what", PROXIES)
def test_fault_12_a_proxy_that_refuses_ends_it(what: str) -> None:
    @asynchronous
    async def scenario() -> None:
        answer, code, reason, attempts = PROXIES[what]
        async with (
            answering(answer) as proxy,
            connect(
                "ws://example.com/", fixed_delay_s=0, proxy=proxy.url("http")[:-3]
            ) as connection,
        ):
            error = await the_end(connection)
            assert error.code == code
            assert reason in error.reason
            assert len(proxy.heads) == attempts
            assert proxy.heads[0].startswith("CONNECT example.com:80 HTTP/1.1")

    scenario()


@pytest.mark.parametrize("answer", [status(502), b"", RESET, SILENCE], ids=repr)
def test_a_proxy_that_fails_is_tried_again(answer: bytes) -> None:
    @asynchronous
    async def scenario() -> None:
        async with (
            answering(answer) as proxy,
            connect(
                "ws://example.com/",
                fixed_delay_s=0,
                open_timeout_s=0.1,
                proxy=proxy.url("http")[:-3],
            ) as connection,
        ):
            await until(lambda: len(proxy.heads) > 7)
            assert connection.state != "closed"

    scenario()
    gc.collect()  # what `websockets` left unread is told here, and not within another test


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("ftp://ann:secret@localhost", "'ftp://localhost': scheme ftp isn't supported"),
        ("http://ann:secret@localhost/x", "'http://localhost/x': path is meaningless"),
        ("socks5h://localhost:1", "requires python-socks"),
    ],
)
def test_fault_12_a_proxy_of_the_system_that_cannot_be_used_ends_it(
    proxy: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynchronous
    async def scenario() -> None:
        monkeypatch.setenv("ws_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        async with connect("ws://example.com/", fixed_delay_s=0) as connection:
            error = await the_end(connection)
            assert error.code == 1006
            assert reason in error.reason
            assert "secret" not in error.reason

    scenario()
