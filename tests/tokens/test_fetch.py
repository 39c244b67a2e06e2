"""Fetch: a document comes, or an error, in bounded time and size, whatever the server does."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from certificates import certificate
from hubbub.tokens.fetch import MAX_DOCUMENT_BYTES, Source, fault_of_url, fetch
from issuing import Issuer, answer, issuing
from serving import PATIENCE_S

pytestmark = pytest.mark.anyio


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as found:
        yield found


async def get(issuer: Issuer, timeout_s: float = PATIENCE_S) -> bytes:
    return await fetch(Source(issuer.url, timeout_s), bytes)


def assert_no_thread_is_left() -> None:
    for thread in threading.enumerate():
        if thread.name == "hubbub-fetch":
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


async def test_it_gives_what_is_read_of_the_document_in_a_thread_of_its_own(issuer: Issuer) -> None:
    issuer.answer = answer(b"abc")

    def read(document: bytes) -> tuple[bytes, str]:
        return document, threading.current_thread().name

    assert await fetch(Source(issuer.url, PATIENCE_S), read) == (b"abc", "hubbub-fetch")
    assert issuer.headers["user-agent"] == "hubbub"


async def test_what_reading_raises_is_raised(issuer: Issuer) -> None:
    with pytest.raises(ZeroDivisionError):
        await fetch(Source(issuer.url, PATIENCE_S), lambda _: 1 // 0)


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 404, 500, 503])
async def test_a_status_that_is_not_200_is_an_error(issuer: Issuer, status: int) -> None:
    issuer.answer = answer(b"", status)
    with pytest.raises(OSError, match=f"the answer has the status {status}"):
        await get(issuer)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(issuer: Issuer, status: int) -> None:
    issuer.answer = answer(b"", status, Location=issuer.url)
    with pytest.raises(OSError, match=f"status {status}"):
        await get(issuer)
    assert issuer.requests == 1


async def test_a_document_is_bounded(issuer: Issuer) -> None:
    issuer.answer = answer(b"x" * MAX_DOCUMENT_BYTES)
    assert len(await get(issuer)) == MAX_DOCUMENT_BYTES
    issuer.answer = answer(b"x" * (MAX_DOCUMENT_BYTES + 1))
    with pytest.raises(ValueError, match="more than 262144 bytes"):
        await get(issuer)


async def test_of_a_hundred_megabytes_little_is_read(issuer: Issuer) -> None:
    taken = issuer.flood(megabytes=100)
    with pytest.raises(ValueError, match="more than 262144 bytes"):
        await get(issuer)
    await asyncio.to_thread(issuer.may_go.wait)
    assert taken[0] < 50 * 2**20, "the rest stayed where it was"


async def test_a_server_that_hangs_is_left_in_time_and_its_thread_ends(issuer: Issuer) -> None:
    issuer.hang()
    with pytest.raises(TimeoutError):
        await get(issuer, timeout_s=0.05)
    assert_no_thread_is_left()


async def test_a_server_that_never_ends_its_answer_is_left_in_time(issuer: Issuer) -> None:
    """Each byte is in time; only all of them together are not."""
    issuer.trickle()
    with pytest.raises(TimeoutError, match=r"there was no answer within 0\.05 seconds"):
        await get(issuer, timeout_s=0.05)
    assert_no_thread_is_left()


async def test_who_is_cancelled_leaves_no_thread(issuer: Issuer) -> None:
    issuer.trickle()
    task = asyncio.create_task(get(issuer))
    await asyncio.to_thread(issuer.came.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_no_thread_is_left()


async def test_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{held.getsockname()[1]}/"
        with pytest.raises(OSError, match="refused"):
            await fetch(Source(url, PATIENCE_S), bytes)


async def test_a_loop_that_has_ended_misses_nothing(issuer: Issuer) -> None:
    issuer.publish_when_told()

    def run_a_loop() -> None:
        async def scenario() -> None:
            task = asyncio.create_task(get(issuer))
            while not issuer.came.is_set():
                await asyncio.sleep(0)
            task.cancel()

        asyncio.run(scenario())

    await asyncio.to_thread(run_a_loop)
    issuer.may_go.set()
    assert_no_thread_is_left()


async def test_this_machine_is_asked_without_a_proxy(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    issuer.answer = answer(b"abc")
    assert await get(issuer) == b"abc"


async def test_tls_is_checked_against_who_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    with issuing(served) as issuer:
        issuer.answer = answer(b"abc")
        assert await fetch(Source(issuer.url, PATIENCE_S, trusting), bytes) == b"abc"
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            await get(issuer)
        assert issuer.requests == 1
        issuer.trickle()
        with pytest.raises(TimeoutError):
            await fetch(Source(issuer.url, 0.1, trusting), bytes)
        assert_no_thread_is_left()


@pytest.mark.parametrize(
    "url",
    [
        "https://login.example.com/keys",
        "https://login.example.com:8443/keys?tenant=7",
        "https://[2001:db8::1]/keys",
        "http://127.0.0.1:8000/keys",
        "http://127.9.9.9/keys",
        "http://localhost/keys",
        "http://[::1]:8000/keys",
        "HTTPS://login.example.com",
    ],
)
def test_urls_that_may_be_asked(url: str) -> None:
    assert fault_of_url(url) == ""


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://login.example.com/keys", "must begin with https://"),
        ("http://127.0.0.1.example.com/keys", "must begin with https://"),
        ("http://localhost.example.com/keys", "must begin with https://"),
        ("http://10.0.0.1/keys", "must begin with https://"),
        ("http://0.0.0.0/keys", "must begin with https://"),
        ("https://ann:pw@login.example.com/keys", "without a user"),
        ("https://@login.example.com/keys", "without a user"),
        ("https://login.example.com/keys#top", "without a user"),
        ("file:///etc/passwd", "begins with https://"),
        ("ftp://login.example.com/keys", "begins with https://"),
        ("data:application/json,{}", "begins with https://"),
        ("login.example.com/keys", "begins with https://"),
        ("https:///keys", "names a host"),
        ("https://[::1/keys", "names a host"),
        ("https://login.example.com:port/keys", "names a host"),
        ("", "names a host"),
        ("https://login.example.com/a b", "must be a URL, as in"),
        ("https://login.example.com/\r\nX: y", "must be a URL, as in"),
        ("https://bücher.example/keys", "must be a URL, as in"),
        (None, "must be a URL, as in"),
        (b"https://login.example.com", "must be a URL, as in"),
    ],
)
def test_urls_that_may_not(url: object, says: str) -> None:
    assert says in fault_of_url(url)


def test_a_url_is_shown_without_its_query() -> None:
    assert Source("https://a.example/keys?key=s3cr3t", 1).shown == "https://a.example/keys"
