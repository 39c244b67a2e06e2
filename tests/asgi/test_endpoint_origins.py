"""Endpoint: which pages may connect, and what those that may not are told."""

from __future__ import annotations

import logging

import pytest

from asgi.handshakes import LIES, get, nobody_came, refusal
from hubbub import (
    Handshake,
    Hub,
)
from serving import serve, take, until

pytestmark = pytest.mark.anyio

# Origins


@pytest.mark.parametrize(
    ("origins", "pass_", "refused"),
    [
        (
            None,
            # The scheme does not count: a proxy may end TLS.
            [None, "http://127.0.0.1:{port}", "https://127.0.0.1:{port}"],
            ["http://127.0.0.1", "http://localhost:{port}", "https://evil.example", "null"],
        ),
        (
            ("https://good.example",),
            [None, "https://good.example", "https://GOOD.example"],
            [
                "http://good.example",
                "https://good.example:444",
                "https://good.example.evil.test",
                "http://127.0.0.1:{port}",
            ],
        ),
        (
            ("same-origin", "https://*.example.com"),
            ["https://a.example.com", "https://a.b.example.com", "http://127.0.0.1:{port}"],
            [
                "https://example.com",
                "https://evilexample.com",
                "https://a.example.com.evil.test",
                "http://a.example.com",
            ],
        ),
        (("*",), [None, "https://evil.example", "null"], []),
    ],
)
async def test_s15_an_origin_passes_or_not(
    native: bool,
    origins: tuple[str, ...] | None,
    pass_: list[str | None],
    refused: list[str],
) -> None:
    hub = Hub() if origins is None else Hub(origins=origins)
    async with serve(hub, native=native) as server:
        for origin in refused:
            answer = await refusal(server, Origin=origin.format(port=server.port))
            assert answer.status == 403, origin
        assert nobody_came(hub, **({"origin_refused": len(refused)} if refused else {}))
        for allowed in pass_:
            headers = {} if allowed is None else {"Origin": allowed.format(port=server.port)}
            async with server.connect(additional_headers=headers) as client:
                await client.send("hello")
                assert await take(client, 1) == ["hello"]


@pytest.mark.parametrize(
    ("origins", "pass_", "refused"),
    [
        (
            ("http://localhost:*", "https://bücher.example:443"),
            ["http://localhost:5173", "http://LOCALHOST", "https://xn--bcher-kva.example"],
            ["https://localhost:5173", "http://localhost.evil.example:1", "null"],
        ),
        (("null", "http://[0:0::1]:80"), ["null", "http://[::1]"], ["file://", "http://[::2]"]),
        (("file://",), ["file://"], ["null"]),
    ],
)
async def test_fault_15_what_the_setting_names_may_connect(
    native: bool, origins: tuple[str, ...], pass_: list[str], refused: list[str]
) -> None:
    hub = Hub(origins=origins)
    async with serve(hub, native=native) as server:
        for origin in refused:
            assert (await refusal(server, Origin=origin)).body["code"] == "origin_refused", origin
        assert nobody_came(hub, origin_refused=len(refused))
        for origin in pass_:
            async with server.connect(additional_headers={"Origin": origin}) as client:
                await client.send("hello")
                assert await take(client, 1) == ["hello"]
            answer = await get(server, Origin=origin)
            assert answer.headers["Access-Control-Allow-Origin"] == origin


async def test_s15_the_refusal_names_the_origin(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()
    async with serve(hub, native=native) as server:
        answer = await refusal(server, Origin="https://evil.example")
        assert answer.status == 403
        assert answer.body == {
            "error": "The origin https://evil.example may not connect; "
            "add it to the setting 'origins'",
            "code": "origin_refused",
            "origin": "https://evil.example",
        }
        assert nobody_came(hub, origin_refused=1)
    line = "a handshake from 127.0.0.1 was refused: 403 origin_refused (https://evil.example)"
    assert ("hubbub", logging.WARNING, line) in caplog.record_tuples  # seen without logging set up


async def test_a_flood_of_other_refusals_does_not_hide_those_of_a_setting(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hubbub")
    hub = Hub()
    hub.authenticate(lambda handshake: None)
    async with serve(hub, native=native) as server:
        for _ in range(20):
            await refusal(server)
        await refusal(server, Origin="https://evil.example")
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings
    assert all("403 origin_refused (https://evil.example)" in line for line in warnings)


async def test_s15_a_foreign_page_is_refused_before_anybody_asks_who_it_is(native: bool) -> None:
    """The cookies that a browser sends along are not even looked at."""
    hub = Hub()
    asked: list[Handshake] = []
    hub.authenticate(asked.append)
    async with serve(hub, native=native) as server:
        assert (await refusal(server, Origin="https://evil.example", Cookie="s=1")).status == 403
    assert not asked


@pytest.mark.parametrize("trusted", ["127.0.0.1", "192.0.2.1"])
async def test_s15_no_header_but_host_says_what_the_same_origin_is(
    native: bool, trusted: str
) -> None:
    hub = Hub()
    async with serve(hub, native=native, forwarded_allow_ips=trusted) as server:
        answer = await refusal(server, Origin="https://evil.example", **LIES)
        assert (answer.status, answer.body["code"]) == (403, "origin_refused")
        here = f"http://127.0.0.1:{server.port}"
        async with server.connect(additional_headers={"Origin": here, **LIES}):
            await until(lambda: len(hub) == 1)
